"""Studies as files: read into recipes, or refused with every problem at its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.studies import ablate
from avalign.studies.study import StudyError, read_study
from tests.helpers.studies import BASE, STUDY, write_study

SHIPPED = sorted((BASE.parent / "ablations").glob("*.yaml"))


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with a study, each without the folder it lies in."""
    with pytest.raises(StudyError) as caught:
        read_study(write_study(tmp_path, text))
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def test_arms_are_the_base_and_what_they_change(tmp_path):
    study = read_study(write_study(tmp_path))
    assert (study.name, study.reference, study.seeds) == ("small", "both", (0, 1, 2))
    assert study.metrics == (("avqa", "accuracy"),)
    assert study.arms["both"] == read(BASE, ["evaluation.tasks=[avqa]", "evaluation.samples=10"])
    assert study.arms["none"].losses["avopt"].weight == 0
    recipe = study.recipe("none", 2)
    assert (recipe.name, recipe.seed) == ("small-none", 2)


def test_settings_may_be_dotted_nested_or_both_and_lists_are_entered_by_name(tmp_path):
    ways = [
        "{train.stages.words.steps: 7, train.stages.words.tasks.avqa: 2, model.fusion: none}",
        "{train: {stages: {words: {steps: 7, tasks: {avqa: 2}}}}, model: {fusion: none}}",
        "{train.stages: {words: {steps: 7, tasks.avqa: 2}}, model: {fusion: {name: none}}}",
    ]
    asked = ["train.stages.words.steps=7", "train.stages.words.tasks.avqa=2", "model.fusion=none"]
    right = read(BASE, ["evaluation.tasks=[avqa]", "evaluation.samples=10", *asked])
    for way in ways:
        study = read_study(write_study(tmp_path, STUDY.replace("{losses.avopt.weight: 0}", way)))
        assert study.arms["none"] == right
        assert [stage.name for stage in right.train.stages] == ["align", "words", "answer"]


def test_an_arm_may_be_another_recipe_found_from_the_study(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(f"extends: {BASE}\nmodel: {{fusion: none}}\n")
    text = STUDY.replace("{losses.avopt.weight: 0}", "{recipe: recipes/mine.yaml, model.width: 32}")
    recipe = read_study(write_study(tmp_path, text)).arms["none"]
    assert (recipe.model.fusion.name, recipe.model.width, recipe.evaluation.samples) == ("none", 32, 10)


def test_the_command_line_wins(tmp_path):
    study = read_study(write_study(tmp_path), ["losses.avace.weight=0.3", "evaluation.samples=5"], (4, 9))
    assert study.seeds == (4, 9)
    assert study.arms["both"].losses["avace"].weight == 0.3
    assert study.arms["both"].evaluation.samples == 5


@pytest.mark.parametrize(
    ("given", "seeds"), [("", (0, 1, 2)), ("seeds: 2", (0, 1)), ("seeds: [3, 1]", (3, 1))]
)
def test_seeds_are_counted_or_listed(tmp_path, given, seeds):
    assert read_study(write_study(tmp_path, STUDY + given)).seeds == seeds


def test_metrics_are_tasks_or_metrics_of_tasks(tmp_path):
    text = STUDY.replace("[avqa]", "[avqa, avfc]") + "metrics: [avfc/F1, avqa]\n"
    assert read_study(write_study(tmp_path, text)).metrics == (("avfc", "F1"), ("avqa", "accuracy"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("about:", "abuot:", r"study.yaml:2  abuot: unknown key 'abuot'. Did you mean 'about'\?"),
        ("name: small", "name: a/b", r"study.yaml:1  name: 'a/b' cannot name a folder"),
        ("name: small\n", "", r"study.yaml:1  name: missing"),
        (f"base: {BASE}\n", "", r"study.yaml:\d  base: missing: the recipe that the arms change"),
        ("meerkat.yaml", "merkat.yaml", r"base: .*merkat.yaml: no such file. Did you"),
        (
            "reference: both",
            "reference: bth",
            r"study.yaml:9  reference: no arm is named 'bth'. Did you mean 'both'\?",
        ),
        ("reference: both\n", "", r"reference: missing: .* Known: both, none."),
        (
            "avopt.weight: 0",
            "avpot.weight: 0",
            r"study.yaml:8  losses.avpot: no loss is named 'avpot'. Did you mean 'avopt'\?",
        ),
        (
            "avopt.weight: 0",
            "avopt.wieght: 0",
            r"study.yaml:8  losses.avopt.wieght: .* no option 'wieght'. Did you mean 'weight'",
        ),
        (
            "losses.avopt.weight: 0",
            "train.stages.wrods.steps: 1",
            r"study.yaml:8  train.stages.wrods: no such entry. Did you mean 'words'",
        ),
        (
            "losses.avopt.weight: 0",
            "train..steps: 1",
            r"study.yaml:8  train..steps: a dotted key names a setting",
        ),
        (
            "losses.avopt.weight: 0",
            "seed: 3",
            r"study.yaml:8  arms.none.seed: cannot be set here: it stands in `seeds`",
        ),
        ("evaluation:", "name: x\n  evaluation:", r"study.yaml:5  overrides.name: cannot be set here"),
        ("losses.avopt.weight: 0", "", r"study.yaml:8  arms.none: the same recipe as the arm 'both'"),
        ("{losses.avopt.weight: 0}", "[1]", r"study.yaml:8  arms.none: should be a mapping of settings"),
        ("  none:", "  BOTH:", r"study.yaml:8  arms.BOTH: its folder would be another arm's"),
        ("  none:", "  a/b:", r"study.yaml:8  arms.a/b: 'a/b' cannot name a folder"),
        (
            "{losses.avopt.weight: 0}",
            "{recipe: no.yaml}",
            r"study.yaml:8  arms.none.recipe: .*no.yaml: no such file",
        ),
        (
            "reference:",
            "seeds: 0\nreference:",
            r"study.yaml:9  seeds: should be how many, or a list of seeds, got 0",
        ),
        ("reference:", "seeds: [1, 1]\nreference:", r"study.yaml:9  seeds: a seed is given twice"),
        (
            "reference:",
            "metrics: [avq]\nreference:",
            r"metrics.0: no task is named 'avq'. Did you mean 'avqa'",
        ),
        ("reference:", "metrics: [avqa/F1]\nreference:", r"metrics.0: avqa has no metric 'F1'"),
        ("reference:", "metrics: [arig]\nreference:", r"metrics.0: no arm is scored on 'arig'"),
        ("tasks: [avqa]", "tasks: [avqa", r"study.yaml:\d+  not YAML"),
        ("arms:", "arms: 3\nother:", r"study.yaml:6  arms: should be a mapping of arms"),
    ],
)
def test_every_mistake_is_named_at_its_place(tmp_path, old, new, said):
    assert old in STUDY
    found = problems(tmp_path, STUDY.replace(old, new))
    assert any(re.search(said, line) for line in found), found


def test_all_problems_are_said_at_once_and_one_of_all_arms_once(tmp_path):
    text = STUDY.replace("samples: 10", "smaples: 10").replace("avopt.weight: 0", "avopt.weight: -1")
    first, second = problems(tmp_path, text)
    assert first.startswith("study.yaml:5  evaluation.smaples: unknown key")
    assert second.startswith("study.yaml:8  losses.avopt.weight: should be greater than or equal to 0")


def test_a_recipe_in_the_place_of_a_study_is_told_apart():
    with pytest.raises(StudyError, match=r"a recipe, not a study: it has no `arms`. Run it: avalign train"):
        read_study(BASE)


def test_a_file_that_is_no_study(tmp_path):
    for make, said in (
        (lambda path: None, r"study.yaml: no such file"),
        (lambda path: path.mkdir(), "a folder, not a study"),
    ):
        make(tmp_path / "study.yaml")
        with pytest.raises(StudyError, match=said):
            read_study(tmp_path / "study.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="not UTF-8"):
        read_study(tmp_path / "bad.yaml")


def test_two_studies_of_one_name_would_share_a_folder(tmp_path):
    first, second = write_study(tmp_path), tmp_path / "other.yaml"
    second.write_text(STUDY)
    with pytest.raises(StudyError, match=r"other.yaml: named 'small', as .*study.yaml is"):
        ablate([str(first), str(second)], out=tmp_path / "out", report_only=True)


@pytest.mark.parametrize("seeds", ["", "x", "1,1", "0", "-1"])
def test_seeds_that_are_none_are_refused(tmp_path, seeds):
    with pytest.raises(AvalignError, match="--seeds: "):
        ablate([str(write_study(tmp_path))], seeds=seeds, out=tmp_path / "out", report_only=True)


# ---- the shipped ones ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_right(path):
    study = read_study(path)
    assert study.name == path.stem
    assert len(study.arms) >= 3
    assert study.about


@pytest.mark.parametrize("name", ["alignment", "alignment-avmini"])
def test_the_alignment_arms_differ_in_the_alignment_losses_alone(name):
    """Same steps, same tasks and the language loss in every stage, or the comparison is of something else."""
    study = read_study(BASE.parent / "ablations" / f"{name}.yaml")
    on = {
        arm: [
            {label for label, term in recipe.losses.items() if stage.weights.get(label, term.weight) != 0}
            for stage in recipe.train.stages
        ]
        for arm, recipe in study.arms.items()
    }
    words = {"language_modelling"}
    for arm, losses in {
        "ce": words,
        "ce+avopt": words | {"avopt"},
        "ce+avace": words | {"avace"},
        "both": words | {"avopt", "avace"},
        "contrastive": words | {"contrastive", "avace"},
        "unbalanced": words | {"avopt", "avace"},
    }.items():
        assert on[arm] == [losses] * 3, arm
    both = study.arms["both"]
    full = read(BASE.parent / f"{both.name.removesuffix('-short')}.yaml")
    assert both.losses == full.losses
    assert both.model == full.model
    steps = [[s.steps / sum(t.steps for t in r.train.stages) for s in r.train.stages] for r in (both, full)]
    assert steps[0] == pytest.approx(steps[1], abs=0.005)
    for recipe in study.arms.values():
        assert (recipe.model, recipe.data, recipe.evaluation) == (both.model, both.data, both.evaluation)
        for stage, other in zip(recipe.train.stages, both.train.stages, strict=True):
            assert (stage.steps, stage.tasks, stage.learning_rate) == (
                other.steps, other.tasks, other.learning_rate,
            )  # fmt: skip
    assert study.arms["unbalanced"].losses["avopt"].options["backend"] == "unbalanced"
