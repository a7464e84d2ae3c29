"""Whatever a data set's files hold: each item is used or refused by name, or one AvalignError names the file.

Nothing that is made has a path that leaves the folder, a box outside 0..1, an inverted interval, or a number
that is not finite, and all of it can be written to a manifest.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign import registry
from avalign.avfit.annotation import AudioAnnotation, ImageAnnotation, Reading
from avalign.data.manifest.record import Record, from_json, to_json
from avalign.errors import AvalignError
from avalign.types import SPLITS
from tests.helpers.avfit.layouts import LAYOUTS, written

SHIPPED = sorted(registry.SHIPPED["dataset"])
MADE = {"records": Record, "images": ImageAnnotation, "recordings": AudioAnnotation}
# fmt: off
NASTY = [
    "", " ", "0", "-1", "1", "2", "1.5", "0.5", "nan", "NaN", "inf", "-Infinity", "1e400", "-2.88e16",
    "5e-324", "9" * 400, "9" * 5000, "1e-400", "0x10", "1_0", "\u0663", "true", "null", '"', '""', "'", "#",
    "../../etc/passwd", "/etc/passwd", "a\\b", "..", ".", "a/../../b", "C:\\x", "\0", "x\0y", "\n", "\r",
    "..%2f", "{clip}", "{0}", "{0.__class__}", "%s", "~", "$HOME", "\t", "\ufeff", "\u202e", "\ud800",
    "x" * 300, "x" * 1_200_000, "_" * 50, "[" * 100_000, "<a>" * 100_000, '{"a":' * 100_000, "/m/09x0r",
    "<!DOCTYPE a>", "&a;", "<!--", "<![CDATA[", "</annotation>", "<?xml version='1.0' encoding='utf-7'?>",
]
# fmt: on
ELSEWHERE = ("../../etc/passwd", "/etc/passwd", "a\\b", "\0", "\ud800", "x" * 300)
NUMBERS = [0, -1, 2, 0.5, 1e308, -2.88e16, 5e-324, 10**400, math.nan, math.inf, -math.inf]
OTHERS = [None, True, [], {}, [[]], [None], [[[0, 0, 1, 1]]], ["0", 0, 1, 1], {"x": 0}]
CELL = re.compile(rb'(?<=")[^"\n]*(?=")|(?<=>)[^<\n]*(?=<)|[^\s,"<>&]+')
Contents = dict[str, bytes | None]  # None: the file is missing


@st.composite
def broken(draw: Any, contents: Contents) -> Contents:
    """The files of a folder, one or two of them cut, overwritten, doubled or gone."""
    harmed = dict(contents)
    for _ in range(draw(st.integers(1, 2))):
        file = draw(st.sampled_from(sorted(harmed)))
        content = harmed[file] or b""
        place = draw(st.integers(0, len(content)))
        inside = draw(
            st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc3", b"\0", b'"']) | st.binary(max_size=40)
        )
        other = harmed[draw(st.sampled_from(sorted(harmed)))] or b""
        ways = [content[:place], content[:place] + inside + content[place:], content + content, inside, other]
        harmed[file] = draw(st.sampled_from([*ways, None]))
    return harmed


@st.composite
def nasty(draw: Any, contents: Contents) -> Contents:
    """The files of a folder, with up to three values replaced by what does not belong there."""
    harmed = dict(contents)
    for _ in range(draw(st.integers(1, 3))):
        file = draw(st.sampled_from(sorted(harmed)))
        content = harmed[file] or b""
        if file.endswith(".json"):
            value = draw(st.sampled_from([*NASTY, *NUMBERS, *OTHERS]))
            harmed[file] = json.dumps(draw(replaced(json.loads(content), value))).encode()
            continue
        cells = [cell.span() for cell in CELL.finditer(content)]
        start, end = draw(st.sampled_from(cells)) if cells else (0, 0)
        if draw(st.booleans()):
            start = draw(st.integers(start, end))
        value = draw(st.sampled_from(NASTY) | st.text(max_size=20))
        harmed[file] = content[:start] + value.encode("utf-8", "surrogatepass") + content[end:]
    return harmed


@st.composite
def replaced(draw: Any, node: Any, value: Any) -> Any:
    """JSON with one of its values replaced, on any level, or put before what it was, if both are texts."""
    if isinstance(node, dict | list) and node and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        copy = node.copy()
        copy[key] = draw(replaced(node[key], value))
        return copy
    both = isinstance(node, str) and isinstance(value, str)
    return value + node if both and draw(st.booleans()) else value


def test_every_data_set_is_fuzzed() -> None:
    assert set(SHIPPED) == set(LAYOUTS), "a data set needs a small folder in tests/helpers/avfit/layouts.py"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_folder_as_it_should_be_is_used(name: str, tmp_path: Path) -> None:
    """Else the harmed ones would show nothing."""
    folder = written(LAYOUTS[name], tmp_path)
    readings = list(registry.load("dataset", name)().read(folder))
    assert sum(bool(reading.made) for reading in readings) >= len(readings) / 2 > 0
    for reading in readings:
        check(reading, folder, registry.load("dataset", name).gives)


@pytest.mark.parametrize("name", SHIPPED)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_broken_files(name: str, data: st.DataObject) -> None:
    read_all(name, data.draw(broken(valid(name))))


@pytest.mark.parametrize("name", SHIPPED)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_nasty_values(name: str, data: st.DataObject) -> None:
    read_all(name, data.draw(nasty(valid(name))))


@pytest.mark.parametrize("name", SHIPPED)
def test_names_that_lead_elsewhere_in_every_cell(name: str) -> None:
    contents = valid(name)
    one_of_a_kind = {Path(file).suffix if file.endswith("xml") else file: file for file in contents}
    for file in one_of_a_kind.values():
        cells = {".xml": rb"(?<=>)[^<\s]+", ".png": rb"(?!)"}.get(Path(file).suffix, CELL)
        content = contents[file] or b""
        for cell in sorted(set(re.findall(cells, content))):
            for value in ELSEWHERE:
                quoted = json.dumps(value)[1:-1] if file.endswith(".json") else value
                there = quoted.encode("utf-8", "surrogatepass")
                added = there if value.startswith((".", "/", "a")) else cell + there
                read_all(name, contents | {file: content.replace(cell, added, 1)})


def valid(name: str) -> Contents:
    return {file: c if isinstance(c, bytes) else c.encode() for file, c in LAYOUTS[name].items()}


def read_all(name: str, contents: Contents) -> None:
    dataset = registry.load("dataset", name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        written({file: content for file, content in contents.items() if content is not None}, folder)
        try:
            for reading in dataset().read(folder):
                check(reading, folder, dataset.gives)
        except AvalignError as error:
            said = str(error)
        else:
            return
    assert said.startswith(str(folder)), f"names no file: {said}"
    assert len(said) < 1000


def check(reading: Reading[Any], folder: Path, gives: str) -> None:
    assert reading.where, "where it stands is told"
    assert reading.made or reading.problems
    for problem in reading.problems:
        assert 0 < len(problem.reason) < 60, "a few fixed words, that can be counted"
        assert len(problem.detail) < 300
    told = [reading.item, reading.where, *(text for p in reading.problems for text in (p.reason, p.detail))]
    "".join(told).encode()  # no half of a character
    for made in reading.made:
        assert isinstance(made, MADE[gives])
        assert made.id
        assert made.split in SPLITS
        if isinstance(made, Record):
            check_record(made, folder)
        elif isinstance(made, ImageAnnotation):
            check_file(made.file, folder)
            assert made.things
            assert made.origin
            for thing in made.things:
                assert thing.name
                check_box(thing.box)
        else:
            check_file(made.file, folder)
            assert made.events
            assert made.origin
            if made.start is not None:
                check_interval((made.start, made.end))
            for event in made.events:
                assert event.name
                if event.interval is not None:
                    check_interval(event.interval)


def check_record(record: Record, folder: Path) -> None:
    assert from_json(to_json(record).encode()) == record
    for file in (record.image, record.audio):
        if file is not None:
            check_file(file, folder)
    for box in record.boxes:
        check_box(box)
    for interval in record.intervals:
        check_interval(interval)
    if record.audio_end is not None:
        check_interval((record.audio_start, record.audio_end))
    assert all(math.isfinite(time) and time >= 0 for time in record.frame_times)


def check_file(file: str, folder: Path) -> None:
    assert all(0 < len(part.encode()) < 256 for part in file.split("/")), "no file can have the name"
    assert (folder / file).resolve().is_relative_to(folder.resolve())
    assert not re.search(r"\\|\0|^/|(^|/)\.\.(/|$)", file), file


def check_box(box: Any) -> None:
    assert len(box) == 4
    assert 0 <= box[0] < box[2] <= 1  # neither NaN nor infinite
    assert 0 <= box[1] < box[3] <= 1


def check_interval(interval: Any) -> None:
    assert len(interval) == 2
    assert 0 <= interval[0] < interval[1] < math.inf
