"""What every projector and fusion keeps to, given the frames of a film."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from avalign.batch import Tokens
from tests.contract.components import every
from tests.contract.kept import stir
from tests.contract.test_fusions import fused_tensors
from tests.contract.tokens import DIM_OUT, FRAMES, GRID, clip_tokens, film, given
from tests.tolerances import assert_close


@every("projector")
class TestProjector:
    def test_it_gives_as_many_tokens_as_it_says_frame_by_frame_or_joined(self, build: Any, name: str) -> None:
        projector, before = build("projector", name), film()
        count = projector.token_count(FRAMES * GRID * GRID, FRAMES)
        after = projector(before, **given(projector, 2))
        assert after.values.shape == (2, count, DIM_OUT)
        assert after.mask.shape == (2, count)
        assert after.frames == (1 if getattr(projector, "joins_frames", False) else FRAMES)
        if after.frames == 1:
            return
        assert after.mask[0].view(FRAMES, -1).all(1).tolist() == [True, True, False]
        assert torch.equal(after.when.view(2, FRAMES, -1)[..., 0], before.when.view(2, FRAMES, -1)[..., 0])
        assert torch.equal(after.when.view(2, FRAMES, -1).std(2), torch.zeros(2, FRAMES))
        assert torch.equal(after.where, after.where[: count // FRAMES].repeat(FRAMES, 1))

    def test_frames_that_are_not_there_change_nothing(self, build: Any, name: str) -> None:
        projector, before = build("projector", name), film()
        stir(projector)
        spoilt = torch.where(before.mask[..., None], before.values, torch.tensor(1e4))
        late = torch.where(before.mask, before.when, torch.tensor(7.0))
        one, other = (
            projector(tokens, **given(projector, 2))
            for tokens in (before, replace(before, values=spoilt, when=late))
        )
        assert torch.equal(one.mask, other.mask)
        assert_close(other.values[other.mask], one.values[one.mask], torch.float32)


@every("fusion")
class TestFusion:
    def test_it_keeps_frames_and_their_times(self, build: Any, name: str) -> None:
        before, audio = film(), clip_tokens()
        fused = build("fusion", name)(before, Tokens(audio.values[:2], audio.mask[:2], audio.where))
        assert fused.image.frames == FRAMES
        assert torch.equal(fused.image.when, before.when)
        assert torch.equal(fused.image.where, before.where)
        assert fused.audio.frames == 1
        assert fused.audio.when is None

    def test_frames_that_are_not_there_change_nothing(self, build: Any, name: str) -> None:
        """Neither what is heard nor the frames that are there differ from those of a film without room."""
        fusion, sound = build("fusion", name), clip_tokens()
        stir(fusion)
        one, other = (
            fusion(
                Tokens(t.values[:1], t.mask[:1], t.where, t.frames, t.when[:1]),
                Tokens(sound.values[:1], sound.mask[:1], sound.where),
            )
            for t in (film(), film(2))
        )
        real = 2 * GRID * GRID
        assert_close(one.image.values[:, :real], other.image.values, torch.float32)
        assert_close(one.audio.values, other.audio.values, torch.float32)
        assert len(fused_tensors(one)) == len(fused_tensors(other))
