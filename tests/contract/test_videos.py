"""What every projector and fusion keeps to, given the frames of a video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.helpers.contract.components import every
from tests.helpers.contract.fusions import fused_tensors
from tests.helpers.contract.saved import stir
from tests.helpers.contract.tokens import DIM_OUT, FRAMES, GRID, clip_tokens, film, given
from tests.helpers.tolerances import assert_close


@every("projector")
class TestProjector:
    def test_it_gives_as_many_tokens_as_it_says_frame_by_frame_or_joined(self, build: Any, name: str) -> None:
        projector, before = build("projector", name), film()
        count = projector.token_count(FRAMES * GRID * GRID, FRAMES)
        after = projector(before, **given(projector, 2))
        assert after.values.shape == (2, count, DIM_OUT)
        assert after.mask.shape == (2, count)
        assert after.frames == (1 if projector.joins_frames else FRAMES)
        if after.frames == 1:
            return
        assert after.mask[0].view(FRAMES, -1).all(1).tolist() == [True, True, False]
        expected, seen = (tokens.frame_times.view(2, FRAMES, -1) for tokens in (before, after))
        assert torch.equal(seen[..., 0], expected[..., 0])
        assert torch.equal(seen.std(2), torch.zeros(2, FRAMES))
        assert torch.equal(after.boxes, after.boxes[: count // FRAMES].repeat(FRAMES, 1))

    def test_frames_that_are_not_there_change_nothing(self, build: Any, name: str) -> None:
        projector, before = build("projector", name), film()
        stir(projector)
        spoilt = torch.where(before.mask[..., None], before.values, torch.tensor(1e4))
        late = torch.where(before.mask, before.frame_times, torch.tensor(7.0))
        one, other = (
            projector(tokens, **given(projector, 2))
            for tokens in (before, replace(before, values=spoilt, frame_times=late))
        )
        assert torch.equal(one.mask, other.mask)
        assert_close(other.values[other.mask], one.values[one.mask], torch.float32)


@every("fusion")
class TestFusion:
    def test_it_keeps_frames_and_their_times(self, build: Any, name: str) -> None:
        before, audio = film(), clip_tokens()
        fused = build("fusion", name)(before, replace(audio, values=audio.values[:2], mask=audio.mask[:2]))
        assert fused.image.frames == FRAMES
        assert torch.equal(fused.image.frame_times, before.frame_times)
        assert torch.equal(fused.image.boxes, before.boxes)
        assert fused.audio.frames == 1
        assert fused.audio.frame_times is None

    def test_frames_that_are_not_there_change_nothing(self, build: Any, name: str) -> None:
        """Neither what is heard nor the frames that are there differ from those of a film without room."""
        fusion, sound = build("fusion", name), clip_tokens()
        stir(fusion)
        one, other = (
            fusion(
                replace(t, values=t.values[:1], mask=t.mask[:1], frame_times=t.frame_times[:1]),
                replace(sound, values=sound.values[:1], mask=sound.mask[:1]),
            )
            for t in (film(), film(2))
        )
        real = 2 * GRID * GRID
        assert_close(one.image.values[:, :real], other.image.values, torch.float32)
        assert_close(one.audio.values, other.audio.values, torch.float32)
        assert len(fused_tensors(one)) == len(fused_tensors(other))
