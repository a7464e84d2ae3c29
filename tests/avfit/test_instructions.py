"""Generated phrasings without a server: what is asked for, how replies are read, a model on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from avalign.avfit.instructions.generate import PATIENCE, estimate, generate
from avalign.avfit.instructions.local import LocalModel
from avalign.avfit.instructions.prompt import NOT_AGAIN, prompt
from avalign.avfit.instructions.replies import listed, rejection
from avalign.cli.app import app
from avalign.data.manifest.phrasing_rules import MEDIA, NEEDS, SLOTS
from avalign.data.manifest.phrasings import read_file, shipped
from avalign.errors import AvalignError
from avalign.llm import SmallLlama
from tests.helpers.strategies import quick

GOOD = [
    "<image><audio>Box in whatever is making that noise and tell me its name.",
    "Scan <image> while <audio> plays. Who is the noisy one, and where?",
    "<image><audio>Report the audible thing with its four corner values.",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


class Scripted:
    """A writer that gives these replies in turn, the last one ever after."""

    model, variant = "scripted", "here"

    def __init__(self, *replies: Any) -> None:
        self.replies = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]
        self.prompts: list[str] = []

    def ask(self, prompt: str, number: int) -> str:
        self.prompts.append(prompt)
        return self.replies[min(len(self.prompts), len(self.replies)) - 1]


# ---- the prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("section", sorted(NEEDS))
def test_a_prompt_names_every_token_that_is_needed_and_no_other(section: str) -> None:
    text = prompt(section, 7, [])
    needs = NEEDS[section]
    assert "Write 7 new phrasings" in text
    assert "a JSON list of 7 strings" in text
    for token in SLOTS:
        assert (token in text) == (token in (*needs.must, *needs.may))
        assert (f"Write {token} exactly once" in text) == (token in needs.must)
        assert (f"half of them write {token} once" in text) == (token in needs.may)
    assert all(f"{token} exactly once" in text for token in MEDIA)
    examples = [line[2:] for line in text.split("Examples:\n")[1].splitlines() if line.startswith("- ")]
    assert len(examples) == 4
    assert set(examples) <= {phrasing.text for phrasing in shipped().sections[section]}


def test_a_prompt_stays_short_however_many_there_are() -> None:
    taken = [f"phrasing {k} of many" for k in range(1000)]
    text = prompt("arig", 10, taken)
    assert text.count("of many") == NOT_AGAIN
    assert "phrasing 999 of many" in text


# ---- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around",
    [
        "%s",
        "```json\n%s\n```",
        "```\n%s\n```\nI hope this helps [really].",
        'Sure! Here are [three] of them:\n%s\n"Done."',
        '{"phrasings": %s}',
        "<think>[1, 2] will not do, [] neither</think>%s",
    ],
)
def test_a_list_is_found_whatever_stands_around_it(around: str) -> None:
    assert listed(around % json.dumps(GOOD)) == GOOD
    assert listed(around % json.dumps(GOOD, indent=2)) == GOOD


@pytest.mark.parametrize("reply", ["", "no", "[", "[1, 2]", '["cut off', "[]", '{"a": "b"}', "[" * 10**6])
def test_a_reply_without_a_list_is_none(reply: str) -> None:
    assert listed(reply) is None


@given(reply=st.text())
@quick
def test_no_reply_breaks_the_reading(reply: str) -> None:
    for item in listed(reply) or []:
        rejection(item, "arig", GOOD)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (GOOD[0], None),
        (GOOD[1].replace("?", " !"), "repeated"),
        (GOOD[1].replace("noisy", "loud"), "nearly repeated"),
        (GOOD[1].replace("<audio>", "it"), "token lost"),
        ("<image><audio>Wo ist das Ding, dessen Klang zu h\u00f6ren ist?", "not English"),
        ("<image><audio>\u4ec0\u4e48\u5728\u54cd\uff1f", "not English"),
        (None, "not a text"),
        ([GOOD[0]], "not a text"),
    ],
)
def test_why_an_item_is_not_kept(item: Any, reason: str | None) -> None:
    assert rejection(item, "arig", GOOD[1:]) == reason


# ---- the loop ------------------------------------------------------------------------------------


def test_what_is_shipped_is_not_taken_again(tmp_path: Path) -> None:
    ours = [phrasing.text for phrasing in shipped().sections["arig"]]
    outcome = generate("arig", 3, tmp_path / "p.yaml", Scripted([*ours[:4], *GOOD]))
    assert (outcome.held, outcome.new, outcome.rejected) == (3, 3, {"repeated": 4})


def test_a_reply_that_brings_nothing_is_asked_for_again_and_kept_apart(tmp_path: Path) -> None:
    """The prompt is the same, the place in the cache another: a repetition repeats the same course."""
    writer = Scripted("no", "no", GOOD)
    outcome = generate("arig", 3, tmp_path / "p.yaml", writer)
    assert (outcome.held, outcome.requests) == (3, 3)
    assert len(set(writer.prompts)) == 1
    silent = Scripted("never asked")
    again = generate("arig", 3, tmp_path / "q.yaml", silent)
    assert (again.held, again.requests, silent.prompts) == (3, 3, [])
    assert (tmp_path / "p.yaml").read_bytes() == (tmp_path / "q.yaml").read_bytes()


def test_bad_replies_between_good_ones_do_not_end_it(tmp_path: Path) -> None:
    bad = ["no"] * (PATIENCE - 1)
    writer = Scripted(*bad, GOOD[:1], *bad, GOOD[1:2], *bad, GOOD[2:])
    assert generate("arig", 3, tmp_path / "p.yaml", writer, batch=1).held == 3


def test_another_model_does_not_get_this_ones_replies(tmp_path: Path) -> None:
    generate("arig", 3, tmp_path / "p.yaml", Scripted(GOOD))
    for name in ("model", "variant"):
        other = Scripted(GOOD[:1], "no")
        setattr(other, name, "other")
        assert generate("arig", 3, tmp_path / f"{name}.yaml", other).held == 1
        assert len(other.prompts) == 1 + PATIENCE


def test_a_place_that_cannot_be_written_is_named_and_the_reply_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AvalignError, match=r"file/p\.yaml: cannot be written: "):
        generate("arig", 3, tmp_path / "file" / "p.yaml", Scripted(GOOD))
    silent = Scripted("never asked")
    assert generate("arig", 3, tmp_path / "p.yaml", silent).held == 3
    assert silent.prompts == []


def test_an_estimate_is_what_a_run_without_rejections_sends(tmp_path: Path) -> None:
    writer = Scripted(*([text] for text in GOOD))
    told = estimate("arig", 3, tmp_path / "p.yaml", writer, batch=1)
    assert writer.prompts == []
    generate("arig", 3, tmp_path / "p.yaml", writer, batch=1)
    assert told.requests == len(writer.prompts) == 3
    assert told.prompt == writer.prompts[0]
    assert told.tokens_in == pytest.approx(sum(map(len, writer.prompts)) / 4, rel=0.05)
    one = len(json.dumps(["Q: " + shipped().sections["arig"][0].text]))  # quotes, comma, line end, blanks
    assert told.tokens_out == pytest.approx(3 * one / 4, abs=3)


# ---- a model on this machine ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of random weights: all it says is nonsense."""
    folder = tmp_path_factory.mktemp("tiny")
    stock = SmallLlama(["Which object makes the sound?"], hidden=16, layers=1, heads=2)
    stock.lm.save_pretrained(folder)
    stock.tokenizer.save_pretrained(folder)
    return folder


def test_the_nonsense_of_a_tiny_model_is_rejected_by_name(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalModel.__init__, "__kwdefaults__", {"temperature": 0.8, "max_new_tokens": 12})
    out = tmp_path / "p.yaml"
    before = "arig:\n- " + GOOD[0] + "\n"
    out.write_text(before)
    words = ["--task", "arig", "--count", "5", "--local", str(tiny), "--out", str(out)]
    result = CliRunner().invoke(app, ["data", "instructions", *words])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert f"  rejected, reply without a JSON list: {PATIENCE}, such as" in result.stdout
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: arig: 1 of 5 phrasings: the last {PATIENCE} replies held none")
    assert "a larger model may do better" in last
    assert out.read_text() == before, "nothing is lost"


def test_a_local_reply_is_decided_by_prompt_and_number(tiny: Path) -> None:
    said = LocalModel(str(tiny), max_new_tokens=12)
    again = LocalModel(str(tiny), max_new_tokens=12)
    text = prompt("arig", 2, [])
    first = [said.ask(text, number) for number in (0, 1)]
    assert [again.ask(text, number) for number in (1, 0)] == first[::-1]
    assert first[0] != first[1]
    likeliest = LocalModel(str(tiny), temperature=0, max_new_tokens=12)
    assert likeliest.ask(text, 0) == likeliest.ask(text, 1)


def test_a_local_model_is_asked_by_its_chat_template_and_answers_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = LocalModel(str(tiny), max_new_tokens=3)
    said.ask("warm", 0)
    llm, asked = said._loaded, []

    def generate(ids: Any, **options: Any) -> Any:
        asked.append(llm.tokenizer.decode(ids[0]))
        new = llm.tokenizer(json.dumps(GOOD), return_tensors="pt", add_special_tokens=False).input_ids
        return __import__("torch").cat([ids, new], 1)

    llm.tokenizer.chat_template = "{% for m in messages %}USER {{ m.content }} BOT{% endfor %}"
    monkeypatch.setattr(llm.lm, "generate", generate)
    assert json.loads(said.ask("Write <image> and <image>.", 0)) == GOOD
    assert asked == ["USER Write <image> and <image>. BOT"]


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match=r"^--local: '.*nowhere' could not be loaded"):
        LocalModel(str(tmp_path / "nowhere")).ask("x", 0)


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "arig"], "name one of --model"),
        (["--task", "arig", "--model", "x", "--local", "y"], "name one of --model"),
        (["--task", "arg", "--model", "x"], "no task 'arg'. Did you mean 'arig'"),
        (["--task", "avfc", "--model", "x"], "stand by kind. Known: type1"),
        (["--task", "avfc", "--kind", "typ1", "--model", "x"], "no kind 'typ1'. Did you mean 'type1'"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "instructions", "--out", str(tmp_path / "p.yaml"), *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_phrasings_that_were_written_are_used_by_a_manifest(tmp_path: Path) -> None:
    from avalign.data.manifest.phrasings import Phrasings
    from avalign.data.manifest.record import Record

    generate("arig", 3, tmp_path / "phrasings.yaml", Scripted(GOOD))
    assert [p.text for p in read_file(tmp_path / "phrasings.yaml").sections["arig"]] == GOOD
    assert set(GOOD) <= set(Phrasings(tmp_path).of(Record("r", "arig", "train", "made", "x")))
