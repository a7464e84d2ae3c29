"""Parts of a manifest: as JSONL and as Parquet the same records, of so many each, counted as they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.avfit.build.parts import write_part, write_parts
from avalign.avfit.record_counts import BOX_AREAS, RecordCounts, between
from avalign.data.manifest.record import Record, to_json
from avalign.data.manifest.table import Table
from tests.helpers.avfit.records import RECORDS
from tests.helpers.strategies import quick


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_is_written_is_what_is_read(tmp_path: Path, format: str) -> None:
    record_counts = RecordCounts()
    names = write_parts(iter(RECORDS), tmp_path, "made", format, record_counts, 4)  # type: ignore[arg-type]
    assert (
        names
        == [f"made-00000.{format}", f"made-00001.{format}"]
        == sorted(f.name for f in tmp_path.iterdir())
    )
    table = Table(tmp_path)
    assert [table[k] for k in range(len(table))] == RECORDS
    assert len(Table(tmp_path / names[0])) == 4
    assert len(record_counts) == 6


def test_without_records_there_is_no_file(tmp_path: Path) -> None:
    assert write_parts(iter(()), tmp_path, "made", "jsonl", RecordCounts(), 4) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_part_that_is_broken_off_leaves_nothing(tmp_path: Path, format: str) -> None:
    def broken() -> Iterator[Record]:
        yield RECORDS[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_part(broken(), tmp_path / f"made-00000.{format}", RecordCounts())
    assert list(tmp_path.iterdir()) == []


def test_parquet_is_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_part(iter(RECORDS), tmp_path / f"{name}.parquet", RecordCounts())
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


# ---- counting ----


def test_what_is_counted() -> None:
    record_counts = RecordCounts()
    for record in RECORDS:
        record_counts.add(record)
    assert record_counts.rows() == [
        {"task": "arig", "source": "made", "split": "test", "records": 1, "class": {"dog": 1},
         "boxes": {"2": 1}, "box_area": {"0.25-0.5": 1, "0.5-": 1}},
        {"task": "arig", "source": "made", "split": "train", "records": 1,
         "boxes": {"1": 1}, "box_area": {"0.25-0.5": 1}},
        {"task": "avcap", "source": "made", "split": "train", "records": 1},
        {"task": "avfc", "source": "made", "split": "test", "records": 2, "class": {"cat": 1},
         "kind": {"type1": 1, "type2": 1}, "verdict": {"type1 True": 1, "type2 False": 1}},
        {"task": "igatl", "source": "other", "split": "val", "records": 1,
         "intervals": {"2": 1}, "interval_length": {"0.5-1": 1, "5-10": 1}},
    ]  # fmt: skip


@given(st.lists(st.sampled_from(RECORDS)), st.lists(st.sampled_from(RECORDS)))
@quick
def test_counts_add_up_in_any_order_and_come_back_from_json(one: list[Record], two: list[Record]) -> None:
    def counted(records: list[Record]) -> RecordCounts:
        record_counts = RecordCounts()
        for record in records:
            record_counts.add(record)
        return record_counts

    both = counted(two)
    both.update(RecordCounts.of_rows(json.loads(json.dumps(counted(one).rows()))))
    assert both.rows() == counted([*one, *two]).rows()
    assert len(both) == len(one) + len(two)


@given(st.floats(0, 1))
@quick
def test_a_box_is_counted_where_it_belongs(area: float) -> None:
    low, _, high = between(area, BOX_AREAS).partition("-")
    assert float(low) <= area
    assert not high or area < float(high)


def test_a_box_of_its_own_size() -> None:
    record_counts = RecordCounts()
    record_counts.add(replace(RECORDS[0], boxes=((0.0, 0.0, 0.2, 0.2),)))
    assert record_counts.by["box_area"] == Counter({("arig", "made", "train", "0.01-0.05"): 1})
    assert to_json(RECORDS[0])
