"""Each task's worked example, and each one's trivial answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from avalign.answers import read_box, read_intervals
from avalign.evaluation.evaluate import TASKS
from avalign.evaluation.metrics import clip_f1 as clips
from avalign.evaluation.tasks.arig import Arig
from avalign.evaluation.tasks.avcap import Avcap
from avalign.evaluation.tasks.avfc import Avfc
from avalign.evaluation.tasks.avqa import Avqa
from avalign.evaluation.tasks.igatl import Igatl, clip_seconds
from avalign.types import Sample

SILENCE = np.zeros(16_000 * 10, np.float32)


def values(task, samples, answers):
    scored = task.score(samples, answers)
    return {metric.name: metric.value() for metric in task.metrics(samples, scored)}


def test_arig_worked_example():
    dog = Sample("1", "arig", "", "[dog, 0.1, 0.2, 0.5, 0.6]", boxes=((0.1, 0.2, 0.5, 0.6),), label="dog")
    got = values(Arig(), [dog], ["[dog, 0.3, 0.2, 0.5, 0.6]"])
    assert got == pytest.approx(
        {
            "mean IoU": 0.5,
            "macro mean IoU": 0.5,
            "IoU@0.5": 1,
            "cIoU@0.5": 1,
            "cIoU AUC": 0.525,
            "mean cIoU": 0.5,
            "class accuracy": 1,
        }
    )


def test_arig_takes_the_first_box_and_the_true_box_that_fits_best():
    two = Sample("1", "arig", "", "", boxes=((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    got = values(Arig(), [two], ["[0.5, 0, 1, 1] [0, 0, 0.1, 0.1]"])
    assert got["mean IoU"] == 1
    assert got["mean cIoU"] == pytest.approx(0.5, abs=0.01)
    assert "class accuracy" not in got


def test_igatl_worked_example():
    clip = Sample("1", "igatl", "", "[2.00, 6.00]", audio=SILENCE, intervals=((2, 6),), label="dog")
    got = values(Igatl(), [clip], ["[3.00, 6.00]"])
    assert got["mean temporal IoU"] == 0.75
    assert got["mean segment IoU"] == pytest.approx(0.8)
    assert got["segment F1"] == pytest.approx(0.889, abs=5e-4)
    assert got["event F1"] == 1


def test_igatl_of_a_class_that_never_sounds():
    silent = Sample("1", "igatl", "", "never", audio=SILENCE)
    assert values(Igatl(), [silent], ["It is never heard."])["segment F1"] == 1
    assert values(Igatl(), [silent], ["[1, 2]"])["segment F1"] == 0
    assert Igatl().score([silent], ["mumble"])[0].parsed is None
    assert Igatl().score([silent], ["It is silent from 2 to 4 s."])[0].parsed is None


def test_avfc_worked_example():
    samples = [Sample(str(i), "avfc", "", r) for i, r in enumerate(["True"] * 5 + ["False"] * 5)]
    got = values(Avfc(), samples, ["True"] * 3 + ["No."] * 2 + ["yes"] + ["False"] * 4)
    assert (got["precision"], got["recall"], got["accuracy"]) == (0.75, 0.6, 0.7)
    assert got["F1"] == pytest.approx(0.6667, abs=5e-5)
    got = values(Avfc(), samples, ["perhaps"] + ["True"] * 2 + ["False"] * 2 + ["True"] + ["False"] * 4)
    assert (got["recall"], got["accuracy"]) == (0.4, 0.6)


def test_avqa_worked_example():
    two, left = Sample("1", "avqa", "", "two", kind="count"), Sample("2", "avqa", "", "left", kind="place")
    assert values(Avqa(), [two, left], ["The 2.", "on the left"])["accuracy"] == 0.5
    samples = [two, two, two, left]
    got = values(Avqa(), samples, ["2", "two", "TWO", "right"])
    assert got == {"accuracy": 0.75, "macro accuracy": 0.5}
    assert Avqa().score([two], ["..."])[0].parsed is None


DOG = Sample(
    "1", "avqa", "", "dog", kind="which", provenance={"choices": ["a cat", "dog", "cow", "thirty b"]}
)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(
            (answer, 1)
            for answer in (
                "B",
                "b",
                "(b)",
                "b) Dog",
                "B. the dog!",
                "B: dog",
                "Answer: B",
                "option (B)",
                "dog",
            )
        ),
        *(
            (answer, 0)
            for answer in ("C", "A", "B. cow", "a cat", "E", "(z)", "bdog", "it is a dog", "B C", "")
        ),
    ],
)
def test_avqa_of_multiple_choice(answer, right):
    assert values(Avqa(), [DOG], [answer])["accuracy"] == right


def test_avqa_letters_stand_for_choices_in_the_truth_too_and_only_there():
    by_letter = replace(DOG, response="B")
    assert values(Avqa(), [by_letter], ["dog"])["accuracy"] == 1
    open_question = replace(DOG, provenance={})
    assert values(Avqa(), [open_question], ["B"])["accuracy"] == 0
    two = replace(DOG, response="b", provenance={"choices": ["b", "a"]})
    assert values(Avqa(), [two], ["B"])["accuracy"] == 1  # a choice's own text comes before its letter
    with pytest.raises(ValueError, match="1: its choices are not a list of strings"):
        Avqa().score([replace(DOG, provenance={"choices": "abc"})], ["a"])


def test_avfc_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn to cross-check")
    for seed in range(20):
        draw = np.random.default_rng(seed)
        true, said = draw.random(40) < 0.4, draw.random(40) < 0.6
        samples = [Sample(str(i), "avfc", "", str(t), kind=f"type{i % 4 + 1}") for i, t in enumerate(true)]
        got = values(Avfc(), samples, [str(s) for s in said])
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(true, said, average="binary")
        assert (got["precision"], got["recall"], got["F1"]) == pytest.approx((precision, recall, f1))
        assert got["accuracy"] == pytest.approx(sklearn.accuracy_score(true, said))
        assert got["balanced accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(true, said))


def test_without_training_samples_only_answers_that_need_none_are_left():
    left = {name: list(task.trivial([], 0)) for name, task in TASKS.items()}
    assert left == {
        "arig": ["whole image", "centre box"],
        "igatl": ["whole clip"],
        "avfc": ["always True"],
        "avqa": [],
        "avcap": [],
    }


def test_a_clip_of_unknown_length_is_ten_seconds_or_more():
    clip = Sample("1", "igatl", "", "[2, 6]", intervals=((2, 6),))
    assert clip_seconds(clip) == 10
    assert clip_seconds(replace(clip, intervals=((2, 6), (11, 12.5)))) == 12.5
    assert values(Igatl(), [clip], ["[2, 10]"])["segment F1"] == pytest.approx(2 * 5 / (5 + 8))


def test_flickr_soundnet_is_scored_by_its_annotators_agreement():
    """Half the left third and all of the middle one: as a box 0.75 (see test_meerkatbench_metrics)."""
    two = tuple(tuple(x / 256 for x in box) for box in ((0, 0, 128, 256), (64, 0, 192, 256)))
    sample = Sample("1", "arig", "", "", boxes=two, consensus=2)
    assert values(Arig(), [sample], ["[0, 0, 0.5, 1]"])["mean cIoU"] == pytest.approx(0.75)
    left = np.repeat(np.arange(4.0)[None, ::-1], 4, 0)
    assert Arig().map_values(sample, left)["map cIoU"] == pytest.approx(0.75)
    assert Arig().map_values(sample, None)["map cIoU"] == 0


def test_avcap_worked_example():
    dog = Sample("1", "avcap", "", "a dog barks loudly")
    cat = Sample("2", "avcap", "", "rain", references=("the cat is wet",))
    got = values(Avcap(), [dog], ["A dog barks."])
    brevity = math.exp(1 - 4 / 3)
    assert [got[f"BLEU@{n}"] for n in (1, 2, 3, 4)] == pytest.approx([brevity, brevity, brevity, 0])
    assert got["ROUGE-L"] == pytest.approx(0.836, abs=5e-4)
    assert got["CIDEr-D"] is None  # one item has no document frequencies
    assert got["METEOR"] is None
    assert values(Avcap(), [dog, cat], ["A dog barks loudly", "the cat is wet"])["CIDEr-D"] == pytest.approx(
        7.5
    )


@pytest.mark.parametrize(
    ("task", "sample", "why"),
    [
        (Arig(), Sample("s7", "arig", "", ""), "s7: has no true box"),
        (Avfc(), Sample("s7", "avfc", "", "perhaps"), "s7: its response 'perhaps'"),
        (Avcap(), Sample("s7", "avcap", "", "..."), "s7: a reference"),
    ],
)
def test_a_sample_without_truth_is_named(task, sample, why):
    with pytest.raises(ValueError, match=why):
        task.score([sample, sample], ["x", "x"])


def test_trivial_boxes():
    train = [
        Sample(str(i), "arig", "", "", boxes=(b,))
        for i, b in enumerate([(0, 0, 0.2, 0.4), (0.2, 0, 0.4, 0.2)])
    ]
    trivial = Arig().trivial(train, seed=0)
    train += [Sample("x", "arig", "", "", label=label) for label in ("dog", "cat", "dog")]
    trivial = Arig().trivial(train, seed=0)
    sample = Sample("test 1", "arig", "", "")
    assert {read_box(answer(sample)).label for answer in trivial.values()} == {"dog"}
    answers = {name: read_box(answer(sample)).box for name, answer in trivial.items()}
    assert answers["whole image"] == (0, 0, 1, 1)
    assert answers["centre box"] == (0.25, 0.25, 0.75, 0.75)
    assert answers["mean box of training"] == pytest.approx((0.1, 0, 0.3, 0.3))
    x0, y0, x1, y1 = answers["random box of training sizes"]
    assert (round(x1 - x0, 3), round(y1 - y0, 3)) in ((0.2, 0.4), (0.2, 0.2))
    again = Arig().trivial(train, seed=0)["random box of training sizes"](sample)
    assert read_box(again).box == (x0, y0, x1, y1)


def test_trivial_intervals():
    train = [Sample(str(i), "igatl", "", "", intervals=(t,)) for i, t in enumerate([(0.0, 4.0), (4.0, 14.0)])]
    trivial = Igatl().trivial(train, seed=0)
    clip = Sample("1", "igatl", "", "", audio=SILENCE[:48_000])
    assert read_intervals(trivial["whole clip"](clip)) == [(0, 3)]
    assert read_intervals(trivial["mean interval of training"](clip)) == [(2, 3)]


def test_trivial_verdicts_and_answers():
    train = [Sample(str(i), "avfc", "", r) for i, r in enumerate(["yes", "False", "no"])]
    assert Avfc().trivial(train, 0)["majority answer"](train[0]) == "False"
    assert Avfc().trivial(train, 0)["always True"](train[0]) == "True"
    asked = [("count", "two"), ("count", "2"), ("place", "left"), ("place", "right"), ("place", "left")]
    train = [Sample(str(i), "avqa", "", r, kind=k) for i, (k, r) in enumerate([*asked, ("count", "2.")])]
    trivial = Avqa().trivial(train, 0)
    assert trivial["majority answer"](train[2]) == "2"
    assert trivial["majority answer of the question type"](train[3]) == "left"
    assert trivial["majority answer of the question type"](Sample("x", "avqa", "", "", kind="new")) == "2"


def test_the_trivial_caption_is_like_many():
    texts = [
        "a dog barks on the grass",
        "a dog barks on the road",
        "a dog sleeps on the grass",
        "rain",
        "the sea",
    ]
    train = [Sample(str(i), "avcap", "", text) for i, text in enumerate(texts)]
    assert Avcap().trivial(train, 0)["most typical caption of training"](train[0]) == texts[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_metric_is_defined_and_the_headline_first(task):
    sample = Sample(
        "1",
        task.name,
        "",
        "True",
        boxes=((0, 0, 1, 1),),
        intervals=((0, 1),),
        label="dog",
        kind=None if task.name == "igatl" else "k",
    )
    names = [m.name for m in task.metrics([sample] * 2, task.score([sample] * 2, ["True"] * 2))]
    assert names[0] == task.headline
    only_there = {"igatl": clips.DEFINITIONS, "arig": [n for n in task.definitions if "map" in n]}
    assert set(names) == set(task.definitions) - set(only_there.get(task.name, ()))
