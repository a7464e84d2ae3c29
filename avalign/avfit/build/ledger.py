"""What became of the items of a data set: used, or refused for a reason that is counted and written down.

    items read = items used + items refused
    records (images, recordings) made = kept + refused

An item may make several records; it is refused when none of them is accepted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from avalign.avfit.annotation import Problem, Reading
from avalign.system.atomic_write import unfinished

SHOWN = 3  # first items of each reason, to be printed


@dataclass
class Account:
    """reasons: why items and records were refused; noted: what was put right in those that were used"""

    items: dict[str, int] = field(default_factory=lambda: {"read": 0, "used": 0, "refused": 0})
    made: dict[str, int] = field(default_factory=lambda: {"made": 0, "kept": 0, "refused": 0})
    reasons: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Ledger:
    """Writes what is refused and noted, one JSON object a line, and counts it."""

    def __init__(self, label: str, rejected: TextIO, noted: TextIO) -> None:
        self.label, self.rejected, self.noted = label, rejected, noted
        self.account = Account()
        self._reasons: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()

    def enter(
        self, reading: Reading[Any], refused: Sequence[tuple[Any, Problem]], noted: Sequence[Problem] = ()
    ) -> None:
        """An item; which of what it made was refused after all, and why; what is to be noted of the rest."""
        account = self.account
        accepted = len(reading.made) - len(refused)
        account.items["read"] += 1
        account.items["used" if accepted else "refused"] += 1
        account.made["made"] += len(reading.made)
        account.made["kept"] += accepted
        account.made["refused"] += len(refused)
        if not reading.made:
            first, *others = reading.problems
            more = [f"{p.reason}: {p.detail}" if p.detail else p.reason for p in others]
            self._refuse(reading, Problem(first.reason, "; ".join(filter(None, [first.detail, *more]))))
            return
        for problem in (*reading.problems, *noted):
            self._noted[problem.reason] += 1
            self._write(self.noted, reading, problem)
        for thing, problem in refused if accepted else ():
            self._refuse(reading, problem, made=thing.id)
        if not accepted:
            self._refuse(reading, refused[0][1])

    def close(self) -> Account:
        self.account.reasons = dict(sorted(self._reasons.items()))
        self.account.noted = dict(sorted(self._noted.items()))
        return self.account

    def _refuse(self, reading: Reading[Any], problem: Problem, **more: str) -> None:
        self._write(self.rejected, reading, problem, **more)
        self._reasons[problem.reason] += 1
        first = self.account.first.setdefault(problem.reason, [])
        if len(first) < SHOWN:
            detail = f": {problem.detail}" if problem.detail else ""
            first.append(f"{reading.item} ({reading.where}){detail}")

    def _write(self, to: TextIO, reading: Reading[Any], problem: Problem, **more: str) -> None:
        row = {"dataset": self.label, "item": reading.item, "where": reading.where, **more}
        to.write(json.dumps(row | {"reason": problem.reason, "detail": problem.detail}) + "\n")


@contextmanager
def opened_ledger(label: str, folder: Path) -> Iterator[Ledger]:
    """One whose files, rejected and noted, stand in the folder when all went well."""
    with (
        unfinished(folder / f"{label}.rejected.jsonl") as one,
        unfinished(folder / f"{label}.noted.jsonl") as two,
        open(one, "w", encoding="utf-8") as rejected,
        open(two, "w", encoding="utf-8") as noted,
    ):
        yield Ledger(label, rejected, noted)
        rejected.flush()
        noted.flush()
