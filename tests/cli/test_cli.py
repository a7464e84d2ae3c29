"""The commands pass on what they were told, and say what is wrong without a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avalign import __version__, registry
from avalign.cli.app import app
from avalign.config import recipe_file as recipe_io
from avalign.config.recipe import Recipe
from avalign.errors import AvalignError
from tests.helpers import fakes
from tests.helpers.paths import RECIPES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with r.yaml and a finished run, runs/x; components are fakes."""
    fakes.install(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")
    Path("r.yaml").write_text("name: x\nseed: 4\n")
    recipe_io.write(Recipe("x", seed=5), "runs/x/recipe.yaml")
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Put a module in the place of one that is slow to import; its functions note their arguments."""

    def put(name: str, source: str) -> list:
        module = types.ModuleType(name)
        calls: list = []
        module.calls = calls
        file = tmp_path / f"{name}.txt"  # tracebacks read the lines there
        file.write_text(source)
        exec(compile(source, str(file), "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return put


TRAIN = """
def train(recipe, run, resume): calls.append((recipe, run, resume))
"""
SCORE = """
def score(run, recipe, split, out): calls.append((run, recipe, split, out)); return {"some": "scores"}
"""


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def error_of(result) -> str:
    """What a command that failed as it should printed."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


# ---- train, eval, predict ------------------------------------------------------------------------


def test_train_reads_the_recipe_with_its_overrides(folder, stand_in):
    calls = stand_in("avalign.training.train", TRAIN)
    assert run("train", "r.yaml", "train.batch_size=8", "model.fusion=none").exit_code == 0
    ((recipe, where, resume),) = calls
    assert (recipe.name, recipe.seed, recipe.train.batch_size, recipe.model.fusion.name) == (
        "x",
        4,
        8,
        "none",
    )
    assert (where, resume) == (None, False)


def test_train_passes_on_the_folder_and_that_it_resumes(folder, stand_in):
    calls = stand_in("avalign.training.train", TRAIN)
    assert run("train", "r.yaml", "--run", "runs/y", "--resume").exit_code == 0
    assert calls[0][1:] == (Path("runs/y"), True)


@pytest.mark.parametrize(("settings", "seed"), [([], 5), (["seed=7"], 7)])
def test_train_resumes_from_the_recipe_of_the_run(folder, stand_in, settings, seed):
    calls = stand_in("avalign.training.train", TRAIN)
    assert run("train", *settings, "--resume", "--run", "runs/x").exit_code == 0
    assert (calls[0][0].seed, calls[0][1:]) == (seed, (Path("runs/x"), True))


@pytest.mark.parametrize("words", [[], ["--resume"], ["--run", "runs/x"], ["seed=1"]])
def test_train_without_a_recipe_says_how_to_name_one(folder, stand_in, words):
    calls = stand_in("avalign.training.train", TRAIN)
    assert "error: name a recipe: avalign train RECIPE" in error_of(run("train", *words))
    assert calls == []


def test_a_recipe_is_checked_before_anything_heavy_is_imported(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "avalign.training.train", None)
    found = error_of(run("train", "r.yaml", "sed=1"))
    assert found == (
        "error: command line  sed: unknown key 'sed'. Did you mean 'seed'? "
        "Known: data, evaluation, losses, model, name, seed, train.\n"
    )


@pytest.mark.parametrize("flags", [[], ["--merge"], ["--merge", "--overwrite"]])
def test_export_passes_on_where_and_how(folder, stand_in, flags):
    calls = stand_in(
        "avalign.export.hugging_face", "def export(*given): calls.append(given); return given[1]"
    )
    result = run("export", "runs/x", "--out", "there", *flags)
    assert result.stdout == "exported: there\n"
    assert calls == [(Path("runs/x"), Path("there"), "--merge" in flags, "--overwrite" in flags)]
    assert "is not the folder of a run" in error_of(run("export", "runs/nowhere", "--out", "there"))


def test_eval_scores_a_run_as_asked(folder, stand_in):
    calls = stand_in("avalign.training.score", SCORE)
    stand_in("avalign.report.tables", "def as_markdown(scores): return f'table of {scores}'")
    words = [
        "--samples",
        "3",
        "--tasks",
        "avqa,arig",
        "--split",
        "val",
        "--out",
        "there",
        "evaluation.batch_size=2",
    ]
    result = run("eval", "runs/x", *words)
    assert result.stdout == "table of {'some': 'scores'}\n"
    ((where, recipe, split, out),) = calls
    assert (where, recipe.seed, split, out) == (Path("runs/x"), 5, "val", Path("there"))
    asked = recipe.evaluation
    assert (asked.samples, asked.tasks, asked.batch_size) == (3, ["avqa", "arig"], 2)


def test_eval_scores_the_test_split_by_the_run_s_own_recipe(folder, stand_in):
    calls = stand_in("avalign.training.score", SCORE)
    stand_in("avalign.report.tables", "def as_markdown(scores): return ''")
    assert run("eval", "runs/x").exit_code == 0
    assert calls == [(Path("runs/x"), recipe_io.read("runs/x/recipe.yaml"), "test", None)]


def test_eval_refuses_an_unknown_split_task_and_folder(folder):
    assert "no split is named 'tets'. Known: train, val, test." in error_of(
        run("eval", "runs/x", "--split", "tets")
    )
    for words in (["eval", "runs/x"], ["score", "a", "b", "--out", "c"]):
        found = error_of(run(*words, "--tasks", "avqa, argi"))
        assert found.startswith("error: --tasks: no task is named 'argi'. Did you mean 'arig'? Known: ")
    for samples in ("0", "-1", "few", "1.5", ""):
        found = error_of(run("eval", "runs/x", "--samples", samples))
        assert found == f"error: --samples {samples}: a whole number from 1 on, or all.\n"
    assert "evaluation" not in error_of(run("eval", "runs/x", "--samples", "7", "train.seed=1"))
    assert (
        error_of(run("eval", "runs")) == "error: runs is not the folder of a run: it holds no recipe.yaml.\n"
    )


def test_predict_prints_the_answer_and_where_the_image_is(folder, stand_in):
    source = "def predict(*words): calls.append(words); return 'a dog, [0.1, 0.2, 0.3, 0.4]'"
    calls = stand_in("avalign.evaluation.predict", source)
    Path("a.jpg").touch()
    Path("b.wav").touch()
    result = run(
        "predict", "runs/x", "--image", "a.jpg", "--audio", "b.wav", "What is heard?", "--out", "c.png"
    )
    assert result.stdout == "a dog, [0.1, 0.2, 0.3, 0.4]\npicture: c.png\n"
    assert calls == [(Path("runs/x"), Path("a.jpg"), Path("b.wav"), "What is heard?", Path("c.png"))]
    assert run("predict", "runs/x", "What is heard?").exit_code == 0
    assert calls[1][1:] == (None, None, "What is heard?", Path("answer.png"))


def test_predict_refuses_files_that_are_not_there(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "avalign.evaluation.predict", None)
    assert "'no.jpg' does not exist" in error_of(run("predict", "runs/x", "--image", "no.jpg", "What?"))
    assert "runs/z is not the folder of a run" in error_of(run("predict", "runs/z", "What?"))


# ---- check, options, list ------------------------------------------------------------------------


def test_check_prints_the_recipe_with_all_defaults(folder):
    result = run("check", "r.yaml", "model.width=32")
    assert result.exit_code == 0
    Path("printed.yaml").write_text(result.stdout)
    assert recipe_io.read("printed.yaml") == recipe_io.read("r.yaml", ["model.width=32"])
    assert "fusion: {name: avace, heads: 4" in result.stdout


def test_every_recipe_that_comes_with_avalign_is_right():
    """Against the real components: an option renamed there must be renamed here."""
    # ablations/ holds studies, avfit/ plans
    paths = [p for p in sorted(RECIPES.rglob("*.yaml")) if p.parent.name not in ("ablations", "avfit")]
    assert {"meerkat.yaml", "timechat.yaml"} <= {path.name for path in paths}
    for path in paths:
        result = run("check", str(path))
        assert result.exit_code == 0, result.output


def test_check_prints_every_problem(folder):
    Path("r.yaml").write_text("name: x\nsed: 4\ntrain:\n  warmup: 2\n")
    lines = error_of(run("check", "r.yaml")).splitlines()
    assert lines[0] == "error: 2 problems"
    assert lines[1].startswith("r.yaml:2  sed: unknown key 'sed'. Did you mean 'seed'?")
    assert lines[2] == "r.yaml:4  train.warmup: should be less than or equal to 1, got 2."


@pytest.mark.parametrize("kind", ["projector", "projectors"])
def test_options_prints_types_defaults_and_manual(folder, kind):
    printed = run("options", kind, "mlp").stdout
    assert (
        "projector mlp  (avalign_fakes:Mlp)\n\nLinear maps with GELU between.\n\nShapes: (b, n, d)\n"
        in printed
    )
    (row,) = [line.split() for line in printed.splitlines() if line.split()[:1] == ["hidden"]]
    assert row == ["hidden", "int", "4096"]


def test_options_of_a_component_that_has_none_says_so(folder):
    assert run("options", "llm", "small").stdout.endswith("A part without options.\n\nIt has no options.\n")


def test_options_prints_what_looks_like_markup_as_it_is(folder):
    printed = run("options", "fusion", "avace").stdout
    assert "Literal['pre', 'post']" in printed
    assert "(0.9, 0.99)" in printed


def test_options_names_the_nearest_kind_and_name(folder):
    assert "Did you mean 'loss'?" in error_of(run("options", "los", "avopt"))
    assert "Did you mean 'avopt'? Known: avace, avopt," in error_of(run("options", "loss", "avpot"))


def test_list_shows_every_component_and_why_one_cannot_be_used(folder, monkeypatch):
    fakes.write_module(monkeypatch, folder, "broken", "raise ZeroDivisionError('on purpose')")
    fakes.write_module(monkeypatch, folder, "optional", "import laion_clap")
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    encoders = {"small": "avalign_fakes:Plain", "clap": "optional:Clap", "odd": "broken:Odd"}
    monkeypatch.setattr(registry, "SHIPPED", {**fakes.LOCATIONS, "audio_encoder": encoders})
    rows = [line.split() for line in run("list").stdout.splitlines()]
    for kind, places in registry.SHIPPED.items():
        for name in places:
            assert [kind, name] in [row[:2] for row in rows]
    printed = run("list", "audio_encoders").stdout
    assert "needs the package 'laion_clap', which is not installed: pip install laion-clap" in printed
    assert "on purpose" in printed
    assert "A part without options." in printed
    assert "avopt" not in printed


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "from avalign.errors import AvalignError\ndef train(*_): raise AvalignError('bad.wav: no sound')",
        "def train(*_):\n    raise ValueError('bad.wav: no sound')",
        "def train(*_):\n    raise ValueError(\n        'bad.wav: '\n        + 'no sound'\n    )",
        "def train(*_):\n    try:\n        int('x')\n    except ValueError as e:\n"
        "        raise FileNotFoundError('bad.wav: no sound') from e",
    ],
)
def test_what_avalign_says_is_printed_without_a_traceback(folder, stand_in, source):
    stand_in("avalign.training.train", source)
    assert error_of(run("train", "r.yaml")) == "error: bad.wav: no sound\n"


@pytest.mark.parametrize("word", ["ENOSPC", "EACCES", "EROFS", "EDQUOT", "ENOENT", "EIO"])
def test_what_the_system_says_of_a_file_is_one_line(folder, stand_in, word):
    source = f"import errno, os\ndef train(*_): raise OSError(errno.{word}, os.strerror(errno.{word}), 'x/y')"
    stand_in("avalign.training.train", source)
    assert error_of(run("train", "r.yaml")) == f"error: x/y: {os.strerror(getattr(errno, word))}\n"


def test_a_stopped_command_ends_as_shells_expect(folder, stand_in):
    stand_in(
        "avalign.training.train",
        "from avalign.errors import Stopped\ndef train(*_): raise Stopped(15, 'go on')",
    )
    found = run("train", "r.yaml")
    assert (found.exit_code, found.stderr) == (143, "go on\n")
    stand_in("avalign.training.train", "def train(*_): raise KeyboardInterrupt")
    assert run("train", "r.yaml").exit_code == 130


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def train(*_): int('x')", ValueError),
        ("def train(*_):\n    raised = int('x')", ValueError),
        ("import json\ndef train(*_): json.loads('{')", ValueError),
        ("def train(*_): raise KeyError('x')", KeyError),
        ("def train(*_): import avalign.nothing", ModuleNotFoundError),
    ],
)
def test_what_nobody_meant_to_say_keeps_its_traceback(folder, stand_in, source, kind):
    stand_in("avalign.training.train", source)
    assert isinstance(run("train", "r.yaml").exception, kind)


def test_a_missing_package_is_named_with_its_command(folder, stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    stand_in("avalign.training.train", "def train(*_): import sklearn.metrics")
    found = error_of(run("train", "r.yaml"))
    assert found == (
        "error: this command needs the package 'sklearn', which is not installed: pip install scikit-learn\n"
    )


def test_every_error_of_avalign_is_one_kind():
    assert issubclass(recipe_io.RecipeError, AvalignError)
    assert issubclass(registry.RegistryError, AvalignError)


# ---- the program itself --------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    code = """
import sys
from avalign.cli.app import app
try:
    app(["--help"])
except SystemExit:
    print(sorted({"torch", "numpy", "transformers", "pydantic", "yaml"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "avalign", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"avalign {__version__}\n"


def test_a_recipe_may_name_a_class_in_the_folder_it_is_run_from(folder, monkeypatch):
    (folder / "here").mkdir()
    (folder / "here" / "beside.py").write_text("class Loss:\n    '''Mine.'''\n")
    monkeypatch.chdir(folder / "here")
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    assert "Mine." in run("options", "loss", "beside:Loss").stdout
    assert sys.path[0] != str(folder / "here"), "a file there must not stand before installed packages"
