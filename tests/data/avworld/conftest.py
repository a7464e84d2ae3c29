"""One small world for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.data.avworld import AvWorld
from tests.helpers.avworld import prepared


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="package")
def source(root: Path) -> AvWorld:
    return prepared(root, train=120, val=40, test=40)
