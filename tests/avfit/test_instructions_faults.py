"""Endpoints that fail, and what is kept of what they said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.avfit.endpoint import (  # noqa: F401 (fixtures)
    GOOD,
    apart,
    ask,
    one_line,
    pauses,
)
from tests.helpers.chat_server import (
    says,
    serving,
)


def test_a_dry_run_sends_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(says(GOOD)) as server:
        result = ask(
            server, tmp_path / "p.yaml", "--dry-run", "--price-in", "2", "--price-out", "10", count=25
        )
        assert result.exit_code == 0, result.output
        assert server.seen == []
    assert list(tmp_path.iterdir()) == []
    lines = result.stdout.splitlines()
    assert lines[0] == "requests: 3, and 0 replies from the cache"
    tokens_in, tokens_out = (
        int(word.replace(",", "")) for word in (lines[1].split()[2], lines[1].split()[4])
    )
    assert 1200 < tokens_in < 3000
    assert 400 < tokens_out < 1200
    assert lines[2] == f"cost: about {(2 * tokens_in + 10 * tokens_out) / 1e6:.4f}"
    assert "Write 10 new phrasings" in result.stdout


def test_a_dry_run_counts_what_the_cache_has(tmp_path: Path) -> None:
    out = tmp_path / "p.yaml"
    with serving(says(GOOD)) as server:
        ask(server, out)
        out.unlink()
        assert "requests: 0, and 1 replies from the cache" in ask(server, out, "--dry-run").stdout
        assert "requests: 1, and 0 replies" in ask(server, out, "--dry-run", "--temperature", "1").stdout
        assert not out.exists()


def test_the_temperature_is_sent_when_it_is_given(tmp_path: Path) -> None:
    with serving(says(GOOD)) as server:
        ask(server, tmp_path / "p.yaml", "--temperature", "0.5")
        assert server.seen[0]["body"]["temperature"] == 0.5


def test_without_the_client_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with serving(says(GOOD)) as server:
        line = one_line(ask(server, tmp_path / "p.yaml"))
    assert (
        line == "error: this command needs the package 'openai', which is not installed: pip install openai"
    )
