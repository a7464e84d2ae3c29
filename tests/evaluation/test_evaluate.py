"""The whole benchmark on a made-up source: perfect, trivial, broken answers score what they must."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from avalign.answers import write_box, write_interval
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import evaluate
from avalign.types import TASKS, Sample

ANIMALS = ("dog", "cat", "cow")


class MadeUp:
    """Truth drawn from (split, task, index)."""

    tasks = TASKS

    def __init__(self):
        self.skipped = ["images/3.jpg: is empty"]

    def sample(self, split, task, index):
        draw = np.random.default_rng([("train", "val", "test").index(split), TASKS.index(task), index])
        animal, other = draw.permutation(ANIMALS)[:2]
        x, y, start = (round(float(v), 2) for v in draw.uniform(0, 0.6, 3))
        box, interval = (x, y, x + 0.3, y + 0.2), (start, start + 1.5)
        kind = {"avfc": f"type{index % 4 + 1}", "avqa": ("who", "count")[index % 2]}.get(task)
        response = {
            "arig": write_box(box, str(animal)),
            "igatl": write_interval(interval),
            "avfc": ("True", "False")[draw.integers(2)],
            "avqa": str(animal) if kind == "who" else str(draw.integers(1, 4)),
            "avcap": f"a {animal} is heard near a {other} and a tree number {draw.integers(100)}",
        }[task]
        return Sample(
            f"{split}-{task}-{index}",
            task,
            "<image> <audio> What?",
            response,
            image=np.zeros((8, 8, 3), np.uint8),
            audio=np.zeros(40_000, np.float32),
            boxes=(box,) if task == "arig" else (),
            intervals=(interval,) if task == "igatl" else (),
            label=str(animal),
            kind=kind,
        )


class Perfect:
    def answer(self, samples):
        return [s.response if s.image is not None and s.audio is not None else "" for s in samples]


class Garbage:
    def answer(self, samples):
        return ["%%% ~~"] * len(samples)


SETTINGS = {
    "tasks": TASKS,
    "samples": 24,
    "batch_size": 10,
    "bootstrap": 200,
    "seed": 0,
    "modality_check": True,
}
HEADLINES = {
    "arig": "mean IoU",
    "igatl": "mean temporal IoU",
    "avfc": "accuracy",
    "avqa": "accuracy",
    "avcap": "CIDEr-D",
}


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    out = tmp_path_factory.mktemp("perfect") / "eval"
    return evaluate(Perfect(), MadeUp(), **SETTINGS, out=out), out


@pytest.fixture(scope="module")
def garbage(tmp_path_factory):
    return evaluate(Garbage(), MadeUp(), **SETTINGS, out=tmp_path_factory.mktemp("garbage"))


@pytest.mark.parametrize("task", TASKS)
def test_perfect_answers_have_full_marks(perfect, task):
    result = perfect[0]["tasks"][task]
    full = 10 if task == "avcap" else 1
    score = result["metrics"][HEADLINES[task]]
    assert result["headline"] == HEADLINES[task]
    assert score["value"] == pytest.approx(full)
    assert score["low"] <= score["value"] <= score["high"] + 1e-9
    assert result["parse_failures"] == 0
    assert result["n"] == 24
    assert result["clear_of_trivial"] is True
    gain = result["over_best_trivial"]
    assert 0 < gain["low"] <= gain["value"] <= gain["high"]
    for name, metric in result["metrics"].items():
        assert (metric["low"] is None) == (name == "METEOR"), name


@pytest.mark.parametrize("task", TASKS)
def test_without_sound_or_image_this_answerer_says_nothing(perfect, task):
    for check in ("without_audio", "without_image"):
        less = perfect[0]["tasks"][task][check]
        assert less["metrics"][HEADLINES[task]]["value"] == 0
        assert less["parse_failures"] == 1


@pytest.mark.parametrize("task", TASKS)
def test_garbage_is_unparsed_and_wrong(garbage, task):
    result = garbage["tasks"][task]
    assert result["parse_failures"] == 1
    values = {name: m["value"] for name, m in result["metrics"].items() if name != "METEOR"}
    assert values.pop("cIoU AUC", 0.025) == pytest.approx(0.025)  # 0 reaches the threshold 0
    assert set(values.values()) == {0}
    assert result["clear_of_trivial"] is False


def test_trivial_answers_are_not_above_themselves(tmp_path):
    class Trivial:
        def answer(self, samples):
            said = {
                "arig": "[0, 0, 1, 1]",
                "igatl": "[0, 2.5]",
                "avfc": "True",
                "avqa": "dog",
                "avcap": "a dog",
            }
            return [said[s.task] for s in samples]

    scores = evaluate(Trivial(), MadeUp(), **SETTINGS | {"modality_check": False}, out=tmp_path)
    for task, result in scores["tasks"].items():
        assert result["clear_of_trivial"] is False, task
        assert "without_audio" not in result
    arig = scores["tasks"]["arig"]
    assert arig["metrics"]["mean IoU"] == arig["trivial"]["whole image"]["metrics"]["mean IoU"]
    igatl = scores["tasks"]["igatl"]
    assert (
        igatl["metrics"]["mean temporal IoU"]
        == igatl["trivial"]["whole clip"]["metrics"]["mean temporal IoU"]
    )


def test_groups(perfect):
    tasks = perfect[0]["tasks"]
    assert {name: t["groups"] and t["groups"]["by"] for name, t in tasks.items()} == {
        "arig": "class", "igatl": "class", "avfc": "type", "avqa": "question", "avcap": None
    }  # fmt: skip
    assert set(tasks["avfc"]["groups"]["rows"]) == {"type1", "type2", "type3", "type4"}
    assert sum(row["n"] for row in tasks["arig"]["groups"]["rows"].values()) == 24
    assert tasks["avqa"]["groups"]["rows"]["who"]["metrics"]["accuracy"]["value"] == 1
    assert tasks["avqa"]["metrics"]["macro accuracy"]["value"] == 1


def test_what_is_written(perfect):
    scores, out = perfect
    text = (out / "scores.json").read_text()
    assert json.loads(text) == scores
    assert "NaN" not in text
    assert scores["skipped"] == {"count": 1, "problems": ["images/3.jpg: is empty"]}
    table = (out / "scores.md").read_text()
    assert "1 samples could not be read" in table
    assert "| METEOR | n/a |" in table
    for task in TASKS:
        rows = [json.loads(line) for line in (out / f"{task}.jsonl").read_text().splitlines()]
        assert len(rows) == 24
        more = {"clip_seconds"} if task == "igatl" else set()
        assert rows[0].keys() == {"id", "kind", "instruction", "truth", "answer", "parsed", "values"} | more
        assert rows[3]["id"] == f"test-{task}-3"
        assert rows[3]["answer"] == rows[3]["truth"]["response"]


def test_the_test_list_is_known_by_its_hash(perfect, garbage, tmp_path):
    class Other(MadeUp):
        def sample(self, split, task, index):
            drawn = super().sample(split, task, index)
            return replace(drawn, response="True" if drawn.response == "False" else drawn.response)

    hashes = [s["tasks"]["avfc"]["test_list"] for s in (perfect[0], garbage)]
    assert hashes[0] == hashes[1]
    assert hashes[0].startswith("sha256:")
    changed = evaluate(Garbage(), Other(), **SETTINGS | {"tasks": ["avfc"]}, out=tmp_path)
    assert changed["tasks"]["avfc"]["test_list"] != hashes[0]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (
            {"tasks": ["arigg"]},
            r"evaluation.tasks: no task 'arigg'. Did you mean 'arig'\? Known: arig, avcap",
        ),
        ({"samples": 0}, "evaluation.samples: must be 1 or more, got 0"),
        ({"batch_size": -1}, "evaluation.batch_size"),
    ],
)
def test_a_wrong_setting_is_named(setting, why, tmp_path):
    with pytest.raises(AvalignError, match=why):
        evaluate(Garbage(), MadeUp(), **SETTINGS | setting, out=tmp_path)


def test_a_task_that_the_source_lacks_is_named(tmp_path):
    class OnlyArig(MadeUp):
        tasks = ("arig",)

    with pytest.raises(AvalignError, match=r"source OnlyArig has no task 'igatl'.* Known: arig"):
        evaluate(Garbage(), OnlyArig(), **SETTINGS, out=tmp_path)


def test_one_sample_alone_is_scored(tmp_path):
    scores = evaluate(Perfect(), MadeUp(), **SETTINGS | {"samples": 1}, out=tmp_path)
    assert scores["tasks"]["avcap"]["metrics"]["CIDEr-D"]["value"] is None
    assert scores["tasks"]["avcap"]["clear_of_trivial"] is None
    assert scores["tasks"]["avqa"]["metrics"]["accuracy"]["value"] == 1


def test_an_answerer_that_loses_an_answer_is_named(tmp_path):
    class Forgetful:
        def answer(self, samples):
            return ["x"]

    with pytest.raises(TypeError, match=r"Forgetful.answer: given 10 samples .* not 1 \(str\)"):
        evaluate(Forgetful(), MadeUp(), **SETTINGS, out=tmp_path)


# ---- sources that end, that have no training samples, that are several ----


class Listed(MadeUp):
    """Nine test samples of two data sets, and as many for training as said."""

    def __init__(self, train=0):
        super().__init__()
        self.train = train

    def size(self, split, task):
        return {"test": 9, "train": self.train}.get(split, 0)

    def sample(self, split, task, index):
        assert index < self.size(split, task)
        return replace(
            super().sample(split, task, index), provenance={"source": ("ave", "llp")[index % 3 == 0]}
        )


@pytest.mark.parametrize("wanted", ["all", 9, 1000])
def test_all_is_every_sample_there_is(wanted, tmp_path):
    steps = []
    scores = evaluate(
        Perfect(),
        Listed(),
        **SETTINGS | {"samples": wanted},
        out=tmp_path,
        progress=lambda *at: steps.append(at),
    )
    assert {task["n"] for task in scores["tasks"].values()} == {9}
    assert steps == [(task, 9, 9) for task in TASKS]
    fewer = evaluate(Perfect(), Listed(), **SETTINGS | {"samples": 4}, out=tmp_path)
    assert {task["n"] for task in fewer["tasks"].values()} == {4}


def test_all_of_an_endless_source_is_refused(tmp_path):
    with pytest.raises(AvalignError, match="MadeUp makes samples without end: give a number, not all"):
        evaluate(Perfect(), MadeUp(), **SETTINGS | {"samples": "all"}, out=tmp_path)
    with pytest.raises(AvalignError, match="must be a number or all, got 'al'"):
        evaluate(Perfect(), Listed(), **SETTINGS | {"samples": "al"}, out=tmp_path)
    with pytest.raises(AvalignError, match=r"split 'val' has no sample of task 'arig'\. It has: none"):
        evaluate(Perfect(), Listed(), **SETTINGS, out=tmp_path, split="val")


def test_without_training_samples_it_is_said(tmp_path):
    scores = evaluate(Perfect(), Listed(), **SETTINGS, out=tmp_path)
    tasks = scores["tasks"]
    assert {task["trained_on"] for task in tasks.values()} == {0}
    assert list(tasks["arig"]["trivial"]) == ["whole image", "centre box"]
    assert tasks["avqa"]["trivial"] == {}
    assert tasks["avqa"]["clear_of_trivial"] is None  # of nothing
    assert tasks["avqa"]["over_best_trivial"] is None
    assert "no training records" in (tmp_path / "scores.md").read_text()
    some = evaluate(Perfect(), Listed(train=7), **SETTINGS, out=tmp_path)["tasks"]
    assert some["avqa"]["trained_on"] == 7
    assert "random box of training sizes" in some["arig"]["trivial"]
    assert "learnt from the first 7 training samples" in (tmp_path / "scores.md").read_text()


def test_each_source_has_its_own_table(tmp_path):
    class OnlyAve:
        def answer(self, samples):
            return [s.response if s.provenance["source"] == "ave" else "" for s in samples]

    scores = evaluate(OnlyAve(), Listed(), **SETTINGS, out=tmp_path)
    accuracy = scores["tasks"]["avfc"]
    assert accuracy["metrics"]["accuracy"]["value"] == pytest.approx(6 / 9)
    ave, llp = accuracy["sources"]["ave"], accuracy["sources"]["llp"]
    assert [(part["n"], part["metrics"]["accuracy"]["value"]) for part in (ave, llp)] == [(6, 1), (3, 0)]
    assert len({part["test_list"] for part in (accuracy, ave, llp)}) == 3
    assert ave["without_audio"]["metrics"]["accuracy"]["value"] == 1
    assert (ave["parse_failures"], llp["parse_failures"]) == (0, 1)
    assert (
        ave["trivial"]["always True"]["metrics"]["accuracy"]["value"]
        != accuracy["trivial"]["always True"]["metrics"]["accuracy"]["value"]
    )
    text = (tmp_path / "scores.md").read_text()
    assert "### AVFC: audio-visual fact checking, of llp" in text
    assert "| avfc of ave | accuracy | 1.000" in text
    alone = evaluate(Perfect(), OnlyOf("ave"), **SETTINGS | {"tasks": ["avfc"]}, out=tmp_path)
    assert alone["tasks"]["avfc"]["sources"] == {}


def test_captions_of_a_source_are_weighed_by_its_own_references(tmp_path):
    """CIDEr-D's document frequencies are those of the list that is scored."""
    scores = evaluate(Perfect(), Listed(), **SETTINGS | {"tasks": ["avcap"]}, out=tmp_path)["tasks"]["avcap"]
    alone = evaluate(Perfect(), OnlyOf("llp"), **SETTINGS | {"tasks": ["avcap"]}, out=tmp_path / "alone")[
        "tasks"
    ]["avcap"]
    assert scores["sources"]["llp"]["metrics"] == alone["metrics"]
    assert scores["sources"]["llp"]["test_list"] == alone["test_list"]


class OnlyOf(Listed):
    """Those of one data set, as a list of its own."""

    def __init__(self, source):
        super().__init__()
        self.rows = [
            i for i in range(9) if Listed().sample("test", "avcap", i).provenance["source"] == source
        ]

    def size(self, split, task):
        return len(self.rows) if split == "test" else 0

    def sample(self, split, task, index):
        return Listed().sample(split, task, self.rows[index])


def test_a_model_that_gives_maps_is_asked_for_them(tmp_path):
    class WithMaps(Perfect):
        def answer_with_maps(self, samples):
            heats = [np.eye(4) if i else None for i in range(len(samples))]
            return list(zip(self.answer(samples), heats, strict=True))

    scores = evaluate(WithMaps(), Listed(), **SETTINGS, out=tmp_path)["tasks"]
    assert scores["arig"]["maps"] == 8  # of 9: the first of the one batch had none
    assert scores["arig"]["metrics"]["mean IoU"]["value"] == pytest.approx(1)
    assert 0 < scores["arig"]["metrics"]["mean map cIoU"]["value"] < 0.5
    assert set(scores["arig"]["without_audio"]["metrics"]) == {"mean IoU"}
    assert "maps" not in scores["avfc"]
