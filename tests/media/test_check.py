"""What `avalign data check` finds in media, in lines with file and seconds; in good files nothing."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avalign.avfit.check.lines import AUDIO, VIDEO
from avalign.avfit.check.media import Limits, Use, measured, problems_of
from avalign.media.file import MediaError
from avalign.media.read import read_frames
from tests.helpers.media_files import FILMS, SECONDS, SOUNDS, Kind, bursts, write

RATE = 48_000
ANYWHERE = Use(0, np.nan, np.nan, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


def found(file: Path, kind: int = AUDIO) -> dict[str, str]:
    """Each finding and its line."""
    limits = Limits(min_rate=8_000)
    return {
        code: said for code, _, said in problems_of(file.name, kind, measured(file, kind), [ANYWHERE], limits)
    }


# ---- good files ----


@pytest.mark.parametrize("kind", [Kind(*film) for film in FILMS] + SOUNDS, ids=str)
def test_nothing_is_found_in_good_files(kind: Kind, folder: Path) -> None:
    file = write(folder, kind)
    assert found(file, AUDIO) == {}
    if kind.video:
        assert found(file, VIDEO) == {}


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_nothing_is_found_in_good_mp3_files(mode: str, channels: int, rate: int, tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"
    soundfile.write(file, np.stack([bursts(rate)] * channels, 1), rate, bitrate_mode=mode)
    assert found(file) == {}


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("flac", "PCM_S8"), ("flac", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("ogg", "OPUS"),
     ("wav", "FLOAT"), ("aiff", "PCM_24"), ("caf", "ALAC_16"), ("rf64", "PCM_16"), ("au", "ULAW")],
)  # fmt: skip
def test_nothing_is_found_in_good_plain_files(suffix: str, subtype: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    sound = np.stack([bursts(RATE, 3.217)] * 2, 1)
    soundfile.write(file, sound, RATE, subtype=subtype, format=suffix.upper())
    assert found(file) == {}


def tagged(content: bytes, length: int = 3_000) -> bytes:
    """Behind an ID3 tag, as players put it there."""
    return b"ID3\x04\0\0" + bytes((0, 0, length >> 7, length & 127)) + bytes(length) + content


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_tag_in_front_is_none_of_the_sound(suffix: str, tmp_path: Path) -> None:
    good, short = tmp_path / f"good.{suffix}", tmp_path / f"short.{suffix}"
    soundfile.write(good, bursts(RATE), RATE)
    content = good.read_bytes()
    good.write_bytes(tagged(content))
    assert found(good) == {}
    short.write_bytes(tagged(content[: len(content) * 7 // 10]))
    assert set(found(short)) == {"media breaks off"}


# ---- late, with gaps, cancelling ----


@pytest.mark.parametrize("film", FILMS, ids=" ".join)
def test_sound_that_begins_after_the_image_is_found(film: tuple[str, str, str], folder: Path) -> None:
    said = found(write(folder, Kind(*film, late_audio=0.8)))
    assert set(said) == {"sound begins late"}
    line = said["sound begins late"]
    assert line.split(",")[0].endswith(f".{film[0]}")
    assert float(line.split()[-2]) == pytest.approx(0.8, abs=0.06)


def test_time_stamps_that_begin_anew_are_found(tmp_path: Path) -> None:
    file = write(tmp_path, Kind("ts", "aac", "libx264"))
    file.write_bytes(file.read_bytes() * 2)
    assert found(file) == {"clock begins anew": f"{file.name}, used by 1 record: at 4.03 s"}


def test_late_videos_gaps_and_channels_that_cancel_are_found(folder: Path, tmp_path: Path) -> None:
    late = found(write(folder, Kind("mp4", "aac", "libx264", late_video=0.72)), VIDEO)
    assert set(late) == {"video begins late"}
    gap = found(write(folder, Kind("mka", "flac", gap=(1.2, 2.2))))
    assert set(gap) == {"sound has gaps"}
    sound = bursts(RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, -0.99 * sound], 1), RATE)
    assert set(found(tmp_path / "a.wav")) == {"channels cancel"}


@pytest.mark.parametrize("hertz", [55.0, 440.0, 3000.0])
@pytest.mark.parametrize("harmonics", [1, 8])
def test_a_low_tone_is_not_called_upsampled(hertz: float, harmonics: int, tmp_path: Path) -> None:
    t = np.arange(3 * RATE) / RATE
    tone = sum(
        0.3 / k**2 * np.sin(2 * np.pi * hertz * k * t) for k in range(1, harmonics + 1) if hertz * k < 4000
    )
    soundfile.write(tmp_path / "a.wav", tone, RATE)
    assert found(tmp_path / "a.wav") == {}


# ---- streams behind one another, headers that count wrong ----


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_streams_behind_one_another_are_found(subtype: str, tmp_path: Path) -> None:
    one, chain = tmp_path / "one.ogg", tmp_path / "chain.ogg"
    soundfile.write(one, bursts(RATE), RATE, format="OGG", subtype=subtype)
    chain.write_bytes(one.read_bytes() * 3)
    line = "chain.ogg, used by 1 record: 3 of them, later ones begin at 4.00 s, 8.00 s"
    assert found(chain) == {"sound of several streams": line}


@pytest.mark.parametrize("stated", [0.5, 3.9, 3.9999, 4.0001, 4.1, 8.0])
@pytest.mark.parametrize("encoder", ["soundfile", "PyAV"])
def test_a_flac_header_that_counts_wrong_is_found(stated: float, encoder: str, tmp_path: Path) -> None:
    file = tmp_path / "a.flac"
    if encoder == "soundfile":
        soundfile.write(file, bursts(RATE), RATE)
    else:
        file = write(tmp_path, Kind("flac", "flac"))
    content = bytearray(file.read_bytes())
    content[22:26] = round(stated * RATE).to_bytes(4, "big")  # the last 32 bits of the number of samples
    file.write_bytes(content)
    code = "media breaks off" if stated > SECONDS else "header counts too little"
    line = f"{file.name}, used by 1 record: 4.00 s are there, its header counts {stated:.2f} s"
    assert found(file) == {code: line}


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("told_by", ["Xing", "VBRI"])
def test_an_mp3_file_shorter_than_it_promises_is_found(
    told_by: str, share: float, mode: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.mp3"
    soundfile.write(file, bursts(RATE), RATE, bitrate_mode=mode)
    content = bytearray(file.read_bytes())
    if told_by == "VBRI":
        with_vbri(content)
        file.write_bytes(content)
        assert found(file) == {}
    file.write_bytes(content[: int(len(content) * share)])
    said = found(file)
    assert set(said) == {"media breaks off"}
    there, counted = (float(said["media breaks off"].split()[k]) for k in (5, -2))
    assert there < 3.9
    assert counted == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95, 0.999])
def test_a_cut_flac_file_is_found(share: float, tmp_path: Path) -> None:
    file = tmp_path / "a.flac"
    soundfile.write(file, bursts(RATE), RATE)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    said = found(file)
    assert set(said) == {"media breaks off"}
    assert float(said["media breaks off"].split()[5]) == pytest.approx(share * SECONDS, abs=0.2)


def with_vbri(content: bytearray) -> None:
    """Fraunhofer's note of the number of frames in the place of Xing's."""
    at = content.find(b"Xing") if b"Xing" in content else content.find(b"Info")
    frames = content[at + 8 : at + 12]
    begin = content.find(b"\xff")
    content[at : at + 144] = bytes(144)
    content[begin + 36 : begin + 62] = (
        b"VBRI\0\1" + bytes(4) + len(content).to_bytes(4, "big") + frames + bytes(8)
    )


def test_an_mp3_file_that_goes_on_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"
    soundfile.write(file, bursts(RATE), RATE)
    file.write_bytes(file.read_bytes() * 2)
    assert set(found(file)) == {"header counts too little"}


# ---- where a video begins ----


def uses_found(file: Path, first: float) -> set[str]:
    use = Use(0, first, np.nan, first)
    return {code for code, *_ in problems_of(file.name, VIDEO, measured(file, VIDEO), [use], Limits())}


def test_a_frame_that_reading_refuses_before_the_first_is_found(folder: Path) -> None:
    file = write(folder, Kind("mp4", "aac", "libx264", late_video=1.52))
    for time in (0.0, 0.2, 0.49, 0.55, 1.0, 1.6):
        try:
            read_frames(file, [time])
            refused = False
        except MediaError:
            refused = True
        assert ("frame before the video's first" in uses_found(file, time)) == refused, time
    assert "frame before the video's first" in uses_found(file, 0.2)


@pytest.mark.parametrize("film", [film for film in FILMS if film[0] in ("ts", "mpg")], ids=" ".join)
def test_a_video_cut_at_its_head_begins_with_its_first_frame_that_decodes(
    film: tuple[str, str, str], folder: Path, tmp_path: Path
) -> None:
    content = write(folder, Kind(*film)).read_bytes()
    file = tmp_path / f"cut.{film[0]}"
    file.write_bytes(content[len(content) * 2 // 5 // 188 * 188 :])
    begin = measured(file, VIDEO).begin
    assert begin > 0.1
    before = begin - 1.1
    assert before < 0 or "frame before the video's first" in uses_found(file, before)
    first = read_frames(file, [begin + 0.001])[0]
    np.testing.assert_array_equal(read_frames(file, [max(0.0, begin - 0.9)])[0], first)


def test_a_later_piece_of_a_video_sent_in_pieces_does_not_break_off(folder: Path, tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.mp4", tmp_path / "piece.mp4"
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    film = write(folder, Kind("mp4", "aac", "libx264"))
    with av.open(str(film)) as source, av.open(str(whole), "w", options=options) as sent:
        streams = {stream: sent.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream]
                sent.mux(packet)
    content = whole.read_bytes()
    pieces = [at - 4 for at in range(len(content)) if content[at : at + 4] == b"moof"]
    assert len(pieces) > 2
    file.write_bytes(content[: pieces[0]] + content[pieces[1] :])
    assert "media breaks off" not in found(file, VIDEO) | found(file, AUDIO)
    file.write_bytes(content[: pieces[0]] + content[pieces[1] : -5000])
    assert "media breaks off" in found(file, VIDEO)


def test_a_video_whose_first_key_frame_an_edit_list_cuts_off_begins_at_0(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cut.mp4"
    with av.open(str(write(folder, Kind("mp4", None, "libx264")))) as source, av.open(str(file), "w") as cut:
        (stream,) = (cut.add_stream_from_template(stream) for stream in source.streams)
        for packet in source.demux():
            if packet.size:
                packet.pts, packet.dts = (
                    at - round(0.4 / packet.time_base) for at in (packet.pts, packet.dts)
                )
                packet.stream = stream
                cut.mux(packet)
    with av.open(str(file)) as written:
        assert next(written.demux()).is_discard
    assert measured(file, VIDEO).begin < 0.04
    read_frames(file, [0.0])
