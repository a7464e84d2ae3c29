"""Manifests and shards in Hugging Face `datasets`: the schema that all their records have.

    from datasets import load_dataset
    from avalign.data.huggingface import record_features, shard_features

    load_dataset("json", data_files="avfit/*.jsonl", features=record_features())
    load_dataset("parquet", data_files="avfit/*.parquet", features=record_features())
    load_dataset("webdataset", data_files={"train": "shards/train-*.tar"}, features=shard_features("shards"))

with streaming=True too. Without `features` the schema is guessed from the first lines, and lines that hold
another field later on are refused: a record leaves out what it does not need. `provenance` is JSON text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avalign.data.manifest.record import FIELDS
from avalign.data.shards.tars import read_list


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

    A media column is None for the records that have another kind: image.jpg, where the picture is a .png.
    """
    from datasets import Features, Value

    media = {name: Value("binary") for name in read_list(Path(folder))["files"]}
    texts = {"__key__": Value("string"), "__url__": Value("string")}
    return Features({**texts, "json": record_features(), **media})
