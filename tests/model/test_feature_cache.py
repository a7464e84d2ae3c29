"""Tokens of frozen encoders are computed once, and are what the encoder would have made."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avalign.errors import AvalignError
from avalign.model.feature_cache import FeatureCache
from avalign.types import Tokens
from tests.helpers import tiny
from tests.helpers.runs import assert_same_losses, quick, world  # noqa: F401 (fixtures)
from tests.training import test_train


class Counting(nn.Module):
    """Tokens that are easy to follow, and how many inputs were encoded."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale), requires_grad=False)
        self.seen = 0

    def forward(self, x: Tensor, seconds: Tensor) -> Tokens:
        self.seen += len(x)
        values = self.scale * x.flatten(1)[:, :, None].expand(-1, -1, 3)
        mask = torch.arange(x.flatten(1).shape[1]) < seconds[:, None]
        return Tokens(values, mask, times=torch.eye(x.flatten(1).shape[1], 2))


X, SECONDS = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([6.0, 2, 3, 4])


def cache(folder: Path, dtype: str = "float32", most: float = 1e9, options: str = "") -> FeatureCache:
    return FeatureCache(folder, dtype=dtype, most=most, options={"audio_encoder": options})


def same(one: Tokens, other: Tokens) -> bool:
    pairs = ((one.values, other.values), (one.mask, other.mask), (one.times, other.times))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def test_what_is_read_is_what_was_encoded_and_only_new_inputs_are_encoded(tmp_path: Path) -> None:
    encoder = Counting().eval()
    for _ in range(2):
        assert same(
            cache(tmp_path).tokens("audio_encoder", encoder, X[:3], SECONDS[:3]), encoder(X[:3], SECONDS[:3])
        )
    assert encoder.seen == 3 + 2 * 3  # once for the cache, twice to compare
    permuted = torch.tensor([2, 3, 0])
    found = cache(tmp_path).tokens("audio_encoder", encoder, X[permuted], SECONDS[permuted])
    assert encoder.seen == 9 + 1
    assert same(found, encoder(X[permuted], SECONDS[permuted]))


@pytest.mark.parametrize(
    "changed",
    [
        lambda encoder: encoder.scale.mul_(2),
        lambda encoder: encoder.load_state_dict({"scale": torch.tensor(7.0)}),
        lambda encoder: encoder.to(torch.float64),
    ],
)
def test_a_changed_weight_is_another_encoder(tmp_path: Path, changed: Callable[[Counting], Any]) -> None:
    encoder, kept = Counting().eval(), cache(tmp_path)
    kept.tokens("audio_encoder", encoder, X, SECONDS)
    changed(encoder)
    assert same(kept.tokens("audio_encoder", encoder, X, SECONDS), encoder(X, SECONDS))
    assert kept.counts.read == 0


def test_other_options_lengths_and_precisions_are_other_entries(tmp_path: Path) -> None:
    encoder = Counting().eval()
    cache(tmp_path).tokens("audio_encoder", encoder, X, SECONDS)
    for other, seconds in (
        (cache(tmp_path, options="pool: 2"), SECONDS),
        (cache(tmp_path, dtype="float16"), SECONDS),
        (cache(tmp_path), SECONDS + 1),
    ):
        other.tokens("audio_encoder", encoder, X, seconds)
        assert (other.counts.read, other.counts.saved) == (0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        kept = cache(tmp_path)
        kept.tokens("audio_encoder", encoder, X, SECONDS)
        assert kept.counts.read == 0


def test_an_encoder_that_learns_is_never_cached(tmp_path: Path) -> None:
    encoder = Counting()
    encoder.scale.requires_grad_(True)
    tokens = cache(tmp_path).tokens("audio_encoder", encoder.eval(), X, SECONDS)
    tokens.values.sum().backward()
    assert encoder.scale.grad is not None
    encoder.scale.requires_grad_(False)
    cache(tmp_path).tokens("audio_encoder", encoder.train(), X, SECONDS)  # dropout, say
    assert not any(tmp_path.iterdir())


def test_half_precision_gives_the_same_the_first_time_as_later(tmp_path: Path) -> None:
    encoder = Counting().eval()
    first, later = (cache(tmp_path, "float16").tokens("audio_encoder", encoder, X, SECONDS) for _ in range(2))
    assert same(first, later)
    assert first.values.dtype == torch.float32
    torch.testing.assert_close(first.values, encoder(X, SECONDS).values, rtol=1e-3, atol=1e-6)
    with pytest.raises(AvalignError, match=r"audio_encoder: .* beyond float16: set data\.features=float32"):
        cache(tmp_path, "float16").tokens("audio_encoder", Counting(1e6).eval(), X, SECONDS)


def test_a_damaged_entry_is_named_and_made_anew(tmp_path: Path) -> None:
    encoder = Counting().eval()
    cache(tmp_path).tokens("audio_encoder", encoder, X, SECONDS)
    file = sorted(tmp_path.glob("*/*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:20])
    kept = cache(tmp_path)
    assert same(kept.tokens("audio_encoder", encoder, X, SECONDS), encoder(X, SECONDS))
    assert (kept.counts.read, kept.counts.saved, kept.counts.damaged) == (3, 1, [str(file)])
    assert cache(tmp_path).tokens("audio_encoder", encoder, X, SECONDS) is not None


def test_a_full_folder_takes_no_more_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Counting().eval()
    cache(tmp_path).tokens("audio_encoder", encoder, X[:1], SECONDS[:1])
    one = next(tmp_path.glob("*/*.safetensors")).stat().st_size
    kept = cache(tmp_path, most=1.5 * one)
    assert same(kept.tokens("audio_encoder", encoder, X, SECONDS), encoder(X, SECONDS))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 2
    kept.tell()
    assert "1 read, 1 computed and kept" in (said := capsys.readouterr().err)
    assert "2 computed and not kept: full (data.features_gib)" in said


def test_a_video_is_kept_frame_by_frame(tmp_path: Path) -> None:
    model = tiny.model(frames=3)
    model.learn({"llm"})
    samples = [
        tiny.sample(
            seed,
            image=torch.randint(256, (k, tiny.SIZE, tiny.SIZE, 3)).byte().numpy(),
            frame_times=(0, 1, 2)[:k],
        )
        for seed, k in ((0, 3), (1, 2))
    ]
    batch = model.collator()(samples)
    plain = model.encode(batch)
    model.features = FeatureCache(tmp_path, dtype="float32", most=1e9, options={})
    for _ in range(2):
        for one, other in zip(plain[:2], model.encode(batch)[:2], strict=True):
            torch.testing.assert_close(one.values, other.values)
            assert torch.equal(one.mask, other.mask)
    counts = model.features.counts
    assert (counts.read, counts.saved) == (6 + 2, 6 + 2)  # a padded frame is one too; and two sounds


def test_training_is_the_same_with_and_without(
    quick: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once computing all, once reading all; only the stage whose encoders are frozen uses it."""
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    stages = (
        "train.stages=[{name: align, steps: 2, weights: {language_modelling: 0}}, "
        "{name: answer, steps: 3, train: [llm, image_projector, audio_projector]}]"
    )
    plain = quick(stages, run=tmp_path / "plain")
    capsys.readouterr()
    counts, spared = [], []
    for number in range(2):
        run = quick(stages, "data.features=float32", run=tmp_path / f"cached{number}")
        assert_same_losses(plain, run, relative=1e-5)
        told = capsys.readouterr().err
        said = re.search(r"features: (\d+) read, (\d+) computed and kept", told)
        assert said is not None
        spared += re.findall(r", (\d+) of those read without decoding", told)
        counts.append((int(said[1]), int(said[2])))
    media = 3 * test_train.BATCH * 2  # pictures and sounds of the second stage; some come twice
    assert sum(counts[0]) == media
    assert counts[0][1] > media / 2
    assert counts[1] == (media, 0)
    assert spared[-1] == str(media)


def test_a_run_in_bf16_with_loader_processes_finds_all_without_decoding(
    quick: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Loaders are told the version of the encoders as they will be run: in autocast."""
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    settings = (
        "train.stages=[{name: answer, steps: 2, train: [llm, image_projector, audio_projector]}]",
        *("data.features=float16", "data.workers=1", "train.precision=bf16"),
    )
    for number in range(2):
        quick(*settings, run=tmp_path / f"run{number}")
    media = 2 * test_train.BATCH * 2
    told = capsys.readouterr().err
    assert f"features: {media} read, 0 computed and kept" in told
    assert f", {media} of those read without decoding" in told


@pytest.mark.parametrize(("name", "axes"), [("boxes", 4), ("times", 2)])
def test_an_entry_of_before_boxes_and_times_had_names_is_read(tmp_path: Path, name: str, axes: int) -> None:
    class Placed(Counting):
        def forward(self, x: Tensor, seconds: Tensor) -> Tokens:
            of = super().forward(x, seconds)
            return Tokens(of.values, of.mask, **{name: torch.eye(6, axes)})

    encoder = Placed().eval()
    cache(tmp_path).tokens("audio_encoder", encoder, X, SECONDS)
    for file in tmp_path.glob("*/*.safetensors"):
        entry = load_file(file)
        entry["where"] = entry.pop(name)
        save_file(entry, file)
    kept = cache(tmp_path)
    found = kept.tokens("audio_encoder", encoder, X, SECONDS)
    assert kept.counts.read == 4
    assert torch.equal(vars(found)[name], torch.eye(6, axes))
    assert [found.boxes, found.times].count(None) == 1
