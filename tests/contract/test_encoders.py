"""What every encoder keeps to."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.contract.components import EVERYTHING
from tests.helpers.contract.saved import (
    assert_compiles,
    assert_every_weight_learns,
    assert_near_in_bf16,
    assert_saved_to_the_bit,
    stir,
)
from tests.helpers.tolerances import assert_close

PICTURES = [np.random.default_rng(k).integers(0, 256, (40 + 9 * k, 70, 3), np.uint8) for k in range(3)]


def sounds(encoder: Any) -> list[tuple[np.ndarray, int]]:
    """Of three lengths, at three rates: samples (n,) and Hz."""
    rng = np.random.default_rng(0)
    lengths = [encoder.seconds, encoder.seconds / 4, encoder.seconds / 2]
    rates = [encoder.sample_rate, 16_000, 11_025]
    return [
        ((0.1 * rng.standard_normal(int(s * r))).astype(np.float32), r)
        for s, r in zip(lengths, rates, strict=True)
    ]


def prepared(kind: str, encoder: Any) -> tuple[Tensor, ...]:
    """A batch of three as the encoder's forward takes it."""
    if kind == "image_encoder":
        return (torch.stack([encoder.preprocessing(picture) for picture in PICTURES]),)
    heard = sounds(encoder)
    waves = torch.stack([encoder.preprocessing(audio, rate) for audio, rate in heard])
    return waves, torch.tensor([len(audio) / rate for audio, rate in heard])


ENCODERS = [(kind, name) for kind, name in EVERYTHING if kind.endswith("_encoder")]


@pytest.mark.parametrize(("kind", "name"), ENCODERS)
class TestEncoder:
    def test_its_tokens_are_as_many_and_as_wide_as_it_says(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        tokens = encoder(*given)
        assert tokens.values.shape == (3, encoder.token_count, encoder.width)
        assert tokens.values.isfinite().all()
        assert tokens.mask.shape == (3, encoder.token_count)
        assert tokens.mask.dtype == torch.bool
        place = "boxes" if kind == "image_encoder" else "times"
        for name_, there in (("boxes", tokens.boxes), ("times", tokens.times)):
            assert (there is not None) == (name_ == place)
        assert torch.equal(vars(tokens)[place], getattr(encoder, place))
        assert isinstance(encoder.pretrained, bool)
        assert given[0].dtype == torch.float32
        if kind == "image_encoder":
            assert tokens.mask.all()

    def test_its_tokens_say_where_they_lie(self, build: Any, kind: str, name: str) -> None:
        """Patches tile the picture; spans go on from each other, from the start of the clip to its end."""
        encoder = build(kind, name)
        where = encoder.boxes if kind == "image_encoder" else encoder.times
        assert not where.requires_grad
        if kind == "image_encoder":
            left, top, right, bottom = where.unbind(1)
            assert ((right - left) * (bottom - top)).sum().item() == pytest.approx(1, abs=1e-5)
            assert (where.min().item(), where.max().item()) == (0, 1)
            assert ((left < right) & (top < bottom)).all()
            assert len(set(map(tuple, where.tolist()))) == encoder.token_count
        else:
            assert where.shape == (encoder.token_count, 2)
            steps = sorted(set(map(tuple, where.tolist())))
            assert (steps[0][0], steps[-1][1]) == (0, pytest.approx(encoder.seconds))
            assert [end for _, end in steps[:-1]] == [start for start, _ in steps[1:]]
            assert where[:, 0].tolist() == sorted(where[:, 0].tolist()), "in order of time"

    def test_only_what_sounds_is_real(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        if kind == "image_encoder":
            assert encoder(*prepared(kind, encoder)).mask.all()
            return
        waves, seconds = prepared(kind, encoder)
        assert torch.equal(encoder(waves, seconds).mask, encoder.times[None, :, 0] < seconds[:, None])
        assert not encoder(waves, torch.zeros(3)).mask.any()
        assert encoder(waves).mask.all(), "all are real where no length is told"

    def test_preprocessing_takes_any_size_and_rate_and_changes_nothing(
        self, build: Any, kind: str, name: str
    ) -> None:
        encoder = build(kind, name)
        if kind == "image_encoder":
            before = [picture.copy() for picture in PICTURES]
            frozen = before[0].copy()
            frozen.flags.writeable = False  # as Pillow hands them out
            assert torch.equal(encoder.preprocessing(frozen), encoder.preprocessing(PICTURES[0]))
            assert len({encoder.preprocessing(picture).shape for picture in PICTURES}) == 1
            assert all(np.array_equal(a, b) for a, b in zip(before, PICTURES, strict=True))
            whites = encoder.preprocessing(np.full((9, 9, 3), 255, np.uint8))
            blacks = encoder.preprocessing(np.zeros((9, 9, 3), np.uint8))
            assert (whites > blacks).all()
            return
        for audio, rate in sounds(encoder):
            before = audio.copy()
            assert encoder.preprocessing(audio, rate).shape == (round(encoder.seconds * encoder.sample_rate),)
            assert np.array_equal(audio, before)
        # Fault 5 of the released code: whatever rate it comes at, a tone stays the tone it was.
        for rate in (encoder.sample_rate, 16_000, 11_025):
            tone = np.sin(2 * np.pi * 440 * np.arange(int(encoder.seconds * rate)) / rate).astype(np.float32)
            heard = encoder.preprocessing(tone, rate).numpy()
            peak = np.abs(np.fft.rfft(heard)).argmax() * encoder.sample_rate / len(heard)
            assert peak == pytest.approx(440, abs=2)

    def test_its_preprocessing_is_small_and_says_what_it_does(self, build: Any, kind: str, name: str) -> None:
        """As a loader process is given it: no weight, no buffer; equal ones do the same."""
        preprocessing = build(kind, name).preprocessing
        pickled = pickle.dumps(preprocessing)
        assert len(pickled) < 1_000
        assert pickle.loads(pickled) == preprocessing == build(kind, name).preprocessing
        assert repr(pickle.loads(pickled)) == repr(preprocessing)
        assert " at 0x" not in repr(preprocessing)

    def test_batch_mates_change_nothing(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        with torch.no_grad():
            together = encoder(*given)
            for k in range(3):
                alone = encoder(*(tensor[k : k + 1] for tensor in given))
                assert_close(together.values[k], alone.values[0], torch.float32)
                assert torch.equal(together.mask[k], alone.mask[0])

    def test_every_weight_learns(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        stir(encoder)
        assert_every_weight_learns(encoder, [encoder(*prepared(kind, encoder)).values])

    def test_it_works_in_bf16(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        assert_near_in_bf16(lambda: [encoder(*given).values])

    def test_it_compiles(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        assert_compiles(encoder, encoder.parameters(), lambda: [encoder(*given).values])

    def test_it_is_saved_and_loaded_to_the_bit(
        self, build: Any, kind: str, name: str, tmp_path: Path
    ) -> None:
        first, second = (build(kind, name, seed).eval() for seed in (1, 2))
        given = prepared(kind, first)
        assert_saved_to_the_bit(first, second, lambda e: [e(*given).values], tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("kind", "name"), ENCODERS)
def test_its_sizes_are_known_without_its_weights(build: Any, kind: str, name: str) -> None:
    """On the meta device, where a model is sized before it is made."""
    real = build(kind, name)
    with torch.device("meta"):
        encoder = build(kind, name)
    assert all(weight.is_meta for weight in encoder.parameters())
    assert (encoder.token_count, encoder.width) == (real.token_count, real.width)
    sizes = {name: weight.shape for name, weight in real.state_dict().items()}
    assert {name: weight.shape for name, weight in encoder.state_dict().items()} == sizes
