"""Shards of a few records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avalign.data.shards.pack import pack as pack_shards
from tests.helpers.manifests import records, write_manifest

SIZE = 700_000  # bytes: some eight shards


def write_shards(folder: Path) -> Path:
    """A manifest of 120 records packed into a few shards."""
    pack_shards(write_manifest(folder / "manifest"), folder / "shards", size=SIZE)
    return folder / "shards"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AVALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    """Holds `manifest` and `shards`; the records of two sources, some with the sound of the very video."""
    made = [replace(r, source="abcd"[k % 2], slots={"class": "dog"}) for k, r in enumerate(records(4))]
    made[1] = replace(made[1], image=None, frame_times=(), instruction="<audio>What?")
    folder = tmp_path_factory.mktemp("packed")
    pack_shards(write_manifest(folder / "manifest", made), folder / "shards", size=SIZE)
    return folder


def opened(kind: type[Any], root: Path, seed: int = 0, **options: Any) -> Any:
    source = kind(**options)
    source.prepare(str(root), seed=seed)
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
