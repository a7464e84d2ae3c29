"""docs/answers.md says what is read as what; every line of it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.answers import UNITS, answer_in, read_boxes, read_intervals, read_verdict
from avalign.evaluation.tasks.avqa import said
from tests.fuzz import answer_reader
from tests.helpers.paths import DOCS

PAGE = DOCS / "answers.md"
LINE = re.compile(r"^\| `(.*)` \| (.*?) ?\| (.*) \|$")
NOT_READ = "not read"


def rows() -> list[tuple[str, str, str, str]]:
    """Kind, answer, what is given, what is read."""
    found, kind = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.split()[1]
        elif row := LINE.match(line):
            answer, given, read = (cell.replace("&#124;", "|") for cell in row.groups())
            found.append((kind, answer, given, read))
    return found


def read_as(kind: str, answer: str, given: str) -> str:
    if kind == "Boxes":
        size = re.search(r"(\d+) x (\d+)", given)
        unit = next((u for u in UNITS if u in given), "relative")
        boxes = read_boxes(answer_in(answer), unit, size and (int(size[1]), int(size[2])))
        told = [" ".join([b.label] * bool(b.label) + [f"{x:g}" for x in b.box]) for b in boxes]
    elif kind == "Intervals":
        told = [f"{start:g}-{end:g}" for start, end in read_intervals(answer_in(answer))]
    elif kind == "Verdicts":
        verdict = read_verdict(answer)
        told = [] if verdict is None else [str(verdict)]
    else:
        told = [said(answer, given.removeprefix("of ").split(", ") if given else ())]
    return ", ".join(told) or NOT_READ


def test_the_page_has_all_kinds() -> None:
    kinds = [kind for kind, *_ in rows()]
    assert {
        kind: kinds.count(kind) >= 10 for kind in ("Boxes", "Intervals", "Verdicts", "Answers")
    } == dict.fromkeys(("Boxes", "Intervals", "Verdicts", "Answers"), True)


@pytest.mark.parametrize(("kind", "answer", "given", "read"), rows())
def test_every_line_holds(kind: str, answer: str, given: str, read: str) -> None:
    assert read_as(kind, answer, given) == read


DRESSES = ("{}\n", "  {}", "The answer is: {}", "**{}**", "<think>hm</think>\n{}", "```\n{}\n```")


@pytest.mark.parametrize(("kind", "answer", "given", "read"), [row for row in rows() if row[0] != "Answers"])
def test_what_stands_around_changes_nothing(kind: str, answer: str, given: str, read: str) -> None:
    told = {dress: read_as(kind, dress.format(answer), given) for dress in DRESSES}
    assert told == dict.fromkeys(DRESSES, read)


PIECES = (
    "[", "]", "(", ")", "<box>", "</box>", "<loc0100>", "<think>", "</think>", "0.5", "12", "1:02", "%", " s",
    " px", ", ", " - ", " to ", "between ", " and ", "start", "end", "x1:", "width:", "yes", "no", "not ",
    "true", "B.", "\n", "dog", '{"bbox_2d": ', "out of 1000", "\u2013", "1e999", "-", ".", " min", " ms",
    "x, ", "not at ", "frames ", "silent ", "The claim ", "so ", "1) ", "if ", "\u0131", "(B) ", "start: 2 ",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40).map("".join))
def test_anything_can_be_said(text: str) -> None:
    answer_reader.one(text)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.timeout(5)
def test_a_long_answer_takes_no_time(piece: str) -> None:
    """No reader looks again and again at what it has passed: 30 kB of each piece."""
    answer_reader.one(piece * (30_000 // len(piece)))
