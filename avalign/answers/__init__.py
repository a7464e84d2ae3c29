"""Boxes, time intervals, verdicts and answers as text: the one writer and the one tolerant reader.

    written, always                       read, besides
    [dog, 0.12, 0.34, 0.56, 0.78]         (dog 0.12 .34 .56 .78        {"dog": 12%, 34%, 56%, 78%}
    [0.12, 0.34, 0.56, 0.78]              it is at 0.12, 0.34, 0.56, 0.78.
    [1.20, 2.64]                          from 1.2 to 2.64 s           0:01.2 - 0:02.64, 5-7 s
    True                                  Yes, it does.                FALSE             it is not false

A box is (x_left, y_top, x_right, y_bottom) in 0..1 of its image; an interval is (start, end) in seconds. The
writer is strict; the reader forgives form but never guesses meaning: what can be read in two ways is not
read. docs/answers.md is the whole table.
"""

from avalign.answers.boxes import UNITS, Box, LabelledBox, Unit, read_box, read_boxes
from avalign.answers.intervals import Interval, read_intervals
from avalign.answers.text import answer_in, normalise_answer
from avalign.answers.verdicts import read_verdict
from avalign.answers.writing import write_box, write_interval, write_verdict

__all__ = [
    "UNITS",
    "Box",
    "Interval",
    "LabelledBox",
    "Unit",
    "answer_in",
    "normalise_answer",
    "read_box",
    "read_boxes",
    "read_intervals",
    "read_verdict",
    "write_box",
    "write_interval",
    "write_verdict",
]
