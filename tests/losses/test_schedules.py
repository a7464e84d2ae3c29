"""A weight that changes from step to step: what it is at each, and how a recipe says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avalign.config.recipe import Recipe, weight_at
from avalign.config.recipe_file import RecipeError, dump, read
from avalign.losses import LossValue
from avalign.losses.objective import Objective, ObjectiveError
from tests.helpers.objectives import Mean, example, meerkat
from tests.helpers.strategies import quick
from tests.helpers.tolerances import assert_close


class TestWeightAt:
    @pytest.mark.parametrize(
        ("step", "weight"),
        [(0, 0.0), (99, 0.0), (100, 0.0), (150, 0.25), (200, 0.5), (201, 0.499), (700, 0.0), (10**9, 0.0)],
    )
    def test_by_hand(self, step: int, weight: float) -> None:
        assert weight_at({200: 0.5, 100: 0.0, 700: 0.0}, step) == pytest.approx(weight)

    def test_a_number_is_the_same_at_every_step(self) -> None:
        assert {weight_at(0.3, step) for step in (0, 1, 1000)} == {0.3}

    @quick
    @given(st.dictionaries(st.integers(0, 50), st.floats(0, 10), min_size=1), st.integers(0, 60))
    def test_it_is_interpolation_and_exact_at_the_points(self, points: dict[int, float], step: int) -> None:
        steps = sorted(points)
        assert weight_at(points, step) == pytest.approx(np.interp(step, steps, [points[s] for s in steps]))
        assert all(weight_at(points, s) == points[s] for s in steps)


class Counts(nn.Module):
    """Says at which steps it was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.mean = Mean()

    def terms(self, image: Tensor) -> LossValue:
        self.calls += 1
        return self.mean.terms(image)


class TestObjective:
    def test_the_sum_follows_the_step_and_the_log_says_the_weight(self) -> None:
        outputs, batch, _ = example()
        loss = Counts()
        objective = Objective({"mine": (Mean(), 1.0), "late": (loss, {2: 0.0, 4: 0.5})})
        mean = outputs.image.values.mean()
        for step, weight in enumerate([0, 0, 0, 0.25, 0.5, 0.5]):
            total, log = objective(outputs, batch, step)
            assert_close(total, (1 + weight) * mean)
            assert_close(log["late/weight"], weight)
            assert ("late" in log) == (weight > 0)
            assert "mine/weight" not in log, "it is always the recipe's"
        assert loss.calls == 3, "not while it is 0"

    def test_the_language_model_runs_from_the_step_on_that_it_is_read(self) -> None:
        objective = meerkat().with_weights({"language_modelling": {10: 0.0, 20: 1.0}})
        assert [objective.needs_logits(step) for step in (0, 10, 11, 20)] == [False, False, True, True]
        outputs, batch, _ = example()
        assert "avace" in objective(replace(outputs, logits=None), batch, 10)[1]
        with pytest.raises(ObjectiveError, match="'language_modelling' needs 'logits'"):
            objective(replace(outputs, logits=None), batch, 11)

    def test_schedules_that_cannot_be_are_refused(self) -> None:
        with pytest.raises(ObjectiveError, match=r"losses\.avopt\.weight must be 0 .* got -1"):
            meerkat(avopt={0: 1.0, 5: -1.0})
        with pytest.raises(ObjectiveError, match=r"losses\.avopt\.weight is a schedule without any step"):
            meerkat(avopt={})


BASE = """
name: base
losses:
  language_modelling: {weight: 1.0}
  avace:
    weight: {0: 1, 100: 0.5, 1000: 0}
train:
  stages:
    - {name: align, steps: 200, weights: {avace: {0: 0, 50: 0.1}}}
    - {name: answer, steps: 300}
"""
Reads = Callable[..., Recipe]


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reads:
    """A child of BASE, with overrides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)

    def of(text: str = "", *overrides: str) -> Recipe:
        (tmp_path / "r.yaml").write_text("extends: base.yaml\n" + text)
        return read("r.yaml", overrides)

    return of


class TestRecipe:
    def test_it_is_read_as_numbers_and_written_on_one_line(self, reads: Reads) -> None:
        recipe = reads()
        assert recipe.losses["avace"].weight == {0: 1.0, 100: 0.5, 1000: 0.0}
        assert recipe.train.stages[0].weights == {"avace": {0: 0.0, 50: 0.1}}
        text = dump(recipe)
        assert "weight: {0: 1.0, 100: 0.5, 1000: 0.0}" in text
        assert "    weights: {avace: {0: 0.0, 50: 0.1}}" in text

    def test_a_child_replaces_the_whole_of_it(self, reads: Reads) -> None:
        recipe = reads("losses: {avace: {weight: {5: 1, 7: 2}}}", "train.stages.align.weights.avace={9: 1}")
        assert recipe.losses["avace"].weight == {5: 1.0, 7: 2.0}
        assert recipe.train.stages[0].weights["avace"] == {9: 1.0}
        assert reads("losses: {avace: {weight: 0.2}}").losses["avace"].weight == 0.2

    def test_an_override_may_set_one_of_its_points(self, reads: Reads) -> None:
        recipe = reads("", "losses.avace.weight.100=0.7", "losses.avace.weight.500=0.6")
        assert recipe.losses["avace"].weight == {0: 1.0, 100: 0.7, 500: 0.6, 1000: 0.0}

    @pytest.mark.parametrize(
        ("weight", "problems"),
        [
            ("{}", [": an empty mapping."]),
            ("[1, 2]", [": should be a valid number or should be a mapping, got [1, 2]."]),
            ("-1", [": should be greater than or equal to 0 or should be a mapping, got -1."]),
            (
                "{x: 1, 1.5: 2}",
                ['.x: should be a valid integer, got "x".', ".1.5: should be a valid integer, "],
            ),
            ("{-1: 1}", [".-1: should be greater than or equal to 0, got -1."]),
            ("{5: -1}", [".5: should be greater than or equal to 0, got -1."]),
            ("{5: .nan}", [".5: should be a finite number, got NaN."]),
            ("{5: {6: 1}}", ['.5: should be a valid number, got {"6": 1}.']),
            ("{5: 1, 05: 2}", [".05: given twice, once as 5."]),
        ],
    )
    def test_what_is_no_schedule_is_named_at_its_line(
        self, reads: Reads, weight: str, problems: list[str]
    ) -> None:
        for text, path in (
            (f"losses:\n  avace:\n    weight: {weight}", "r.yaml:4  losses.avace.weight"),
            (
                f"train:\n  stages:\n    - {{name: a, steps: 9, weights: {{avace: {weight}}}}}",
                "r.yaml:4  train.stages.0.weights.avace",
            ),
        ):
            with pytest.raises(RecipeError) as caught:
                reads(text)
            assert len(caught.value.problems) == len(problems)
            for found, expected in zip(caught.value.problems, problems, strict=True):
                assert found.startswith(path + expected)

    @pytest.mark.parametrize(
        ("weights", "step"),
        [
            ("avace: 0, language_modelling: 0", 0),
            ("avace: {5: 0, 6: 1}, language_modelling: 0", 0),
            ("avace: {0: 1, 40: 0}, language_modelling: {60: 0, 70: 1}", 40),
            ("avace: {0: 1, 99: 0}, language_modelling: 0", 99),
        ],
    )
    def test_steps_in_which_nothing_is_learnt_are_refused(
        self, reads: Reads, weights: str, step: int
    ) -> None:
        with pytest.raises(RecipeError) as caught:
            reads(f"train:\n  stages:\n    - {{name: a, steps: 100, weights: {{{weights}}}}}")
        (problem,) = caught.value.problems
        expected = f"train.stages.0.weights: every loss has weight 0 at step {step}: nothing would be learnt."
        assert problem == f"r.yaml:4  {expected}"

    def test_steps_that_one_loss_leaves_to_another_are_not(self, reads: Reads) -> None:
        weights = "avace: {0: 1, 40: 0}, language_modelling: {39: 0, 70: 1}"
        reads(f"train:\n  stages:\n    - {{name: a, steps: 100, weights: {{{weights}}}}}")
        ends = "avace: {0: 1, 100: 0}, language_modelling: 0"  # the last of 100 steps is number 99
        reads(f"train:\n  stages:\n    - {{name: a, steps: 100, weights: {{{ends}}}}}")
