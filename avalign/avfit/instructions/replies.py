"""Replies of a language model: saved on disk, read as lists of phrasings, each checked by the rules."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from avalign.data.manifest.phrasing_rules import TOKENS, faults, wording
from avalign.system.atomic_write import atomic_write
from avalign.system.cache import cache_folder, saving
from avalign.system.json_file import json_if_there

NEAR = 0.85  # share of the words, in their order, from which on two phrasings are nearly the same
OPENINGS = 100  # brackets of a reply at which a list may begin; a model that rambles has thousands
_COMMON = """
a an and are as at be by can do does for from has have here how i in is it its of on or that the there this to
what when where whether which who whose with you your
"""
_ENGLISH = frozenset(_COMMON.split())


class Writer(Protocol):
    """A language model that writes phrasings. model: its name; variant: what else tells its replies apart."""

    model: str
    variant: str

    def ask(self, prompt: str, number: int) -> str:
        """The reply to a prompt; `number` counts how often the same was asked before."""
        ...


@dataclass(frozen=True)
class Reply:
    """made: the day on which it was written"""

    text: str
    made: str


class ReplyCache:
    """A writer whose replies are saved in the cache: what was asked once costs nothing again."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def file(self, prompt: str, number: int) -> Path:
        key = json.dumps([prompt, self.writer.model, self.writer.variant, number])
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return cache_folder() / "instructions" / f"{name}.json"

    def cached(self, prompt: str, number: int) -> Reply | None:
        found = json_if_there(self.file(prompt, number))
        return None if found is None else Reply(str(found["reply"]), str(found["made"]))

    def ask(self, prompt: str, number: int) -> Reply:
        found = self.cached(prompt, number)
        if found is None:
            found = Reply(self.writer.ask(prompt, number), date.today().isoformat())
            told = {"model": self.writer.model, "made": found.made, "prompt": prompt, "reply": found.text}
            path = self.file(prompt, number)
            with saving(path):
                atomic_write(path, json.dumps(told, ensure_ascii=False))
        return found


def listed(reply: str) -> list[Any] | None:
    """The JSON list that a reply holds, whatever stands around it: code fences, an object, a preamble."""
    decoder = json.JSONDecoder()
    for opening in islice(re.finditer(r"\[", reply), OPENINGS):
        try:
            found, _ = decoder.raw_decode(reply, opening.start())
        except (ValueError, RecursionError):
            continue
        if found and any(isinstance(item, str) for item in found):
            return list(found)
    return None


def rejection(item: Any, section: str, taken: Sequence[str]) -> str | None:
    """Why an item of a reply is rejected, in a few fixed words; None if it is good. taken: those there are"""
    if not isinstance(item, str):
        return "not a text"
    for reason, _ in faults(item, section):
        return reason
    words = re.findall(r"[^\W\d_]+", re.sub("|".join(TOKENS), " ", item.lower()))
    if sum(word in _ENGLISH for word in words) < max(1, len(words) // 6):
        return "not English"
    said = wording(item)
    if said in map(wording, taken):
        return "repeated"
    if any(SequenceMatcher(None, said.split(), wording(t).split()).ratio() >= NEAR for t in taken):
        return "nearly repeated"
    return None
