"""docs/media.md names the tests that hold what it says, and they are there."""

from __future__ import annotations

import re

from tests.helpers.paths import DOCS, ROOT

PAGE = DOCS / "media.md"
NAMED = re.compile(r"`(\w+/test_\w+)::(test_\w+)`")


def test_every_statement_is_held_by_a_test_that_exists() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.endswith("| Held by |")]
    assert len(rows) > 30
    held = 0
    for row in rows:
        named = NAMED.findall(row)
        assert named or row.endswith("| the same |"), row
        for file, test in named:
            assert f"\ndef {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), row
        held += len(named)
    assert held > len(rows)
