"""What a build leaves in its folder for the next one: what it was made from, what is finished, and a lock.

.build/fingerprint.json   the plan, the annotation files, the media and the version it is made from
.build/done/<unit>.json   a finished unit of work: its parts, and what was counted; written last
.build/lock               held by the build that is at work here
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avalign.errors import AvalignError
from avalign.system.atomic_write import atomic_write

FOLDER = ".build"
WRITTEN = ("build.yaml", "counts.json", "reports")  # beside the parts, in the manifest's folder
PATIENCE = 5.0  # seconds for the processes of a build that was killed to end
PART = re.compile(r".+-[0-9]{5}\.(jsonl|parquet)")  # names of parts (avalign/avfit/build/parts.py)
SHOWN = 5  # differences that are named


class State:
    """The folder of a build and what is known of it."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / FOLDER

    @contextmanager
    def locked(self) -> Iterator[None]:
        """AvalignError if another build is at work in the folder, or somebody else's files lie there."""
        if self.out.is_dir() and not self.folder.is_dir() and any(self.out.iterdir()):
            raise AvalignError(f"{self.out}: holds files of something else; name a new folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a") as lock:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise AvalignError(f"{self.out}: another build is at work in it") from None
                    time.sleep(0.1)
            yield

    def begin(self, fingerprint: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether a build of this fingerprint goes on here; else everything is begun anew.

        AvalignError names what differs, unless what is there may be overwritten.
        """
        file = self.folder / "fingerprint.json"
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if earlier is not None and not overwrite:
            found = list(differences(earlier, fingerprint))
            if found:
                more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                raise AvalignError(
                    f"{self.out}: was built from something else: {'; '.join(found[:SHOWN])}{more}. "
                    "Name a new folder, or replace what is there by --overwrite"
                )
            self._remove_unfinished()
            return True
        self._clear()
        atomic_write(file, json.dumps(fingerprint, indent=1) + "\n")
        return False

    def finished(self, unit: str) -> dict[str, Any] | None:
        file = self.folder / "done" / f"{unit}.json"
        if not file.is_file():
            return None
        done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return done if all((self.out / part).is_file() for part in done["parts"]) else None

    def finish(self, unit: str, done: Mapping[str, Any]) -> None:
        atomic_write(self.folder / "done" / f"{unit}.json", json.dumps(done) + "\n")

    def _clear(self) -> None:
        """Take away what earlier builds wrote here, and nothing else."""
        for part in [file for file in self.out.iterdir() if PART.fullmatch(file.name)]:
            part.unlink()
        self._remove_unfinished()
        for path in [self.out / name for name in WRITTEN] + [
            inner for inner in self.folder.iterdir() if inner.name != "lock"
        ]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """Files that a killed process had begun (avalign/system/atomic_write.py names them so)."""
        for folder, _, names in os.walk(self.out):
            for name in names:
                if re.fullmatch(r"\..+\.[0-9a-f]{32}", name):
                    (Path(folder) / name).unlink()


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Each value in which two trees of plain mappings differ: "plan.seed is 1, was 0"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            inner = f"{path}.{key}" if path else key
            if key not in new:
                yield f"{inner} is gone"
            elif key not in old:
                yield f"{inner} is new"
            else:
                yield from differences(old[key], new[key], inner)
    elif old != new:
        yield f"{path} is {_short(new)}, was {_short(old)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
