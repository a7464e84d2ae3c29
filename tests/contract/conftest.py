"""Components built once and for all tests of the contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from avalign import registry
from avalign.interfaces import INTERFACES
from avalign.offered import completed
from tests.helpers.contract.components import TINY, WIRED


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    @cache
    def of(kind: str, name: str) -> dict[str, Any]:
        return TINY.get((kind, name), lambda _: {})(tmp_path_factory.mktemp(name))

    return of


@pytest.fixture
def build(options: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A component of a kind, its weights drawn from a seed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def made(kind: str, name: str, seed: int = 0) -> Any:
        chosen = {key: value for key, value in options(kind, name).items() if key != "root"}
        torch.manual_seed(seed)
        try:
            return completed(registry.load(kind, name)(*WIRED[kind], **chosen), INTERFACES[kind])
        except Exception as error:
            pytest.fail(
                f"{kind} {name!r} cannot be built with {chosen or 'its defaults'}: {error!r}. If it needs "
                "options in a test, put its smallest ones into TINY, in tests/helpers/contract/components.py."
            )

    return made
