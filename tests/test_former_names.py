"""Settings that had another name are read by it, with a note, for one release."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.config.recipe_file import RecipeError, read


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
