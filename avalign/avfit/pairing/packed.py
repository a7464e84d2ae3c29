"""Many strings, and many lists of numbers, each in two arrays; arrays in a folder, mapped and not read."""

from __future__ import annotations

import json
import shutil
import uuid
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avalign.errors import AvalignError

HEAD = "pool.json"
Arrays = dict[str, np.ndarray]


class Strings:
    """Strings one after the other as UTF-8, and where each ends."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self.content, self.ends = content.data, ends.data

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> str:
        return str(self.content[self.ends[number] : self.ends[number + 1]], "utf-8")


class StringsMade:
    """Strings while they are gathered."""

    def __init__(self) -> None:
        self.content, self.ends = bytearray(), array("Q", [0])

    def add(self, text: str) -> None:
        self.content += text.encode()
        self.ends.append(len(self.content))

    def arrays(self, name: str) -> Arrays:
        size = np.uint32 if len(self.content) < 2**32 else np.uint64
        return {
            name: np.frombuffer(self.content, np.uint8),
            f"{name}_ends": np.frombuffer(self.ends, np.uint64).astype(size),
        }


class Lists:
    """`count` lists of whole numbers, each in the order in which its numbers were given."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self.content, self.ends = content.data, ends.data

    def __getitem__(self, number: int) -> memoryview:
        return self.content[self.ends[number] : self.ends[number + 1]]


class ListsMade:
    """Lists while they are gathered, in any order."""

    def __init__(self) -> None:
        self.keys, self.values = array("i"), array("i")

    def add(self, key: int, value: int) -> None:
        self.keys.append(key)
        self.values.append(value)

    def arrays(self, name: str, count: int) -> Arrays:
        keys = np.frombuffer(self.keys, np.int32)
        order = np.argsort(keys, kind="stable")
        ends = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=count), out=ends[1:])
        return {name: np.frombuffer(self.values, np.int32)[order], f"{name}_ends": ends}


def save(arrays: Mapping[str, np.ndarray], head: Mapping[str, Any], folder: Path) -> None:
    """All arrays and what is to be known of them, in a folder that is complete or not there at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        beside.mkdir()
        for name, values in arrays.items():
            np.save(beside / f"{name}.npy", values, allow_pickle=False)
        (beside / HEAD).write_text(json.dumps(head, ensure_ascii=False), encoding="utf-8")
        if (folder / HEAD).is_file():  # a pool of before; nothing else is ever removed
            shutil.rmtree(folder)
        beside.rename(folder)
    except OSError as error:
        raise AvalignError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def opened(folder: Path, names: Iterable[str]) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of these names, mapped from the disk, and what was to be known of them."""
    try:
        head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        found = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    except OSError as error:
        raise AvalignError(
            f"{folder}: cannot be read as a pool: {error.strerror}: {error.filename}"
        ) from error
    except (ValueError, EOFError) as error:
        raise AvalignError(f"{folder}: is no pool, or a broken one: {error}") from error
    return {name: np.asarray(values) for name, values in found.items()}, head
