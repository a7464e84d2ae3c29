"""Settings that had another name are read by it, with a note, for one release."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign import registry
from avalign.avfit.pairing.classes import Classes
from avalign.avfit.plan import dump_plan, read_plan
from avalign.config.recipe_file import RecipeError, read
from avalign.errors import AvalignError
from avalign.interfaces import Source
from avalign.offered import completed


def test_former_names_are_read_as_the_new_ones_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a file, in what it extends, and on the command line; the last one said counts, whatever its name."""
    (tmp_path / "base.yaml").write_text(
        "name: base\nlosses: {avopt: {rounds: 7}}\nevaluation: {pictures: 2}\n"
    )
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nlosses: {avopt: {iterations: 9}}\n")
    base = read(tmp_path / "base.yaml")
    assert (base.losses["avopt"].options["iterations"], base.evaluation.figures) == (7, 2)
    said = capsys.readouterr().err
    assert "base.yaml:2  'rounds' is now called 'iterations'" in said
    assert "base.yaml:3  'pictures' is now called 'figures'" in said
    assert read(tmp_path / "child.yaml").losses["avopt"].options["iterations"] == 9
    again = read(tmp_path / "child.yaml", ["losses.avopt.rounds=11", "evaluation.pictures=3"])
    assert (again.losses["avopt"].options["iterations"], again.evaluation.figures) == (11, 3)


def test_both_names_of_one_option_are_refused(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("name: both\nlosses: {avopt: {rounds: 7, iterations: 9}}\n")
    with pytest.raises(RecipeError, match=r"avopt\.rounds: loss 'avopt' has no option 'rounds'"):
        read(tmp_path / "both.yaml")


PLAN = """\
name: former
datasets:
  avsbench: {hear: second}
  pascal_voc: {}
  esc50: {}
pairs:
  both: {images: pascal_voc, sounds: esc50, draw: frequency, records: {train: {arig: 3}}}
"""


def test_a_plans_former_names_are_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of its own and options of data sets and pairings; what is written has the new names."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = read_plan(tmp_path / "plan.yaml")
    said = capsys.readouterr().err
    for line, old, new in ((3, "hear", "audio_span"), (7, "sounds", "audio"), (7, "draw", "sampling")):
        assert f"plan.yaml:{line}  {old!r} is now called {new!r}" in said
    assert plan.datasets["avsbench"].options["audio_span"] == "second"
    assert (plan.pairs["both"].audio, plan.pairs["both"].options["sampling"]) == ("esc50", "frequency")
    written = dump_plan(plan)
    assert all(word not in written for word in ("hear:", "sounds:", "draw:"))
    (tmp_path / "again.yaml").write_text(written)
    assert read_plan(tmp_path / "again.yaml") == plan
    assert capsys.readouterr().err == ""
    overrides = ["pairs.both.draw=even", "pairs.both.sounds=esc50", "datasets.avsbench.hear=clip"]
    changed = read_plan(tmp_path / "again.yaml", overrides)
    assert changed.pairs["both"].options["sampling"] == "even"
    assert changed.datasets["avsbench"].options["audio_span"] == "clip"


def test_both_names_of_a_plans_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace("sounds: esc50,", "sounds: esc50, audio: esc50,"))
    with pytest.raises(AvalignError, match=r"pairs\.both\.sounds: pairing 'by_class' has no option 'sounds'"):
        read_plan(tmp_path / "plan.yaml")


def test_a_table_of_classes_may_name_its_sides_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "mine.yaml"
    table.write_text("wolf:\n  pictures: {mine: [grey wolf]}\n  sounds: {mine: [howl of a wolf]}\n")
    classes = Classes.read(table)
    named = [classes.names[c] for c in (classes.of_image("Grey wolf"), classes.of_audio("howl of a wolf"))]
    assert named == ["wolf", "wolf"]
    said = capsys.readouterr().err
    assert "mine.yaml:2  'pictures' is now called 'images'" in said
    assert "mine.yaml:3  'sounds' is now called 'audio'" in said


def test_what_a_data_set_gives_may_be_named_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load("dataset", "pascal_voc"), "gives", "pictures")
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert read_plan(tmp_path / "plan.yaml").gives("pascal_voc") == "images"


class Old:
    """A source with the name of before for what is now `corpus`."""

    tasks = ("arig",)
    skipped: tuple[str, ...] = ()
    prepare = sample = texts = staticmethod(lambda: ["a word"])


def test_a_sources_texts_are_its_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(Old(), Source).corpus() == ["a word"]  # type: ignore[attr-defined]
    assert "Old: 'texts' is now called 'corpus'" in capsys.readouterr().err


def test_every_renamed_option_is_one_of_its_component() -> None:
    kinds = {name: kind for kind in registry.SHIPPED for name in registry.SHIPPED[kind]}
    for name, renamed in registry.RENAMED.items():
        options = registry.options(registry.load(kinds[name], name))
        assert set(renamed.values()) <= set(options), name
        assert not set(renamed) & set(options), name
