"""Shards: the same samples as the manifest's, packed the same each time, and nothing broken is read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.data.manifest import Manifest
from avalign.data.manifest.phrasings import Phrasing, PhrasingFile
from avalign.data.manifest.record import FIELDS, Record, from_json, to_json, write
from avalign.data.shards import Shards
from avalign.data.shards.pack import pack as pack_shards
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from tests.helpers.manifests import records, write_manifest
from tests.helpers.shards import (  # noqa: F401 (fixtures)
    SIZE,
    cache,
    contents,
    folder,
    opened,
)


def test_a_sample_of_the_shards_is_that_of_the_manifest(folder: Path) -> None:
    weights = {"a": 1.0, "b": 2.0}
    manifest = opened(Manifest, folder / "manifest", 3, sources=weights)
    shards = opened(Shards, folder / "shards", 3, sources=weights)
    assert shards.tasks == manifest.tasks
    assert list(shards.table) == list(manifest.table)
    for split in ("train", "val", "test"):
        for task in manifest.tasks:
            assert shards.size(split, task) == manifest.size(split, task) == 4
            for index in range(11 if split == "train" else 4):
                one, other = manifest.sample(split, task, index), shards.sample(split, task, index)
                assert (one.image is None) == (other.image is None)
                assert one.image is None or np.array_equal(one.image, other.image)
                assert np.array_equal(one.audio, other.audio)
                assert replace(one, image=None, audio=None) == replace(other, image=None, audio=None)
    assert sorted(shards.corpus()) == sorted(manifest.corpus())


def test_the_files_of_a_sample_follow_each_other_under_one_key(folder: Path) -> None:
    """WebDataset's conventions, read with tarfile alone; every byte of the media is there."""
    table = opened(Manifest, folder / "manifest").table
    seen = []
    for tar in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(tar) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        keys = [name.split(".", 1)[0] for name in members]
        assert keys == sorted(keys, key=keys.index)
        for key in dict.fromkeys(keys):
            record = from_json(members.pop(f"{key}.json"))
            assert record == table[int(key)]
            assert tar.name.startswith(record.split)
            parts = {"image": record.image, "audio": record.audio}
            if record.image == record.audio:
                parts = {"video": record.image}
            for stem, path in parts.items():
                if path is not None:
                    stored = members.pop(f"{key}.{stem}{Path(path).suffix}")
                    assert stored == (folder / "manifest" / path).read_bytes()
            seen.append(int(key))
        assert members == {}
        assert tar.stat().st_size <= SIZE + tarfile.RECORDSIZE
    assert sorted(seen) == list(range(len(table)))
    train = [n for n in seen if table[n].split == "train"]
    assert train != sorted(train), "who reads from the beginning finds them shuffled"
    assert seen[: -len(train)] != seen
    assert [n for n in seen if table[n].split == "val"] == sorted(n for n in seen if table[n].split == "val")


def test_a_manifest_s_own_phrasings_go_with_it(folder: Path, tmp_path: Path) -> None:
    manifest = shutil.copytree(folder / "manifest", tmp_path / "manifest")
    write([replace(record, instruction="") for record in records(1)], manifest / "made.jsonl")
    PhrasingFile({"avcap": [Phrasing("<image><audio>Say it.", {})]}, ("avcap",)).write(
        manifest / "phrasings.yaml"
    )
    pack_shards(manifest, tmp_path / "shards")
    one, other = opened(Manifest, manifest), opened(Shards, tmp_path / "shards")
    asked = [source.sample("train", "avcap", 0).instruction for source in (one, other)]
    assert asked == ["<image><audio>Say it."] * 2


def test_packed_again_it_is_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    pack_shards(folder / "manifest", tmp_path / "again", size=SIZE)
    assert contents(tmp_path / "again") == contents(folder / "shards")
    pack_shards(folder / "manifest", tmp_path / "other", size=SIZE, seed=1)
    assert contents(tmp_path / "other").keys() >= {"shards.json", "train-000000.tar"}
    assert contents(tmp_path / "other")["train-000000.tar"] != contents(folder / "shards")["train-000000.tar"]


@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_packing_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """What was whole is not written again, what was not is; the end is that of one never stopped."""
    out, written = tmp_path / "shards", []

    def stop(file: Path, count: int) -> None:
        if file.suffix == ".tar":
            written.append(file.name)
            if len(written) == done + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_shards(folder / "manifest", out, size=SIZE, progress=stop)
    with pytest.raises(AvalignError, match="not all there; `avalign data shard` goes on"):
        opened(Shards, out)
    (out / f"{written[0][:-4]}.index.npz").unlink()  # as if it had been killed between the two
    before = list(written)
    pack_shards(folder / "manifest", out, size=SIZE, progress=lambda file, _: written.append(file.name))
    assert contents(out) == contents(folder / "shards")
    again = set(written[len(before) :]) & set(before)
    assert again == {before[0]}


def test_a_tar_cut_short_before_a_resume_is_written_anew(folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folder / "shards", tmp_path / "shards")
    os.truncate(out / "val-000000.tar", 20_000)
    pack_shards(folder / "manifest", out, size=SIZE)
    assert contents(out) == contents(folder / "shards")


def _cut(out: Path) -> None:
    os.truncate(out / "val-000000.tar", 20_000)


def _flip(out: Path, at: int) -> None:
    tar = out / "val-000000.tar"
    content = bytearray(tar.read_bytes())
    content[at] ^= 1
    tar.write_bytes(content)


def _swap(out: Path) -> None:
    """An index that fits by its numbers, and is of another tar."""
    listed = json.loads((out / "shards.json").read_text())
    one, other = [shard for shard in listed["shards"] if shard["file"].startswith("test")][:2]
    for shard in (one, other):
        (out / shard["file"]).write_bytes(bytes(one["bytes"]))
    shutil.copy(out / f"{one['file'][:-4]}.index.npz", out / f"{other['file'][:-4]}.index.npz")
    other |= {"records": one["records"], "bytes": one["bytes"]}
    (out / "shards.json").write_text(json.dumps(listed))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (_cut, r"val-000000\.tar: has 20000 bytes, \d+ were packed: it is not complete"),
    "gone": (lambda out: (out / "val-000000.tar").unlink(), r"val-000000\.tar: there is no such file"),
    "no index": (lambda out: (out / "val-000000.index.npz").unlink(), "index of val-000000.tar is missing"),
    "index cut": (lambda out: os.truncate(out / "val-000000.index.npz", 200), "is not a complete index"),
    "index of nothing": (lambda out: (out / "val-000000.index.npz").write_bytes(b""), "not a complete index"),
    "other index": (
        lambda out: shutil.copy(out / "val-000001.index.npz", out / "val-000000.index.npz"),
        "is of .* records and .* bytes",
    ),
    "indexes swapped": (_swap, "do not hold each record once"),
    "elsewhere": (
        lambda out: (out / "shards.json").write_text(
            (out / "shards.json").read_text().replace('"file": "val', '"file": "../val')
        ),
        "is no list of shards",
    ),
    "no list": (lambda out: (out / "shards.json").unlink(), "is no folder of shards"),
    "list cut": (lambda out: os.truncate(out / "shards.json", 100), r"shards\.json: is not JSON"),
    "other version": (
        lambda out: (out / "shards.json").write_text('{"version": 9}'),
        "version is 9, this avalign reads 1",
    ),
    "list lacks": (lambda out: (out / "shards.json").write_text('{"version": 1}'), "is no list of shards"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_shards_that_are_not_whole_are_refused_by_name(folder: Path, tmp_path: Path, how: str) -> None:
    out = shutil.copytree(folder / "shards", tmp_path / "shards")
    breaking, why = BROKEN[how]
    breaking(out)
    with pytest.raises(AvalignError, match=why):
        opened(Shards, out)


@pytest.mark.parametrize("place", ["json", "image", "audio"])
def test_a_byte_that_was_changed_is_found_when_it_is_read(folder: Path, tmp_path: Path, place: str) -> None:
    out = shutil.copytree(folder / "shards", tmp_path / "shards")
    with tarfile.open(out / "val-000000.tar") as archive:
        member = next(m for m in archive if f".{place}" in m.name)
    _flip(out, member.offset_data + member.size // 2)
    source, found = opened(Shards, out), []
    for task in source.tasks:
        for index in range(source.size("val", task)):
            try:
                source.sample("val", task, index)
            except MediaError as error:
                found.append(str(error))
    (said,) = found
    key = member.name.split(".")[0]
    assert said.startswith(f"{out / 'val-000000.tar'}: {key}.{place}: is damaged")


def test_a_tar_that_is_replaced_while_it_is_open_is_refused(folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folder / "shards", tmp_path / "shards")
    source = opened(Shards, out)
    os.utime(out / "test-000000.tar", ns=(1, 1))
    with pytest.raises(AvalignError, match=r"test-000000\.tar: was changed since"):
        source.sample("test", source.tasks[0], 0)


def test_missing_media_are_named_before_anything_is_packed(tmp_path: Path) -> None:
    made = [replace(r, audio="lost.wav") if k == 7 else r for k, r in enumerate(records(1))]
    manifest = write_manifest(tmp_path / "manifest", made)
    with pytest.raises(AvalignError, match=r"1 media files are missing or empty: .*lost\.wav$"):
        pack_shards(manifest, tmp_path / "shards")
    assert [file.name for file in (tmp_path / "shards").iterdir()] == ["shards.json"]


def test_a_folder_of_other_shards_is_left_alone(folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folder / "shards", tmp_path / "shards")
    with pytest.raises(AvalignError, match="holds shards of another size"):
        pack_shards(folder / "manifest", out, size=2 * SIZE)
    (out / "shards.json").unlink()
    with pytest.raises(AvalignError, match=r"holds tar files, but no shards\.json"):
        pack_shards(folder / "manifest", out, size=SIZE)


def test_it_goes_to_a_loader_process_and_back(folder: Path) -> None:
    source = opened(Shards, folder / "shards")
    one = source.sample("val", "avfc", 3)
    assert pickle.loads(pickle.dumps(source)).sample("val", "avfc", 3).id == one.id


def test_the_command_packs_and_says_how_much(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["data", "shard", str(folder / "manifest"), "--out", str(tmp_path), "--size", "0.7MB"])
    assert done.exit_code == 0, done.output
    assert "60 records in" in done.output
    assert contents(tmp_path) == contents(folder / "shards")
    for wrong in ("7", "0GB", "many"):
        told = run(app, ["data", "shard", str(folder / "manifest"), "--out", str(tmp_path), "--size", wrong])
        assert told.exit_code == 2
        assert "such as 1GB or 500MB" in told.output


# -- Hugging Face datasets -----------------------------------------------------------------------------------


ODD_TEXTS = [
    *("2024-01-02", "2024-01-02T10:11:12Z", "2024-01-02 10:11", "10:20:30", "20240102", "12345", "001", "-0"),
    *("9" * 40, "1e5", "0x1f", "1_000", "1,5", "true", "null", "NaN", "-Infinity", "None", "", " ", '"a"'),
    *("[1, 2]", "{}", "\u00e9 \u4e2d", "a\tb", "line\nline"),
]


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    datasets.disable_progress_bars()
    return lambda *of, **more: datasets.load_dataset(
        *of, **more, cache_dir=None if more.get("streaming") else str(tmp_path / "hub")
    )


def as_read(row: dict[str, Any]) -> Record:
    """A row as it comes from `datasets`, where each column is in every row."""
    slots = {name: value for name, value in (row["slots"] or {}).items() if value is not None}
    there = {name: value for name, value in row.items() if value is not None} | {"slots": slots}
    return from_json(json.dumps(there))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_datasets_reads_all_parts_of_a_manifest_with_one_schema(
    hub: Any, tmp_path: Path, form: str, streaming: bool
) -> None:
    """Though the first part has no record with boxes, slots or a span, and the second has."""
    from avalign.data.huggingface import record_features

    plain = [Record(f"a{k}", "avqa", "train", "one", "yes", "?") for k in range(3)]
    full = [replace(r, slots={"class": "dog", "box": [0, 0.5, 1, 1], "time": [1.0, 2.5]}) for r in records(1)]
    for name, part in (("a", plain), ("b", full)):
        if form == "json":
            write(part, tmp_path / f"{name}.jsonl")
        else:
            pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            rows = [dict.fromkeys(FIELDS) | json.loads(to_json(r)) for r in part]
            schema = record_features().arrow_schema
            parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
    files = str(tmp_path / ("*.jsonl" if form == "json" else "*.parquet"))
    found = hub(form, data_files=files, features=record_features(), split="train", streaming=streaming)
    assert found.features == record_features()
    assert [as_read(row) for row in found] == plain + full


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_datasets_is_given_every_text_as_it_is_written(
    hub: Any, tmp_path: Path, form: str, streaming: bool
) -> None:
    """A file each, so that all of a column look like dates, or like numbers."""
    from avalign.data.huggingface import load_records, record_features, stream_records

    expected = []
    for number, text in enumerate(ODD_TEXTS):
        slots = {"class": text, "question": text, "box": [0, 0.5, 1, 1]}
        record = Record(
            id=text or "none", task="avqa", split="train", source=text, response=text, instruction=text,
            slots=slots if number % 2 else {}, references=(text, text), label=text, kind=text,
            image=f"a/{text}" if text else None, provenance={text: text},
        )  # fmt: skip
        expected.append(record)
        if form == "json":
            write([record], tmp_path / f"{number:02d}.jsonl")
        else:
            pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            rows = [dict.fromkeys(FIELDS) | json.loads(to_json(record))]
            schema = record_features().arrow_schema
            parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{number:02d}.parquet")
    found = stream_records(tmp_path) if streaming else load_records(tmp_path, cache_dir=tmp_path / "hub")
    assert found.features == record_features()
    assert [as_read(row) for row in found] == expected
    if not streaming:  # what was changed is not taken from what `datasets` keeps
        (tmp_path / f"00.{form if form == 'parquet' else 'jsonl'}").unlink()
        assert len(load_records(tmp_path, cache_dir=tmp_path / "hub")) == len(expected) - 1


def test_a_line_that_is_no_record_is_named_before_datasets_sees_it(hub: Any, tmp_path: Path) -> None:
    from avalign.data.huggingface import load_records, stream_records

    write(records(1), tmp_path / "a.jsonl")
    with open(tmp_path / "a.jsonl", "a") as lines:
        lines.write('{"id": 5}\n')
    for load in (load_records, stream_records):
        with pytest.raises(AvalignError, match=r"a\.jsonl:16: id is 5, not a text"):
            load(tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_shards(hub: Any, folder: Path, streaming: bool) -> None:
    from avalign.data.huggingface import shard_features

    shards = folder / "shards"
    files = {split: str(shards / f"{split}-*.tar") for split in ("train", "test")}
    found = hub("webdataset", data_files=files, features=shard_features(shards), streaming=streaming)
    table = opened(Manifest, folder / "manifest").table
    rows = [row for split in files for row in found[split]]
    assert len(rows) == 40
    for row in rows:
        record = table[int(row["__key__"])]
        assert as_read(row["json"]) == record
        names = {n: v for n, v in row.items() if v is not None and n not in ("json", "__key__", "__url__")}
        paths = {record.image, record.audio} - {None}
        assert sorted(names.values()) == sorted((folder / "manifest" / p).read_bytes() for p in paths)
