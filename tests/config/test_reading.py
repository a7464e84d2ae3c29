"""What a recipe says is read as it was meant, or refused with the place, the reason and the nearest name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign import registry
from avalign.config.recipe import Component, Data, Evaluation, LossTerm, Model, Recipe, Stage, Train
from avalign.config.recipe_file import RecipeError, dump, read, write
from avalign.config.validation import PARTS
from avalign.types import TASKS
from tests.helpers import fakes

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
    return Recipe(draw(folder_names), draw(st.integers(0, 2**31 - 1)), model, losses, data, train, evaluation)


@pytest.mark.usefixtures("components")
@settings(max_examples=60)
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
