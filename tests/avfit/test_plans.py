"""The shipped plans: each is built on a small root in which every data set is laid out as published."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from avalign.avfit import stats
from avalign.avfit.paper import PAPER
from avalign.avfit.plan import PlanError, read_plan
from avalign.config import recipe_file as recipe_io
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError
from tests.helpers.avfit.builds import built, contents, records
from tests.helpers.avfit.roots import LAYOUTS
from tests.helpers.paths import RECIPES

PLANS = sorted((RECIPES / "avfit").glob("*.yaml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for use in read_plan(RECIPES / "avfit" / "meerkat.yaml").datasets.values():
        LAYOUTS[use.name](folder / str(use.folder))
    LAYOUTS["esc50"](folder / "ESC-50")
    return folder


def fewer(plan: Path) -> list[str]:
    """Overrides that ask for a thousandth of a plan's pairs."""
    return [
        f"pairs.{label}.records.{split}.{task}={-(-count // 1000)}"
        for label, pairs in read_plan(plan).pairs.items()
        for split, tasks in pairs.records.items()
        for task, count in tasks.items()
    ]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stem)
def test_every_shipped_plan_builds(plan: Path, root: Path, tmp_path: Path) -> None:
    counts = built(plan, root, tmp_path / "out", *fewer(plan), media="skip", part_size=300)
    read = read_plan(plan, fewer(plan))
    for label, pairs in read.pairs.items():
        for split, tasks in pairs.records.items():
            for task, count in tasks.items():
                found = [
                    r
                    for r in counts["counts"]
                    if (r["source"], r["split"], r["task"]) == (label, split, task)
                ]
                assert sum(r["records"] for r in found) == count
    for label, account in counts["datasets"].items():
        items, made = account["items"], account["made"]
        assert items["read"] == items["used"] + items["refused"]
        assert made["made"] == made["kept"] + made["refused"]
        assert items["used"] > 0, label
    table = Table(tmp_path / "out")
    assert len(table) == counts["records"] == sum(row["records"] for row in counts["counts"])
    assert stats.count(tmp_path / "out").rows() == counts["counts"]
    folders = {str(use.folder) for use in read.datasets.values()}
    for record in records(tmp_path / "out"):
        assert any(record["image"].startswith(f"{folder}/") for folder in folders)
        assert any(record["audio"].startswith(f"{folder}/") for folder in folders)
    if plan.stem == "meerkatbench":
        assert {row["split"] for row in counts["counts"]} == {"test"}


def test_pairs_do_not_depend_on_the_processes_or_the_format(root: Path, tmp_path: Path) -> None:
    plan = RECIPES / "avfit" / "voc-esc50.yaml"
    built(plan, root, tmp_path / "one", *fewer(plan), media="skip", part_size=2)
    built(plan, root, tmp_path / "two", *fewer(plan), media="skip", part_size=2, jobs=2)
    built(plan, root, tmp_path / "parquet", *fewer(plan), media="skip", part_size=2, format="parquet")
    built(plan, root, tmp_path / "seed", *fewer(plan), "seed=1", media="skip", part_size=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, parquet = Table(tmp_path / "one"), Table(tmp_path / "parquet")
    assert [one[k] for k in range(len(one))] == [parquet[k] for k in range(len(parquet))]
    assert records(tmp_path / "one") != records(tmp_path / "seed")
    built(plan, root, tmp_path / "one", *fewer(plan), "seed=1", media="skip", part_size=2, overwrite=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "seed")  # nothing of the first is left in memory


def test_images_and_recordings_that_are_missing_or_leak_are_in_no_pair(root: Path, tmp_path: Path) -> None:
    """Only what is on the disk is paired; a video of one data set's test is not heard in training."""
    LAYOUTS["pascal_voc"](tmp_path / "root" / "VOC")
    LAYOUTS["vgg_sound"](tmp_path / "root" / "VGGSound")
    csv = tmp_path / "root" / "VGGSound" / "vggsound.csv"
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([*lines, lines[-1].replace(",29,", ",39,").replace(",test", ",train")]) + "\n")
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        json.dumps(
            {
                "name": "small",
                "datasets": {"pascal_voc": {"folder": "VOC"}, "vgg_sound": {"folder": "VGGSound"}},
                "pairs": {
                    "both": {
                        **{"images": "pascal_voc", "audio": "vgg_sound"},
                        "records": {"train": {"arig": 12, "avfc": 12}, "test": {"arig": 5}},
                    }
                },
            }
        )
    )
    skipped = built(plan, tmp_path / "root", tmp_path / "skip", media="skip")
    assert skipped["datasets"]["vgg_sound"]["reasons"]["stands in test too"] == 1
    with pytest.raises(AvalignError, match=r"pairs\.both\.records\.train\.arig: no image of train"):
        built(plan, tmp_path / "root", tmp_path / "none")
    there = {record[kind] for record in records(tmp_path / "skip")[:7] for kind in ("image", "audio")}
    for name in there:
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).touch()
    counts = built(plan, tmp_path / "root", tmp_path / "out", "pairs.both.records={train: {arig: 6}}")
    assert {r[kind] for r in records(tmp_path / "out") for kind in ("image", "audio")} <= there
    reasons = counts["datasets"]["pascal_voc"]["reasons"]
    assert reasons["picture missing"] == 90 - sum(name.endswith(".jpg") for name in there)


def test_what_has_no_class_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    LAYOUTS["pascal_voc"](tmp_path / "root" / "VOC")
    LAYOUTS["esc50"](tmp_path / "root" / "ESC")
    csv = tmp_path / "root" / "ESC" / "meta" / "esc50.csv"
    csv.write_text(csv.read_text() + "1-99999-A-1.wav,1,1,no such class,False,99999,A\n")
    datasets = {"pascal_voc": {"folder": "VOC"}, "esc50": {"folder": "ESC"}}
    pairs = {"both": {"images": "pascal_voc", "audio": "esc50", "records": {"train": {"arig": 3}}}}
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps({"name": "small", "datasets": datasets, "pairs": pairs}))
    counts = built(plan, tmp_path / "root", tmp_path / "out", media="skip")
    assert counts["datasets"]["esc50"]["reasons"] == {"no class of the look-up": 1}
    assert "no such class" in (tmp_path / "out" / "reports" / "rejected.jsonl").read_text()
    # a table of one's own, from the plan's folder
    (tmp_path / "mine.yaml").write_text("dog: {audio: {esc50: [dog, no such class]}}")
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "classes": ["mine.yaml"]}))
    counts = built(plan, tmp_path / "root", tmp_path / "mine", media="skip")
    assert counts["datasets"]["esc50"]["reasons"] == {}
    (tmp_path / "mine.yaml").write_text("dog: {sound: {esc50: [dog]}}")
    with pytest.raises(PlanError, match=r"plan\.yaml:1  classes: mine\.yaml:1: dog: no field 'sound'"):
        read_plan(plan)


def test_missing_folders_are_named_with_all_that_has_to_go(root: Path, tmp_path: Path) -> None:
    plan = RECIPES / "avfit" / "meerkat.yaml"
    with pytest.raises(AvalignError) as caught:
        built(plan, tmp_path, tmp_path / "out")
    assert "AVQA, AVSBench, AudioSet, AudioSet-Strong" in str(caught.value)
    for use in ("LLP", "VGG-SS", "OpenImages", "AudioSet"):
        (tmp_path / "part").mkdir(exist_ok=True)
        (tmp_path / "part" / use).symlink_to(root / use)
    with pytest.raises(AvalignError) as caught:
        built(plan, tmp_path / "part", tmp_path / "out")
    words = str(caught.value).partition("To build without: ")[2].split()
    assert set(words) >= {"pairs.pascal_sound=null", "datasets.pascal_voc=null", "datasets.vgg_sound=null"}
    read = read_plan(plan, words)
    assert list(read.datasets) == ["openimages", "audioset", "vgg_ss", "llp"]
    assert list(read.pairs) == ["openimages_audioset"]


def test_the_recipe_that_trains_from_it_is_right() -> None:
    read = recipe_io.read(RECIPES / "meerkat-avfit.yaml", ["data.root=x", "data.source.media=y"])
    assert read.data.source.name == "manifest"
    assert read.evaluation.tasks == [task for task in read.train.stages[0].tasks]


def test_the_papers_rows_are_those_of_the_shipped_plan() -> None:
    """Every source that a shipped plan makes records of has its row, but for what the paper has not."""
    plan = read_plan(RECIPES / "avfit" / "meerkat.yaml")
    made = {*plan.pairs, *(label for label in plan.datasets if plan.gives(label) == "records")}
    assert made == {source for row in PAPER for source in row.sources if "_s4" not in source} - {
        "avsbench_ms3",
        "avsbench_avss",
    }
    counted = Counter(row.task for row in PAPER)
    assert counted == {"arig": 6, "igatl": 2, "avfc": 1, "avqa": 2, "avcap": 1}
