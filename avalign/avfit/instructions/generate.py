"""Asks for phrasings in batches, keeps the good ones, and says why the others are rejected."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from avalign.avfit.instructions.prompt import VERSION, prompt
from avalign.avfit.instructions.replies import ReplyCache, Writer, listed, rejection
from avalign.data.manifest.phrasings import Phrasing, PhrasingFile, read_file, shipped
from avalign.errors import AvalignError

PATIENCE = 3  # replies in a row of which nothing could be accepted, before it ends
LETTERS = 4  # a token, about: English text in the vocabularies of today's models

Tell = Callable[[str], None]


@dataclass
class Outcome:
    """What came of the asking. rejected: reason -> how many; examples: reason -> the first of them"""

    section: str
    wanted: int
    held: int  # phrasings of the section in the file, now
    new: int = 0
    requests: int = 0  # replies read, those from the cache too
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        told = [f"{self.section}: {self.held} of {self.wanted} phrasings, {self.new} of them new"]
        told += [
            f"  rejected, {reason}: {count}, such as {self.examples[reason]!r:.90}"
            for reason, count in self.rejected.most_common()
        ]
        return told


@dataclass(frozen=True)
class Estimate:
    """requests still to send, replies already cached; tokens are guessed from the letters; the next prompt"""

    requests: int
    cached: int
    tokens_in: int
    tokens_out: int
    prompt: str

    def lines(self, price_in: float | None, price_out: float | None) -> list[str]:
        """Prices are those of a million tokens."""
        if price_in is None or price_out is None:
            cost = "give --price-in and --price-out, of a million tokens each"
        else:
            cost = f"about {(self.tokens_in * price_in + self.tokens_out * price_out) / 1e6:.4f}"
        return [
            f"requests: {self.requests}, and {self.cached} replies from the cache",
            f"tokens: about {self.tokens_in:,} in, {self.tokens_out:,} out, at {LETTERS} letters each",
            f"cost: {cost}",
            "more, if phrasings are rejected; nothing was sent",
        ] + ["", "what would be sent first:", self.prompt] * bool(self.prompt)


class _Section:
    """The phrasings of one section of a file, growing, and how often each prompt was put."""

    def __init__(self, section: str, count: int, out: Path, batch: int) -> None:
        self.section, self.count, self.out, self.batch = section, count, out, batch
        self.file = read_file(out) if out.exists() else PhrasingFile({})
        self.held = list(self.file.sections.get(section, []))
        replaced = section in self.file.replaces
        self.ours = [] if replaced else [phrasing.text for phrasing in shipped().sections[section]]
        self.outcome = Outcome(section, count, len(self.held))
        self._asked: Counter[str] = Counter()

    @property
    def missing(self) -> int:
        return self.count - len(self.held)

    def next_prompt(self) -> tuple[str, int]:
        text = prompt(self.section, min(self.batch, self.missing), [p.text for p in self.held])
        self._asked[text] += 1
        return text, self._asked[text] - 1

    def take(self, reply: str, model: str, made: str) -> int:
        """Keep what is good of a reply. Returns how many."""
        outcome = self.outcome
        outcome.requests += 1
        items = listed(reply)
        if items is None:
            self._reject("reply without a JSON list", reply)
            return 0
        before = len(self.held)
        for item in items:
            if self.missing <= 0:
                self._reject("more than asked for", item)
                continue
            reason = rejection(item, self.section, [*self.ours, *(p.text for p in self.held)])
            if reason is None:
                self.held.append(Phrasing(item, {"model": model, "made": made, "prompt": VERSION}))
            else:
                self._reject(reason, item)
        outcome.held = len(self.held)
        outcome.new += len(self.held) - before
        return len(self.held) - before

    def _reject(self, reason: str, what: object) -> None:
        self.outcome.rejected[reason] += 1
        self.outcome.examples.setdefault(reason, str(what))

    def write(self) -> None:
        grown = PhrasingFile(self.file.sections | {self.section: self.held}, self.file.replaces)
        try:
            grown.write(self.out)
        except OSError as error:
            raise AvalignError(f"{self.out}: cannot be written: {error.strerror}") from error


def generate(
    section: str, count: int, out: Path, writer: Writer, *, batch: int = 10, tell: Tell = lambda line: None
) -> Outcome:
    """Let `writer` phrase a section until `out` holds `count` phrasings of it.

    The file is written after every reply, and replies are saved in the cache: a run that was killed goes on
    where it was, to the file that it would have written, and asks for nothing twice. Ends short of `count`,
    with what there is, when several replies in a row hold nothing that can be accepted.
    """
    cache, state, idle = ReplyCache(writer), _Section(section, count, out, batch), 0
    while state.missing > 0 and idle < PATIENCE:
        reply = cache.ask(*state.next_prompt())
        if state.take(reply.text, writer.model, reply.made):
            state.write()
            idle = 0
        else:
            idle += 1
        tell(f"{section}: {len(state.held)} of {count} phrasings after {state.outcome.requests} replies")
    return state.outcome


def estimate(section: str, count: int, out: Path, writer: Writer, *, batch: int = 10) -> Estimate:
    """What `generate` would still send if nothing of it were rejected. Sends and writes nothing."""
    cache, state, idle = ReplyCache(writer), _Section(section, count, out, batch), 0
    while state.missing > 0 and idle < PATIENCE:
        reply = cache.cached(*state.next_prompt())
        if reply is None:
            break
        idle = 0 if state.take(reply.text, writer.model, reply.made) else idle + 1
    first, requests, tokens_in, tokens_out = "", 0, 0, 0
    stand_ins = shipped().sections[section]
    while state.missing > 0 and idle < PATIENCE:
        wanted, (text, _) = min(batch, state.missing), state.next_prompt()
        first = first or text
        tokens_in += math.ceil(len(text) / LETTERS)
        written = [stand_ins[k % len(stand_ins)] for k in range(wanted)]
        tokens_out += math.ceil(sum(len(phrasing.text) + 6 for phrasing in written) / LETTERS)
        state.held += written
        requests += 1
    return Estimate(requests, state.outcome.requests, tokens_in, tokens_out, first)


def short(outcome: Outcome, out: Path) -> AvalignError:
    """The error of a run that ended with fewer than were wanted."""
    return AvalignError(
        f"{outcome.section}: {outcome.held} of {outcome.wanted} phrasings: the last {PATIENCE} replies held "
        f"none to accept. {f'{out} has the others' if outcome.held else f'{out} was not written'}; "
        "a larger model may do better"
    )
