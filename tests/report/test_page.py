"""Templates: what is put into them stays text, and what they are not given is an error."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import avalign
from avalign.report.page import environment, render
from avalign.report.ticks import ticks
from tests.helpers.pages import Page

PACKAGE = Path(avalign.__file__).parent
TEMPLATES = sorted((PACKAGE / "report" / "templates").iterdir())
HOSTILE = "\"><script>alert(1)</script>\x1b[2J\u202e' onload=x"


def test_every_text_of_a_page_is_escaped() -> None:
    page = render("base.html", title=HOSTILE, subtitle=HOSTILE, links=[(HOSTILE, HOSTILE)])
    assert Page(page).tags == Page(render("base.html", title="a", subtitle="b", links=[("c", "d")])).tags
    assert not re.search(r"[\x1b\u202e]", page)


def test_what_a_template_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'subtitle' is undefined"):
        render("base.html", title="a", links=[])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_opens_a_way_around_escaping(template: Path) -> None:
    """Escaping does nothing for `safe`, in a script, or in an attribute without quotes."""
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    assert not re.search(r"=\{\{", text)
    assert template.suffix == ".html" or template.suffix == ".css" or "{{" not in text
    environment().get_template(template.name)  # is one


def test_html_stands_in_templates_alone() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                tag = re.search(r"<(?:div|p|table|t[dhr]|svg|h\d|span|small)\b", node.value)
                assert tag is None, (file, node.lineno)


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "found"),
    [
        (0.0, 1.0, False, [0.0, 0.5, 1.0]),
        (-3.0, 41.0, False, [0, 20, 40]),
        (2.0, 2.0, False, [2.0]),
        (0.03, 1.0, True, [0.05, 0.1, 0.2, 0.5, 1.0]),
        (1e-6, 1.0, True, [1e-6, 1e-4, 1e-2, 1.0]),
    ],
)
def test_ticks_are_few_and_round(low: float, high: float, logarithmic: bool, found: list[float]) -> None:
    assert ticks(low, high, logarithmic=logarithmic) == pytest.approx(found)
