"""Docstrings as they are written: a paragraph of prose, then columns, which Markdown would undo."""

from __future__ import annotations

import inspect
from typing import Any

import griffe


class AsWritten(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **named: Any) -> None:
        if obj.docstring is None:
            return
        first, gap, rest = inspect.cleandoc(obj.docstring.value).partition("\n\n")
        obj.docstring.value = f"{first}\n\n```text\n{rest}\n```" if gap else first
