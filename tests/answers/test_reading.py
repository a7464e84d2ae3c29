"""Boxes, intervals, verdicts and answers as text: what is written is read back, and nothing is guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from avalign.answers import (
    LabelledBox,
    normalise_answer,
    read_box,
    read_boxes,
    read_intervals,
    read_verdict,
    write_box,
    write_interval,
    write_verdict,
)

sides = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda s: s[0] != s[1]).map(sorted)
boxes = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), sides, sides)
intervals = st.tuples(st.floats(0, 600), st.floats(0, 600)).filter(lambda s: s[0] < s[1])
letters = "abcdefghijklmnopqrstuvwxyzÄéЖ"
labels = (
    st.text(letters + " -'(,.0123456789", max_size=20).map(lambda s: f"x{s}y").filter(lambda s: "(" not in s)
)


@given(st.lists(st.tuples(boxes, st.none() | labels), min_size=1, max_size=3), st.integers(1, 4))
@example([((0.5, 0.0, 0.5000000001, 1e-300), None)], 2)
@example([((0.0, 0.0, 1.0, 1.0), "route 66")], 2)
def test_boxes_are_read_back_to_the_last_decimal_written(drawn, decimals):
    try:
        text = "Heard at " + " and ".join(write_box(b, label, decimals=decimals) for b, label in drawn) + "."
    except ValueError as refused:
        assume("label" not in str(refused))  # some labels drawn hold rows of numbers
        raise
    read = read_boxes(text)
    assert [found.label for found in read] == [label for _, label in drawn]
    for found, (box, _) in zip(read, drawn, strict=True):
        assert not found.repaired
        assert found.box[0] < found.box[2]
        assert found.box[1] < found.box[3]
        step = 10.0**-decimals
        for low in (0, 1):  # half a step off, a whole one where a closed side was opened
            widened = found.box[low + 2] - found.box[low] <= step * 2.001
            assert abs(found.box[low] - box[low]) <= step * (1 if widened else 0.5) + 1e-12
            assert abs(found.box[low + 2] - box[low + 2]) <= step * (1 if widened else 0.5) + 1e-12


@given(st.lists(intervals, min_size=1, max_size=4), st.integers(0, 3))
def test_intervals_are_read_back_to_the_last_decimal_written(drawn, decimals):
    read = read_intervals("It sounds " + ", ".join(write_interval(i, decimals=decimals) for i in drawn))
    assert len(read) == len(drawn)
    for (start, end), (true_start, true_end) in zip(read, drawn, strict=True):
        assert start < end
        assert abs(start - true_start) <= 10.0**-decimals
        assert abs(end - true_end) <= 10.0**-decimals


@given(st.booleans())
def test_verdicts_are_read_back(verdict):
    assert read_verdict(write_verdict(verdict)) is verdict


def test_as_written():
    assert write_box((0.12, 0.34, 0.56, 0.78), "dog") == "[dog, 0.12, 0.34, 0.56, 0.78]"
    assert write_box((-0.0, 0, 1, 1)) == "[0.00, 0.00, 1.00, 1.00]"
    assert write_box((0.501, 0.2, 0.502, 0.3), decimals=1) == "[0.5, 0.2, 0.6, 0.3]"
    assert write_interval((1.2, 2.64)) == "[1.20, 2.64]"


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((0.5, 0.1, 0.4, 0.2), "inverted"),
        ((0.1, 0.2, 0.3, 0.2), "empty"),
        ((0.1, 0.1, 1.1, 0.2), "outside"),
        ((-0.1, 0.1, 0.5, 0.2), "outside"),
        ((0.1, math.nan, 0.5, 0.2), "finite"),
        ((0.1, 0.5, 0.2), "3 numbers"),
    ],
)
def test_what_is_no_box_is_not_written_and_is_named(box, why):
    with pytest.raises(ValueError, match=why) as refused:
        write_box(box)
    assert f"box [{box[0]:g}, {box[1]:g}" in str(refused.value)


@pytest.mark.parametrize("interval", [(2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (1.0, 2.0, 3.0)])
def test_what_is_no_interval_is_not_written_and_is_named(interval):
    with pytest.raises(ValueError, match=rf"interval \[{interval[0]:g}, {interval[1]:g}"):
        write_interval(interval)


@pytest.mark.parametrize("label", ["", "12", "dog ", "a [b]", "a\nb", "'dog'", "dog 0 0 1 1 cat"])
def test_a_label_that_would_not_be_read_back_is_not_written(label):
    with pytest.raises(ValueError, match="label"):
        write_box((0.1, 0.2, 0.3, 0.4), label)


BOX = (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("[0.1,0.2,0.3,0.4]", None),
        ("[.1 .2 .3 .4", None),
        ("It is at 0.10, 0.20, 0.30, 0.40.", None),
        ("[dog,.1,.2,.3,.4] barks 2 times", "dog"),
        ("(dog 0.1 0.2 0.3 0.4)", "dog"),
        ('["big dog": 0.1; 0.2; 0.3; 0.4', "big dog"),
        ("{dog, 10%, 20 %, 30%, 40%}", "dog"),
        ("<'dog' | 1e-1, 2E-1, 0.3, +0.4>", "dog"),
        ("[route 66, 0.1, 0.2, 0.3, 0.4]", "route 66"),
        ("the dog (3 years old) [0.1, 0.2, 0.3, 0.4]", None),
        ("[dog, (0.1, 0.2), (0.3, 0.4)]", "dog"),
        ("((0.1, 0.2) - (0.3, 0.4))", None),
    ],
)
def test_a_box_in_another_dress(text, label):
    assert read_boxes(text) == [LabelledBox(pytest.approx(BOX), label)]


def test_repairs_are_made_and_flagged():
    assert read_box("[0.3, 0.4, 0.1, 0.2]") == LabelledBox(BOX, repaired=True)
    assert read_box("[-0.05, 0.2, 1.3, 0.4]") == LabelledBox((0.0, 0.2, 1.0, 0.4), repaired=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "[0.1, 0.2, 0.3]",
        "[0.1, 0.2, 0.3, 0.4, 0.5]",
        "[12, 34, 56, 78]",  # pixels
        "[0.1, 0.2, 0.1, 0.4]",
        "[1.2, 0.1, 1.4, 0.9]",  # nothing left inside the image
        "[0.1.2, 0.2, 0.3, 0.4]",
        "[nan, nan, nan, nan]",
        "[1e999, 0.2, 0.3, 0.4]",
        "[0.1, 0.2] dog [0.3, 0.4]",
    ],
)
def test_what_is_no_box_is_not_read(text):
    assert read_box(text) is None


def test_boxes_and_intervals_in_one_instruction_keep_apart():
    text = "Does the object in [0.1, 0.2, 0.3, 0.4] sound in [1.20, 2.64]? And [dog, 0, 0, 1, 1] in [0, 1]?"
    assert [found.box for found in read_boxes(text)] == [BOX, (0, 0, 1, 1)]
    assert read_intervals(text) == [(1.2, 2.64), (0, 1)]


@pytest.mark.parametrize(
    "text",
    ["(1.2 2.64", "from 1.2 to 2.64 s", "1.2-2.64s", "1.20s \u2013 2.64 seconds.",
     "between 1.2 sec and 2.64 sec", "[2.64, 1.2]", "[dog, 1.2, 2.64]", "It starts at 1.2 until 2.64"],
)  # fmt: skip
def test_an_interval_in_another_dress(text):
    assert read_intervals(text) == [(1.2, 2.64)]


@pytest.mark.parametrize(
    "text", ["", "1.2", "[1, 2, 3]", "1:2 - 1:3", "10% to 20%", "[2, 2]", "[-3, -1]", "1x, 2x"]
)
def test_what_is_no_interval_is_not_read(text):
    assert read_intervals(text) == []


def test_numbered_lines_are_read_without_their_numbers():
    for lines in ("1) 2 - 4\n2) 6 - 8", "1. 2 - 4\n2. 6 - 8", "(1) [2, 4]\n(2) [6, 8]"):
        assert read_intervals(lines) == [(2, 4), (6, 8)]


def test_times_before_the_clip_are_clipped():
    assert read_intervals("[-0.5, 2]") == [(0.0, 2.0)]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("True", True),
        ("  yes.", True),
        ("YES, it does!", True),
        ("'False'", False),
        ("No, the dog is silent.", False),
        ("It is not true", False),
        ("that isn't false", True),
        ("True, yes", True),
        ("True or False", None),
        ("yes and no", None),
        ("", None),
        ("I know nothing; untrue yesterday", None),
    ],
)
def test_verdicts(text, verdict):
    assert read_verdict(text) is verdict


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Two dogs!", "2 dogs"),
        ("A cat's", "cats"),
        ("left-hand side.", "left hand side"),
        ("1.5", "1.5"),
        ("the", ""),
        ("\uff39es", "yes"),
        ("twenty", "20"),
    ],
)
def test_answers_have_one_form(text, normal):
    assert normalise_answer(text) == normal


@given(st.text(max_size=30))
def test_the_form_of_an_answer_is_final(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once


@given(st.text("[](){}<>0123456789.,;:-+eE% sadnto\n", max_size=60))
def test_any_text_can_be_read(text):
    for found in read_boxes(text):
        assert 0 <= found.box[0] < found.box[2] <= 1
        assert 0 <= found.box[1] < found.box[3] <= 1
    for start, end in read_intervals(text):
        assert 0 <= start < end < math.inf
