"""Every data set says what it gives, and names the file that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign import registry
from avalign.errors import AvalignError
from tests.helpers.contract.components import every


@every("dataset")
def test_it_says_what_it_gives(name: str) -> None:
    assert registry.load("dataset", name).gives in ("records", "images", "recordings")


@every("dataset")
def test_an_empty_folder_is_refused_by_the_name_of_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match=str(tmp_path)):
        list(registry.load("dataset", name)().read(tmp_path))
