"""One such folder for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.data.paired_folder import PairedFolder
from tests.helpers.paired_folder import prepared, write_folder


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "zoo")


@pytest.fixture(scope="package")
def source(folder: Path) -> PairedFolder:
    return prepared(folder)
