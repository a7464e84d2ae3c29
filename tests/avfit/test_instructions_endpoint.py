"""Phrasings from an endpoint: whatever goes wrong, what is good is kept, and the rest told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.data.manifest.phrasings import read_file
from tests.helpers.avfit.endpoint import GOOD, apart, arguments, ask, one_line, pauses  # noqa: F401 (fixtures)
from tests.helpers.chat_server import (
    KEY,
    Answer,
    Handler,
    fails,
    hangs_up,
    raw,
    says,
    serving,
    sleeps,
)

LOST = "<image><audio>Is the thing in the corner the origin of it all? True or false?"
LEAKED = "<image><audio>Look at <box> and confirm that the noise starts there. The answer is True."

pytest.importorskip("openai", reason="pip install avalign[instructions]")


def held(out: Path) -> list[str]:
    return [phrasing.text for phrasing in read_file(out).sections["avfc type1"]]


def test_only_the_prompt_is_sent_and_the_same_command_costs_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "phrasings.yaml"
    with serving(says(GOOD)) as server:
        first = ask(server, out)
        assert first.exit_code == 0, first.output
        assert held(out) == GOOD
        (seen,) = server.seen
        assert seen["path"] == "/v1/chat/completions"
        assert seen["body"].keys() == {"model", "messages"}
        assert seen["body"]["model"] == "tiny"
        (message,) = seen["body"]["messages"]
        assert "Write 4 new phrasings" in message["content"]
        told = " ".join(f"{name}: {value}" for name, value in seen["headers"].items())
        assert "python" not in told.lower()
        assert "linux" not in told.lower()
        assert str(tmp_path) not in json.dumps(seen)
        before = out.read_bytes()
        assert ask(server, out).exit_code == 0  # the file holds them
        out.unlink()
        assert ask(server, out).exit_code == 0  # the cache does
        assert out.read_bytes() == before
        assert len(server.seen) == 1


def test_where_a_phrasing_comes_from_stands_beside_it(tmp_path: Path) -> None:
    with serving(says(GOOD)) as server:
        ask(server, tmp_path / "p.yaml")
    for phrasing in read_file(tmp_path / "p.yaml").sections["avfc type1"]:
        assert phrasing.origin.keys() == {"model", "made", "prompt"}
        assert phrasing.origin["model"] == "tiny"
        assert len(phrasing.origin["made"]) == 10


def test_the_key_is_written_nowhere(tmp_path: Path) -> None:
    with serving(says(GOOD), fails(500, f"bad request of {KEY}")) as server:
        results = [ask(server, tmp_path / "p.yaml"), ask(server, tmp_path / "p.yaml", count=9)]
    assert results[1].exit_code == 2
    assert all(KEY not in result.output for result in results)
    assert "***" in results[1].output
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (fails(429, Retry_After="7"), None),
        (fails(500), None),
        (fails(503), None),
        (hangs_up, None),
        (raw(b'{"choices": [{"mess'), "a reply that is not JSON"),
        (raw(b"\xff\xfe"), "a reply that is not JSON"),
        (raw(b"[1, 2]"), "a reply that is without choices"),
        (raw(b"[" * 100_000), "a reply that is not JSON"),
        (says("", choices=[]), "a reply that is without choices"),
        (says(None), "a reply that is without text"),
        (says("  "), "a reply that is without text"),
    ],
)
def test_a_failure_that_passes_costs_nothing_but_a_pause(
    failure: Answer, said: str | None, tmp_path: Path, pauses: list[float]
) -> None:
    with serving(failure, says(GOOD)) as server:
        result = ask(server, tmp_path / "p.yaml")
        assert result.exit_code == 0, result.output
        assert len(server.seen) == 2
    assert held(tmp_path / "p.yaml") == GOOD
    assert len(pauses) == 1
    if said is not None:  # what the client itself does not try again
        assert f"{said}" in result.stderr
        assert pauses == [2.0]


def test_it_waits_as_long_as_it_is_asked_to(tmp_path: Path, pauses: list[float]) -> None:
    with serving(fails(429, Retry_After="7"), says(GOOD)) as server:
        assert ask(server, tmp_path / "p.yaml").exit_code == 0
    assert pauses == [7.0]
    pauses.clear()
    with serving(fails(429, Retry_After="300"), says(GOOD)) as server:  # the client leaves this to us
        assert ask(server, tmp_path / "q.yaml").exit_code == 0
    assert pauses == [300.0]
    with serving(fails(429, Retry_After="86400")) as server:
        assert "asks to be left alone for 86400 s" in one_line(ask(server, tmp_path / "r.yaml"))
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (fails(429), "status 429: not now"),
        (fails(500), "status 500: not now"),
        (hangs_up, "the connection failed"),
        (says("", choices=[]), "without choices"),
    ],
)
def test_a_failure_that_stays_ends_it_in_one_line(
    failure: Answer, said: str, tmp_path: Path, pauses: list[float]
) -> None:
    with serving(failure) as server:
        line = one_line(ask(server, tmp_path / "p.yaml"))
        assert 3 <= len(server.seen) <= 9
    assert said in line
    assert "gave up after 3 attempts" in line
    assert [pause for pause in pauses if pause >= 2][-2:] == [2.0, 8.0], "ever longer"
    assert not (tmp_path / "p.yaml").exists()


def test_a_slow_answer_is_given_up(tmp_path: Path) -> None:
    with serving(sleeps) as server:
        line = one_line(ask(server, tmp_path / "p.yaml", "--timeout", "0.05"))
        assert len(server.seen) == 9
    assert "no answer within 0.05 s" in line


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (fails(400, "no such parameter"), "status 400: no such parameter"),
        (fails(403, "not for you"), "status 403: not for you"),
        (fails(404, "model not found"), "It has no model 'tiny', or --base-url is wrong"),
        (
            fails(429, "you have run out of credit", "insufficient_quota", x_should_retry="false"),
            "status 429",
        ),
    ],
)
def test_what_will_not_pass_ends_it_at_once(
    failure: Answer, said: str, tmp_path: Path, pauses: list[float]
) -> None:
    with serving(failure) as server:
        line = one_line(ask(server, tmp_path / "p.yaml"))
        assert len(server.seen) == 1
    assert said in line
    assert pauses == []


def test_a_wrong_key_ends_it_at_once_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key-98765")
    with serving(says(GOOD)) as server:
        line = one_line(ask(server, tmp_path / "p.yaml"))
        assert len(server.seen) == 1
    assert "status 401: Incorrect API key provided: ***." in line
    assert "OPENAI_API_KEY does not hold a key that it takes" in line
    assert "sk-another" not in line


@pytest.mark.parametrize("key", [None, "", "two words", "sk-1\n", "sch\u00f6n"])
def test_a_key_that_is_none_is_never_sent(
    key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(says(GOOD)) as server:
        line = one_line(ask(server, tmp_path / "p.yaml"))
        assert server.seen == []
    assert line.startswith("error: OPENAI_API_KEY has to hold the key for 127.0.0.1")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with serving(says(GOOD)) as server:
        pass
    assert "the connection failed (ConnectError)" in one_line(ask(server, tmp_path / "p.yaml"))


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://user:word@host/v1", "ftp://host", "http://host/v1?key=1"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str, tmp_path: Path) -> None:
    words = ["--task", "arig", "--out", str(tmp_path / "p.yaml"), "--model", "tiny", "--base-url", url]
    result = CliRunner().invoke(app, ["data", "instructions", *words])
    line = one_line(result)
    assert "--base-url: an address such as" in line
    assert "word" not in line


def test_a_reply_in_code_fences_is_read(tmp_path: Path) -> None:
    fenced = f"Here you are [as asked]:\n```json\n{json.dumps(GOOD, indent=1)}\n```\nAnything else?"
    with serving(says(fenced)) as server:
        assert ask(server, tmp_path / "p.yaml").exit_code == 0
    assert held(tmp_path / "p.yaml") == GOOD


def test_bad_phrasings_are_rejected_and_counted_by_reason(tmp_path: Path) -> None:
    first = [GOOD[0], LOST, LEAKED, GOOD[0] + "!", GOOD[0].replace("listening", "tuning"), 3]
    first += ["<image><audio>\u00bfProduce el objeto en <box> el sonido que se oye? True o False", GOOD[1]]
    with serving(says(first), says("I cannot do that."), says([*GOOD[2:], LOST])) as server:
        result = ask(server, tmp_path / "p.yaml")
        assert result.exit_code == 0, result.output
        again = server.seen[1]["body"]["messages"][0]["content"]
        assert GOOD[0] in again, "what is there is not to be written again"
        assert LOST not in again
        assert "Write 2 new phrasings" in again
    assert held(tmp_path / "p.yaml") == GOOD
    told = result.stdout
    for reason, count in [
        ("token lost", 1),
        ("answer leaked", 1),
        ("repeated", 1),
        ("nearly repeated", 1),
        ("not a text", 1),
        ("not English", 1),
        ("reply without a JSON list", 1),
        ("more than asked for", 1),
    ]:
        assert f"  rejected, {reason}: {count}, such as " in told, told


def test_it_ends_when_nothing_good_comes_and_keeps_what_there_is(tmp_path: Path) -> None:
    out = tmp_path / "p.yaml"
    with serving(says(GOOD[:2]), says([LOST]), says([LEAKED]), says([LOST])) as server:
        result = ask(server, out)
        assert len(server.seen) == 4
    assert "avfc type1: 2 of 4 phrasings: the last 3 replies held none" in one_line(result)
    assert str(out) in result.stderr
    assert held(out) == GOOD[:2]


def test_a_run_that_was_cut_off_goes_on_to_the_same_file(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.yaml", tmp_path / "cut.yaml"
    replies = [says([text]) for text in GOOD]
    with serving(*replies) as server:
        assert ask(server, whole, "--batch", "1").exit_code == 0
        assert len(server.seen) == 4
    with serving(*replies[:2], fails(400)) as server:  # another address: nothing of it is in the cache
        assert ask(server, cut, "--batch", "1").exit_code == 2
        assert held(cut) == GOOD[:2]
        server.script[:] = [*replies[:2], fails(400), *replies[2:]]
        assert ask(server, cut, "--batch", "1").exit_code == 0
        assert len(server.seen) == 5
    assert cut.read_text() == whole.read_text()


def test_a_run_that_is_killed_loses_nothing_that_it_was_told(tmp_path: Path) -> None:
    out, asked_again = tmp_path / "p.yaml", threading.Event()

    def waits(handler: Handler, body: dict[str, Any]) -> None:
        asked_again.set()
        sleeps(handler, body)

    with serving(says(GOOD[:1]), says(GOOD[1:2]), waits, says(GOOD[2:])) as server:
        words = [sys.executable, "-m", "avalign", "data", *arguments(server, out, count=4)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            assert asked_again.wait(60)
            process.kill()
        assert held(out) == GOOD[:2]
        out.unlink()  # the cache has them, too
        assert ask(server, out).exit_code == 0
        assert len(server.seen) == 4
    assert held(out) == GOOD
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["p.yaml"]


def test_other_phrasings_of_the_file_stay(tmp_path: Path) -> None:
    out = tmp_path / "p.yaml"
    out.write_text("replaces: [arig]\narig:\n- <image><audio>What sounds?\navfc type1:\n- " + GOOD[0] + "\n")
    with serving(says(GOOD)) as server:
        assert ask(server, out).exit_code == 0
    assert held(out) == GOOD
    found = read_file(out)
    assert (found.replaces, len(found.sections["arig"])) == (("arig",), 1)
    assert found.sections["avfc type1"][0].origin == {}


def test_a_broken_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("arig:\n- What?\n")
    with serving(says(GOOD)) as server:
        result = ask(server, tmp_path / "p.yaml")
        assert server.seen == []
    assert result.exit_code == 2
    assert "p.yaml:2  arig: lacks <image>" in result.stderr
    assert (tmp_path / "p.yaml").read_text() == "arig:\n- What?\n"
