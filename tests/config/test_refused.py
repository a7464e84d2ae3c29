"""What is no recipe is refused with the place, the reason and the nearest name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from avalign.config.recipe_file import RecipeError, read
from avalign.config.validation import PARTS
from avalign.config.yaml import from_plain

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


def test_what_is_nested_without_sense_is_refused_and_not_followed(folder, problems):
    for number in range(200):
        (folder / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(RecipeError, match=r"50\.yaml:1 +extends: more than 50 files extend one another"):
        read(folder / "0.yaml")
    (folder / "r.yaml").write_text("name: x\n")
    for path in ("a." * 3000 + "a", "train.stages.0" + ".a" * 3000, "model.llm.config" + ".a" * 3000):
        with pytest.raises(RecipeError, match=r"command line  .{40}\.\.\.: nested too deeply"):
            read("r.yaml", [f"{path}=1"])
        with pytest.raises(RecipeError, match="a dotted key names a setting"):
            read("r.yaml", (), [from_plain({path: 1}, "study.yaml:1")])


@pytest.mark.parametrize("setting", ["seed", "model.frames", "train.batch_size"])
def test_a_number_that_no_generator_and_no_counter_takes_is_refused(problems, setting):
    said = "\n".join(problems("", f"{setting}=4294967296"))
    assert f"{setting}: should be less than 2147483648, got 4294967296" in said


def test_importing_imports_nothing_heavy():
    code = (
        "import sys, avalign.config.recipe_file; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
