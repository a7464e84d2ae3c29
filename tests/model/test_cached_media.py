"""With data.features nothing is decoded twice, and nothing else is other than without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avalign.data import features
from avalign.data.collate import SampleError
from avalign.data.manifest import Manifest
from avalign.data.shards import Shards
from avalign.data.shards.pack import pack
from avalign.encoders.preprocessing import SmallImage
from avalign.errors import AvalignError
from avalign.interfaces import Source
from avalign.media.file import MediaError
from avalign.types import Sample
from tests.helpers import avworld, tiny
from tests.helpers.cached_media import (
    BATCH,
    COUNT,
    PARTS,
    Step,
    decoded,  # noqa: F401  (a fixture)
    draws_of,
    entries,
    epoch,
    model_with,
    opened,
    readings,
    record,
    settle,
    watch,
    write_audio,
    write_corpus,
    write_image,
)
from tests.helpers.paths import ROOT
from tests.helpers.runs import ENVIRONMENT


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "features"


def assert_alike(steps: list[Step], others: list[Step], *, media: bool = False) -> None:
    for one, other in zip(steps, others, strict=True):
        assert one.same_truth(other)
        assert one.same_tokens(other)
        assert one.same_media(other) or not media


# -- what is known is not decoded ----------------------------------------------------------------------------


def test_nothing_is_decoded_in_a_second_epoch_nor_in_a_second_run(
    corpus: Path, kept: Path, decoded: list[str]
) -> None:
    plain = epoch(opened(corpus), model_with(None))
    assert len(decoded) == 2 * COUNT
    decoded.clear()
    model = model_with(kept)
    first = epoch(opened(corpus), model)
    assert len(decoded) == 2 * COUNT
    decoded.clear()
    second = epoch(opened(corpus), model)
    another_run = epoch(opened(corpus), model_with(kept))
    assert decoded == []
    assert_alike(first, plain, media=True)
    assert_alike(second, plain)
    assert_alike(another_run, plain)
    assert model.features is not None
    assert (model.features.counts.kept, model.features.counts.not_decoded) == (2 * COUNT, 2 * COUNT)


def test_a_batch_of_known_and_new_media_keeps_its_order(corpus: Path, kept: Path, decoded: list[str]) -> None:
    plain = epoch(opened(corpus), model_with(None))
    epoch(opened(corpus), model_with(kept), draws={"count": 2})
    found = {Path(file).name for file in decoded[2 * COUNT :]}
    decoded.clear()
    mixed = epoch(opened(corpus), model_with(kept))
    assert len(found) == 4
    assert len(decoded) == 2 * COUNT - 4
    assert not found & {Path(file).name for file in decoded}
    for one, other in zip(mixed, plain, strict=True):
        assert one.same_truth(other)
        for name, tokens in one.tokens.items():  # of an encoder that was run on fewer at a time
            torch.testing.assert_close(tokens, other.tokens[name], rtol=1e-5, atol=1e-6)


def test_without_a_cache_batches_are_plain_ones(corpus: Path) -> None:
    model = model_with(None)
    assert model.feature_reader() is None
    (first, _) = epoch(opened(corpus), model)
    assert type(first.batch).__name__ == "Batch"
    source = opened(corpus)
    data = draws_of(source, model)
    again = data.collate([data[number] for number in range(BATCH)])["batch"]
    assert Step(again, {}, []).same_media(first)


@pytest.mark.parametrize("missing", ["image", "audio"])
def test_a_sample_may_lack_image_or_audio(tmp_path: Path, kept: Path, missing: str) -> None:
    instruction = {"image": "<audio>What?", "audio": "<image>What?"}[missing]
    none = {missing: None} | ({"audio_start": None, "audio_end": None} if missing == "audio" else {})
    made = [record(k, **(none | {"instruction": instruction} if k % 2 else {})) for k in range(COUNT)]
    corpus = write_corpus(tmp_path / "corpus", made)
    plain = epoch(opened(corpus), model_with(None))
    for _ in range(2):
        assert_alike(epoch(opened(corpus), model_with(kept)), plain)


def test_a_video_is_known_by_its_frames(tmp_path: Path, kept: Path, decoded: list[str]) -> None:
    from tests.helpers.videos import beeps, write_video

    times = [(0.4,), (0.4, 1.0), (0.4, 1.0, 2.2), (0.2, 0.6, 1.0, 1.4, 1.8), (), (0.4, 1.2)]
    made = [record(k, image="clip.mp4" if of else f"{k}.bmp", frame_times=of) for k, of in enumerate(times)]
    (tmp_path / "corpus").mkdir()
    write_video(tmp_path / "corpus" / "clip.mp4", beeps())
    corpus = write_corpus(tmp_path / "corpus", made)
    plain = epoch(opened(corpus), model_with(None, frames=3))
    first = epoch(opened(corpus), model_with(kept, frames=3))
    decoded.clear()
    assert_alike(epoch(opened(corpus), model_with(kept, frames=3)), first)
    assert decoded == []
    for one, other in zip(first, plain, strict=True):
        assert one.same_truth(other)
        torch.testing.assert_close(one.tokens["image"], other.tokens["image"], rtol=1e-5, atol=1e-6)
    epoch(opened(corpus), model_with(kept))  # one frame of each: other inputs
    assert len(decoded) == COUNT  # no audio


def test_shards_are_known_by_tar_and_place(
    corpus: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(corpus, tmp_path / "shards")
    settle()
    plain = epoch(opened(corpus), model_with(None))

    def packed() -> Shards:
        source = Shards()
        source.prepare(str(tmp_path / "shards"), seed=0)
        return source

    assert_alike(epoch(packed(), model_with(kept)), plain)
    source = packed()
    asked: list[str] = []
    real = source.shards._content
    monkeypatch.setattr(
        source.shards, "_content", lambda number, place: asked.append(place) or real(number, place)
    )
    assert_alike(epoch(source, model_with(kept)), plain)
    assert set(asked) == {"json"}


def test_the_built_in_world_is_known_by_its_scenes(tmp_path: Path, kept: Path) -> None:
    source = avworld.prepared(tmp_path, train=20, val=2, test=2)

    def made(folder: Path | None) -> list[Step]:
        encoder = tiny.SmallAudioEncoder(sample_rate=tiny.RATE, seconds=10.0, mels=8, width=tiny.WIDTH)
        return epoch(source, model_with(folder, audio_encoder=encoder), draws={"task": "arig"})

    torch.manual_seed(0)
    plain = made(None)
    torch.manual_seed(0)
    made(kept)
    audio = source._splits["train"][1]
    assert not audio.flags.writeable
    source._splits["train"] = (
        np.zeros_like(source._splits["train"][0]),
        np.zeros_like(audio),
        source._splits["train"][2],
    )
    torch.manual_seed(0)
    assert_alike(made(kept), plain)  # of what is no longer looked at


# -- what changed is encoded anew ----------------------------------------------------------------------------


@pytest.mark.parametrize("stamped", ["later", "as before"])
def test_a_file_with_other_content_of_equal_size_is_encoded_anew(
    corpus: Path, kept: Path, stamped: str
) -> None:
    epoch(opened(corpus), model_with(kept))
    for name, rewrite in (("2.bmp", write_image), ("3.wav", write_audio)):
        before = (corpus / name).stat()
        rewrite(corpus / name, seed=99)
        if stamped == "as before":
            os.utime(corpus / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = (corpus / name).stat()
        assert after.st_size == before.st_size
        assert (after.st_mtime_ns == before.st_mtime_ns) == (stamped == "as before")
    plain = epoch(opened(corpus), model_with(None))
    model = model_with(kept)
    found = epoch(opened(corpus), model)
    assert model.features is not None
    assert model.features.counts.kept == 2
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one.tokens["image"], other.tokens["image"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.tokens["audio"], other.tokens["audio"], rtol=1e-5, atol=1e-6)


def test_another_part_of_a_recording_is_another_medium(tmp_path: Path, kept: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    epoch(opened(corpus), model_with(kept))
    (corpus / "made.jsonl").unlink()
    write_corpus(corpus, [record(k, audio_start=0.2) for k in range(COUNT)])
    plain = epoch(opened(corpus), model_with(None))
    assert_alike(epoch(opened(corpus), model_with(kept)), plain)


def test_equal_content_shares_an_entry_whatever_it_is_called(tmp_path: Path, kept: Path) -> None:
    same = {"audio_end": 0.4}
    made = [record(k, **same) for k in range(COUNT)]
    corpus = write_corpus(tmp_path / "corpus", made)
    for number in range(1, COUNT):
        (corpus / f"{number}.bmp").write_bytes((corpus / "0.bmp").read_bytes())
        (corpus / f"{number}.wav").write_bytes((corpus / "0.wav").read_bytes())
    settle()
    epoch(opened(corpus), model_with(kept))
    assert len(entries(kept)) == 2
    assert len(entries(kept, "json")) == 2 * COUNT


@dataclass(frozen=True)
class Darker:
    """A stranger's preprocessing, with a setting."""

    size: int
    by: float

    def __call__(self, image: np.ndarray) -> Tensor:
        return SmallImage(self.size)(image) - self.by


@dataclass(frozen=True)
class Noisy:
    """One that draws by chance."""

    size: int

    def __call__(self, image: np.ndarray) -> Tensor:
        made = SmallImage(self.size)(image)
        return made + 0.1 * torch.randn(made.shape)


def test_another_preprocessing_is_another_identity(corpus: Path, kept: Path, decoded: list[str]) -> None:
    for by, images in ((0.1, COUNT), (0.2, COUNT), (0.1, 0)):
        model = model_with(kept)
        model.image_encoder.preprocessing = Darker(tiny.SIZE, by)
        decoded.clear()
        found = epoch(opened(corpus), model)
        assert sum(file.endswith(".bmp") for file in decoded) == images
        plain = model_with(None)
        plain.image_encoder.preprocessing = Darker(tiny.SIZE, by)
        assert_alike(found, epoch(opened(corpus), plain))


def test_what_preprocessing_draws_by_chance_is_always_decoded(
    corpus: Path, kept: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    for _ in range(2):
        model = model_with(kept)
        model.image_encoder.preprocessing = Noisy(tiny.SIZE)
        torch.manual_seed(7)
        decoded.clear()
        seen.append(epoch(opened(corpus), model, draws={"count": BATCH}))
        assert sum(file.endswith(".bmp") for file in decoded) == BATCH
        assert (
            "all media are decoded for image_encoder: its preprocessing does not" in capsys.readouterr().err
        )
        torch.rand(1)
    plain = model_with(None)
    plain.image_encoder.preprocessing = Noisy(tiny.SIZE)
    torch.manual_seed(7)
    expected = epoch(opened(corpus), plain, draws={"count": BATCH})
    assert_alike(seen[0], expected, media=True)  # looking for chance has drawn none of it
    assert expected[0].tokens["image"].std() > 0
    assert not any(".bmp" in note.read_text() for note in entries(kept, "json"))


def test_a_source_that_changes_samples_by_chance_is_asked_for_each(corpus: Path, kept: Path) -> None:
    class Mirrored(Manifest):
        asked = 0

        def sample(self, split: str, task: str, index: int) -> Sample:
            self.asked += 1
            sample = super().sample(split, task, index)
            assert sample.image is not None
            return replace(sample, image=sample.image[:, ::-1] if self.asked % 2 else sample.image)

    source = Mirrored()
    source.prepare(str(corpus), seed=0)
    for _ in range(2):
        epoch(source, model_with(kept))
    assert source.asked == 2 * COUNT
    assert len(entries(kept, "json")) == 0


def test_an_encoder_that_learns_has_its_media_decoded(corpus: Path, kept: Path, decoded: list[str]) -> None:
    for _ in range(2):
        decoded.clear()
        model = model_with(kept)
        model.learn({"image_encoder", "llm"})
        reader = model.train().feature_reader()
        assert reader is not None
        assert set(reader.versions) == PARTS - {"image_encoder"}
        epoch(opened(corpus), model)
    assert {Path(file).suffix for file in decoded} == {".bmp"}
    assert len(decoded) == COUNT
    model.learn(PARTS)
    assert model.feature_reader() is None


@pytest.mark.parametrize("changed", ["weight", "mode", "cache"])
def test_features_of_another_encoder_are_refused(corpus: Path, kept: Path, changed: str) -> None:
    epoch(opened(corpus), model_with(kept))
    model = model_with(kept)
    data = draws_of(opened(corpus), model)
    batch = data.collate([data[0], data[1]])["batch"]
    if changed == "weight":
        with torch.no_grad():
            next(model.image_encoder.parameters()).mul_(2)
    elif changed == "mode":
        model.image_encoder.train()
    else:
        model.features = None
    said = "no cache of them" if changed == "cache" else "was changed while samples were loaded"
    with pytest.raises(AvalignError, match=f"image_encoder.*{said}"):
        model.encode(batch)


# -- what cannot be used -------------------------------------------------------------------------------------


def spoil(corpus: Path) -> None:
    (corpus / "1.bmp").write_bytes(b"BM" + bytes(2000))
    (corpus / "2.wav").unlink()
    (corpus / "4.bmp").unlink()


@pytest.mark.parametrize("before", [True, False])
def test_media_that_cannot_be_used_are_skipped_and_told_as_without(
    corpus: Path, kept: Path, before: bool
) -> None:
    """Also those that were read once: a file that is gone is an error, though its features are there."""
    if before:
        epoch(opened(corpus), model_with(kept))
    spoil(corpus)
    how = {"on_error": "skip", "count": 2 * COUNT}
    plain = epoch(opened(corpus), model_with(None), draws=how)
    assert sum(len(step.skipped) for step in plain) >= 6
    for _ in range(2):
        found = epoch(opened(corpus), model_with(kept), draws=how)
        assert [step.skipped for step in found] == [step.skipped for step in plain]
        assert all(one.same_truth(other) for one, other in zip(found, plain, strict=True))


def test_media_that_cannot_be_used_stop_a_run_with_the_same_words(corpus: Path, kept: Path) -> None:
    epoch(opened(corpus), model_with(kept))
    spoil(corpus)

    def said(folder: Path | None) -> list[str]:
        data = draws_of(opened(corpus), model_with(folder))
        found = []
        for number in range(COUNT):
            try:
                data[number]
            except MediaError as error:
                found.append(str(error))
        return found

    plain = said(None)
    assert len(plain) == 3
    assert all(f"{corpus}/made.jsonl:" in each for each in plain)
    assert said(kept) == plain


def test_a_clip_that_is_too_long_for_another_encoder_is_refused(corpus: Path, kept: Path) -> None:
    """What only decoding would tell is kept: shape, and rate."""
    epoch(opened(corpus), model_with(kept))
    data = draws_of(opened(corpus), model_with(kept))
    data.collator.seconds = 0.2
    with pytest.raises(SampleError, match=r"audio lasts 0\.3\d s, the audio encoder takes 0\.2 s"):
        data[0]


# -- what lies on disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: [file.unlink() for file in entries(kept)[::2]],
        lambda kept: [file.write_bytes(file.read_bytes()[:30]) for file in entries(kept)[::2]],
        lambda kept: [file.write_bytes(b"") for file in entries(kept, "json")],
        lambda kept: [file.write_bytes(file.read_bytes()[:-9]) for file in entries(kept, "json")],
        lambda kept: [file.write_text("[1]") for file in entries(kept, "json")],
        lambda kept: [
            file.write_text(json.dumps(json.loads(file.read_text()) | {"entries": ["../../a"]}))
            for file in entries(kept, "json")
        ],
        lambda kept: [
            file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [-1]}))
            for file in entries(kept, "json")
        ],
    ],
)
def test_what_is_damaged_or_gone_is_made_anew(
    corpus: Path, kept: Path, decoded: list[str], damage: Any
) -> None:
    plain = epoch(opened(corpus), model_with(kept))
    damage(kept)
    decoded.clear()
    for again in (True, False):
        found = epoch(opened(corpus), model_with(kept))
        assert bool(decoded) == again
        decoded.clear()
        for one, other in zip(found, plain, strict=True):
            assert one.same_truth(other)
            torch.testing.assert_close(one.tokens["image"], other.tokens["image"], rtol=1e-5, atol=1e-6)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.helpers.cached_media import epoch, model_with, opened
corpus, kept, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
real = Path.replace
def replace(self, target):
    if str(target).endswith(at):  # written, not yet named
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
epoch(opened(corpus), model_with(kept))
"""


@pytest.mark.parametrize("at", ["safetensors", "json"])
def test_a_writer_that_is_killed_leaves_no_half_entry(corpus: Path, kept: Path, at: str) -> None:
    command = [sys.executable, "-c", KILLED, str(corpus), str(kept), at]
    ended = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert entries(kept, "json") == []
    assert len(entries(kept)) == (0 if at == "safetensors" else BATCH)
    assert_alike(epoch(opened(corpus), model_with(kept)), epoch(opened(corpus), model_with(None)))


def test_a_full_folder_has_no_notes_of_what_it_does_not_hold(corpus: Path, kept: Path) -> None:
    epoch(opened(corpus), model_with(kept, most=1))  # an entry brings it above
    assert len(entries(kept)) == 1
    assert entries(kept, "json") == []


# -- processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_loader_processes_decode_and_read(
    corpus: Path, kept: Path, tmp_path: Path, decoded: list[str], method: str
) -> None:
    """Each medium once, by a loader process; then none by anyone."""
    log = tmp_path / "log"
    how = {
        "num_workers": 2,
        "multiprocessing_context": method,
        "worker_init_fn": partial(watch, str(log)),
    }
    plain = epoch(opened(corpus), model_with(None), **how)
    expected = readings(log)
    log.unlink()
    decoded.clear()
    first = epoch(opened(corpus), model_with(kept), **how)
    assert sorted(file for _, file in readings(log)) == sorted(file for _, file in expected)
    assert len(readings(log)) == 2 * COUNT
    assert os.getpid() not in {process for process, _ in readings(log)}
    log.unlink()
    second = epoch(opened(corpus), model_with(kept), **how)
    assert readings(log) == []
    assert decoded == []
    assert_alike(first, plain, media=True)
    assert_alike(second, plain)


TOGETHER = """
import sys
from pathlib import Path
from tests.helpers.cached_media import epoch, model_with, opened
for _ in range(5):
    epoch(opened(Path(sys.argv[1])), model_with(Path(sys.argv[2])))
"""


def test_several_processes_may_write_at_once(corpus: Path, kept: Path) -> None:
    command = [sys.executable, "-c", TOGETHER, str(corpus), str(kept)]
    running = [subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    model = model_with(kept)
    assert_alike(epoch(opened(corpus), model), epoch(opened(corpus), model_with(None)))
    assert model.features is not None
    assert (model.features.counts.kept, model.features.counts.not_decoded) == (0, 2 * COUNT)
    assert len(entries(kept)) == len(entries(kept, "json")) == 2 * COUNT


# -- which sources are asked ---------------------------------------------------------------------------------


def test_only_a_source_that_says_itself_what_it_has_is_asked_for_it(corpus: Path) -> None:
    class Delegating:
        def __init__(self, source: Source) -> None:
            self.source = source

        def sample(self, split: str, task: str, index: int) -> Sample:
            return self.source.sample(split, task, index)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["source"], name)

    source = opened(corpus)
    assert features.undecoded(source, "train", "avqa", 0) is not None
    assert features.undecoded(Delegating(source), "train", "avqa", 0) is None  # type: ignore[arg-type]
    source.sample = source.sample  # type: ignore[method-assign]
    assert features.undecoded(source, "train", "avqa", 0) is None
