"""The Python of the README runs as it stands there, and its links lead somewhere."""

from __future__ import annotations

import re

from tests.helpers.paths import ROOT

README = ROOT / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """From top to bottom, as a reader would type it."""
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, "README.md has no ```python block"
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), names)


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
