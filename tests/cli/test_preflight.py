"""What a recipe asks for and the machine lacks is named before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.config.preflight import lacking
from avalign.config.recipe_file import RecipeError, read
from avalign.data.avworld import AvWorld
from tests.helpers.paths import RECIPE


def test_all_that_the_machine_lacks_is_named_at_once_in_its_place(tmp_path: Path) -> None:
    words = [
        "data.source={name: manifest}",
        f"data.root={tmp_path}/nowhere",
        f"model.image_encoder={{name: clip, model: {tmp_path}/no-clip}}",
        "train.report_to=[tensorbord, tensorboard, dvclive]",
        "train.batch_sise=3",
    ]
    with pytest.raises(RecipeError) as told:
        read(RECIPE, words, lacking=lacking)
    said = "\n".join(told.value.problems)
    for what in (
        f"data.root: {tmp_path}/nowhere: no such file or folder",
        f"model.image_encoder.model: {tmp_path}/no-clip: no such file or folder",
        "no tracker is named 'tensorbord'. Did you mean 'tensorboard'?",
        "tracker 'dvclive' is not installed: pip install dvclive",
        "unknown key 'batch_sise'",
    ):
        assert what in said
    assert len(told.value.problems) == 5
    assert read(RECIPE, words[:-1]), "a run that was moved here can still be read"
    made = read(RECIPE, [f"data.root={tmp_path}/nowhere"], lacking=lacking)
    assert made, "avworld makes its folder"


class OneTask(AvWorld):
    """A source of one task."""

    tasks = ("arig",)


def test_a_task_that_the_source_has_not_is_named_before(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"source '.*:OneTask' has no task 'avfc'.*Known: arig"):
        read(RECIPE, [f"data.source={{name: '{__name__}:OneTask'}}"], lacking=lacking)
