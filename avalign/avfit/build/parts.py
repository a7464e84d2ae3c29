"""Files of a manifest, of so many records each, every one there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from avalign.avfit.record_counts import RecordCounts
from avalign.data.manifest.record import Record, to_json
from avalign.errors import AvalignError
from avalign.system.atomic_write import unfinished

Format = Literal["jsonl", "parquet"]
FORMATS = ("jsonl", "parquet")
SIZE = 100_000  # records of one part
ROWS = 10_000  # records of a Parquet row group, held in memory while it is written


def write_parts(
    records: Iterable[Record], folder: Path, stem: str, format: Format, record_counts: RecordCounts, size: int
) -> list[str]:
    """Records as <stem>-00000.jsonl and so on, each counted. Returns the names of the files."""
    names: list[str] = []
    left = iter(records)
    for first in left:
        names.append(f"{stem}-{len(names):05d}.{format}")
        write_part(chain([first], islice(left, size - 1)), folder / names[-1], record_counts)
    return names


def write_part(records: Iterable[Record], file: Path, record_counts: RecordCounts) -> None:
    """All of the records as one file, by its name's ending."""

    def counted() -> Iterator[str]:
        for record in records:
            record_counts.add(record)
            yield to_json(record)

    with unfinished(file) as beside:
        if file.suffix == ".parquet":
            _write_parquet(counted(), beside)
        else:
            with open(beside, "w", encoding="utf-8") as lines:
                lines.writelines(f"{line}\n" for line in counted())


def _write_parquet(lines: Iterator[str], file: Path) -> None:
    with _parquet(file) as (pa, writer, schema):
        while rows := [json.loads(line) for line in islice(lines, ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema))


@contextmanager
def _parquet(file: Path) -> Iterator[tuple[Any, Any, Any]]:
    """pyarrow, a writer and the schema: the columns of a record, what it leaves out being null."""
    pa = pyarrow()
    text, number = pa.string(), pa.float64()
    numbers = pa.list_(number)
    kinds = {
        **dict.fromkeys(("audio_start", "audio_end"), number),
        **dict.fromkeys(("version", "consensus"), pa.int64()),
        **dict.fromkeys(("boxes", "intervals"), pa.list_(numbers)),
        "frame_times": numbers,
        "references": pa.list_(text),
        "slots": pa.struct([("class", text), ("box", numbers), ("time", numbers)]),
    }
    from avalign.data.manifest.record import FIELDS

    schema = pa.schema([(name, kinds.get(name, text)) for name in FIELDS])
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        yield pa, writer, schema


def pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise AvalignError("--format parquet needs the package pyarrow: pip install pyarrow") from None
    return pa
