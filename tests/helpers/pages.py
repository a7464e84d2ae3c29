"""A page of HTML, read as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        assert tag != "script"
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert not (name in ("href", "src") and (value or "").startswith("javascript")), value
