"""Components from a file beside the recipe: found, loaded, refused, kept by the run, known again."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import avalign
from avalign import local_components as local
from avalign import registry
from avalign.cli.app import app
from avalign.config import saved_recipe as recipe_kept
from avalign.config.recipe_file import RecipeError, dump, read, write
from avalign.errors import AvalignError
from avalign.local_components import load_class
from avalign.local_components.trust import trusting
from avalign.training.run_folder import begin
from avalign.training.train import train
from tests.helpers.local_files import LOSS
from tests.helpers.paths import RECIPE
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)
from tests.helpers.runs import ENVIRONMENT, ONE_STAGE, SMALL

SOURCE = '''
from avalign.data.avworld import AvWorld

class Renamed(AvWorld):
    """The built-in world."""
    where = __name__
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """recipes/mine.yaml with a loss and a source from files beside it; we stand elsewhere."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "my_loss.py").write_text(LOSS)
    (recipes / "my_source.py").write_text(SOURCE)
    (recipes / "mine.yaml").write_text(
        f"extends: {RECIPE}\nname: mine\nlosses:\n"
        "  nearness: {name: ./my_loss.py:Nearness, scale: 2, weight: 0.1}\n"
        "data: {source: {name: my_source.py:Renamed, train: 40, val: 20, test: 20}}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return recipes


def settings(folder: Path, *more: str) -> list[str]:
    small = [word for word in SMALL if not word.startswith("data.source")]
    return [*small, f"data.root={folder}", ONE_STAGE, *more]


def cli(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# ---- found and loaded ----------------------------------------------------------------------------


def test_a_file_is_found_beside_the_recipe_that_names_it(folder):
    recipe = read(folder / "mine.yaml")
    assert recipe.losses["nearness"].name == f"{folder}/my_loss.py:Nearness"
    assert recipe.losses["nearness"].options == {"scale": 2.0}
    assert recipe.data.source.name == f"{folder}/my_source.py:Renamed"


def test_a_file_of_the_parent_is_found_beside_the_parent(folder, tmp_path):
    child = tmp_path / "child.yaml"
    child.write_text("extends: recipes/mine.yaml\nlosses: {nearness: {scale: 3}}\n")
    recipe = read(child)
    assert recipe.losses["nearness"].name == f"{folder}/my_loss.py:Nearness"
    assert recipe.losses["nearness"].options == {"scale": 3.0}


def test_else_it_is_found_in_the_working_directory(folder, tmp_path):
    (tmp_path / "elsewhere" / "my_loss.py").write_text(
        LOSS.replace("scale: float = 1.0", "scale: float = 7.0")
    )
    override = ["losses.nearness={name: ./my_loss.py:Nearness}"]
    assert read(folder / "mine.yaml", override).losses["nearness"].options == {"scale": 7.0}, "an override's"
    (folder / "my_loss.py").unlink()
    assert read(folder / "mine.yaml").losses["nearness"].name.startswith(str(tmp_path / "elsewhere"))
    printed = cli("options", "loss", "./my_loss.py:Nearness")[1]
    assert printed.startswith("loss ./my_loss.py:Nearness  (./my_loss.py:Nearness)\n\nMean squared distance")
    assert ["scale", "float", "7.0"] in [line.split() for line in printed.splitlines()]


def test_a_checked_recipe_reads_back_from_anywhere(folder, tmp_path):
    recipe = read(folder / "mine.yaml")
    (tmp_path / "printed.yaml").write_text(dump(recipe))
    assert read(tmp_path / "printed.yaml") == recipe


def test_a_written_recipe_names_files_in_its_folder_from_there(folder, tmp_path):
    recipe = read(folder / "mine.yaml")
    write(recipe, folder / "again.yaml")
    assert "name: './my_loss.py:Nearness'" in (folder / "again.yaml").read_text()
    moved = folder.rename(tmp_path / "moved")
    assert read(moved / "again.yaml").losses["nearness"].name == f"{moved}/my_loss.py:Nearness"


def test_a_changed_file_is_loaded_anew_even_within_its_second(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "part.py"
    for number in range(3):
        path.write_text(f"class Part:\n    number = {number}\n")
        assert load_class(f"{path}:Part").number == number
    assert load_class(f"{path}:Part") is load_class(f"{path}:Part")
    assert not (tmp_path / "__pycache__").exists()


def test_files_of_one_name_are_two(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "part.py").write_text(f"class Part:\n    number = {number}\n")
    first, second = (load_class(f"{tmp_path}/{number}/part.py:Part") for number in range(2))
    assert (first.number, second.number) == (0, 1)


def test_a_module_on_the_path_is_still_named_without_py(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text(LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.load("loss", "their_module:Nearness").__module__ == "their_module"


def test_its_objects_reach_a_process_that_is_started_anew(folder):
    """As loader processes are where there is no fork: nothing is imported there but what the pickle names."""
    source = load_class(f"{folder}/my_source.py:Renamed")(train=1, val=1, test=1)
    again = pickle.loads(pickle.dumps(source))
    assert type(again) is type(source)
    code = "import pickle, sys; made = pickle.loads(sys.stdin.buffer.read()); print(made.where, made.counts)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(source),
        capture_output=True,
        env=ENVIRONMENT,
        check=True,
    )
    assert done.stdout.decode().strip() == f"{source.where} {{'train': 1, 'val': 1, 'test': 1}}"


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        (None, "./my_los.py:Nearness", r"no file .*my_los.py or .*my_los.py. Did you mean 'my_loss.py'"),
        (None, "./my_loss.py:Nearnes", r"my_loss.py has no class 'Nearnes'. Did you mean 'Nearness'\?"),
        (None, "./my_loss.py", r"is a file: name one of its classes too, as in 'my_loss.py:Nearness'"),
        ("def broken(:\n", "./bad.py:A", r"bad.py:1  is not Python: invalid syntax"),
        ("\n\n1 / 0\n", "./bad.py:A", r"bad.py:3  fails when it is loaded: ZeroDivisionError: division"),
        ("import no_such_module\n", "./bad.py:A", r"bad.py needs the module 'no_such_module'"),
        ("A = 3\n", "./bad.py:A", r"bad.py has no class 'A'. Known: \(none\)"),
        (b"\xff\xfe", "./bad.py:A", r"bad.py: is not UTF-8 text|bad.py:\d*  is not Python"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_at_its_place_in_the_recipe(folder, file, name, said):
    if file is not None:
        (folder / "bad.py").write_bytes(file if isinstance(file, bytes) else file.encode())
    (folder / "mine.yaml").write_text(f"extends: {RECIPE}\nlosses:\n  mine:\n    name: {name}\n")
    with pytest.raises(RecipeError, match=rf"mine.yaml:4  losses.mine: .*{said}") as caught:
        read(folder / "mine.yaml")
    assert len(caught.value.problems) == 1


def test_a_misspelt_option_of_it_is_named(folder):
    with pytest.raises(RecipeError, match=r"has no option 'scael'. Did you mean 'scale'\?"):
        read(folder / "mine.yaml", ["losses.nearness.scael=3"])


def test_what_it_raises_itself_keeps_its_traceback(folder, monkeypatch):
    (folder / "bad.py").write_text("class A:\n    def go(self):\n        raise ValueError('theirs')\n")
    part = load_class(f"{folder}/bad.py:A")()
    monkeypatch.setattr("avalign.registry.manual", lambda *_: part.go())
    assert isinstance(CliRunner().invoke(app, ["options", "loss", "avopt"]).exception, ValueError)


# ---- kept by the run -----------------------------------------------------------------------------


@pytest.fixture
def run(folder, tmp_path) -> Path:
    return train(read(folder / "mine.yaml", settings(folder, "data.workers=1")), tmp_path / "run")


@pytest.mark.usefixtures("preloaded")
def test_a_run_keeps_its_files_and_is_scored_when_they_have_moved_or_changed(run, folder, tmp_path, capsys):
    assert "name: './code/my_loss.py:Nearness'" in (run / "recipe.yaml").read_text()
    assert (run / "code" / "my_loss.py").read_text() == LOSS
    known = json.loads((run / "code" / "files.json").read_text())["my_loss.py"]
    assert known == {"from": f"{folder}/my_loss.py", "sha256": local.digest(folder / "my_loss.py")}
    assert "nearness" in json.loads((run / "log.jsonl").read_text().splitlines()[0])
    capsys.readouterr()
    # as it was: nothing to say
    assert avalign.load(run).training is False
    assert capsys.readouterr().err == ""
    # changed beside the recipe: the copy counts, and that is said
    (folder / "my_loss.py").write_text("class Nearness: broken = True\n")
    words = ["eval", str(run), "--tasks", "avfc", "--samples", "2"]
    code, output = cli(*words)
    assert code == 0, output
    assert f"warning: {folder}/my_loss.py has changed since {run} was made with it; the run's copy" in output
    # gone, and the run itself elsewhere
    moved = run.rename(tmp_path / "moved")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "my_loss.py").unlink()
    (folder / "my_source.py").unlink()
    code, output = cli("eval", str(moved), *words[2:])
    assert code == 0, output
    assert "warning" not in output
    # the copy changed: said too
    (moved / "code" / "my_loss.py").write_text(LOSS + "\n# a word more\n")
    assert (
        "code/my_loss.py has changed since the run was made with it"
        in cli("eval", str(moved), *words[2:], "--trust-code")[1]
    )
    with trusting(), pytest.raises(AvalignError, match="Resuming would not repeat it"):
        train(read(moved / "recipe.yaml"), moved, resume=True)


@pytest.mark.usefixtures("preloaded")
def test_resuming_knows_the_file_again_by_its_content(run, folder, tmp_path):
    shutil.copy(folder / "my_loss.py", tmp_path / "elsewhere")
    same = ["losses.nearness={name: ./my_loss.py:Nearness, scale: 2, weight: 0.1}"]
    assert train(read(folder / "mine.yaml", settings(folder, *same)), run, resume=True) == run
    (folder / "my_loss.py").write_text(LOSS.replace("mean(1)).square()", "mean(1)).abs()"))
    with pytest.raises(AvalignError, match=r"was: .*my_loss.py@\w{12}:Nearness[\s\S]*now: .*my_loss.py@"):
        train(read(folder / "mine.yaml", settings(folder)), run, resume=True)


def test_two_files_of_one_name_are_both_kept(folder, tmp_path):
    (folder / "other").mkdir()
    (folder / "other" / "my_loss.py").write_text(LOSS.replace("Nearness", "Farness"))
    more = ["losses.farness={name: " + f"{folder}/other/my_loss.py:Farness" + "}"]
    kept = recipe_kept.keep(read(folder / "mine.yaml", more), tmp_path / "run")
    assert kept.losses["nearness"].name == f"{tmp_path}/run/code/my_loss.py:Nearness"
    assert kept.losses["farness"].name == f"{tmp_path}/run/code/my_loss-2.py:Farness"
    again = recipe_kept.keep(read(folder / "mine.yaml", more), tmp_path / "run")
    assert again == kept
    assert sorted(p.name for p in (tmp_path / "run" / "code").iterdir()) == [
        "files.json", "my_loss-2.py", "my_loss.py", "my_source.py",
    ]  # fmt: skip


def test_of_several_processes_only_the_first_keeps_files(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    recipe = read(folder / "mine.yaml")
    assert begin(tmp_path / "run", recipe, resume=False) == recipe
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
@pytest.mark.timeout(300)
def test_it_works_under_torchrun_with_loader_processes(folder, tmp_path):
    """Two processes, each with a loader process; all four need the source's class."""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "avalign", "train", str(folder / "mine.yaml"), "--run-dir", str(tmp_path / "run")),
        *settings(folder, "data.workers=1", "evaluation.tasks=[avfc]"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all("nearness" in line for line in lines)
