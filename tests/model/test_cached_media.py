"""With data.features nothing is decoded twice, and nothing else is other than without."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avalign.data.manifest import Manifest
from avalign.data.shards import Shards
from avalign.data.shards.pack import pack
from avalign.encoders.preprocessing import SmallImage
from avalign.errors import AvalignError
from avalign.types import Sample
from tests.helpers import avworld, tiny
from tests.helpers.cached_media import (
    BATCH,
    COUNT,
    PARTS,
    Step,
    assert_alike,
    corpus,  # noqa: F401  (a fixture)
    decoded,  # noqa: F401  (a fixture)
    draws_of,
    entries,
    epoch,
    kept,  # noqa: F401  (a fixture)
    model_with,
    opened,
    record,
    settle,
    write_audio,
    write_corpus,
    write_image,
)

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
    assert (model.features.counts.saved, model.features.counts.not_decoded) == (2 * COUNT, 2 * COUNT)


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
    assert model.features.counts.saved == 2
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
