"""A JSON file is read whole or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.errors import AvalignError
from avalign.json_file import json_if_there, read_json


def test_what_stands_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff{"a": [1, null]}', encoding="utf-8")  # with a byte order mark
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}
    assert json_if_there(tmp_path / "a.json") == {"a": [1, None]}
    assert json_if_there(tmp_path / "b.json") is None


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, dict, "no such file"),
        (b"", dict, "is not JSON"),
        (b'{"a": 1', dict, "is not JSON"),
        (b"[" * 100_000, list, "is not JSON"),
        (b'{"a": "\xff"}', dict, "is not UTF-8 text: byte 7"),
        (b"[]", dict, "holds a list, not a dict"),
        (b"{}", list, "holds a dict, not a list"),
    ],
)
def test_anything_else_is_refused_by_name(
    tmp_path: Path, content: bytes | None, kind: type, said: str
) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AvalignError, match=rf"a\.json: {said}"):
        read_json(tmp_path / "a.json", kind)
