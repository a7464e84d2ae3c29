"""Manifests: what is written is what is read, training sees every record, and each defect is named."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from avalign.data.collate import check
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import FIELDS, from_checked, from_json, to_json, write
from avalign.data.manifest.table import Table
from avalign.data.permutation import permuted
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.types import SPLITS, TASKS
from tests.helpers.manifests import cache, folder, opened, records  # noqa: F401 (fixtures)
from tests.helpers.strategies import quick
from tests.helpers.videos import RATE


def test_every_record_comes_back_as_it_was_written(folder: Path) -> None:
    source = opened(folder)
    assert list(source.table) == records()


def test_parquet_is_the_same_as_jsonl(folder: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [dict.fromkeys(FIELDS) | json.loads(to_json(record)) for record in records()]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "made.parquet")
    source = opened(tmp_path / "made.parquet", media=str(folder))
    assert list(source.table) == records()
    assert source.sample("test", "arig", 1).image.shape == (48, 64, 3)


def test_a_sample_is_its_record_with_the_media_decoded(folder: Path) -> None:
    source = opened(folder)
    for index, record in enumerate(r for r in records() if (r.split, r.task) == ("test", "igatl")):
        sample = source.sample("test", "igatl", index)
        check(sample)
        assert (sample.id, sample.instruction, sample.intervals) == (
            record.id,
            record.instruction,
            record.intervals,
        )
        assert sample.provenance["video"] == f"-{index}"
        assert len(sample.audio) == round(1.5 * RATE)
        t = np.arange(RATE * 4) / RATE
        begin = round(record.audio_start * RATE)
        expected = (0.3 * np.sin(2 * np.pi * 300 * (1 + t.astype(int)) * t))[
            begin : begin + round(1.5 * RATE)
        ]
        assert np.corrcoef(sample.audio, expected)[0, 1] > 0.98
        grey = 90 if not record.frame_times else 10 * (1 + index) + 20
        assert sample.image[36:, 40:].mean() == pytest.approx(grey, abs=4)


def test_several_frames_are_a_video(folder: Path, tmp_path: Path) -> None:
    write([replace(records()[0], image="clip.mp4", frame_times=(0.2, 1.0, 3.4))], tmp_path / "made.jsonl")
    sample = opened(tmp_path / "made.jsonl", media=str(folder)).sample("train", "arig", 0)
    check(sample)
    assert sample.frame_times == (0.2, 1.0, 3.4)
    assert sample.image[:, 36:, 40:].mean((1, 2, 3)) == pytest.approx([30, 70, 190], abs=4)


def test_training_sees_every_record_before_any_again(folder: Path) -> None:
    source = opened(folder)
    epochs = [[source.sample("train", "avqa", k).id for k in range(e * 8, e * 8 + 8)] for e in range(3)]
    expected = sorted(r.id for r in records() if (r.split, r.task) == ("train", "avqa"))
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2], "each time in another order"
    assert opened(folder, seed=1).sample("train", "avqa", 0).id != epochs[0][0] or (
        [opened(folder, seed=1).sample("train", "avqa", k).id for k in range(8)] != epochs[0]
    )


@given(
    count=st.integers(1, 300), key=st.tuples(st.integers(0, 2**31), st.integers(0, 4), st.integers(0, 10**6))
)
@quick
def test_the_order_is_one_to_one(count: int, key: tuple[int, ...]) -> None:
    assert sorted(permuted(place, count, key) for place in range(count)) == list(range(count))


@pytest.mark.parametrize("count", [2, 3, 7, 24, 97])
def test_every_place_lands_everywhere_and_apart_from_its_neighbour(count: int) -> None:
    """Over keys: where a place lands is uniform, and so is where the next lands from there."""
    keys = 40 * count
    landed = Counter(permuted(count // 2, count, (7, 1, key)) for key in range(keys))
    assert chisquare([landed[k] for k in range(count)]).pvalue > 1e-4
    apart = Counter(
        (permuted(1, count, (8, key)) - permuted(0, count, (8, key))) % count for key in range(keys)
    )
    assert apart[0] == 0
    if count > 2:
        assert chisquare([apart[k] for k in range(1, count)]).pvalue > 1e-4


def test_orders_of_near_keys_are_no_kin() -> None:
    places = {
        key: np.array([permuted(k, 2000, key) for k in range(2000)]) for key in [(0, 1), (1, 0), (0, 2)]
    }
    for one, other in combinations(places.values(), 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
        assert (one == other).sum() < 8, "one is expected"


def test_the_order_looks_random() -> None:
    """Every place is as likely as any other, and neighbours do not stay together."""
    landed = Counter(permuted(3, 10, (seed, 0, 0)) for seed in range(4000))
    assert min(landed.values()) > 300
    assert max(landed.values()) < 500
    order = np.array([permuted(place, 1000, (7, 1, 2)) for place in range(1000)])
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.1
    assert (np.abs(np.diff(order)) == 1).sum() < 12, "two are expected"


def test_an_evaluation_of_more_than_there_is_says_what_there_is(folder: Path) -> None:
    source = opened(folder)
    assert source.size("test", "arig") == 8
    with pytest.raises(
        AvalignError, match=r"has 8 records of task 'arig', number 8 was asked for\. There are"
    ):
        source.sample("test", "arig", 8)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": "arigg"}, "no task 'arigg'. Did you mean 'arig'"),
        ({"split": "tests"}, "no split 'tests'. Did you mean 'test'"),
        ({"image": "../a.png"}, "not a path below"),
        ({"image": "/etc/a.png"}, "not a path below"),
        ({"audio": None}, "needs an audio file"),
        ({"audio_end": 0.1, "audio_start": 0.5}, r"span \[0.5, 0.1\]"),
        ({"audio_end": 0.1, "audio_start": None}, "audio_end is given without"),
        ({"image": "a.mp4", "frame_times": (-1.0,)}, r"frame_times \[-1.0\] s"),
        ({"image": "a.mp4", "frame_times": (1.0, 1.0)}, "and rise from 0"),
        ({"image": None, "frame_times": (1.0,)}, "need an image"),
        ({"version": 2}, "version is 2, this avalign reads 1"),
        ({"id": ""}, "has no id"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(AvalignError, match=why):
        replace(records()[0], **changes)


def line(**changes: Any) -> str:
    fields = json.loads(to_json(records()[0])) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "holds no record"),
        ("nonsense\n", r"made\.jsonl:1: is not JSON"),
        (line(imagee="a.png"), "no field 'imagee'. Did you mean 'image'"),
        ("[1]", r"made\.jsonl:1: is not a JSON object but a list"),
        (line() + "\n\n" + line(extra="x"), r"made\.jsonl:3: a record has no field 'extra'"),
        (line() + "\n" + line(boxes="x"), r":2: boxes is \"x\", not a list"),
        (
            line() + "\n" + line(boxes=[[0, 1, 1]]),
            r":2: record 'train-arig-0': \[0, 1, 1\] is not a list of 4",
        ),
        (line() + "\n" + line(intervals=[[0, "1"]]), "is not a list of 2 numbers"),
        (line() + "\n" + line(references=[1]), "a list of strings"),
        (line() + "\n" + line(provenance="{"), "record 'train-arig-0': Expecting"),
        (line() + "\n" + line()[:50], r":2: is not JSON"),
        (line() + "\n" + line(task="asdf"), "no task 'asdf'"),
        (line() + "\n" + line(split=None), "lacks split"),
        (line() + "\n" + line(response=None), "record 'train-arig-0' lacks response"),
        (line() + "\n" + line(version=2), "version is 2"),
        (line() + "\n" + line(image="../../x.png"), "'../../x.png' is not a path below"),
        (line() + "\n" + line(id="other") + "\n" + line(), "two records have the id 'train-arig-0'"),
    ],
)
def test_a_broken_manifest_is_refused_when_it_is_opened(content: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "made.jsonl").write_text(content)
    with pytest.raises(AvalignError, match=why):
        opened(tmp_path)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "made.jsonl"
    file.write_text(line())
    assert len(opened(tmp_path).table) == 1
    file.write_text(line() + "\n" + line(id="other"))
    assert [record.id for record in opened(tmp_path).table] == ["train-arig-0", "other"]


def test_an_index_is_made_once_and_cannot_be_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "made.jsonl").write_text(line() + "\n" + line()[:50])
    with pytest.raises(AvalignError):
        opened(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.*")), "nothing is kept of a file that is refused"
    write(records(), tmp_path / "made.jsonl")
    opened(tmp_path)
    monkeypatch.setattr(
        "avalign.data.manifest.index.from_json", lambda _: pytest.fail("every line is read again")
    )
    assert len(opened(tmp_path).table) == len(records())


def test_a_manifest_that_is_written_anew_while_it_is_open_is_refused(folder: Path, tmp_path: Path) -> None:
    """Rather than read from places where its lines began before."""
    write(records(), tmp_path / "made.jsonl")
    source = opened(tmp_path)
    write(records()[::-1], tmp_path / "made.jsonl")
    with pytest.raises(AvalignError, match=r"made\.jsonl: was changed since it was indexed"):
        source.table[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_index_is_the_same_however_the_file_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Stretches end within lines, at their ends, and in blank ones; an error names the line all the same."""
    monkeypatch.setattr("avalign.data.manifest.index.SEGMENT", 700)
    sources = [replace(r, source=f"s{k % 3 + k // 40}") for k, r in enumerate(records())]
    write(sources, tmp_path / "made.jsonl")
    spaced = (tmp_path / "made.jsonl").read_text().replace("\n", "\n\n \n")
    (tmp_path / "spaced.jsonl").write_text(spaced)
    for file in ("made", "spaced"):
        monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / f"cache-{file}"))
        table = Table(tmp_path / f"{file}.jsonl", workers=workers)
        assert list(table) == sources
        assert [table.sources[k] for k in table.source] == [record.source for record in sources]
        assert [SPLITS[k] for k in table.split] == [record.split for record in sources]
        assert [TASKS[k] for k in table.task] == [record.task for record in sources]
    (tmp_path / "spaced.jsonl").write_text(spaced + line(task="asdf") + "\n" + line(id=""))
    with pytest.raises(AvalignError, match=rf"spaced\.jsonl:{3 * len(sources) + 1}: .*no task 'asdf'"):
        Table(tmp_path / "spaced.jsonl", workers=workers)


def test_a_line_that_begins_where_a_segment_does_is_indexed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(id=f"number-{k}") + "\n" for k in range(6)]
    (tmp_path / "made.jsonl").write_text("".join(lines))
    for more in (-1, 0, 1, len(lines[0])):
        monkeypatch.setattr("avalign.data.manifest.index.SEGMENT", len(lines[0]) + more)
        monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / f"cache{more}"))
        assert [record.id for record in Table(tmp_path)] == [f"number-{k}" for k in range(6)]


@quick
@given(st.data())
def test_a_line_that_was_checked_is_read_as_when_it_was(data: st.DataObject) -> None:
    """from_checked leaves checks out and nothing else; no record shares what another may change."""
    made = data.draw(st.sampled_from(records(2)))
    changes = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "slots": st.just({"class": "dog", "box": [0.1, 0.2, 0.3, 0.4]}),
                "boxes": st.just(()),
                "references": st.just(("a", "b")),
                "provenance": st.just({}),
                "frame_times": st.just((0.5, 1.5)),
                "consensus": st.just(2),
                "image": st.just("b.mp4"),
                "instruction": st.sampled_from(["", '<image> \u00e9\u2028"?']),
            },
        )
    )
    made = replace(made, **({"image": "b.mp4"} | changes))
    kept = to_json(made).encode()
    one, other = from_checked(kept), from_checked(kept)
    assert one == other == from_json(kept) == made
    assert hash(one.boxes) == hash(made.boxes)
    assert one.slots is not other.slots
    assert one.provenance is not other.provenance


def test_it_goes_to_a_loader_process_and_back(folder: Path) -> None:
    source = opened(folder)
    source.table[0]
    assert (
        pickle.loads(pickle.dumps(source)).sample("val", "avfc", 3).id == source.sample("val", "avfc", 3).id
    )


def test_several_files_follow_each_other(tmp_path: Path) -> None:
    made = records()
    write(made[:7], tmp_path / "a.jsonl")
    write(made[7:], tmp_path / "b.jsonl")
    assert list(opened(tmp_path).table) == made


def test_a_place_without_a_manifest_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(AvalignError, match="no such manifest"):
        opened(tmp_path / "absent")
    with pytest.raises(AvalignError, match="holds no manifest"):
        opened(tmp_path)
    with pytest.raises(AvalignError, match=r"data\.root has to name"):
        Manifest().prepare(None, seed=0)
    (tmp_path / "a.jsonl").write_text(line())
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(AvalignError, match="name the one that is"):
        opened(tmp_path)


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    write([replace(records()[0], image="lost.png")], tmp_path / "made.jsonl")
    with pytest.raises(MediaError, match=r"lost\.png: no such file"):
        opened(tmp_path).sample("train", "arig", 0)


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "made.jsonl"
    assert write(records(1), file) == 15
    before = file.read_text()
    with pytest.raises(AvalignError, match="two records have the id"):
        write([records()[0], records()[0]], file)
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]
