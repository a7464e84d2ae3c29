"""Any text as an answer: it is read, or not, and what is read makes sense. By hand, for ten minutes:

    pip install atheris
    python -m tests.fuzz.answer_reader -max_total_time=600 -timeout=5 -max_len=4096 CORPUS

CORPUS is any folder; what is found interesting is kept there.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from avalign.answers import UNITS, answer_in, normalise_answer, read_boxes, read_intervals, read_verdict
from avalign.evaluation.tasks.avqa import said
from tests.helpers.paths import DOCS

PAGE = DOCS / "answers.md"


def one(text: str) -> None:
    answer_in(text)
    read_verdict(text)
    for start, end in read_intervals(text):
        assert 0 <= start < end < math.inf
    for unit in UNITS:
        for found in read_boxes(text, unit, (640, 480)):
            x0, y0, x1, y1 = found.box
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            assert found.label is None or found.label.strip()
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)
    said(text, ())
    said(text, ("cat", "dog"))


def main() -> None:
    import atheris

    corpus = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if corpus and not any(corpus[0].iterdir()):
        for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines()):
            (corpus[0] / f"seed-{number}").write_text(line, encoding="utf-8")
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: one(data.decode("utf-8", "replace")))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
