"""`avalign recipes`, and the commands that take what it lists by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from avalign.avfit.plan import read_plan
from avalign.cli.app import app
from avalign.config import shipped
from avalign.config.recipe_file import dump, read
from avalign.studies.study import read_study
from tests.helpers.paths import RECIPES


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.stdout if status == 0 else result.stderr


def test_each_is_listed_in_a_line() -> None:
    lines = run("recipes").splitlines()
    for each in shipped.shipped():
        assert sum(line.split()[:2] == [each.name, each.kind] for line in lines) == 1


def test_a_recipe_is_checked_by_its_name_and_a_run_s_own_stands_alone() -> None:
    said = run("check", "pandagpt", "seed=3")
    assert yaml.safe_load(said)["name"] == "pandagpt"
    Path("recipe.yaml").write_text(said)
    assert run("check", "recipe.yaml") == said


def test_commands_find_their_own_kind() -> None:
    assert run("check", "alignment", status=2).startswith("error: alignment is a study, not a recipe")
    assert run("train", "alignmnt", status=2).startswith("error: alignmnt: no such file, and no recipe")
    assert run("ablate", "alignmnt", status=2).endswith(
        "Did you mean 'alignment'? Known: alignment, alignment-avmini, connectors, fine-coarse, lora-rank, "
        "ot-backends, tasks.\n"
    )
    assert "unknown key 'modle'" in run("ablate", "alignment", "modle.width=8", status=2)
    assert "VOCdevkit/VOC2007" in run("data", "build", "voc-esc50", "--root", ".", status=2)


def test_a_copy_reads_as_what_it_is_a_copy_of() -> None:
    for each in shipped.shipped():
        to = Path(each.name.replace("/", "-"))
        shipped.copy(each.name, to)
        copied, path = to / each.path.relative_to(RECIPES), each.path
        if each.kind == "recipe":
            assert dump(read(copied)) == dump(read(path))
        elif each.kind == "study":
            arms, own = read_study(copied).arms, read_study(path).arms
            assert {arm: dump(arms[arm]) for arm in arms} == {arm: dump(own[arm]) for arm in own}
        else:
            assert read_plan(copied) == read_plan(path)


def test_a_copy_says_what_it_wrote() -> None:
    assert run("recipes", "copy", "meerkat-short", "--to", "mine").split() == [
        "mine/meerkat-short.yaml",
        "mine/meerkat.yaml",
    ]
    assert run("recipes", "copy", "meerkat", "--to", "mine") == "mine/meerkat.yaml (there already)\n"
    assert run("recipes", "copy", "meerkt", status=2).startswith("error: avalign ships nothing")
