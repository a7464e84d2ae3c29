"""Which formats are read, as the page says, and what is said of others; files cut at their head."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avalign.media.container import CONTAINERS
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames, seconds_of
from tests.helpers.media_files import SECONDS, Kind, bursts, write
from tests.helpers.paths import DOCS

PAGE = DOCS / "media.md"
NOT_READ = "of a format that avalign does not read; docs/media.md"


def test_the_page_names_every_container_that_is_read() -> None:
    (row,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if "FFmpeg's names" in line)
    named = {name.strip("` .") for name in row.split("|")[1].split("names:")[1].split(",")}
    assert named == set(CONTAINERS.split(","))


@pytest.mark.parametrize(("suffix", "codec"), [("tta", "tta"), ("wv", "wavpack")])
def test_a_format_that_is_not_read_is_said_in_plain_words(suffix: str, codec: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        samples.rate = 48_000
        kind = stream.codec_context.format.name
        (samples,) = av.AudioResampler(format=kind, layout="mono", rate=48_000).resample(samples)
        container.mux([*stream.encode(samples), *stream.encode(None)])
    for read in (read_audio, seconds_of, lambda path: read_frames(path, [0.0])):
        with pytest.raises(MediaError, match=NOT_READ) as caught:
            read(file)
        assert "PyAV" not in str(caught.value)


def test_what_is_no_media_is_said_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(bytes(range(256)) * 8)
    for read in (read_audio, seconds_of):
        with pytest.raises(MediaError, match="cannot be decoded as audio: it is ") as caught:
            read(file)
        assert "PyAV" not in str(caught.value)


def test_nobody_is_told_what_soundfile_guesses(tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"
    soundfile.write(file, bursts(48_000), 48_000)
    with pytest.raises(MediaError) as caught:
        read_audio(file, 10.0)
    assert "guess" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", [Kind("ac3", "ac3"), Kind("vob", "ac3", "mpeg2video"), Kind("flac", "flac")], ids=str
)
def test_a_sound_cut_at_its_head_begins_with_the_first_packet_that_decodes(
    kind: Kind, tmp_path: Path
) -> None:
    content = write(tmp_path, kind).read_bytes()
    for share in (0.31, 0.4, 0.57):
        file = tmp_path / f"cut.{kind.suffix}"
        file.write_bytes(content[int(len(content) * share) :])
        audio, rate = read_audio(file)
        assert seconds_of(file) == pytest.approx(len(audio) / rate, abs=1e-3)
        assert len(audio) / rate == pytest.approx((1 - share) * SECONDS, abs=0.5)
