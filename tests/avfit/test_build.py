"""Building a manifest: every item is used or refused by name, and the bytes depend on the plan alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from avalign.avfit.annotation import Reading
from avalign.avfit.build.filter import SampleFilter
from avalign.avfit.build.ledger import opened_ledger
from avalign.avfit.plan import read_plan
from avalign.cli.app import app
from avalign.config import recipe_file as recipe_io
from avalign.config import shipped
from avalign.data.manifest.record import Record
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError
from tests.helpers.avfit.builds import built, contents, items, records, rejected, write_plan, write_root
from tests.helpers.avfit.stopped_builds import small
from tests.helpers.strategies import quick


def test_every_item_is_used_or_refused_by_name(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    (root / "one" / "p" / "v7.jpg").unlink()
    (root / "one" / "s" / "v8.wav").unlink()
    (root / "one" / "s" / "double.wav-").unlink()
    counts = built(plan, root, tmp_path / "out")
    one, two = counts["datasets"]["one"], counts["datasets"]["two"]
    assert one["items"] == {"read": 47, "used": 43, "refused": 4}
    assert one["made"] == {"made": 47, "kept": 43, "refused": 4}
    assert two["items"] == {"read": 31, "used": 31, "refused": 0}
    assert one["reasons"] == {
        "box without area": 1,
        "picture missing": 1,
        "sound missing": 2,
        "stands in test too": 1,
    }
    rows = rejected(tmp_path / "out")
    assert {(row["item"], row["reason"], row["detail"], row["where"]) for row in rows} == {
        ("v3", "stands in test too", "v3 (train)", "items.json, record 4"),
        ("v7", "picture missing", "p/v7.jpg", "items.json, record 8"),
        ("v8", "sound missing", "s/v8.wav", "items.json, record 9"),
        ("broken", "box without area", "broken", "items.json, record 46"),
        ("double", "sound missing", "s/double.wav-", "items.json, record 47"),
    }
    assert [row.get("made") for row in rows] == [None] * 4 + ["made/double-"]  # half of that item is used
    assert one["noted"] == {"put right": 1}
    table = Table(tmp_path / "out")
    assert len(table) == counts["records"] == 43 + 31
    assert {record["id"] for record in records(tmp_path / "out")} == {
        *(f"one/made/v{k}" for k in range(45) if k not in (3, 7, 8)),
        "one/made/double",
        *(f"two/made/w{k}" for k in range(30)),
        "two/made/v3",
    }
    assert {record["image"].partition("/")[0] for record in records(tmp_path / "out")} == {"one", "two"}


def test_parts_hold_no_more_than_they_may(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    sizes = {file.name: len(file.read_text().splitlines()) for file in (tmp_path / "out").glob("*.jsonl")}
    assert sizes == {
        **{"one-00000.jsonl": 20, "one-00001.jsonl": 20, "one-00002.jsonl": 6},
        **{"two-00000.jsonl": 20, "two-00001.jsonl": 11},
    }


def test_the_bytes_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "one")
    built(plan, root, tmp_path / "three", jobs=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_an_origin_stands_in_one_split_only(tmp_path: Path) -> None:
    """Test goes before val, and val before train, whichever data set has it."""
    one = [
        {"id": f"a{k}", "split": split, "origin": f"x{k}"}
        for k, split in enumerate(["train"] * 4 + ["val"] * 2)
    ]
    two = [
        {"id": f"b{k}", "split": s, "origin": f"x{o}"}
        for k, (s, o) in enumerate([("test", 1), ("val", 2), ("test", 4)])
    ]
    plan = write_plan(tmp_path, ["one", "two"])
    built(plan, write_root(tmp_path / "root", {"one": one, "two": two}), tmp_path / "out")
    assert {(row["item"], row["reason"], row["detail"]) for row in rejected(tmp_path / "out")} == {
        ("a1", "stands in test too", "x1 (train)"),
        ("a2", "stands in val too", "x2 (train)"),
        ("a4", "stands in test too", "x4 (val)"),
    }
    split_of: dict[str, set[str]] = {}
    for record in records(tmp_path / "out"):
        for origin in json.loads(record["provenance"])["origins"]:
            split_of.setdefault(origin, set()).add(record["split"])
    assert all(len(splits) == 1 for splits in split_of.values())


def test_splits_that_share_videos_as_published_may_stay(tmp_path: Path) -> None:
    one = [
        {"id": f"a{k}", "split": s, "origin": f"x{k % 2}"} for k, s in enumerate(["train", "train", "test"])
    ]
    two = [{"id": "b", "split": "test", "origin": "x1"}]
    plan = write_plan(tmp_path, ["one", "two"], one={"share_origins": True})
    counts = built(plan, write_root(tmp_path / "root", {"one": one, "two": two}), tmp_path / "out")
    assert [row["item"] for row in rejected(tmp_path / "out")] == ["a1"]  # for the other data set's sake
    assert counts["datasets"]["one"]["noted"] == {"stands in test too": 1}


def test_most_keeps_so_many(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"], one={"most": {"train": 5, "test": 9}})
    root = write_root(tmp_path / "root", {"one": [*items(8, "train"), *items(3, "test", "w")]})
    counts = built(plan, root, tmp_path / "out")
    assert counts["datasets"]["one"]["items"] == {"read": 11, "used": 8, "refused": 3}
    assert counts["datasets"]["one"]["reasons"] == {"more than the plan asks for": 3}
    nothing = built(plan, root, tmp_path / "none", "datasets.one.most.train=0")
    assert [row["split"] for row in nothing["counts"]] == ["test"]


@given(st.integers(0, 10), st.integers(0, 2**32), st.integers(1, 40))
@quick
def test_most_chooses_by_the_seed_and_grows_by_adding(most: int, seed: int, there: int) -> None:
    """Those that a smaller number keeps are among those of a larger one."""
    readings = [Reading(str(k), "", (Record(f"r{k}", "arig", "train", "made", "x"),)) for k in range(there)]

    def chosen(number: int) -> set[str]:
        sample_filter = SampleFilter("one", seed=seed, files=None, held={}, own={}, most={"train": number})
        sample_filter.limit(iter(readings))
        with opened_ledger("one", Path(folder)) as entered:
            return {record.id for record in sample_filter.passing(iter(readings), entered)}

    with TemporaryDirectory() as folder:
        few, more = chosen(most), chosen(most + 1)
    assert (len(few), len(more)) == (min(most, there), min(most + 1, there))
    assert few <= more


def test_a_split_that_is_not_wanted_holds_nothing_back(tmp_path: Path) -> None:
    """What stands in no record of validation cannot leak from it."""
    one = [{"id": "a", "split": "train", "origin": "x"}, {"id": "b", "split": "val", "origin": "x"}]
    plan = write_plan(tmp_path, ["one"], one={"most": {"val": 0}})
    built(plan, write_root(tmp_path / "root", {"one": one}), tmp_path / "out")
    assert [record["id"] for record in records(tmp_path / "out")] == ["one/made/a"]


def test_the_seed_chooses(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"], one={"most": {"train": 4}})
    root = write_root(tmp_path / "root", {"one": items(30, "train")})
    chosen = set()
    for seed in range(5):
        built(plan, root, tmp_path / f"out{seed}", f"seed={seed}")
        chosen.add(tuple(record["id"] for record in records(tmp_path / f"out{seed}")))
    assert len(chosen) > 1


def test_what_most_leaves_are_those_that_can_be_used(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"], one={"most": {"train": 4}})
    root = write_root(tmp_path / "root", {"one": items(8, "train")})
    for k in range(4):
        (root / "one" / "p" / f"v{k}.jpg").unlink()
    built(plan, root, tmp_path / "out")
    assert [record["id"] for record in records(tmp_path / "out")] == [f"one/made/v{k}" for k in range(4, 8)]


def test_a_data_set_may_come_twice_under_two_labels(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one", "two"], two={"folder": "one"})
    root = write_root(tmp_path / "root", {"one": items(3)})
    built(plan, root, tmp_path / "out")
    assert [r["id"] for r in records(tmp_path / "out")] == [
        f"{x}/made/v{k}" for x in ("one", "two") for k in range(3)
    ]
    assert {record["image"] for record in records(tmp_path / "out")} == {f"one/p/v{k}.jpg" for k in range(3)}
    Table(tmp_path / "out")


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"])
    counts = built(plan, write_root(tmp_path / "root", {"one": items(2) + items(3)}), tmp_path / "out")
    assert counts["datasets"]["one"]["reasons"] == {"repeated id": 2}
    assert len(records(tmp_path / "out")) == 3


# ---- bad input ----


def test_folders_that_are_missing_are_all_named_with_what_does_without(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one", "two", "three"])
    root = write_root(tmp_path / "root", {"two": items(3)})
    with pytest.raises(
        AvalignError, match=r"no folder one, three\. .* datasets\.one=null datasets\.three=null"
    ):
        built(plan, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert built(plan, root, tmp_path / "out", "datasets.one=null", "datasets.three=null")["records"] == 3


def test_a_data_set_without_any_item_is_named(tmp_path: Path) -> None:
    plan, root = write_plan(tmp_path, ["one"]), write_root(tmp_path / "root", {"one": []})
    with pytest.raises(AvalignError, match="data set 'one': its annotation files hold no item"):
        built(plan, root, tmp_path / "out")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_annotation_file_that_cannot_be_read_is_named(tmp_path: Path, jobs: int) -> None:
    plan = write_plan(tmp_path, ["one", "two"])
    vgg_ss = {"datasets.two.name=vgg_ss", "datasets.two.folder=two"}
    root = write_root(tmp_path / "root", {"one": items(3), "two": items(3)})
    (root / "two" / "vggss.json").write_text('[{"file": "x_0')
    with pytest.raises(AvalignError, match=r"data set 'two': .*vggss\.json: is not JSON"):
        built(plan, root, tmp_path / "out", *vgg_ss, jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_links_that_lead_out_of_the_root_are_refused(tmp_path: Path, jobs: int) -> None:
    plan = write_plan(tmp_path, ["one"])
    outside = write_root(tmp_path / "outside", {"one": items(3)})
    root = write_root(tmp_path / "root", {"one": items(3)})
    (root / "one" / "p" / "v1.jpg").unlink()
    (root / "one" / "p" / "v1.jpg").symlink_to(outside / "one" / "p" / "v1.jpg")
    with pytest.raises(AvalignError, match=r"p/v1\.jpg: leads out of the media root"):
        built(plan, root, tmp_path / "out", jobs=jobs)
    assert built(plan, root, tmp_path / "out", jobs=jobs, follow_links=True)["records"] == 3
    (root / "two").symlink_to(outside / "one")
    with pytest.raises(AvalignError, match=r"two: leads out of the media root"):
        built(plan, root, tmp_path / "out2", "datasets.one.folder=two")


def test_links_within_the_root_are_followed_and_circles_are_left(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"])
    root = write_root(tmp_path / "root", {"one": items(3)})
    (root / "one" / "p").rename(root / "pictures")
    (root / "one" / "p").symlink_to("../pictures")
    (root / "one" / "s" / "round").symlink_to("..")
    assert built(plan, root, tmp_path / "out")["records"] == 3


def test_the_build_may_write_below_the_folder_it_reads(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ["one"], one={"folder": "."})
    root = write_root(tmp_path / "root", {"one": items(3)}) / "one"
    assert built(plan, root, root / "out")["records"] == 3
    assert built(plan, root, root / "out")["records"] == 3  # and go on, its own files being none of the input
    assert {record["image"] for record in records(root / "out")} == {f"p/v{k}.jpg" for k in range(3)}


# ---- the command ----


def test_the_command_prints_counts_reasons_and_what_comes_next(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    words = ["data", "build", str(plan), "--root", str(root), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    for line in (
        "one          47    45        2    46",
        "refused: one: stands in test too: 1",
        "    v3 (items.json, record 4): v3 (train)",
        f"avalign data check {tmp_path / 'out'} --media {root}",
    ):
        assert line in said.stdout
    words = said.stdout.splitlines()[-1].removeprefix("train on it:  ")
    command, verb, recipe, *settings = shlex.split(words)
    assert (command, verb, recipe) == ("avalign", "train", "meerkat-avfit")
    read = recipe_io.read(shipped.found(recipe), settings)
    assert (read.data.root, read.data.source.options["media"]) == (str(tmp_path / "out"), str(root))
    assert [stage.tasks for stage in read.train.stages] == [{"arig": 1, "avfc": 0}] * 2
    assert (read.evaluation.tasks, read.evaluation.samples) == (["arig"], 31)
    assert read_plan(tmp_path / "out" / "build.yaml").datasets.keys() == {"one", "two"}


def test_nothing_built_is_a_failure(tmp_path: Path) -> None:
    plan, root = write_plan(tmp_path, ["one"]), write_root(tmp_path / "root", {"one": items(3)}, media=False)
    words = ["data", "build", str(plan), "--root", str(root), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 1
    assert "picture missing: 3" in said.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--media", "requir"], "Did you mean 'require'?"),
        (["--format", "parque"], "Did you mean 'parquet'?"),
        (["datasets.one.sufix=x"], "no option 'sufix'. Did you mean 'suffix'?"),
        (["datasets.three={name: vgg_s}"], "no dataset is named 'vgg_s'. Did you mean 'vgg_ss'?"),
        (["sed=1"], "unknown key 'sed'. Did you mean 'seed'?"),
        (["--root", "nowhere"], "--root nowhere: no such folder"),
    ],
)
def test_what_is_misspelt_is_named(tmp_path: Path, words: list[str], what: str) -> None:
    plan, root = small(tmp_path)
    said = CliRunner().invoke(app, ["data", "build", str(plan), "--root", str(root), *words])
    assert said.exit_code == 2
    assert what in said.stderr
