"""What avalign raises when the user can put it right: where, what, the nearest known name, all names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AvalignError(Exception):
    """A mistake in a recipe, a file or a command. The command line prints it without a traceback."""


class Stopped(KeyboardInterrupt):
    """Ended by a signal, in order: what to tell of it, and the exit status that shells expect."""

    def __init__(self, number: int, told: str) -> None:
        super().__init__(told)
        self.status = 128 + number


def suggest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'hidden'? Known: depth, hidden.", to follow the sentence that says what is wrong."""
    known = sorted(set(known))
    folded = {k.casefold(): k for k in known}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    return f"{hint} Known: {', '.join(known) or '(none)'}."
