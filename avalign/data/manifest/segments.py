"""Segments of files, read where they stand; a file that was changed since it was indexed is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalign.errors import AvalignError

MOST_OPEN = 200  # files at a time, of each process

State = tuple[int, int]


def state_of(file: Path) -> State:
    """Size in bytes and time of the last change: another pair, another file."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns


class Segments:
    """Bytes of files by the file's number; a file is opened when it is first read from.

    states: what each file was when it was indexed. AvalignError names one that is another now
    """

    def __init__(self, files: Sequence[Path], states: Sequence[State]) -> None:
        self.files, self.states = list(files), list(states)
        self._opened: dict[int, int] = {}

    def read(self, file: int, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on."""
        opened = self._opened.get(file)
        if opened is None:
            opened = self._open(file)
        found = os.pread(opened, size, begin)
        if len(found) != size:
            raise AvalignError(f"{self.files[file]}: was cut short since it was opened")
        return found

    def _open(self, file: int) -> int:
        if len(self._opened) == MOST_OPEN:
            os.close(self._opened.pop(next(iter(self._opened))))
        if state_of(self.files[file]) != self.states[file]:
            raise AvalignError(f"{self.files[file]}: was changed since it was indexed")
        self._opened[file] = os.open(self.files[file], os.O_RDONLY)
        return self._opened[file]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}  # every loader process opens its own

    def __del__(self) -> None:
        for opened in self.__dict__.get("_opened", {}).values():
            os.close(opened)
