"""What avalign ships is found by name where no file is meant, and copied whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from avalign.config import shipped
from avalign.errors import AvalignError
from tests.helpers.paths import RECIPES


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_file_is_listed_once_with_a_line_and_the_kind_that_it_reads_as() -> None:
    listed = shipped.shipped()
    assert sorted(each.path for each in listed) == sorted(RECIPES.rglob("*.yaml"))
    for each in listed:
        assert 20 < len(each.about) <= shipped.LINE, each.name
        assert "\n" not in each.about
        said = yaml.safe_load(each.path.read_text())
        kind = "study" if "arms" in said else "plan" if {"datasets", "pairs"} & said.keys() else "recipe"
        assert each.kind == kind, each.name


@pytest.mark.parametrize(
    ("word", "kind", "file"),
    [
        ("meerkat", "recipe", "meerkat.yaml"),
        ("pandagpt", "recipe", "baselines/pandagpt.yaml"),
        ("baselines/pandagpt", "recipe", "baselines/pandagpt.yaml"),
        ("alignment", "study", "ablations/alignment.yaml"),
        ("meerkat", "plan", "avfit/meerkat.yaml"),
        ("avfit/meerkat", "plan", "avfit/meerkat.yaml"),
    ],
)
def test_a_name_is_that_of_its_kind(word: str, kind: shipped.Kind, file: str) -> None:
    assert shipped.found(word, kind) == RECIPES / file


def test_within_a_kind_no_two_have_one_short_name() -> None:
    for kind in set(shipped.KIND_OF.values()):
        short = [each.short for each in shipped.shipped() if each.kind == kind]
        assert len(set(short)) == len(short)


def test_a_file_wins_over_a_name_and_a_folder_does_not() -> None:
    Path("meerkat").mkdir()
    assert shipped.found("meerkat") == RECIPES / "meerkat.yaml"
    Path("meerkat").rmdir()
    Path("meerkat").write_text("name: mine\n")
    assert shipped.found("meerkat") == Path("meerkat")


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(AvalignError, match=r"^meerkt: no such file, .*Did you mean 'meerkat'\? Known: .*"):
        shipped.found("meerkt")


def test_a_name_of_another_kind_is_told_with_its_command() -> None:
    with pytest.raises(AvalignError, match=r"^alignment is a study, not a recipe: avalign ablate alignment$"):
        shipped.found("alignment")


def test_a_path_stays_one_and_is_told_of_the_name_where_nothing_lies() -> None:
    assert shipped.found("mine.yaml") == Path("mine.yaml")
    with pytest.raises(AvalignError, match=r"^recipes/meerkat.yaml: no such file\. .* by its name: meerkat$"):
        shipped.found("recipes/meerkat.yaml")
    Path("mine.yaml").write_text("name: mine\n")
    assert shipped.found("meerkat.yaml") == Path("meerkat.yaml"), "the reader names the file beside it"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("meerkat", {"meerkat"}),
        ("meerkat-short", {"meerkat-short", "meerkat"}),
        ("baselines/pandagpt", {"baselines/pandagpt", "baselines/shared", "meerkat"}),
        ("avfit/meerkatbench", {"avfit/meerkatbench", "avfit/meerkat"}),
    ],
)
def test_a_copy_brings_what_it_extends(name: str, files: set[str]) -> None:
    written = shipped.copy(name, Path("mine"))
    assert {path.relative_to("mine").with_suffix("").as_posix() for path, _ in written} == files
    assert all(new for _, new in written)
    assert not any(new for _, new in shipped.copy(name, Path("mine"))), "a second time nothing is written"


def test_a_copy_replaces_nothing_that_was_changed() -> None:
    shipped.copy("meerkat", Path("mine"))
    Path("mine/meerkat.yaml").write_text("name: changed\n")
    with pytest.raises(AvalignError, match=r"^mine/meerkat.yaml: lies there already and differs"):
        shipped.copy("meerkat-short", Path("mine"))
    assert [path.name for path in Path("mine").iterdir()] == ["meerkat.yaml"]


def test_what_is_copied_is_named_by_what_is_listed() -> None:
    with pytest.raises(
        AvalignError, match=r"named 'meerkt'\. Did you mean 'meerkat'\? Known: .*avfit/meerkat,"
    ):
        shipped.copy("meerkt", Path("mine"))
