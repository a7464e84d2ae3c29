"""What can only be told of all records together: repeated ids, leaks between splits, balance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from avalign.avfit.check.findings import Findings
from avalign.avfit.check.lines import hashed
from avalign.avfit.check.record import answer_of
from avalign.data.manifest.record import Record
from avalign.types import SPLITS, TASKS

FEWEST = 20  # records of which a share says something
TRUE_SHARE = (0.4, 0.6)


class Lines(Protocol):
    def where_row(self, row: int) -> str: ...
    def record(self, row: int) -> Record: ...


class ManifestChecks:
    """rows (n,) as check_lines.ROWS"""

    def __init__(self, lines: Lines, rows: np.ndarray, findings: Findings) -> None:
        self.lines, self.rows, self.findings = lines, rows, findings

    def repeated_ids(self) -> None:
        """Each record whose id an earlier one has; read again: hashes might be equal by chance."""
        ids = self.rows["id"]
        order = np.argsort(ids, kind="stable")
        repeats = np.flatnonzero(ids[order][1:] == ids[order][:-1])
        first = -1
        for index in repeats.tolist():
            one, two = int(order[index]), int(order[index + 1])
            if first < 0 or ids[first] != ids[one]:
                first = one
            record = self.lines.record(two)
            if self.lines.record(first).id == record.id:
                detail = f"is first used at {self.lines.where_row(first)}"
                self.findings.add("id is used twice", self.lines.where_row(two), record.id, detail)

    def leaks(
        self, names: np.ndarray, rows: np.ndarray, code: str, shown: Callable[[Record, int], str]
    ) -> None:
        """names (m,) hashes of what the records `rows` (m,) are made of, each to be in one split only."""
        if not len(names):
            return
        order = np.argsort(names, kind="stable")
        names = names[order]
        splits = self.rows["split"][rows[order]]
        starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
        several = np.flatnonzero(np.minimum.reduceat(splits, starts) != np.maximum.reduceat(splits, starts))
        ends = np.append(starts[1:], len(names))
        for group in several.tolist():
            begin, end = starts[group], ends[group]
            present, first = np.unique(splits[begin:end], return_index=True)
            held = [(int(rows[order[begin + at]]), int(names[begin])) for at in first[: len(present)]]
            self.name_leak(self.lines, self.findings, code, held, shown)

    @staticmethod
    def name_leak(
        lines: Lines,
        findings: Findings,
        code: str,
        held: list[tuple[int, int]],
        shown: Callable[[Record, int], str],
    ) -> None:
        """held: of each split a row, and the hash of what leaks"""
        records = [(lines.where_row(row), lines.record(row), name) for row, name in held]
        detail = "; ".join(f"{r.split}: {shown(r, name)} in {r.id} ({where})" for where, r, name in records)
        findings.add(code, records[0][0], records[0][1].id, detail)

    def balance(self, share: float) -> list[dict[str, Any]]:
        """Records of each task and split, and the most common class (AVQA: answer, AVFC: verdict)."""
        table = []
        for task_number, task in enumerate(TASKS):
            of_task = self.rows["task"] == task_number
            if not of_task.any():
                continue
            for split_number, split in enumerate(SPLITS):
                rows = np.flatnonzero(of_task & (self.rows["split"] == split_number))
                if len(rows):
                    table.append(self._line(task, split, rows, share))
            if not (of_task & (self.rows["split"] == SPLITS.index("test"))).any():
                detail = f"{int(of_task.sum())} records of {task}, none in test"
                self.findings.add("task without test records", f"task {task}", "", detail)
        return table

    def _line(self, task: str, split: str, rows: np.ndarray, share: float) -> dict[str, Any]:
        answers = self.rows["answer"][rows]
        answered = rows[answers != 0]
        line: dict[str, Any] = {"task": task, "split": split, "records": len(rows), "most common": None}
        if not len(answered):
            return line | {"share": None}
        values, first, counts = np.unique(answers[answers != 0], return_index=True, return_counts=True)
        best = int(counts.argmax())
        common = answer_of(self.lines.record(int(answered[first[best]])))
        part = counts[best] / len(answered)
        where = f"task {task}, split {split}"
        if task == "avfc":
            true = float(np.mean(answers == np.uint64(hashed("True"))))
            if len(rows) >= FEWEST and not TRUE_SHARE[0] <= true <= TRUE_SHARE[1]:
                detail = f"{true:.1%} of {len(rows)} records are True"
                self.findings.add("true and false out of balance", where, "", detail)
        elif len(rows) >= FEWEST and part > share:
            detail = f"{common!r:.60} is {part:.1%} of {len(answered)} (of {len(values)} classes or answers)"
            self.findings.add("one answer makes up a task", where, "", detail)
        return line | {"most common": common[:80], "share": round(float(part), 4)}
