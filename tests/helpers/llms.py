"""What the tests beside each other share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avalign.llm import SmallLlama, digit_tokenizer
from tests.helpers import tiny

NUMBERS = [f"[dog, 0.{k:02d}, 0.{99 - k}, 12.50, 1.00]" for k in range(100)] * 3


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty_cache"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return digit_tokenizer(NUMBERS + tiny.TEXTS)


@pytest.fixture(scope="module")
def llm() -> SmallLlama:
    return tiny.small_llama().eval()
