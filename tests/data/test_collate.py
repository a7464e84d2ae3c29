"""Samples become batches whole and in order, or are refused by id with what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalign.data.collate import SampleError, check
from avalign.types import IGNORED, Sample
from tests.helpers.strategies import quick
from tests.helpers.tiny import (
    AUDIO_ID,
    AUDIO_TOKENS,
    END_ID,
    IMAGE_ID,
    IMAGE_TOKENS,
    PAD_ID,
    RATE,
    SECONDS,
    letters,
    sample,
)

NAN, INFINITE = float("nan"), float("inf")
FILM = np.zeros((3, 8, 8, 3), np.uint8)


def sound(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# -- what is refused -----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NaN audio": ({"audio": sound(0, NAN, INFINITE)}, "audio holds 2 values that are not finite"),
    "empty audio": ({"audio": sound()}, r"audio has shape \(0,\)"),
    "stereo audio": ({"audio": np.zeros((2, 80), np.float32)}, r"audio has shape \(2, 80\)"),
    "audio in whole numbers": ({"audio": np.ones(80, np.int16)}, "audio is int16"),
    "a rate of 0": ({"sample_rate": 0}, "sample_rate is 0 Hz"),
    "a negative rate": ({"sample_rate": -8000}, "sample_rate is -8000 Hz"),
    "a float image": ({"image": np.zeros((8, 8, 3), np.float32)}, r"image is float32 \(8, 8, 3\)"),
    "a grey image": ({"image": np.zeros((8, 8), np.uint8)}, r"image is uint8 \(8, 8\)"),
    "channels first": ({"image": np.zeros((3, 8, 8), np.uint8)}, r"image is uint8 \(3, 8, 8\)"),
    "transparency": ({"image": np.zeros((8, 8, 4), np.uint8)}, r"image is uint8 \(8, 8, 4\)"),
    "an empty image": ({"image": np.zeros((0, 8, 3), np.uint8)}, r"image is uint8 \(0, 8, 3\)"),
    "five axes": ({"image": np.zeros((1, 1, 8, 8, 3), np.uint8)}, r"image is uint8 \(1, 1, 8, 8, 3\)"),
    "a film of no frames": ({"image": np.zeros((0, 8, 8, 3), np.uint8)}, r"image is uint8 \(0, 8, 8, 3\)"),
    "a film in floats": ({"image": np.zeros((2, 8, 8, 3))}, r"image is float64 \(2, 8, 8, 3\)"),
    "a film without times": ({"image": FILM}, "frame_times holds 0 times, for 3 frames"),
    "a film with a time too few": (
        {"image": FILM, "frame_times": (0.0, 1.0)},
        "frame_times holds 2 times, for 3 frames",
    ),
    "a picture with times": ({"frame_times": (0.5,)}, "frame_times holds 1 times, for no frames"),
    "times of no picture": (
        {"image": None, "frame_times": (0.5,)},
        "frame_times holds 1 times, for no frames",
    ),
    "a frame twice": (
        {"image": FILM, "frame_times": (0.0, 1.5, 1.5)},
        r"frame_times do not rise: 0, 1\.5, 1\.5 s",
    ),
    "frames backwards": (
        {"image": FILM, "frame_times": (0.0, 2.0, 1.0)},
        "frame_times do not rise: 0, 2, 1 s",
    ),
    "a frame at no time": ({"image": FILM, "frame_times": (0.0, NAN, 1.0)}, "frame_times are not all finite"),
    "a frame never seen": (
        {"image": FILM, "frame_times": (0.0, 1.0, INFINITE)},
        "frame_times are not all finite: 0, 1, inf s",
    ),
    "a box in pixels": ({"boxes": ((10, 20, 30, 40),)}, r"box \[10, 20, 30, 40\] .* not within 0\.\.1"),
    "a box left of the image": ({"boxes": ((-0.1, 0, 1, 1),)}, r"box \[-0\.1, 0, 1, 1\]"),
    "a box below the image": ({"boxes": ((0, 0, 1, 1.01),)}, r"box \[0, 0, 1, 1\.01\]"),
    "a box from right to left": (
        {"boxes": ((0.6, 0.1, 0.2, 0.9),)},
        r"box \[0\.6, 0\.1, 0\.2, 0\.9\] is empty",
    ),
    "a box from bottom to top": (
        {"boxes": ((0.1, 0.9, 0.2, 0.3),)},
        r"box \[0\.1, 0\.9, 0\.2, 0\.3\] is empty",
    ),
    "a box without height": ({"boxes": ((0.1, 0.5, 0.2, 0.5),)}, r"box \[0\.1, 0\.5, 0\.2, 0\.5\] is empty"),
    "a NaN box": ({"boxes": ((0.1, NAN, 0.2, 0.5),)}, r"box \[0\.1, nan, 0\.2, 0\.5\]"),
    "a bad box among good ones": ({"boxes": ((0, 0, 1, 1), (0, 0, 2, 1))}, r"box \[0, 0, 2, 1\]"),
    "an interval backwards": ({"intervals": ((0.6, 0.2),)}, r"interval \[0\.6, 0\.2\] is empty"),
    "an interval without length": ({"intervals": ((0.6, 0.6),)}, r"interval \[0\.6, 0\.6\] is empty"),
    "an interval before 0": ({"intervals": ((-1, 0.6),)}, r"interval \[-1, 0\.6\] .*before 0"),
    "a NaN interval": ({"intervals": ((0, NAN),)}, r"interval \[0, nan\]"),
    "an endless interval": ({"intervals": ((0, INFINITE),)}, r"interval \[0, inf\]"),
    "an image without place": ({"instruction": "<audio>What?"}, "has media for <image>.*no such placeholder"),
    "audio without place": ({"instruction": "<image>What?"}, "has media for <audio>.*no such placeholder"),
    "two places": ({"instruction": "<image><image><audio>What?"}, "instruction has more than one <image>"),
}


@pytest.mark.parametrize(("changes", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_by_sample_and_field(changes: dict[str, Any], why: str) -> None:
    bad = sample(3, **changes)
    for refuse in (
        check,
        letters().check,
        lambda s: letters()([sample(1), s]),
        lambda s: letters().prompts([s]),
    ):
        with pytest.raises(SampleError, match=f"^sample zoo/3: {why}") as caught:
            refuse(bad)
        assert caught.value.sample == "zoo/3"


def test_audio_longer_than_the_encoder_takes_is_refused_with_both_lengths() -> None:
    long = sample(3, audio=np.zeros(2 * RATE, np.float32))
    check(long)  # sound in itself
    with pytest.raises(
        SampleError, match=r"^sample zoo/3: audio lasts 2\.00 s, the audio encoder takes 0\.8 s"
    ):
        letters()([long])
    letters()([sample(3, audio=np.zeros(round(SECONDS * 48_000), np.float32), sample_rate=48_000)])
    letters()([sample(3, audio=np.zeros(round(SECONDS * RATE) + 1, np.float32))])  # a slip of rounding


def test_what_lies_on_the_edge_is_taken() -> None:
    check(sample(boxes=((0, 0, 1, 1),), intervals=((0, 0.8),), audio=sound(0.1)))
    check(sample(image=None, audio=None, instruction="What?", boxes=(), intervals=()))
    check(sample().without(image=True))  # the place stays, and is filled with masked tokens


# -- text ----------------------------------------------------------------------------------------------------

words = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<>"), max_size=12)


def silent(instruction: str, response: str) -> Sample:
    return sample(image=None, audio=None, instruction=instruction, response=response)


@quick
@given(st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=4))
def test_training_rows_are_prompt_response_and_end_then_padding(texts: list[tuple[str, str]]) -> None:
    batch = letters()([silent(*text) for text in texts])
    longest = max(len(prompt + response) + 1 for prompt, response in texts)
    assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape == (len(texts), longest)
    for row, (prompt, response) in enumerate(texts):
        answer = [*map(ord, response), END_ID]
        rest = longest - len(prompt) - len(answer)
        assert batch.input_ids[row].tolist() == [*map(ord, prompt), *answer] + [PAD_ID] * rest
        assert batch.labels[row].tolist() == [IGNORED] * len(prompt) + answer + [IGNORED] * rest
        assert batch.attention_mask[row].tolist() == [1] * (longest - rest) + [0] * rest


@quick
@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=4))
def test_prompts_are_padded_on_the_left_and_hold_no_answer(texts: list[tuple[str, str]]) -> None:
    batch = letters().prompts([silent(*text) for text in texts])
    longest = max(len(prompt) for prompt, _ in texts)
    for row, (prompt, _) in enumerate(texts):
        rest = longest - len(prompt)
        assert batch.input_ids[row].tolist() == [PAD_ID] * rest + [*map(ord, prompt)]
        assert batch.attention_mask[row].tolist() == [0] * rest + [1] * len(prompt)
    assert (batch.labels == IGNORED).all()


def test_places_are_as_wide_as_there_are_tokens_and_are_never_learnt() -> None:
    batch = letters()([sample(instruction="See <image> hear <audio>!")])
    row = batch.input_ids[0]
    assert (row == IMAGE_ID).sum() == IMAGE_TOKENS
    assert (row == AUDIO_ID).sum() == AUDIO_TOKENS
    assert row.tolist().index(IMAGE_ID) == len("See ")
    assert (batch.labels[0, row < 0] == IGNORED).all()


# -- media and truth -----------------------------------------------------------------------------------------


def test_media_stand_in_the_order_of_their_samples_and_zeros_where_there_is_none() -> None:
    whole, blind, deaf = sample(1), sample(2).without(image=True), sample(3).without(audio=True)
    short = sample(4, audio=np.full(400, 0.5, np.float32), sample_rate=1_000)
    batch = letters()([blind, whole, deaf, short])
    assert batch.has_image.tolist() == [False, True, True, True]
    assert batch.has_audio.tolist() == [True, True, False, True]
    for row, one in enumerate((blind, whole, deaf, short)):
        image = [0.0] * 3 if one.image is None else one.image.mean((0, 1))
        audio = [0.0, 0.0] if one.audio is None else [float(one.audio.std()), one.sample_rate]
        assert batch.image[row].tolist() == pytest.approx(image)
        assert batch.audio[row].tolist() == pytest.approx(audio)
    assert batch.seconds.tolist() == pytest.approx([SECONDS, SECONDS, 0.0, 0.4])
    assert len(batch) == 4


@pytest.mark.parametrize("missing", ["image", "audio"])
def test_a_batch_without_any_image_or_sound_is_shaped_like_one_with(missing: str) -> None:
    whole = letters()([sample(1), sample(2)])
    without = letters()([sample(k).without(**{missing: True}) for k in (1, 2)])
    values = getattr(without, missing)
    assert values.shape == getattr(whole, missing).shape
    assert not values.any()
    assert not getattr(without, f"has_{missing}").any()
    other = {"image": "audio", "audio": "image"}[missing]
    assert torch.equal(getattr(without, other), getattr(whole, other))


def test_a_batch_of_one_is_a_batch() -> None:
    batch = letters()([sample()])
    assert len(batch) == 1
    assert batch.image.shape == (1, 3)
    assert batch.attention_mask.all()
    moved = batch.to("cpu")
    assert torch.equal(moved.boxes, batch.boxes)


corners = (
    st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted).filter(lambda c: c[0] < c[1])
)
true_boxes = st.tuples(corners, corners).map(lambda c: (c[0][0], c[1][0], c[0][1], c[1][1]))
true_intervals = corners.map(tuple)


@quick
@given(
    st.lists(
        st.tuples(st.lists(true_boxes, max_size=3), st.lists(true_intervals, max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_every_box_and_interval_of_a_sample_is_kept_and_counted(
    rows: list[tuple[list[Any], list[Any]]],
) -> None:
    batch = letters()([sample(boxes=tuple(b), intervals=tuple(i)) for b, i in rows])
    for name, mask, size, truths in (
        (batch.boxes, batch.box_mask, 4, [b for b, _ in rows]),
        (batch.intervals, batch.interval_mask, 2, [i for _, i in rows]),
    ):
        assert name.shape == (len(rows), max(1, *map(len, truths), 0), size)
        assert mask.shape == name.shape[:2]
        for row, truth in enumerate(truths):
            assert mask[row].tolist() == [True] * len(truth) + [False] * (mask.shape[1] - len(truth))
            assert torch.equal(name[row][mask[row]], torch.tensor(truth).view(-1, size))


def test_a_class_has_the_same_number_in_every_batch() -> None:
    """A loss may compare samples of several processes, each with batches of its own."""
    first = letters()([sample(1, label="dog"), sample(2, label=None), sample(3, label="owl")]).classes
    second = letters()([sample(4, label="owl"), sample(5, label="dog")]).classes
    assert first[[2, 0]].tolist() == second.tolist()
    assert first[1] == -1
    assert first[0] != first[2]
    assert second.min() >= 0
    assert second[0] == 64770916144488486, "in every process"
