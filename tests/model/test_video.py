"""Several frames a sample: which are shown, where their tokens lie; absent ones change nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalign.data.collate import Collator, frame_indices
from avalign.encoders.positions import patch_boxes
from avalign.errors import AvalignError
from avalign.fusion.none import NoFusion
from avalign.losses.objective import SUPPLIES
from avalign.model.model import AudioVisualLM
from avalign.projectors.linear import Linear
from avalign.projectors.pool import Pool
from avalign.report.figures import draw_answer
from avalign.types import IGNORED, Batch, Sample, Tokens
from tests.helpers import tiny
from tests.helpers.strategies import quick
from tests.helpers.tolerances import assert_close

FRAMES = 3
PATCHES = (tiny.SIZE // 8) ** 2


def film(count: int, seed: int = 0, **changes: Any) -> Sample:
    """A sample whose picture is `count` frames, half a second apart from 0.25 s on."""
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    frames = np.random.default_rng(100 + seed).integers(0, 256, shape, dtype=np.uint8)
    times = tuple(0.25 + 0.5 * k for k in range(count))
    return tiny.sample(seed, image=frames, frame_times=times, **changes)


@pytest.fixture(scope="module")
def model() -> AudioVisualLM:
    return tiny.model(frames=FRAMES)


def letters(frames: int) -> Collator:
    return replace(tiny.letters(), frames=frames)


def learnt(model: AudioVisualLM, batch: Batch, row: int = 0) -> torch.Tensor:
    """(k, vocabulary) logits that the response's tokens are learnt from."""
    with torch.no_grad():
        return model(batch).logits[row, :-1][batch.labels[row, 1:] != IGNORED]


# -- which frames are shown ----------------------------------------------------------------------------------


@quick
@given(st.integers(1, 500), st.integers(1, 64))
def test_the_middle_frame_of_each_equal_segment_is_shown(count: int, most: int) -> None:
    shown = frame_indices(count, most)
    assert len(shown) == min(count, most)
    stretch = Fraction(count, len(shown))
    for k, frame in enumerate(shown):
        assert frame <= (k + Fraction(1, 2)) * stretch < frame + 1


def test_frames_shown_by_example() -> None:
    assert frame_indices(3, 8) == [0, 1, 2]
    assert frame_indices(8, 4) == [1, 3, 5, 7]
    assert frame_indices(7, 3) == [1, 3, 5]
    assert frame_indices(10, 1) == [5]


def test_a_batch_holds_the_frames_shown_their_times_and_which_are_real() -> None:
    long, short, still, blind = film(7), film(2, 1), tiny.sample(2), film(3, 3).without(image=True)
    batch = letters(FRAMES)([long, short, still, blind])
    assert batch.image.shape == (4, FRAMES, 3)
    assert batch.has_image.tolist() == [True, True, True, False]
    mask = [[True] * 3, [True, True, False], [True, False, False], [False] * 3]
    assert batch.frame_mask.tolist() == mask
    assert batch.frame_seconds.tolist() == [[0.75, 1.75, 2.75], [0.25, 0.75, 0], [0, 0, 0], [0, 0, 0]]
    for row, frames in enumerate((long.image[[1, 3, 5]], short.image, still.image[None], long.image[:0])):
        means = np.zeros((FRAMES, 3))
        means[: len(frames)] = frames.mean((1, 2))
        np.testing.assert_allclose(batch.image[row], means)
    moved = batch.to("cpu")
    assert torch.equal(moved.frame_mask, batch.frame_mask)


def test_a_batch_without_any_image_is_shaped_like_one_with() -> None:
    batch = letters(FRAMES)([film(2).without(image=True)])
    assert batch.image.shape == (1, FRAMES, 3)
    assert not batch.image.any()
    assert not batch.frame_mask.any()


def test_a_model_of_one_frame_is_shown_the_middle_of_a_video_as_an_image() -> None:
    whole = film(5)
    batch, still = (
        tiny.letters()([s]) for s in (whole, replace(whole, image=whole.image[2], frame_times=()))
    )
    assert torch.equal(batch.image, still.image)
    assert batch.frame_mask.tolist() == still.frame_mask.tolist() == [[True]]
    assert batch.frame_seconds.tolist() == [[1.25]]
    assert still.frame_seconds.tolist() == [[0.0]]


# -- tokens --------------------------------------------------------------------------------------------------


def test_tokens_lie_frame_by_frame_each_in_its_place_at_its_time(model: AudioVisualLM) -> None:
    batch = model.collator()([film(2), film(3, 1)])
    assert model.collator().image_tokens == FRAMES * PATCHES
    with torch.no_grad():
        tokens, _, fused = model.encode(batch)
        for row, frame in ((0, 0), (0, 1), (1, 2)):
            alone = model.image_projector(model.image_encoder(batch.image[row, frame][None]))
            part = slice(frame * PATCHES, (frame + 1) * PATCHES)
            assert_close(tokens.values[row, part], alone.values[0], torch.float32)
            assert torch.equal(tokens.boxes[part], alone.boxes)
            assert (tokens.frame_times[row, part] == 0.25 + 0.5 * frame).all()
    assert tokens.mask.tolist() == [[True] * 2 * PATCHES + [False] * PATCHES, [True] * 3 * PATCHES]
    for found in (tokens, fused.image):
        assert found.frames == FRAMES
        assert found.frame_times.shape == (2, FRAMES * PATCHES)


def test_an_image_has_no_time_and_one_frame() -> None:
    model = tiny.model()
    tokens, audio, fused = model.encode(model.collator()([tiny.sample()]))
    for found in (tokens, audio, fused.image, fused.audio):
        assert found.frames == 1
        assert found.frame_times is None


def test_frames_that_are_not_there_change_nothing_and_those_that_are_do(model: AudioVisualLM) -> None:
    batch = model.collator()([film(2), film(3, 1)])
    assert batch.frame_mask.tolist() == [[True, True, False], [True, True, True]]
    noise = torch.randn(batch.image.shape)
    gone, there = (
        replace(batch, image=torch.where(mask[:, :, None, None, None], noise, batch.image))
        for mask in (~batch.frame_mask, torch.tensor([[False, True, False]] * 2))
    )
    later = replace(
        batch, frame_seconds=torch.where(batch.frame_mask, batch.frame_seconds, torch.tensor(9.0))
    )
    for row in (0, 1):
        for same in (gone, later):
            assert_close(learnt(model, same, row), learnt(model, batch, row), torch.float32)
        assert (learnt(model, there, row) - learnt(model, batch, row)).abs().max() > 1e-2


def test_room_for_more_frames_changes_nothing(model: AudioVisualLM) -> None:
    roomy = tiny.model(frames=FRAMES + 2)
    one, other = (learnt(m, m.collator()([film(2)])) for m in (model, roomy))
    assert_close(other, one, torch.float32)


def test_a_video_is_answered_the_same_alone_and_beside_images(model: AudioVisualLM) -> None:
    samples = [film(3), tiny.sample(1), film(2, 2), film(2, 3).without(image=True)]
    assert model.answer(samples) == [model.answer([sample])[0] for sample in samples]
    whole = samples[0]
    sound = (whole.audio, whole.sample_rate)
    said = model.generate(whole.image, sound, "Where is the dog?", frame_times=whole.frame_times)
    assert said == model.answer([whole])[0]


def test_the_order_of_frames_is_told_by_their_times(model: AudioVisualLM) -> None:
    """Without time, attention over frames cannot tell a film from the same film backwards."""
    batch = model.collator()([film(3)])
    swapped = replace(batch, frame_seconds=batch.frame_seconds.flip(1))
    with torch.no_grad():
        one, other = (model.encode(b)[2].audio.values for b in (batch, swapped))
    assert (one - other).abs().max() > 1e-3
    timeless = tiny.model(frames=FRAMES, fusion=NoFusion(tiny.WIDTH))
    assert_close(learnt(timeless, swapped), learnt(timeless, batch), torch.float32)


def test_a_box_belongs_to_all_frames(model: AudioVisualLM) -> None:
    batch = model.collator()([film(3)])
    share = SUPPLIES["patch_target"](model(batch, language=False), batch).view(FRAMES, PATCHES)
    still = tiny.model()
    picture = still.collator()([tiny.sample()])
    expected = SUPPLIES["patch_target"](still(picture, language=False), picture)[0]
    assert 0 < expected.sum() < PATCHES
    for frame in share:
        assert_close(frame, expected, torch.float32)


def test_a_model_of_several_frames_refuses_a_batch_without_them(model: AudioVisualLM) -> None:
    batch = replace(model.collator()([tiny.sample()]), frame_mask=None)
    with pytest.raises(AvalignError, match="a model of 3 frames was given a batch without frame_mask"):
        model(batch.to("cpu"))
    with pytest.raises(AvalignError, match="a model of 3 frames was given a batch of 1: use its collator"):
        model(tiny.model().collator()([tiny.sample()]))


# -- projectors ----------------------------------------------------------------------------------------------


def test_pooling_works_frame_by_frame() -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(2, FRAMES * 16, 5, generator=random)
    mask = torch.ones(2, FRAMES * 16, dtype=torch.bool)
    mask[0, 32:] = False
    when = torch.tensor([[0.5, 1.0, 0.0], [1.0, 2.0, 3.0]]).repeat_interleave(16, 1)
    pool = Pool(5, 7)
    assert pool.token_count(FRAMES * 16, FRAMES) == FRAMES * 4
    boxes = patch_boxes(4, 4).repeat(FRAMES, 1)
    whole = pool(Tokens(values, mask, boxes=boxes, frames=FRAMES, frame_times=when))
    assert whole.frames == FRAMES
    assert whole.frame_times.tolist() == when[:, ::4].tolist()
    for frame in range(FRAMES):
        before, after = (slice(frame * n, (frame + 1) * n) for n in (16, 4))
        alone = pool(Tokens(values[:, before], mask[:, before], boxes=patch_boxes(4, 4)))
        assert_close(whole.values[:, after], alone.values, torch.float32)
        assert torch.equal(whole.mask[:, after], alone.mask)
        assert torch.equal(whole.boxes[after], alone.boxes)


def test_pooling_says_what_it_cannot_divide() -> None:
    with pytest.raises(ValueError, match=r"square grid .* has 36 tokens in 4 frames"):
        Pool(5, 7).token_count(36, 4)  # 9 a frame
    oblong = Tokens(
        torch.zeros(1, 48, 5), torch.ones(1, 48, dtype=torch.bool), boxes=torch.rand(48, 4), frames=4
    )
    with pytest.raises(ValueError, match=r"square grid .* has 48 tokens in 4 frames"):
        Pool(5, 7)(oblong)  # 12 a frame


class Joined(Linear):
    """The mean of all real tokens: they no longer lie frame by frame."""

    joins_frames = True

    def token_count(self, n: int, frames: int = 1) -> int:
        return 1

    def forward(self, tokens: Tokens) -> Tokens:  # type: ignore[override]
        real = tokens.mask[..., None].float()
        mean = (tokens.values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        return super().forward(Tokens(mean, tokens.mask.any(1, keepdim=True)))


def test_places_for_media_are_counted_through_projectors_with_and_without_frames() -> None:
    pooled = tiny.model(frames=FRAMES, image_connector=Pool(tiny.WIDTH, 16, factor=3))
    assert pooled.collator().image_tokens == FRAMES
    joined = tiny.model(
        frames=FRAMES,
        image_projector=Joined(tiny.WIDTH, tiny.WIDTH),
        image_connector=Pool(tiny.WIDTH, 16, factor=1),  # refuses what is not a square grid a frame
    )
    assert joined.collator().image_tokens == 1
    for model in (pooled, joined):
        assert learnt(model, model.collator()([film(2)])).isfinite().all()
        assert isinstance(model.explain(film(2)).answer, str)


# -- explaining ----------------------------------------------------------------------------------------------


def test_a_video_is_explained_by_the_attention_of_all_its_frames(model: AudioVisualLM, tmp_path: Any) -> None:
    asked = film(2)
    told = model.explain(asked)
    with torch.no_grad():
        outputs = model(model.collator()([asked]), language=False)
    image_map, audio_map = outputs.fused.image_map[0], outputs.fused.audio_map[0]
    assert told.image_map.shape == (3, 3)
    assert told.image_map.sum() == pytest.approx(1, abs=1e-5)
    by_frame = image_map.mean(0).view(FRAMES, 3, 3)
    assert_close(told.image_map, by_frame[0] + by_frame[1], torch.float32)
    assert not by_frame[2].any()
    assert_close(told.audio_map, audio_map[: 2 * PATCHES].mean(0), torch.float32)
    assert draw_answer(asked, told, tmp_path / "film.png").stat().st_size > 10_000


def test_queries_without_a_place_are_not_drawn_as_an_image() -> None:
    """Four queries that stand for the whole picture are no grid of 2 x 2."""

    class Placeless(Linear):
        def forward(self, tokens: Tokens) -> Tokens:  # type: ignore[override]
            return replace(super().forward(tokens), boxes=None)

    told = tiny.model(image_projector=Placeless(tiny.WIDTH, tiny.WIDTH)).explain(tiny.sample())
    assert told.image_map is None
