"""What a recipe says is read as it was meant, or refused with the place, the reason and the nearest name."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign import registry
from avalign.batch import TASKS
from avalign.recipe import Component, Data, Evaluation, LossTerm, Model, Recipe, Stage, Train
from avalign.recipe_io import PARTS, RecipeError, dump, read, write
from tests import fakes


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch, tmp_path_factory.mktemp("fakes"))
        yield


@pytest.fixture
def folder(components, tmp_path, monkeypatch):
    """An empty folder to stand in, so that files are named as they are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reads(folder):
    """The recipe of some YAML and overrides. `name: x` is added."""

    def of(text="", *overrides):
        (folder / "r.yaml").write_text(f"name: x\n{text}")
        return read("r.yaml", overrides)

    return of


@pytest.fixture
def problems(reads):
    """The problems of some YAML and overrides; lines count from 2, after `name: x`."""

    def of(text="", *overrides):
        with pytest.raises(RecipeError) as caught:
            reads(text, *overrides)
        return caught.value.problems

    return of


# ---- defaults and round trips --------------------------------------------------------------------


def filled(recipe: Recipe) -> Recipe:
    """The recipe with its components' defaults, as `read` gives it."""

    def fill(kind: str, component: Component) -> Component:
        options = registry.options(registry.load(kind, component.name))
        known = {n: p.default for n, p in options.items() if p.default is not p.empty and n != "strange"}
        return replace(component, options={**known, **component.options})

    kinds = {
        "fusion": "fusion",
        "llm": "llm",
        "image_encoder": "image_encoder",
        "audio_encoder": "audio_encoder",
    }
    parts = {part: fill(kinds.get(part, "projector"), getattr(recipe.model, part)) for part in PARTS}
    losses = {label: fill("loss", term) for label, term in recipe.losses.items()}
    source = fill("source", recipe.data.source)
    return replace(
        recipe,
        model=replace(recipe.model, **parts),
        losses=losses,
        data=replace(recipe.data, source=source),
    )


def test_a_name_is_all_a_recipe_must_say(reads):
    assert reads() == filled(Recipe("x"))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "\x85",
        "a\u2028b",
        "\r",
        "\ufeffx",
        "1e-4",
        "5",
        "no",
        "true",
        "null",
        "~",
        "1:30",
        "2026-01-01",
        ".inf",
        "a: b",
        "# x",
        "- x",
        "",
        " ",
        "=",
        "<<",
        "é\n",
    ]
)
folder_names = st.text(
    st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="/\\"), min_size=1, max_size=12
)
folder_names = folder_names.filter(lambda name: name not in (".", ".."))
positive = st.floats(1e-12, 1e12)
counts = st.integers(1, 10**6)
mlps = st.fixed_dictionaries({}, optional={"hidden": st.integers(), "depth": counts})
fusions = st.fixed_dictionaries(
    {},
    optional={
        "heads": st.integers(),
        "dropout": st.floats(allow_nan=False),
        "kind": st.sampled_from(["pre", "post"]),
        "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
        "gate": st.booleans(),
        "names": st.none() | st.lists(texts, max_size=3),
        "size": st.integers() | texts,
        "cache": st.none() | folder_names.map(Path),
        "odd": st.none() | st.integers(),
    },
)
projectors = st.builds(Component, st.just("mlp"), mlps) | st.builds(Component, st.just("linear"))
needy = st.fixed_dictionaries({"epsilon": st.floats(allow_nan=False)})
weights = positive | st.dictionaries(st.integers(0, 10**6), positive, min_size=1, max_size=3)
terms = st.builds(LossTerm, st.just("avopt"), mlps, weights) | st.builds(
    LossTerm, st.just("needy"), needy, weights
)
shares = st.dictionaries(st.sampled_from(TASKS), positive, min_size=1)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    model = draw(
        st.builds(
            Model,
            width=counts,
            image_projector=projectors,
            audio_connector=projectors,
            fusion=st.builds(Component, st.just("avace"), fusions) | st.just(Component("none")),
        )
    )
    losses = draw(st.dictionaries(texts, terms, min_size=1, max_size=3))
    stage = st.builds(
        Stage,
        name=folder_names,
        steps=counts,
        tasks=shares,
        train=st.lists(st.sampled_from(PARTS), max_size=3),
        weights=st.dictionaries(st.sampled_from(sorted(losses)), weights),
        learning_rate=st.none() | positive,
    )
    stages = draw(st.lists(stage, min_size=1, max_size=3, unique_by=lambda stage: stage.name))
    accumulation = draw(st.integers(1, 8))
    train = draw(
        st.builds(
            Train,
            stages=st.just(stages),
            batch_size=st.integers(1, 100).map(lambda n: n * accumulation),
            gradient_accumulation=st.just(accumulation),
            warmup=st.floats(0, 1),
            precision=st.sampled_from(["fp32", "bf16"]),
            report_to=st.lists(texts, max_size=2),
        )
    )
    data = draw(st.builds(Data, root=st.none() | texts, on_error=st.sampled_from(["raise", "skip"])))
    evaluation = draw(
        st.builds(Evaluation, tasks=st.lists(st.sampled_from(TASKS)), modality_check=st.booleans())
    )
    return Recipe(draw(folder_names), draw(st.integers(0)), model, losses, data, train, evaluation)


@pytest.mark.usefixtures("components")
@settings(max_examples=60, deadline=None)
@given(recipe=recipes())
def test_a_written_recipe_reads_back_as_the_same_recipe(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "deep" / "recipe.yaml"
    write(recipe, path)
    back = read(path)
    assert back == filled(recipe)
    assert dump(back) == path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["recipe.yaml"]


def test_a_written_recipe_states_every_default(reads):
    text = dump(reads("model: {fusion: avace}\ndata: {root: fée/données}"))
    assert "  root: fée/données\n" in text
    assert "fusion: {name: avace, heads: 4, dropout: 0.0, kind: pre, betas: [0.9, 0.99], gate: true," in text
    assert "  keep_checkpoints: 2\n" in text


def test_a_recipe_that_cannot_be_written_leaves_the_old_file(folder, reads):
    recipe = reads()
    write(recipe, "out.yaml")
    before = Path("out.yaml").read_text()
    with pytest.raises(registry.RegistryError):
        write(replace(recipe, losses={"x": LossTerm("nothing")}), "out.yaml")
    assert Path("out.yaml").read_text() == before


# ---- scalars and types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E4", 1e4), ("3", 3.0), (".5", 0.5), ("-0.0", 0.0), ("1.", 1.0)],
)
def test_a_float_is_read_however_it_is_written(reads, text, value):
    recipe = reads(f"model: {{fusion: {{name: avace, dropout: {text}}}}}")
    dropout = recipe.model.fusion.options["dropout"]
    assert dropout == value
    assert type(dropout) is float


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("007", 7), ("+3", 3)])
def test_an_integer_stays_one(reads, text, value):
    seed = reads(f"seed: {text}").seed
    assert seed == value
    assert type(seed) is int


@pytest.mark.parametrize("text", ["5", "1e-4", "no", "true", "2026-01-01", "1:30", "'null'"])
def test_text_is_read_as_written_where_text_is_asked_for(reads, text):
    assert reads(f"data: {{root: {text}}}").data.root == text.strip("'")


def test_options_are_typed_by_their_annotations(reads):
    fusion = (
        "{name: avace, betas: [0, 1], names: [a, b], size: 8px, cache: some/where, odd: null, gate: false}"
    )
    options = reads(f"model: {{fusion: {fusion}}}").model.fusion.options
    assert options["betas"] == (0.0, 1.0)
    assert options["cache"] == Path("some/where")
    assert (options["names"], options["size"]) == (["a", "b"], "8px")
    assert (options["odd"], options["gate"]) == (None, False)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("seed: true", "r.yaml:2  seed", "should be a valid integer, got true."),
        ("seed: 1.5", "r.yaml:2  seed", "should be a valid integer, got 1.5."),
        ("seed: '3'", "r.yaml:2  seed", 'should be a valid integer, got "3".'),
        ("seed:", "r.yaml:2  seed", "should be a valid integer, got nothing."),
        ("seed: -1", "r.yaml:2  seed", "should be greater than or equal to 0, got -1."),
        (
            "train:\n  learning_rate: .nan",
            "r.yaml:3  train.learning_rate",
            "should be a finite number, got NaN.",
        ),
        ("train:\n  learning_rate: 0", "r.yaml:3  train.learning_rate", "should be greater than 0, got 0."),
        ("train:\n  warmup: 1.5", "r.yaml:3  train.warmup", "should be less than or equal to 1, got 1.5."),
        (
            "train: {gradient_checkpointing: 1}",
            "r.yaml:2  train.gradient_checkpointing",
            "valid boolean, got 1.",
        ),
        ("train: {precision: bf17}", "r.yaml:2  train.precision", "Did you mean 'bf16'? Known: bf16, fp32."),
        ("evaluation:\n  tasks: arig", "r.yaml:3  evaluation.tasks", 'should be a list, got "arig".'),
        (
            "evaluation:\n  tasks:\n  - arig\n  - 5.5",
            "r.yaml:5  evaluation.tasks.1",
            "no task is named '5.5'",
        ),
        ("train: 5", "r.yaml:2  train", "should be a mapping of settings, got 5."),
        ("losses: [avopt]", "r.yaml:2  losses", 'should be a mapping, got [{"name": "avopt"}].'),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(problems, text, place, what):
    (problem,) = problems(text)
    assert problem.startswith(f"{place}: ")
    assert what in problem


def test_options_that_do_not_go_together_are_refused_before_anything_is_built(folder, monkeypatch):
    """By the class's own check, if each of them can be by itself; nothing is complained of twice."""
    fakes.write_module(
        monkeypatch,
        folder,
        "own_losses",
        """
class Own:
    def __init__(self, *, low: float = 0.0, high: float = 1.0, name_: str): raise AssertionError("built")

    @staticmethod
    def check_options(options):
        if options["low"] > options["high"]:
            raise ValueError(f"low {options['low']} is above high")
""",
    )

    def problems(options):
        text = f"name: x\nlosses:\n  own: {{name: 'own_losses:Own', {options}}}\n"
        (folder / "r.yaml").write_text(text)
        try:
            return read("r.yaml").losses["own"].options
        except RecipeError as error:
            return error.problems

    assert problems("low: 2, name_: a") == ["r.yaml:3  losses.own: low 2.0 is above high."]
    assert problems("low: 2, high: 3, name_: a") == {"low": 2.0, "high": 3.0, "name_": "a"}
    for wrong in ("low: 2, name_: 5.5.5, high: x", "low: 2"):
        assert not any("above" in problem for problem in problems(wrong))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "sed: 3",
            "r.yaml:2  sed: unknown key 'sed'. Did you mean 'seed'? "
            "Known: data, evaluation, losses, model, name, seed, train.",
        ),
        (
            "model:\n\n  image_projector: {name: mlp,\n    hiden: 3}",
            "r.yaml:5  model.image_projector.hiden: projector 'mlp' has no option 'hiden'. "
            "Did you mean 'hidden'? Known: depth, hidden.",
        ),
        (
            "model:\n  image_projector: mpl",
            "r.yaml:3  model.image_projector: no projector is named 'mpl'. Did you mean 'mlp'? "
            "Known: linear, mlp. Or write 'module:Class'.",
        ),
        (
            "losses:\n  avopt: {wieght: 1}",
            "r.yaml:3  losses.avopt.wieght: loss 'avopt' has no option 'wieght'. "
            "Did you mean 'weight'? Known: depth, hidden, weight.",
        ),
        (
            "losses:\n  mine: 3",
            "r.yaml:3  losses.mine: should be the name of a loss, or a mapping with its name and options, "
            "got 3. Known: language_modelling, avopt, avace, needy.",
        ),
        (
            "losses:\n  needy:\n    weight: 2",
            "r.yaml:3  losses.needy.epsilon: missing, and loss 'needy' has no default for it.",
        ),
        (
            "model: {fusion: no_such:Thing}",
            "r.yaml:2  model.fusion: fusion 'no_such:Thing' cannot be imported: "
            "there is no module 'no_such' on the Python path.",
        ),
        (
            "model: {fusion: {name: avace, kind: pree}}",
            "r.yaml:2  model.fusion.kind: should be 'pre' or 'post', got \"pree\". "
            "Did you mean 'pre'? Known: post, pre.",
        ),
        (
            "model: {fusion: {name: avace, size: 1.5.2, gate: 0}}",
            "r.yaml:2  model.fusion.gate: should be a valid boolean, got 0.",
        ),
        (
            "model: {image_projector: {name: mlp, depth: 0}}",
            "r.yaml:2  model.image_projector.depth: should be greater than 0, got 0.",
        ),
        (
            "model: {fusion: {name: avace, size: [1]}}",
            "r.yaml:2  model.fusion.size: should be a valid integer or should be a valid string, got [1].",
        ),
        (
            "model: {fusion: {name: avace, betas: [1, x]}}",
            'r.yaml:2  model.fusion.betas: should be a valid number, got [1, "x"].',
        ),
        (
            "model: {fusion: {name: avace, names: [a, [b]]}}",
            'r.yaml:2  model.fusion.names: should be a valid string, got ["a", ["b"]].',
        ),
        (
            "train:\n  stages:\n  - {name: a, steps: 1, train: [fussion]}",
            "r.yaml:4  train.stages.0.train.0: no part of the model is named 'fussion'. "
            f"Did you mean 'fusion'? Known: {', '.join(sorted(PARTS))}.",
        ),
        (
            "train:\n  stages:\n  - name: a\n    steps: 1\n    weights:\n      avot: 1",
            "r.yaml:7  train.stages.0.weights.avot: no loss of this recipe is named 'avot'. "
            "Did you mean 'avopt'? Known: avace, avopt, language_modelling.",
        ),
        (
            "train:\n  stages:\n  - {name: a, steps: 1, tasks: {argi: 1}}",
            "r.yaml:4  train.stages.0.tasks.argi: no task is named 'argi'. "
            "Did you mean 'arig'? Known: arig, avcap, avfc, avqa, igatl.",
        ),
        (
            "train:\n  stages:\n  - {name: a, steps: 1, tasks: {arig: 0}}",
            "r.yaml:4  train.stages.0.tasks: no task has a share above 0.",
        ),
        (
            "train:\n  stages:\n  - {name: a, steps: 1}\n  - {name: a, steps: 1}",
            "r.yaml:5  train.stages.1.name: an earlier stage is named 'a' too.",
        ),
        (
            "train:\n  stages:\n  - {name: a}",
            "r.yaml:4  train.stages.0.steps: missing, and it has no default.",
        ),
        (
            "train:\n  stages:\n  - {name: a, steps: 0}",
            "r.yaml:4  train.stages.0.steps: should be greater than 0, got 0.",
        ),
        (
            "train:\n  stages:\n  - {name: a/b, steps: 1}",
            "r.yaml:4  train.stages.0.name: 'a/b' cannot name a folder.",
        ),
        ("train: {stages: []}", "r.yaml:2  train.stages: a recipe needs at least one stage."),
        ("losses: {avopt: null}", "r.yaml:2  losses: a recipe needs at least one loss."),
        (
            "train:\n  batch_size: 10\n  gradient_accumulation: 4",
            "r.yaml:3  train.batch_size: 10 is no multiple of gradient_accumulation, 4.",
        ),
        (
            "evaluation:\n  tasks: [arig, irag]",
            "r.yaml:3  evaluation.tasks.1: no task is named 'irag'. "
            "Did you mean 'arig'? Known: arig, avcap, avfc, avqa, igatl.",
        ),
    ],
)
def test_a_mistake_is_named_with_place_reason_and_nearest_name(problems, text, problem):
    assert problems(text) == [problem]


def test_all_problems_are_reported_at_once(problems, folder):
    (folder / "base.yaml").write_text("sed: 1\ntrain: {warmup: 2}\nseed: 1\nseed: 2\n")
    model = "{width: 0, llm: smal, fusion: {name: avace, heeds: 1, odd: x}}"
    text = f"extends: base.yaml\nmodel: {model}\ndata: {{rot: a}}"
    found = problems(
        text, "train.batch_size=x", "lossses.avopt=null", "nonsense", "evaluation.tasks=[arig, x]"
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "base.yaml:4  seed",
        "command line  'nonsense' should be key=value, as in train.batch_size=8.",
        "base.yaml:1  sed",
        "command line  lossses",
        "r.yaml:3  model.width",
        "r.yaml:3  model.fusion.heeds",
        "r.yaml:3  model.fusion.odd",
        "r.yaml:3  model.llm",
        "r.yaml:4  data.rot",
        "command line  train.batch_size",
        "base.yaml:2  train.warmup",
        "command line  evaluation.tasks.1",
    ]


def test_a_wrong_entry_does_not_move_the_places_of_those_after_it(problems):
    found = problems("train: {stages: [{name: a, steps: 1, train: [[llm], fussion]}]}")
    assert [problem.partition(": ")[0] for problem in found] == [
        "r.yaml:2  train.stages.0.train.0",
        "r.yaml:2  train.stages.0.train.1",
    ]


def test_a_wrong_value_is_not_complained_of_twice(problems):
    """Its default, 32, would not be a multiple of 5 either."""
    assert problems("train: {batch_size: x, gradient_accumulation: 5}") == [
        'r.yaml:2  train.batch_size: should be a valid integer, got "x".'
    ]


def test_what_is_missing_is_missing_where_the_rest_was_written(problems):
    assert problems("train: {stages: [{name: a}]}", "train.stages.a.learning_rate=1") == [
        "r.yaml:2  train.stages.0.steps: missing, and it has no default."
    ]


def test_one_problem_reads_as_itself_and_more_are_counted():
    assert str(RecipeError(["a"])) == "a"
    assert str(RecipeError(["a", "b"])) == "2 problems\na\nb"


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


# ---- files that are no recipes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "r.yaml: empty."),
        (b"# only a comment\n", "r.yaml: empty."),
        (b"just words", "r.yaml: should be a mapping of settings."),
        (b"- a\n- b", "r.yaml: should be a mapping of settings."),
        (b"name: a\nseed: \xff", "r.yaml:2  not UTF-8 text."),
        (
            b"name: a\nmodel: {width: 3",
            "r.yaml:2  not YAML: expected ',' or '}', but got '<stream end>', while parsing a flow mapping.",
        ),
        (
            b"name: a\n\tseed: 1",
            "r.yaml:2  not YAML: found character '\\t' that cannot start any token, "
            "while scanning for the next token.",
        ),
        (b"name: a\nseed: 1\nseed: 2", "r.yaml:3  seed: given twice, first at r.yaml:2."),
        (
            b"name: a\nmodel:\n  fusion: {name: avace, heads: 1, heads: 1}",
            "r.yaml:3  model.fusion.heads: given twice, first at r.yaml:3.",
        ),
        (
            b"name: a\nseed: !!python/object/apply:os.getcwd []",
            "r.yaml:2  seed: the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' is not read here.",
        ),
        (b"name: a\n? [b]\n: 1", "r.yaml:2  : a key should be text."),
        (
            b"name: a\n---\nname: b",
            "r.yaml:2  not YAML: but found another document, expected a single document in the stream.",
        ),
        (b"name: a\nseed: *nowhere", "r.yaml:2  not YAML: found undefined alias 'nowhere'."),
        (b"name: &a [*a]", "r.yaml:1  nested too deeply."),
        (b"name: " + b"[" * 2000, "r.yaml:1  nested too deeply."),
        (
            b"name: \x01",
            "r.yaml:1  not YAML: unacceptable character #x0001: special characters are not allowed "
            'in "<unicode string>", position 6.',
        ),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_line(folder, content, problem):
    (folder / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read("r.yaml")
    assert problem in caught.value.problems


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(folder):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "r.yaml").write_text("\n".join(rows))
    with pytest.raises(RecipeError, match="more than 10000 values"):
        read("r.yaml")


def test_an_alias_stands_for_what_it_names(reads):
    stages = "[{name: a, steps: 1, tasks: &t {arig: 2}}, {name: b, steps: 1, tasks: *t}]"
    assert reads(f"train: {{stages: {stages}}}").train.stages[1].tasks == {"arig": 2.0}


def test_a_missing_file_a_folder_and_a_closed_file_are_named(folder):
    (folder / "mine.yaml").write_text("name: a")
    with pytest.raises(RecipeError, match=r"^mien\.yaml: no such file\. Did you mean 'mine\.yaml'\?"):
        read("mien.yaml")
    (folder / "sub").mkdir()
    with pytest.raises(RecipeError, match=r"^sub: a folder, not a recipe\.$"):
        read("sub")
    if os.geteuid() != 0:  # root may read anything
        (folder / "mine.yaml").chmod(0)
        with pytest.raises(RecipeError, match=r"^mine\.yaml: Permission denied\.$"):
            read("mine.yaml")


@pytest.mark.parametrize("name", ["a/b", "..", "''", "a\\b"])
def test_a_name_that_cannot_name_a_folder_is_refused(folder, name):
    (folder / "r.yaml").write_text(f"name: {name}")
    with pytest.raises(RecipeError, match=r"^r\.yaml:1  name: .* cannot name a folder\.$"):
        read("r.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder):
    (folder / "r.yaml").write_bytes("\ufeffname: é\r\nseed: 3\r\nsed: 1\r\n".encode())
    with pytest.raises(RecipeError, match=r"^r\.yaml:3  sed: "):
        read("r.yaml")


def test_importing_imports_nothing_heavy():
    code = "import sys, avalign.recipe_io; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
