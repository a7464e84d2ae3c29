"""Every tutorial runs as it stands there, from top to bottom in an empty folder, as a reader would type it.

```python, ```bash           are run; of bash, each line is a command of avalign
```python title="my_loss.py" a file is written
```py, ```sh, ```yaml        are shown
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from tests.helpers.paths import DOCS

PAGES = sorted((DOCS / "tutorials").glob("*.md"))
FENCE = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    file: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], m[3], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def commands(text: str) -> list[list[str]]:
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    for block in blocks(page):
        place = f"{page.name}:{block.line}"
        if block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
            ran += 1
        elif block.language == "bash":
            for program, *words in commands(block.text):
                assert program == "avalign", place
                result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
                assert result.exit_code == 0, f"{place}: {result.output}{result.exception!r}"
                ran += 1
    assert ran, "nothing in it is run"


def test_every_page_is_in_the_navigation_and_every_fence_says_its_language() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}" in navigation
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks(page)), f"{page.name}: a fence is not closed"
