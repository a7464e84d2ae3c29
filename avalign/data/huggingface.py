"""Manifests and shards in Hugging Face `datasets`: their records, and the schema that all of them have.

    from datasets import load_dataset
    from avalign.data.huggingface import load_records, record_features, shard_features, stream_records

    load_records("avfit")       # a Dataset of a manifest's folder or file
    stream_records("avfit")     # the same as an IterableDataset, nothing of which is kept
    load_dataset("parquet", data_files="avfit/*.parquet", features=record_features())
    load_dataset("webdataset", data_files={"train": "shards/train-*.tar"}, features=shard_features("shards"))

Not `load_dataset("json", ...)`: it guesses what each column is before it looks at `features`. A file whose
ids all look like dates comes back with "2024-01-02 00:00:00" for "2024-01-02": no schema can undo that.

Without `features` the schema is guessed from the first lines, and lines that hold another field later on are
refused: a record leaves out what it does not need. `provenance` is JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avalign.data.manifest.record import FIELDS
from avalign.data.manifest.segments import state_of
from avalign.data.manifest.table import Table, as_lines, files_of
from avalign.data.shards.tars import read_list
from avalign.errors import AvalignError

SLOTS = ("class", "box", "time", "question")


def load_records(manifest: str | Path, *, cache_dir: str | Path | None = None) -> Any:
    """datasets.Dataset of a manifest's records, every text as written. AvalignError names a wrong line."""
    from datasets import Dataset

    cache = None if cache_dir is None else str(cache_dir)
    return Dataset.from_generator(
        _rows, record_features(), cache_dir=cache, gen_kwargs={"files": _checked(manifest)}
    )


def stream_records(manifest: str | Path) -> Any:
    """As `load_records`, an IterableDataset: a shard a file."""
    from datasets import IterableDataset

    return IterableDataset.from_generator(_rows, record_features(), gen_kwargs={"files": _checked(manifest)})


def _checked(manifest: str | Path) -> list[tuple[str, int, int]]:
    """The files, all of records, and what each was: by that `datasets` knows what it keeps of them."""
    Table(Path(manifest))
    return [(str(file), *state_of(file)) for file in files_of(Path(manifest))]


def _rows(files: list[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    """Each record with a value for every column."""
    for name, *_ in files:
        with open(as_lines(Path(name)), "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                row = json.loads(line)
                slots = row.get("slots") or {}
                if not slots.keys() <= set(SLOTS):
                    raise AvalignError(f"{name}:{number}: has a slot that is none of {', '.join(SLOTS)}")
                yield dict.fromkeys(FIELDS) | row | {"slots": dict.fromkeys(SLOTS) | slots}


def record_features() -> Any:
    """datasets.Features with a column for each field of a Record; None or empty where a record has none."""
    from datasets import Features, List, Value

    numbers = List(Value("float64"))
    other = {
        "version": Value("int64"),
        "consensus": Value("int64"),
        "audio_start": Value("float64"),
        "audio_end": Value("float64"),
        "frame_times": numbers,
        "references": List(Value("string")),
        "boxes": List(numbers),
        "intervals": List(numbers),
        "slots": {"class": Value("string"), "box": numbers, "time": numbers, "question": Value("string")},
    }
    return Features({name: other.get(name, Value("string")) for name in FIELDS})


def shard_features(folder: str | Path) -> Any:
    """datasets.Features of a folder of shards: the record as `json`, and every kind of media file as bytes.

    A media column is None for the records that have another kind: image.jpg, where the image is a .png.
    """
    from datasets import Features, Value

    media = {name: Value("binary") for name in read_list(Path(folder))["files"]}
    strings = {"__key__": Value("string"), "__url__": Value("string")}
    return Features({**strings, "json": record_features(), **media})
