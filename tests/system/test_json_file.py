"""A JSON file is read whole or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from avalign.errors import AvalignError
from avalign.system.json_file import json_if_there, read_json, read_line


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


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"id": "a", "id": "b"}', "says 'id' twice"),
        ('{"a": {"b": 1, "b": 1}}', "says 'b' twice"),
        ('{"a": "\\ud800"}', "holds half of a surrogate pair, which is no text"),
        ("[1]", "is not a JSON object but a list"),
        ('{"a": ' + "[" * 100_000, "is nested too deeply"),
        (b'{"a": "\xff"}', "is not UTF-8 text: byte 7 cannot be read"),
        ('{"a": ', "is not JSON: "),
    ],
)
def test_a_line_that_is_no_object_of_texts_says_why(line: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        read_line(line)


def test_a_line_is_read_as_it_is_written() -> None:
    assert read_line(b'{"a": "\\ud83d\\ude00", "b": {"a": 1}}') == {"a": "\U0001f600", "b": {"a": 1}}
