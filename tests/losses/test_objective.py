"""The objective: every term counts, gets what it names, and is refused when it cannot teach anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from avalign.losses import AVACE, AVOpT, LanguageModelling, LossValue
from avalign.losses.objective import (
    SUPPLIES,
    NonFiniteTerm,
    Objective,
    ObjectiveError,
    UnreachableTerm,
    refuse_unreachable,
)
from avalign.types import Fused
from tests.helpers.objectives import (
    AUDIO,
    COLUMNS,
    ROWS,
    Mean,
    example,
    meerkat,
    rows,
)
from tests.helpers.strategies import quick, seeds
from tests.helpers.tolerances import assert_close


class TestTheSum:
    def test_every_term_is_in_it_with_its_weight(self) -> None:
        """Fault 1 of the released code: later branches overwrote the sum, and the OT term never arrived."""
        outputs, batch, parameters = example()
        weights = {"language_modelling": 1.0, "avopt": 0.1, "avace": 0.2}
        total, log = meerkat(**weights)(outputs, batch)
        assert_close(total, sum(weights[label] * log[label] for label in weights), torch.float32)
        assert all(log[label] > 0 for label in weights)
        for label in weights:
            heavier, _ = meerkat(**(weights | {label: weights[label] + 1}))(outputs, batch)
            assert_close(heavier - total, log[label], torch.float32)
        total.backward()
        assert all((parameter.grad != 0).any() for parameter in parameters.values())

    def test_each_value_is_what_the_loss_says_by_itself(self) -> None:
        outputs, batch, _ = example()
        _, log = meerkat()(outputs, batch)
        both = batch.has_image & batch.has_audio
        alone = AVOpT(epsilon=0.3).terms(outputs.image.values[both], outputs.audio.values[both])
        assert_close(log["avopt"], alone.total * both.float().mean(), torch.float32)
        assert_close(log["language_modelling"], LanguageModelling()(outputs.logits, outputs.labels))
        # Boxes on a 3 x 2 grid: the first has the union of two, the second only its first.
        first, second = [1, 0.9, 0.5, 0, 0, 0], [1, 0, 0.5, 0, 0, 0]
        truth = torch.tensor([first, second, [0.0] * 6, [0.0] * 6], dtype=torch.float64)
        value = AVACE().terms(
            outputs.fused.image_map,
            outputs.fused.audio_map,
            truth,
            torch.tensor([True, True, False, False]),
            torch.tensor([[0.5, 1.0, 0.0, 0.0]] * 4, dtype=torch.float64),
            torch.tensor([True, False, False, True]),
            outputs.audio.mask,
            outputs.image.mask,
        )
        assert_close(log["avace"], value.total, torch.float32)
        assert_close(log["avace/inside"], value.parts["inside"], torch.float32)

    def test_the_log_names_terms_and_parts_and_holds_no_graph(self) -> None:
        outputs, batch, _ = example()
        _, log = meerkat()(outputs, batch)
        assert set(log) == {
            *("language_modelling", "avopt", "avopt/unconverged", "avace", "avace/space", "avace/time"),
            *("avace/inside", "avace/inside_time"),
        }
        assert not any(number.requires_grad for number in log.values())

    @quick
    @given(seeds)
    def test_shards_of_a_batch_average_to_the_batch(self, seed: int) -> None:
        outputs, batch, _ = example(4, seed)
        whole, _ = meerkat()(outputs, batch)
        shards = [meerkat()(*rows(outputs, batch, part))[0] for part in (slice(0, 2), slice(2, 4))]
        assert_close(torch.stack(shards).mean(), whole, torch.float32)

    def test_a_loss_of_ones_own_takes_part(self) -> None:
        outputs, batch, _ = example()
        total, log = Objective({"mine": (Mean(), 2.0)})(outputs, batch)
        assert_close(total, 2 * outputs.image.values.mean())
        assert list(log) == ["mine"]

    def test_a_loss_that_returns_a_scalar_is_a_term_as_it_is(self) -> None:
        class Square(nn.Module):
            def forward(self, image: Tensor, audio: Tensor) -> Tensor:
                return (image.mean(1) - audio.mean(1)).square().mean()

        outputs, batch, parameters = example()
        objective = Objective({"mine": (Square(), 2.0)})
        total, log = objective(outputs, batch)
        assert_close(total, 2 * Square()(outputs.image.values, outputs.audio.values))
        assert list(log) == ["mine"]
        assert not log["mine"].requires_grad
        refuse_unreachable(objective.terms(outputs, batch), parameters.values())
        with pytest.raises(NonFiniteTerm, match="loss 'mine' is nan"):
            objective(
                replace(outputs, image=replace(outputs.image, values=outputs.image.values * torch.nan)), batch
            )

    def test_a_forward_that_returns_a_loss_value_is_understood_with_a_note(self, capsys) -> None:
        class Earlier(nn.Module):
            def forward(self, image: Tensor) -> LossValue:
                return LossValue.of(image.sum((1, 2)), torch.ones(4, dtype=torch.bool), {"part": image.sum()})

        outputs, batch, _ = example()
        objective = Objective({"mine": (Earlier(), 1.0)})
        assert set(objective(outputs, batch)[1]) == {"mine", "mine/part"}
        objective(outputs, batch)
        (note,) = capsys.readouterr().err.splitlines()
        assert note.startswith("warning: Earlier: a forward that returns a LossValue is named `terms` now")


class TestWeights:
    def test_a_term_of_weight_zero_is_not_computed(self) -> None:
        class Explodes(nn.Module):
            def terms(self, image: Tensor) -> LossValue:
                raise AssertionError("computed although it is off")

        outputs, batch, _ = example()
        objective = Objective({"mine": (Mean(), 1.0), "off": (Explodes(), 0.0)})
        assert list(objective(outputs, batch)[1]) == ["mine"]

    def test_the_language_model_runs_only_for_a_term_that_reads_it(self) -> None:
        outputs, batch, _ = example()
        assert meerkat().needs_logits()
        alignment = meerkat().with_weights({"language_modelling": 0.0})
        assert not alignment.needs_logits()
        assert set(alignment(replace(outputs, logits=None), batch)[1]) >= {"avopt", "avace"}

    def test_a_stage_changes_weights_and_nothing_else(self) -> None:
        outputs, batch, _ = example()
        whole = meerkat(avopt=0.1)
        stage = whole.with_weights({"avace": 3.0})
        assert stage.weights == {"language_modelling": 1.0, "avopt": 0.1, "avace": 3.0}
        assert whole.weights["avace"] == 1.0
        assert stage.losses["avace"] is whole.losses["avace"]
        total, log = stage(outputs, batch)
        assert_close(total - whole(outputs, batch)[0], 2 * log["avace"], torch.float32)

    def test_weights_that_cannot_be_are_refused(self) -> None:
        with pytest.raises(ObjectiveError, match=r"no loss term 'avopd'. Did you mean 'avopt'\? Known: "):
            meerkat().with_weights({"avopd": 1.0})
        with pytest.raises(ObjectiveError, match=r"losses.avopt.weight must be 0 \(off\) or above, got -1"):
            meerkat(avopt=-1.0)
        with pytest.raises(ObjectiveError, match="got nan"):
            meerkat(avopt=float("nan"))
        outputs, batch, _ = example()
        with pytest.raises(ObjectiveError, match="no loss term is on: every weight is 0"):
            meerkat(avopt=0, avace=0, language_modelling=0)(outputs, batch)


class TestArguments:
    def test_every_name_on_the_list_arrives_as_it_is_described(self) -> None:
        given_ = {}

        class Spy(nn.Module):
            def terms(
                self, image, audio, image_mask, audio_mask, has_image, has_audio, image_map, audio_map,
                patch_target, time_target, has_box, has_interval, logits, labels, classes,
            ) -> LossValue:  # fmt: skip
                given_.update(locals())
                return LossValue(image.sum())

        outputs, batch, _ = example()
        Objective({"spy": (Spy(), 1.0)})(outputs, batch)
        assert set(SUPPLIES) <= set(given_)
        assert given_["image"] is outputs.image.values
        assert given_["audio_mask"] is outputs.audio.mask
        assert given_["image_map"].shape == (4, AUDIO, ROWS * COLUMNS)
        assert given_["audio_map"].shape == (4, ROWS * COLUMNS, AUDIO)
        assert given_["logits"] is outputs.logits
        assert given_["classes"] is batch.classes
        # The last sample has boxes and no image, the third an interval and no sound: neither is a truth.
        assert given_["has_box"].tolist() == [True, True, False, False]
        assert given_["has_interval"].tolist() == [True, False, False, True]
        assert_close(given_["patch_target"][0], [1, 0.9, 0.5, 0, 0, 0], torch.float32)
        assert_close(given_["time_target"][0], [0.5, 1, 0, 0])

    def test_a_name_that_no_batch_supplies_is_refused_when_built(self) -> None:
        class Wrong(nn.Module):
            def forward(self, image_maps: Tensor) -> Tensor: ...

        with pytest.raises(
            ObjectiveError, match=r"'mine' asks for 'image_maps'.*Did you mean 'image_map'\? Known: .*labels"
        ):
            Objective({"mine": (Wrong(), 1.0)})

    def test_an_optional_argument_keeps_its_default_where_there_is_none(self) -> None:
        class Optional(nn.Module):
            def forward(self, image: Tensor, image_map: Tensor | None = None, power: float = 2.0) -> Tensor:
                assert power == 2.0
                return image.sum() * (1.0 if image_map is None else 0.5)

        outputs, batch, _ = example()
        mapless = replace(outputs, fused=Fused(outputs.image, outputs.audio))
        objective = Objective({"mine": (Optional(), 1.0)})
        assert_close(objective(outputs, batch)[0] * 2, objective(mapless, batch)[0])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fused": lambda o: Fused(o.image, o.audio)}, "'avace' needs 'image_map', but the fusion"),
            (
                {"image": lambda o: replace(o.image, boxes=None)},
                "'avace' needs 'patch_target', but the image",
            ),
            ({"audio": lambda o: replace(o.audio, times=None)}, "'avace' needs 'time_target', but the audio"),
            ({"logits": lambda o: None}, "'language_modelling' needs 'logits', but the language model"),
        ],
    )
    def test_what_the_model_does_not_give_is_named_with_what_to_change(self, change, message: str) -> None:
        outputs, batch, _ = example()
        with pytest.raises(ObjectiveError, match=message + ".*or set losses.*weight: 0"):
            meerkat()(replace(outputs, **{name: make(outputs) for name, make in change.items()}), batch)

    def test_what_a_loss_says_is_wrong_comes_with_its_name(self) -> None:
        outputs, batch, _ = example()
        outputs.labels[2] = -100
        with pytest.raises(ObjectiveError, match=r"loss 'language_modelling': no response token .*\[2\]"):
            meerkat()(outputs, batch)

    def test_a_loss_that_returns_something_else_is_named(self) -> None:
        class Samples(nn.Module):
            def forward(self, image: Tensor) -> Tensor:
                return image.sum((1, 2))

        class Number(nn.Module):
            def forward(self, image: Tensor) -> float:
                return 1.0

        class Bare(nn.Module):
            def terms(self, image: Tensor) -> Tensor:
                return image.sum()

        outputs, batch, _ = example()
        for loss, said in (
            (
                Samples(),
                r"returned a tensor of shape \(4,\), not a scalar tensor: .*rename forward to `terms`",
            ),
            (Number(), "returned float, not a scalar tensor"),
            (Bare(), "its `terms` returned a Tensor, not a LossValue"),
        ):
            with pytest.raises(ObjectiveError, match=f"loss 'mine'.*{said}"):
                Objective({"mine": (loss, 1.0)})(outputs, batch)


class TestNonFinite:
    def test_the_term_and_the_rows_are_named(self) -> None:
        outputs, batch, _ = example()
        broken = outputs.logits.detach().clone()
        broken[1, 4] = torch.nan
        with pytest.raises(NonFiniteTerm, match=r"loss 'language_modelling' is nan in row\(s\) \[1\]"):
            meerkat()(replace(outputs, logits=broken), batch)

    def test_features_that_are_no_numbers_are_named_too(self) -> None:
        outputs, batch, _ = example()
        values = outputs.image.values.detach().clone()
        values[0, 2, 1] = torch.inf
        with pytest.raises(ObjectiveError, match=r"loss 'avopt': .*item\(s\) \[0\]"):
            meerkat()(replace(outputs, image=replace(outputs.image, values=values)), batch)


class TestUnreachable:
    def test_terms_that_teach_pass_and_the_graph_is_still_there(self) -> None:
        outputs, batch, parameters = example()
        objective = meerkat()
        terms = objective.terms(outputs, batch)
        refuse_unreachable(terms, parameters.values())
        assert all(parameter.grad is None for parameter in parameters.values())
        objective.total(terms)[0].backward()
        assert (parameters["image"].grad != 0).any()

    def test_a_term_on_frozen_features_is_refused(self) -> None:
        """Fault 1 again: there the OT term saw frozen features with nothing trainable above them."""
        outputs, batch, parameters = example()
        for name in ("image", "audio"):
            parameters[name].requires_grad_(False)
        terms = meerkat().terms(outputs, batch)
        with pytest.raises(
            UnreachableTerm, match=r"'avopt' reaches no trainable parameter.*losses.avopt.weight: 0"
        ):
            refuse_unreachable(terms, parameters.values())

    def test_a_term_on_parts_that_are_not_trained_is_refused(self) -> None:
        outputs, batch, parameters = example()
        terms = meerkat().terms(outputs, batch)
        trained = [parameters[name] for name in ("logits", "image", "audio")]
        with pytest.raises(UnreachableTerm, match="'avace' reaches no trainable parameter"):
            refuse_unreachable(terms, trained)
        with pytest.raises(UnreachableTerm, match="'language_modelling' reaches no trainable parameter"):
            refuse_unreachable(terms, [])

    def test_a_constant_term_is_refused(self) -> None:
        outputs, batch, parameters = example()
        terms = Objective({"mine": (Mean(times=0.0), 1.0)}).terms(outputs, batch)
        with pytest.raises(
            UnreachableTerm, match=r"'mine' has a gradient of exactly 0 .* 4 sample\(s\) of the batch"
        ):
            refuse_unreachable(terms, parameters.values())

    def test_a_term_that_applies_to_no_sample_is_not_judged(self) -> None:
        outputs, batch, parameters = example()
        nothing = replace(batch, box_mask=torch.zeros_like(batch.box_mask), has_audio=torch.zeros(4).bool())
        terms = meerkat().terms(outputs, nothing)
        assert terms["avace"].total == terms["avopt"].total == 0
        refuse_unreachable(terms, parameters.values())
