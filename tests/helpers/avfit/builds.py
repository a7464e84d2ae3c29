"""Small media roots of data sets that give records, plans over them, and builds of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalign.avfit.build.build import build
from avalign.avfit.plan import read_plan

# A data set in a file of its own: items.json as [{"id", "split", "origin", ...}]. Where the environment names
# a file KILL that holds "<folder> <pass> <item>", the build is killed when it reads that item for that time.
MADE = '''
import json, multiprocessing, os, signal
from pathlib import Path
from avalign.avfit.annotation import Problem, Reading
from avalign.data.manifest.record import Record

class Made:
    """Records as items.json lists them."""
    gives = "records"

    def __init__(self, *, suffix: str = ".wav"):
        self.suffix = suffix

    def read(self, folder):
        kill = Path(os.environ["KILL"]).read_text() if "KILL" in os.environ else "nowhere 0 0"
        folder_at, left, at = kill.split()
        if folder_at == folder.name:
            beside = Path(os.environ["KILL"] + ".beside")
            beside.write_text(f"{folder_at} {int(left) - 1} {at}")
            beside.replace(os.environ["KILL"])  # others read it meanwhile
        for number, item in enumerate(json.loads((folder / "items.json").read_text())):
            if folder_at == folder.name and int(left) == 1 and number == int(at):
                os.kill(os.getppid() if multiprocessing.parent_process() else os.getpid(), signal.SIGKILL)
                signal.pause()
            where = f"items.json, record {number + 1}"
            if "reason" in item:
                yield Reading(item["id"], where, problems=(Problem(item["reason"], item["id"]),))
                continue
            made = tuple(
                Record(
                    id=f"made/{item['id']}{'-' * k}", task=item.get("task", "arig"), split=item["split"],
                    source="made", response="[dog, 0.10, 0.20, 0.50, 0.90]", image=f"p/{item['id']}.jpg",
                    audio=f"s/{item['id']}{self.suffix}{'-' * k}", boxes=((0.1, 0.2, 0.5, 0.9),), label="dog",
                    provenance={"origins": [item.get("origin", item["id"])]},
                )
                for k in range(item.get("records", 1))
            )
            yield Reading(item["id"], where, made, (Problem("put right"),) * item.get("noted", 0))
'''


def items(count: int, split: str = "test", prefix: str = "v") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{k}", "split": split} for k in range(count)]


def write_root(folder: Path, datasets: Mapping[str, Sequence[Mapping[str, Any]]], media: bool = True) -> Path:
    """A media root with a folder for each data set: its items, and a file for each picture and sound."""
    for name, rows in datasets.items():
        (folder / name / "p").mkdir(parents=True)
        (folder / name / "s").mkdir()
        (folder / name / "items.json").write_text(json.dumps(rows))
        for row in rows if media else ():
            (folder / name / "p" / f"{row['id']}.jpg").touch()
            for k in range(row.get("records", 1)):
                (folder / name / "s" / f"{row['id']}.wav{'-' * k}").touch()
    return folder


def write_plan(folder: Path, labels: Sequence[str], **options: Mapping[str, Any]) -> Path:
    """plan.yaml over data sets of these labels, each in the folder of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.py").write_text(MADE)
    uses = {label: {"name": "./made.py:Made"} | dict(options.get(label, {})) for label in labels}
    (folder / "plan.yaml").write_text(json.dumps({"name": "small", "datasets": uses}))
    return folder / "plan.yaml"


def built(plan: Path, root: Path, out: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    """counts.json of a build that says nothing."""
    return build(
        read_plan(plan, overrides), root, out, **{"say": lambda line: None, "part_size": 20} | options
    )


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a built folder, but the empty lock."""
    files = [file for file in sorted(out.rglob("*")) if file.is_file() and file.name != "lock"]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def records(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def rejected(out: Path) -> list[dict[str, Any]]:
    lines = (out / "reports" / "rejected.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
