"""What the tests beside each other share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avalign.data.manifest.record import Record, write
from avalign.evaluation.external import score

WHOLE, LEFT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)


def boxes(count: int = 4, **changes: Any) -> list[Record]:
    """ARIG records whose truth is the left half; no media exist."""
    return [
        Record(
            id=f"vgg_ss/-x_{k}", task="arig", split="test", source="vgg_ss", response="[dog, 0, 0, 0.5, 1]",
            image=f"{k}.jpg", audio=f"{k}.wav", boxes=(LEFT,), label="dog", **changes,
        )
        for k in range(count)
    ]  # fmt: skip


def scored(folder: Path, records: list[Record], lines: list[Any], **options: Any) -> dict[str, Any]:
    """lines: predictions as objects, or as they stand in the file"""
    folder.mkdir(exist_ok=True)
    write(records, folder / "m.jsonl")
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "p").mkdir(exist_ok=True)
    (folder / "p" / "said.jsonl").write_text("\n".join(text) + "\n")
    options = {"bootstrap": 0} | options
    return score(folder / "m.jsonl", folder / "p" / "said.jsonl", folder / "out", **options)


def said(record: Record, answer: str = "[dog, 0, 0, 0.5, 1]", **more: Any) -> dict[str, Any]:
    return {"id": record.id, "answer": answer} | more


def value(scores: dict[str, Any], metric: str, task: str = "arig") -> float | None:
    found = scores["tasks"][task]["metrics"][metric]["value"]
    return None if found is None else float(found)
