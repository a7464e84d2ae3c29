"""What the tests beside each other share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from tests.helpers.chat_server import (
    KEY,
    Server,
)

GOOD = [
    f"<image><audio>{words}"
    for words in (
        "Is the thing at <box> what we are listening to? True or false?",
        "True or False: this noise originates from whatever occupies <box>.",
        "Consider <box>. Would you say the audio is emitted there? Reply True or False.",
        "Hear the clip, check the <class> at <box>, and tell whether one explains the other: True or False?",
    )
]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, the key, no proxy between the machine and itself."""
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept, instead of sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def arguments(server: Server, out: Path, count: int) -> list[str]:
    words = ["instructions", "--task", "avfc", "--kind", "type1", "--count", str(count), "--out", str(out)]
    return [*words, "--model", "tiny", "--base-url", server.url]


def ask(server: Server, out: Path, *more: str, count: int = 4) -> Any:
    return CliRunner().invoke(app, ["data", *arguments(server, out, count), *more])


def one_line(result: Any) -> str:
    """The error that ended the command, without what was told on the way."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("...")]
    assert len(lines) == 1, lines
    return lines[0]
