"""A folder to read recipes in, with components that are quick to import."""

from __future__ import annotations

import pytest

from avalign.config.recipe_file import RecipeError, read
from tests.helpers import fakes


@pytest.fixture(scope="package")
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
