"""Phrasings: the shipped ones keep their rules, each rule refuses what it is for, every token is filled."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.answers import read_boxes, read_intervals, write_box, write_interval
from avalign.avfit.instructions.replies import NEAR, rejection
from avalign.data.manifest import Manifest
from avalign.data.manifest.phrasing_rules import NEEDS, SLOTS, TOKENS, faults, section_of, tokens_of, wording
from avalign.data.manifest.phrasings import Phrasing, PhrasingFile, Phrasings, fill, read_file, shipped
from avalign.data.manifest.record import Record, write
from avalign.errors import AvalignError
from tests.helpers.manifests import cache  # noqa: F401 (a fixture)
from tests.helpers.strategies import quick

SLOTS_GIVEN = {
    "class": "accordion",
    "box": [0.1, 0.2, 0.345, 0.9],
    "time": [1.2, 2.64],
    "question": "Is the left flute louder?",
}
SECTIONS = sorted(NEEDS)


def record(section: str = "avfc type1", **changes: Any) -> Record:
    task, _, kind = section.partition(" ")
    made = Record("r1", task, "train", "made", "True", kind=kind or None, slots=dict(SLOTS_GIVEN))
    return replace(made, **changes)


# ---- what is shipped -----------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_shipped_with_eight_ways_to_ask_and_more(section: str) -> None:
    texts = [phrasing.text for phrasing in shipped().sections[section]]
    assert len(texts) >= 8
    for token in NEEDS[section].may:
        assert sum(token in text for text in texts) >= 8
        assert sum(token not in text for text in texts) >= 8
    for k, text in enumerate(texts):
        others = texts[:k] + texts[k + 1 :]
        if section != "avqa":  # whose words are the question's
            assert rejection(text, section, others) is None, text
        for other in others:
            same = SequenceMatcher(None, wording(text).split(), wording(other).split()).ratio()
            assert same < NEAR, (text, other)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_filled_phrasing_holds_what_was_put_in_and_no_token_but_the_media(section: str) -> None:
    asked = record(section)
    for text in Phrasings().of(asked):
        filled = fill(text, asked)
        assert sorted(tokens_of(filled)) == ["<audio>", "<image>"]
        tokens = tokens_of(text)
        boxes = [box.box for box in read_boxes(filled)]
        assert boxes == ([(0.1, 0.2, 0.34, 0.9)] if "<box>" in tokens else [])
        assert ("accordion" in filled) == ("<class>" in tokens)
        assert (SLOTS_GIVEN["question"] in filled) == ("<question>" in tokens)
        times = read_intervals(re.sub(r"\[[\d., ]{20,}\]", "", filled), denied=True)
        assert times == ([(1.2, 2.64)] if "<time>" in tokens else [])


# ---- the rules -----------------------------------------------------------------------------------

ASK = "<image><audio>Does the object in <box> make the sound?"


@pytest.mark.parametrize(
    ("section", "text", "reason", "said"),
    [
        ("avfc type1", ASK.replace("<image>", ""), "token lost", "lacks <image>"),
        ("avfc type1", ASK.replace("<audio>", ""), "token lost", "lacks <audio>"),
        ("avfc type1", ASK.replace("<box>", "the box"), "token lost", "lacks <box>"),
        ("avfc type1", ASK + " <image>", "token repeated", "<image> 2 times"),
        ("avfc type1", ASK + " In <box>?", "token repeated", "<box> 2 times"),
        ("avfc type1", ASK + " In <time>?", "token added", "<time> has no place in avfc type1"),
        ("avfc type1", ASK + " <bbox>", "unknown token", "no token '<bbox>'. Did you mean '<box>'"),
        ("avfc type1", ASK + " a < b", "unknown token", "belongs to no token"),
        ("avfc type1", ASK + " < box >", "unknown token", "belongs to no token"),
        ("avfc type1", ASK + " Answer True.", "answer leaked", "says True more often"),
        ("avfc type1", ASK + " True or False? It is not true.", "answer leaked", "says False more often"),
        ("avfc type1", ASK + " Answer True or False. Answer: yes", "answer leaked", "says True"),
        ("avfc type1", ASK + " Look at 0.5.", "answer leaked", "number '0.5."),
        ("avfc type1", ASK + " It is a dog.", "answer leaked", "names the class 'dog'"),
        ("avfc type2", "<image><audio>Is the <class> heard?", "token lost", "lacks <time>"),
        ("avfc type2", "<image><audio>Is it heard in <time>?", "token lost", "lacks <class>"),
        ("avfc type3", ASK, "token lost", "lacks <time>"),
        ("avfc type4", ASK, "token added", "<box> has no place"),
        ("arig", "<image><audio>Where is the <class>?", "answer leaked", "<class> is the answer"),
        ("arig", "<image><audio>Is it in <box>?", "answer leaked", "<box> is the answer"),
        ("igatl", "<image><audio>Is it at <time>?", "answer leaked", "<time> is the answer"),
        ("igatl audio", "<image><audio>When is it heard?", "token lost", "lacks <class>"),
        ("avqa", "<image><audio>Answer briefly.", "token lost", "lacks <question>"),
        ("avcap", "<image><audio>", "no words", "says nothing"),
        ("avcap", "<image><audio>Describe\nit.", "not one plain line", "line breaks"),
        ("avcap", " <image><audio>Describe it.", "not one plain line", "blanks at its ends"),
        ("avcap", "<image><audio>Describe" + " it" * 150, "too long", "has 472 characters, 300"),
    ],
)
def test_what_breaks_a_rule_is_named(section: str, text: str, reason: str, said: str) -> None:
    found = faults(text, section)
    assert [r for r, _ in found] == [reason]
    assert said in found[0][1]


@pytest.mark.parametrize(
    "text",
    [
        ASK,
        ASK + " True or false?",
        ASK + " Answer with True/False only, no explanation.",
        ASK + " Say True if it does and False if not.",
        ASK + " Yes or no?",
        "Is it <box> of <image> that <audio> comes from? Is that True or False?",
        "<audio><image>Is the <class> in <box> heard?",
    ],
)
def test_what_keeps_the_rules_passes(text: str) -> None:
    assert faults(text, "avfc type1") == []


def test_the_words_are_compared_without_media_and_punctuation() -> None:
    assert wording("<image><audio>Is it, in <box>?") == wording("Is it in <box>! <audio> <image>")
    assert wording(ASK) != wording(ASK.replace("<box>", "<time>"))


def test_where_phrasings_of_a_kind_stand() -> None:
    assert section_of("arig", "anything") == "arig"
    assert section_of("avqa", "Existential") == "avqa"
    assert section_of("igatl", None) == "igatl"
    assert section_of("avfc", "type3") == "avfc type3"
    for task, kind, said in [
        ("avfc", None, "stand by kind. Known: type1"),
        ("avfc", "typ1", "no kind 'typ1'. Did you mean 'type1'"),
        ("igatl", "audo", "Did you mean 'audio'"),
        ("arg", None, "no task 'arg'. Did you mean 'arig'"),
    ]:
        with pytest.raises(AvalignError, match=said):
            section_of(task, kind)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "arig:\n- <image><audio>What sounds?\n- <image>What?\n",
            r":3  arig: lacks <audio>: '<image>What\?'",
        ),
        ("\narigg:\n- <image><audio>What?\n", r":2  no section 'arigg'. Did you mean 'arig'"),
        ("arig: text\n", r":1  arig: a list of phrasings is needed"),
        ("arig: []\n", r":1  arig: a list"),
        ("arig:\n- 3\n", r":2  arig: a phrasing is a text"),
        ("arig:\n- {model: x}\n", r":2  arig: a phrasing is a text"),
        ("arig:\n- <image><audio>What?\n- <audio>What <image>\n", r":3  arig: the words of .*:2 again"),
        ("arig:\n- <image><audio>What?\narig:\n- <image><audio>Which?\n", "given twice"),
        ("replaces: [arig]\n", r"replaces arig, and has no phrasing of it"),
        ("replaces: [arg]\narig:\n- <image><audio>What?\n", r":1  replaces: no section 'arg'. Did you mean"),
        ("[1]\n", "holds no sections"),
        ("", "holds no sections"),
        ("arig: [\n", r":2  not YAML"),
        ("arig: !!python/object:x []\n", "the tag .* is not read here"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_its_line(
    content: str | bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "phrasings.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AvalignError, match=said) as raised:
        read_file(file)
    assert str(file) in str(raised.value)


def test_every_broken_line_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "phrasings.yaml").write_text(
        "arig:\n- <image>What?\n- <audio>What?\navcap:\n- Describe it.\n"
    )
    with pytest.raises(AvalignError) as raised:
        read_file(tmp_path / "phrasings.yaml")
    assert [int(line.split(":")[1].split()[0]) for line in str(raised.value).splitlines()] == [2, 3, 3, 5, 5]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    origin = {"model": "some/model: a", "made": "2026-01-31", "prompt": 1}
    written = PhrasingFile(
        {"arig": [Phrasing('<image><audio>What\'s "it": a #1?'.replace("1", "one"), origin)]}, ("arig",)
    )
    written.write(tmp_path / "p.yaml")
    assert read_file(tmp_path / "p.yaml") == written


# ---- drawing -------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 50), number=st.integers(0, 10**6))
@quick
def test_a_draw_is_decided_by_seed_record_and_epoch(seed: int, epoch: int, number: int) -> None:
    asked = record(id=f"r{number}")
    text = Phrasings().instruction(asked, seed=seed, epoch=epoch)
    assert text == Phrasings().instruction(asked, seed=seed, epoch=epoch)
    assert text in {fill(t, asked) for t in Phrasings().of(asked)}


def test_each_phrasing_is_drawn_about_as_often_as_any_other() -> None:
    phrasings = Phrasings()
    for draws in (
        [phrasings.instruction(record("arig", id=f"r{k}"), seed=3) for k in range(2000)],
        [phrasings.instruction(record("arig"), seed=k) for k in range(2000)],
        [phrasings.instruction(record("arig"), seed=3, epoch=k) for k in range(2000)],
        [phrasings.instruction(record("arig", id=f"r{k}")) for k in range(2000)],
    ):
        counts = Counter(draws)
        assert len(counts) == 10
        assert 140 < min(counts.values()) <= max(counts.values()) < 260


def test_a_record_is_asked_with_what_it_has() -> None:
    phrasings = Phrasings()
    with_class, without = phrasings.of(record("igatl")), phrasings.of(record("igatl", slots={}))
    assert (len(with_class), len(without)) == (16, 8)
    assert not any("<class>" in text for text in without)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slots": {}}, r"record 'r1' has no instruction, and its slots \(none\) lack box.*<box>"),
        ({"slots": {"class": "dog"}}, r"its slots \(class\) lack box"),
        ({"kind": None}, "record 'r1' has no instruction, and the phrasings of avfc stand by kind"),
        ({"kind": "type9"}, "avfc has no kind 'type9'"),
        ({"slots": {"box": [0.5, 0.5, 0.2, 0.9]}}, "record 'r1': box .* is inverted"),
        ({"slots": {"box": [0.1, 0.2, 0.3]}}, "record 'r1': box .* has 3 numbers"),
        ({"slots": {"box": [0.1, 0.2, 0.3, float("nan")]}}, "record 'r1': box .* not finite"),
        ({"slots": {"box": "here"}}, "record 'r1': slot box is 'here', not a list of numbers"),
        ({"instruction": "<image><audio>In <time>?", "slots": {}}, "record 'r1': .* asks for <time>"),
        (
            {"instruction": "<image><audio>In <time>?", "slots": {"time": [3, 2]}},
            "record 'r1': interval .* is inverted",
        ),
        (
            {"instruction": "<image><audio>A <class>?", "slots": {"class": 3}},
            "record 'r1': slot class is 3, not words",
        ),
        ({"instruction": "A <class>?", "slots": {"class": "<image>"}}, "slot class is '<image>', not words"),
    ],
)
def test_a_slot_that_is_missing_or_broken_names_its_record(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        Phrasings().instruction(record(**changes), seed=0)


def test_an_instruction_of_its_own_is_filled_and_otherwise_left_alone() -> None:
    own = record(instruction="<image><audio>Is a <class> in <box> over <time>? 1 < 2 <b>")
    box, time = write_box(SLOTS_GIVEN["box"]), write_interval(SLOTS_GIVEN["time"])
    expected = f"<image><audio>Is a accordion in {box} over {time}? 1 < 2 <b>"
    assert Phrasings().instruction(own, seed=5) == Phrasings().instruction(own) == expected
    nested = record(instruction="<image><audio><question>", slots={"question": "What is <time>?"})
    assert Phrasings().instruction(nested) == "<image><audio>What is <time>?", "what is filled in is not read"


OWN = "<image><audio>Spot the noisy thing, please."


def own_file(folder: Path, replaces: bool) -> Phrasings:
    sections = {"arig": [Phrasing(OWN, {})]}
    PhrasingFile(sections, ("arig",) if replaces else ()).write(folder / "phrasings.yaml")
    return Phrasings(folder)


def test_a_folder_adds_to_the_shipped_phrasings_in_training_alone(tmp_path: Path) -> None:
    """So that what a test asks is not changed by phrasings written for training."""
    phrasings, plain = own_file(tmp_path, replaces=False), Phrasings()
    asked = [record("arig", id=f"r{k}") for k in range(200)]
    drawn = Counter(phrasings.instruction(r, seed=0) for r in asked)
    assert len(drawn) == 11
    assert drawn[OWN] > 5
    assert [phrasings.instruction(r) for r in asked] == [plain.instruction(r) for r in asked]


def test_a_folder_replaces_the_shipped_phrasings_where_it_says_so(tmp_path: Path) -> None:
    phrasings = own_file(tmp_path, replaces=True)
    assert {
        phrasings.instruction(record("arig", id=f"r{k}"), seed=s) for k in range(9) for s in (0, None)
    } == {OWN}
    assert len(phrasings.of(record("avcap"))) == len(shipped().sections["avcap"])


def test_a_shipped_phrasing_added_again_is_not_drawn_twice_as_often(tmp_path: Path) -> None:
    texts = [phrasing.text for phrasing in shipped().sections["arig"]]
    PhrasingFile({"arig": [Phrasing(texts[0].replace("?", "!"), {})]}).write(tmp_path / "phrasings.yaml")
    assert Phrasings(tmp_path).of(record("arig")) == texts


# ---- in the manifest -----------------------------------------------------------------------------


def manifest(folder: Path, seed: int = 0) -> Manifest:
    """Twelve records of type 1 a split, without media or instruction."""
    folder.mkdir(exist_ok=True)
    made = [
        record(id=f"{split}-{k}", split=split, slots=SLOTS_GIVEN | {"class": f"thing{'x' * k}"})
        for split in ("train", "val", "test")
        for k in range(12)
    ]
    if not (folder / "made.jsonl").exists():  # opened before, it must not change
        write(made, folder / "made.jsonl")
    source = Manifest()
    source.prepare(str(folder), seed=seed)
    return source


def asked(source: Manifest, split: str, epoch: int = 0) -> dict[str, str]:
    drawn = [source.sample(split, "avfc", 12 * epoch + k) for k in range(12)]
    return {sample.id: sample.instruction for sample in drawn}


def test_training_asks_a_record_in_another_way_each_time(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    epochs = [asked(source, "train", epoch) for epoch in range(4)]
    assert epochs == [asked(manifest(tmp_path), "train", epoch) for epoch in range(4)]
    changed = sum(epochs[0][name] != epochs[e][name] for name in epochs[0] for e in (1, 2, 3))
    assert changed > 24, "of 36, one in sixteen stays by chance"
    assert asked(manifest(tmp_path, seed=1), "train") != epochs[0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_test_always_asks_the_same(split: str, tmp_path: Path) -> None:
    one, other = manifest(tmp_path), manifest(tmp_path, seed=1)
    assert asked(one, split) == asked(other, split)
    own_file(tmp_path, replaces=False)
    assert asked(manifest(tmp_path), split) == asked(one, split)


def test_the_folders_own_file_is_read_beside_the_manifest(tmp_path: Path) -> None:
    manifest(tmp_path)
    (tmp_path / "phrasings.yaml").write_text("arig:\n- What?\n")
    for place in (tmp_path, tmp_path / "made.jsonl"):
        with pytest.raises(AvalignError, match=r"phrasings\.yaml:2  arig: lacks <image>"):
            Manifest().prepare(str(place), seed=0)


def test_a_tokenizers_texts_hold_every_phrasing_filled(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    texts = source.corpus()
    for phrasing in shipped().sections["avfc type1"]:
        pattern = re.escape(phrasing.text).replace("<class>", "thingx*").replace("<box>", r"\[0\.10.*\]")
        assert any(re.fullmatch(pattern, text) for text in texts), phrasing.text
    assert not any(token in text for text in texts for token in SLOTS)
    words = set(re.findall(r"[A-Za-z]+", " ".join(texts)))
    for epoch in range(5):
        for text in asked(source, "train", epoch).values():
            assert set(re.findall(r"[A-Za-z]+", text)) <= words


def test_a_manifest_with_phrasings_goes_to_a_loader_process(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    assert asked(pickle.loads(pickle.dumps(source)), "train") == asked(source, "train")


def test_every_token_is_media_or_a_slot() -> None:
    assert set(TOKENS) == {"<image>", "<audio>", *SLOTS}
