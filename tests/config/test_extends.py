"""A recipe is its parents, then itself, then the command line."""

from __future__ import annotations

import pytest

from avalign.config import shipped
from avalign.config.recipe import Component, LossTerm
from avalign.config.recipe_file import RecipeError, read
from avalign.types import TASKS

# ---- extends -------------------------------------------------------------------------------------


def test_mappings_merge_and_lists_replace(folder, reads):
    (folder / "sub").mkdir()
    (folder / "sub" / "grand.yaml").write_text(
        "name: grand\nseed: 4\nmodel: {width: 64}\nevaluation: {tasks: [arig, avfc], samples: 7}\n"
    )
    (folder / "sub" / "base.yaml").write_text(
        "extends: ../sub/grand.yaml\nname: base\ntrain: {batch_size: 4}\n"
    )
    recipe = reads("extends: sub/base.yaml\nevaluation: {tasks: [avqa]}\nmodel:\n")
    assert (recipe.name, recipe.seed, recipe.model.width, recipe.train.batch_size) == ("x", 4, 64, 4)
    assert (recipe.evaluation.tasks, recipe.evaluation.samples) == (["avqa"], 7)


def test_a_shipped_recipe_is_extended_by_its_name(folder, reads, monkeypatch):
    (folder / "shipped" / "baselines").mkdir(parents=True)
    (folder / "shipped" / "meerkat.yaml").write_text("seed: 7\nmodel: {width: 64}\n")
    (folder / "shipped" / "baselines" / "other.yaml").write_text("extends: ../meerkat.yaml\nseed: 8\n")
    monkeypatch.setattr(shipped, "folder", lambda: folder / "shipped")
    recipe = reads("extends: meerkat\ntrain: {batch_size: 4}\n")
    assert (recipe.name, recipe.seed, recipe.model.width, recipe.train.batch_size) == ("x", 7, 64, 4)
    assert (reads("extends: other\n").seed, reads("extends: baselines/other\n").model.width) == (8, 64)
    (folder / "meerkat").write_text("seed: 9\n")
    assert reads("extends: meerkat\n").seed == 9, "a file that lies there goes before a name"


def test_a_name_that_nothing_shipped_has_is_said_where_it_stands(reads):
    with pytest.raises(
        RecipeError, match=r"r\.yaml:2  extends: meercat: no such file, and no recipe .* 'meerkat'"
    ):
        reads("extends: meercat\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2  extends: .*alignment is a study, not a recipe"):
        reads("extends: alignment\n")


BASE = """
model:
  image_projector: {name: mlp, hidden: 8, depth: 3}
  audio_projector: {name: mlp, hidden: 8}
  image_connector: {name: mlp, hidden: 8}
  fusion: {name: avace, heads: 8}
losses:
  avopt: {weight: 0.5, hidden: 8}
  avace: {}
"""


def test_a_changed_name_drops_the_options_and_the_same_name_keeps_them(folder, reads):
    (folder / "base.yaml").write_text(BASE)
    child = """
model:
  image_projector: {hidden: 9}
  audio_projector: {name: mlp, depth: 4}
  image_connector: {name: linear}
  fusion: none
losses:
  avopt: {name: needy, epsilon: 1}
"""
    recipe = reads(f"extends: base.yaml{child}")
    assert recipe.model.image_projector == Component("mlp", {"hidden": 9, "depth": 3})
    assert recipe.model.audio_projector == Component("mlp", {"hidden": 8, "depth": 4})
    assert recipe.model.image_connector == Component("linear")
    assert recipe.model.fusion == Component("none")
    assert recipe.losses["avopt"] == LossTerm("needy", {"epsilon": 1.0, "target": None}, weight=0.5)


def test_null_drops_a_loss_and_a_grandchild_may_bring_it_back(folder, reads):
    (folder / "base.yaml").write_text(BASE)
    (folder / "without.yaml").write_text("extends: base.yaml\nlosses: {avopt: null}")
    assert list(reads("extends: without.yaml").losses) == ["avace"]
    back = reads("extends: without.yaml\nlosses: {avopt: {weight: 2}}").losses["avopt"]
    assert back == LossTerm("avopt", {"hidden": 4096, "depth": 2}, weight=2.0)


def test_losses_that_a_recipe_states_are_all_it_has(reads):
    assert list(reads("losses: {avopt: {}}").losses) == ["avopt"]
    assert list(reads("", "losses.avopt=null").losses) == ["language_modelling", "avace"]
    assert reads("losses: {mine: needy}", "losses.mine.epsilon=1").losses["mine"].name == "needy"


def test_an_option_alone_is_of_the_component_already_there(reads):
    assert reads("model: {fusion: {heads: 2}}").model.fusion.options["heads"] == 2


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"r.yaml": "\nextends: r.yaml"}, "r.yaml:2  extends: a circle: r.yaml -> r.yaml."),
        (
            {
                "r.yaml": "extends: a.yaml",
                "a.yaml": "extends: sub/../b.yaml",
                "b.yaml": "\n\nextends: a.yaml",
            },
            "b.yaml:3  extends: a circle: a.yaml -> b.yaml -> a.yaml.",
        ),
        (
            {"r.yaml": "extends: bse.yaml", "base.yaml": "seed: 1"},
            "r.yaml:1  extends: bse.yaml: no such file. Did you mean 'base.yaml'? Known: base.yaml, r.yaml.",
        ),
        (
            {"r.yaml": "extends: [a.yaml]"},
            'r.yaml:1  extends: should be the path of one recipe, got ["a.yaml"].',
        ),
        (
            {"r.yaml": "extends: a.yaml", "a.yaml": "- 1"},
            "r.yaml:1  extends: a.yaml: should be a mapping of settings.",
        ),
    ],
)
def test_a_chain_that_leads_nowhere_is_refused(folder, files, problem):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(RecipeError) as caught:
        read("r.yaml")
    assert caught.value.problems == [problem]


# ---- overrides -----------------------------------------------------------------------------------

STAGES = "train: {stages: [{name: align, steps: 5}, {name: all, steps: 6, tasks: {arig: 1}}]}"


def test_overrides_win_and_the_last_wins(reads):
    recipe = reads(
        "seed: 1", "seed=2", "seed=3", "train.learning_rate=1e-4", "data.root=a=b", "data.on_error=skip"
    )
    assert (recipe.seed, recipe.train.learning_rate, recipe.data.root) == (3, 1e-4, "a=b")
    assert recipe.data.on_error == "skip"


def test_overrides_reach_components_like_a_child_recipe(reads):
    recipe = reads("model: {image_projector: mlp}", "model.image_projector.depth=5", "model.fusion.name=none")
    assert recipe.model.image_projector.options["depth"] == 5
    assert recipe.model.fusion == Component("none")
    recipe = reads("model: {image_projector: {name: mlp, depth: 5}}", "model.image_projector={hidden: 2}")
    assert recipe.model.image_projector == Component("mlp", {"depth": 5, "hidden": 2})
    recipe = reads("", "losses.avopt.weight=3", "losses.extra={name: needy, epsilon: 1}")
    assert recipe.losses["avopt"].weight == 3
    assert recipe.losses["extra"].options["epsilon"] == 1


def test_overrides_enter_lists_by_index_and_by_name(reads):
    recipe = reads(
        STAGES, "train.stages.align.steps=10", "train.stages.1.tasks.avqa=2", "evaluation.tasks.0=avqa"
    )
    assert [stage.steps for stage in recipe.train.stages] == [10, 6]
    assert recipe.train.stages[1].tasks == {"arig": 1.0, "avqa": 2.0}
    assert recipe.evaluation.tasks[:2] == ["avqa", "igatl"]
    recipe = reads(STAGES, "train.stages=[{name: b, steps: 1}]", "train.stages.b.tasks.arig=0")
    assert recipe.train.stages[0].tasks == {**dict.fromkeys(TASKS, 1.0), "arig": 0.0}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "command line  'seed' should be key=value, as in train.batch_size=8."),
        ("train..steps=1", "command line  'train..steps=1' should be key=value, as in train.batch_size=8."),
        ("seed=x", 'command line  seed: should be a valid integer, got "x".'),
        ("seed.x=1", 'command line  seed: should be a valid integer, got {"x": 1}.'),
        (
            "train.stages.algin.steps=1",
            "command line  train.stages.algin: no such entry. Did you mean 'align'? Known: 0, 1, align, all.",
        ),
        ("train.stages.2.steps=1", "command line  train.stages.2: no such entry. Known: 0, 1, align, all."),
        (
            "train.stages.0.stps=1",
            "command line  train.stages.0.stps: unknown key 'stps'. Did you mean 'steps'? "
            "Known: learning_rate, name, schedule, steps, tasks, train, weights.",
        ),
        (
            "seed=[1",
            "command line  seed: not YAML: expected ',' or ']', but got '<stream end>', "
            "while parsing a flow sequence.",
        ),
        (
            "model.llm.lora=8",
            "command line  model.llm.lora: llm 'small' has no option 'lora'. Known: (none).",
        ),
        (
            "extends=a.yaml",
            "command line  extends: unknown key 'extends'. "
            "Known: data, evaluation, losses, model, name, seed, train.",
        ),
    ],
)
def test_a_wrong_override_is_named(problems, override, problem):
    assert problems(STAGES, override) == [problem]
