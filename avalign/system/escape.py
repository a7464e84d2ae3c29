"""Text from data, as a terminal and Markdown may be given it: it is read, and does nothing."""

from __future__ import annotations

import re
import unicodedata

# emphasis does nothing; a bracket does only where a link follows: "0.5 [0.4, 0.6]" stays as it is, and so
# does "R&B", but not "&lt;"; a heading, a quotation, a list or a fence only begins a line
_MARKS = re.compile(
    r"([\\`<|]|\](?=\s*[(\[:])|&(?=#?\w+;)|^(?:#|>|~(?=~~)|[-+*](?=\s)|[-*_](?=(?:\s*[-*_]){2})))"
)


def visible(text: str, keep: str = "") -> str:
    """Control characters (colours and cursors of a terminal among them) and those that turn the direction of
    writing, written out as "\\x1b". keep: those that stay, such as a newline."""
    return "".join(
        char if char in keep or unicodedata.category(char) not in ("Cc", "Cf", "Cs") or char in "\u200d\u200c"
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )  # fmt: skip


def markdown(text: str) -> str:
    """Text in a line, or a table's cell, of Markdown: no mark-up, no HTML, no further line."""
    return _MARKS.sub(r"\\\1", visible(re.sub(r"\s*[\r\n]\s*", " ", text)))


def code(text: str) -> str:
    """Text between back ticks, in a table too."""
    return visible(re.sub(r"\s*[\r\n]\s*", " ", text)).replace("`", "'").replace("|", "\u00a6")


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: words of a command line that are not come as halves of pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
