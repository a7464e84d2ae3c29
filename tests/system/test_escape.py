"""Text from data is shown and does nothing: in pages, in Markdown, on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avalign.avfit.show import page_of
from avalign.avfit.show_card import card
from avalign.cli.app import app
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import from_json
from avalign.report.page import environment
from avalign.report.report import write_report
from avalign.report.tables import as_markdown
from avalign.system import markdown_table
from avalign.system.escape import code, markdown, visible
from tests.helpers.pages import Page

HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(1)>' onload=x </textarea></pre></style>"
    "| a `b` [c](javascript:alert(1)) \x1b[31m\u202e\n\n# d"
)

SCRIPT = environment().get_template("samples.js").render()


def scores(text: str) -> dict[str, Any]:
    number = {"value": 0.4, "low": 0.3, "high": 0.5}
    part = {
        **{"title": text, "headline": text, "n": 7, "test_list": text, "parse_failures": 0.1},
        **{"definitions": {text: text}, "metrics": {text: number}},
        **{"trivial": {text: {"metrics": {text: number}, "parse_failures": 0.0}}},
        **{"clear_of_trivial": False, "over_best_trivial": None},
        "groups": {"by": text, "rows": {text: {"n": 1, "metrics": {text: number}}}},
        "paper": {"title": text, "columns": [text], "rows": [[text, text]], "remarks": [text]},
    }
    given = {"count": 1, "first": [text]}
    return {
        **{"split": "test", "seed": 0, "skipped": {"count": 1, "problems": [text]}},
        "tasks": {"arig": {**part, "sources": {text: part}}},
        "bootstrap": {"resamples": 20, "level": 0.95, "method": "percentile"},
        "predictions": {
            **{"records": 9, "file": text, "partial": False, "missing": given, "unknown": given},
            **{"repeated": given, "unreadable": given, "unusable heat map": given},
        },
    }


def report(folder: Path, text: str) -> str:
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "scores.json").write_text(json.dumps(scores(text)))
    (folder / "versions.json").write_text(json.dumps({text: {text: text}, "avalign": text}))
    (folder / "recipe.yaml").write_text(f"name: {text}\n")
    term = text.replace("/", "")  # a slash makes it a part of another
    (folder / "log.jsonl").write_text(
        "".join(json.dumps({"stage": text, "step": k, term: 1.0}) + "\n" for k in range(3))
    )
    row = {"id": text, "instruction": text, "answer": text, "truth": {"response": text}, "parsed": 1}
    (folder / "eval" / "arig.jsonl").write_text(json.dumps({**row, "values": {text: 1.0}}) + "\n")
    return write_report(folder).read_text(encoding="utf-8")


def test_a_report_has_the_same_elements_whatever_the_data_say(tmp_path: Path) -> None:
    hostile, tame = report(tmp_path / "a", HOSTILE), report(tmp_path / "b", "tame")
    assert set(Page(hostile).tags) == set(Page(tame).tags)  # curves leave out labels that are too long
    assert "\x1b" not in hostile
    assert "\u202e" not in hostile


def test_so_has_the_page_of_samples(tmp_path: Path) -> None:
    def page(text: str) -> str:
        line = {
            **{"id": text, "task": "avqa", "source": text, "split": "test", "version": 1},
            **{"instruction": text, "response": text, "references": [text], "label": text, "kind": text},
            "provenance": json.dumps({text: text}),
        }
        record = from_json(json.dumps(line).encode())
        before, script, after = page_of([card(record, Path, 1.0, Phrasings(tmp_path))], text, text).partition(
            f"<script>\n{SCRIPT}</script>\n"
        )
        assert script  # the page's own, the same whatever the data say
        return before + after

    more = set(Page(page(HOSTILE)).tags) - set(Page(page("tame")).tags)
    assert more <= {("mark", ("class",))}  # what looks like an open <slot> is marked as one


def test_markdown_keeps_its_lines_and_columns() -> None:
    def shape(text: str) -> list[int]:
        lines = as_markdown(scores(text)).splitlines()
        return [line.replace("\\|", "").count("|") for line in lines]

    assert shape(HOSTILE) == shape("tame")
    said = as_markdown(scores(HOSTILE))
    assert "<script" not in said.replace("\\<", "")
    assert "](" not in said.replace("\\](", "")
    assert "\x1b" not in said
    assert markdown_table.row([HOSTILE]).replace("\\|", "").count("|") == 2
    assert markdown("0.512 [0.480, 0.545] without_audio") == "0.512 [0.480, 0.545] without_audio"
    assert "`" not in code(HOSTILE)
    assert "\n" not in code(HOSTILE)


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202eabc", "a\rb", "\x07"])
def test_a_terminal_is_told_no_control_characters(text: str, tmp_path: Path) -> None:
    assert all(char.isprintable() for char in visible(text))
    assert visible("Käse 猫 👩\u200d🔬\n", keep="\n") == "Käse 猫 👩\u200d🔬\n"
    said = CliRunner().invoke(app, ["check", str(tmp_path / f"{text}.yaml")]).output
    assert text not in said
    assert "no such file" in said
