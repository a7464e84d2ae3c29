"""What an answer is, without what is said around it; its numbers; the form in which answers are compared."""

from __future__ import annotations

import re
import unicodedata

NUMBER = r"(?<![\w.])(?<!\d:)[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"  # as boxes and times are written
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[a-z]*\n?|\*\*|__", re.IGNORECASE)
_STATED = re.compile(
    r"^\s*(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)?"
    r"(?:answer|option|choice)(?:\s+(?:is|would be)\b\s*:?|\s*[:=])\s*",
    re.IGNORECASE,
)


def answer_in(text: str) -> str:
    """The answer without what was thought before it, marks of Markdown, and "The answer is".

    Of a thought that was not ended there is no answer.
    """
    for mark in _THOUGHT.finditer(text):
        closed, behind = bool(mark.group(1)), mark.end()
    if _THOUGHT.search(text):
        text = text[behind:] if closed else ""
    return _STATED.sub("", _FENCE.sub("", text)).strip()


_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)


def normalise_answer(text: str, *, articles: bool = False) -> str:
    """The one form in which answers are compared: "The Two dogs!" -> "2 dogs".

    Unicode NFKC, lower case; everything that is no letter or digit becomes a space, but apostrophes go and a
    decimal point between digits stays; a, an, the are dropped; zero..twenty become digits; single spaces.

    articles: keep a, an and the
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"['\u2019]", "", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]|_", " ", text)
    words = (word for word in text.split() if articles or word not in ("a", "an", "the"))
    return " ".join(str(_NUMBER_WORDS.index(w)) if w in _NUMBER_WORDS else w for w in words)
