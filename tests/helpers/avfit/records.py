"""A few records."""

from __future__ import annotations

from avalign.answers import write_box
from avalign.data.manifest.record import Record

BOX = (0.1, 0.2, 0.5, 0.9)


RECORDS = [
    Record(
        "a",
        "arig",
        "train",
        "made",
        write_box(BOX, "dog"),
        slots={"class": "dog"},
        image="a.jpg",
        boxes=(BOX,),
    ),
    Record(
        "b",
        "avfc",
        "test",
        "made",
        "True",
        slots={"class": "cat", "box": list(BOX)},
        kind="type1",
        label="cat",
    ),
    Record(
        "c",
        "avfc",
        "test",
        "made",
        "False",
        slots={"time": [0.5, 1.25]},
        kind="type2",
        provenance={"origins": ["x"]},
    ),
    Record(
        "d",
        "igatl",
        "val",
        "other",
        "[0.50, 1.25]",
        intervals=((0.5, 1.25), (3.0, 9.0)),
        audio="a.wav",
        audio_start=1.0,
    ),
    Record(
        "e",
        "avcap",
        "train",
        "made",
        "ein Hund ä",
        references=("a dog",),
        image="a.mp4",
        frame_times=(0.5, 1.5),
    ),
    Record(
        "f",
        "arig",
        "test",
        "made",
        write_box(BOX),
        boxes=(BOX, (0.0, 0.0, 1.0, 1.0)),
        consensus=2,
        label="dog",
    ),
]
