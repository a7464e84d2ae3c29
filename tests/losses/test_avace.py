"""AVACE: a loss on maps that can be wrong, boxes counted once, and nothing from samples without truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.losses import AVACE, LossValue
from avalign.losses.coverage import box_coverage, interval_coverage
from tests.helpers.strategies import boxes, generator, quick, seeds
from tests.helpers.tolerances import assert_close

FORMS = ["sum", "cross_entropy", "dice"]


def given_(b: int = 1, n: int = 4, m: int = 3, seed: int = 0, **changes: Tensor) -> dict[str, Tensor]:
    """A batch of maps and truths; float64 with gradient to the maps' logits under "logits"."""
    random = generator(seed)
    image_logits = torch.randn(b, m, n, generator=random, dtype=torch.float64)
    audio_logits = torch.randn(b, n, m, generator=random, dtype=torch.float64)
    arguments = {
        "image_map": image_logits.softmax(2),
        "audio_map": audio_logits.softmax(2),
        "patch_target": torch.rand(b, n, generator=random, dtype=torch.float64),
        "has_box": torch.ones(b, dtype=torch.bool),
        "time_target": torch.rand(b, m, generator=random, dtype=torch.float64),
        "has_interval": torch.ones(b, dtype=torch.bool),
        "audio_mask": torch.ones(b, m, dtype=torch.bool),
        "image_mask": torch.ones(b, n, dtype=torch.bool),
    }
    return arguments | changes


def rows(arguments: dict[str, Tensor], which: slice | Tensor) -> dict[str, Tensor]:
    return {name: tensor[which] for name, tensor in arguments.items()}


def space_only(attention: list[float], share: list[float], form: str = "sum", **options: float) -> LossValue:
    """One audio query and its map, no interval."""
    arguments = given_(
        n=len(share),
        m=1,
        image_map=torch.tensor([[attention]]),
        patch_target=torch.tensor([share]),
        has_interval=torch.tensor([False]),
    )
    return AVACE(form=form, **options).terms(**arguments)


class TestKnownValues:
    """By hand: attention 0.1, 0.2, 0.3, 0.4; patches covered wholly, half, not, not."""

    attention, share = (0.1, 0.2, 0.3, 0.4), (1.0, 0.5, 0.0, 0.0)

    def test_sum(self) -> None:
        value = space_only(self.attention, self.share)  # inside 0.1 + 0.1, outside 0.1 + 0.7
        assert_close(value.total, 0.8 + 0.8, torch.float32)
        assert_close(value.parts["inside"], 0.2, torch.float32)
        assert_close(space_only(self.attention, self.share, lambda1=3, lambda2=0).total, 2.4, torch.float32)
        assert_close(space_only(self.attention, self.share, lambda1=0, lambda2=5).total, 4.0, torch.float32)

    def test_cross_entropy(self) -> None:
        right = 2 / 3 * math.log(2 / 3 / 0.1) + 1 / 3 * math.log(1 / 3 / 0.2)
        assert_close(space_only(self.attention, self.share, "cross_entropy").total, right, torch.float32)
        assert_close(
            space_only(self.attention, self.share, "cross_entropy", lambda1=2).total, 2 * right, torch.float32
        )

    def test_dice(self) -> None:
        shared, attention, goal = 0.1 * 2 / 3 + 0.2 / 3, 0.01 + 0.04 + 0.09 + 0.16, 4 / 9 + 1 / 9
        right = 1 - 2 * shared / (attention + goal)
        assert_close(space_only(self.attention, self.share, "dice").total, right, torch.float32)
        assert_close(
            space_only(self.attention, self.share, "dice", lambda1=2).total, 2 * right, torch.float32
        )
        assert_close(space_only([0, 0, 1, 0], [1, 1, 0, 0], "dice").total, 1.0, torch.float32)

    def test_dice_is_of_each_query_and_not_of_their_mean(self) -> None:
        """One looks at one half of the box, one at the other: neither looks at all of it."""
        arguments = given_(
            n=2,
            m=2,
            image_map=torch.eye(2)[None],
            patch_target=torch.ones(1, 2),
            has_interval=torch.tensor([False]),
        )
        value = AVACE(form="dice").terms(**arguments)
        assert_close(value.total, 1 - 2 * 0.5 / (1 + 0.5), torch.float32)

    @pytest.mark.parametrize("form", FORMS)
    def test_perfect_attention_costs_nothing(self, form: str) -> None:
        assert_close(space_only([0.5, 0.5, 0, 0], [1, 1, 0, 0], form).total, 0.0, torch.float32)

    def test_all_but_the_sum_ask_for_the_whole_box(self) -> None:
        on_one_patch = [1.0, 0.0, 0.0, 0.0]
        assert_close(space_only(on_one_patch, [1, 1, 0, 0], "dice").total, 1 / 3, torch.float32)
        assert space_only(on_one_patch, [1, 1, 0, 0], "sum").total == 0
        assert space_only(on_one_patch, [1, 1, 0, 0], "cross_entropy").total > 10

    def test_all_attention_outside(self) -> None:
        assert_close(space_only([0, 0, 1, 0], [1, 1, 0, 0], lambda1=2, lambda2=3).total, 5.0, torch.float32)

    def test_queries_count_by_how_much_the_target_sounds_in_them(self) -> None:
        """Three audio tokens look wholly inside, half inside, outside; the target sounds in the last two."""
        maps = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
        arguments = given_(
            n=2,
            image_map=maps,
            patch_target=torch.tensor([[1.0, 0.0]]),
            time_target=torch.tensor([[0.0, 1.0, 0.5]]),
        )
        value = AVACE(time_weight=0).terms(**arguments)
        assert_close(value.parts["inside"], (1.0 * 0.5 + 0.5 * 0.0) / 1.5, torch.float32)
        arguments["has_interval"] = torch.tensor([False])
        assert_close(AVACE().terms(**arguments).parts["inside"], 0.5, torch.float32)
        arguments["audio_mask"] = torch.tensor([[True, True, False]])
        assert_close(AVACE().terms(**arguments).parts["inside"], 0.75, torch.float32)

    def test_time_is_space_with_the_roles_exchanged(self) -> None:
        arguments = given_(b=3, n=5, m=4)
        exchanged = arguments | {
            "image_map": arguments["audio_map"],
            "audio_map": arguments["image_map"],
            "patch_target": arguments["time_target"],
            "time_target": arguments["patch_target"],
            "image_mask": arguments["audio_mask"],
            "audio_mask": arguments["image_mask"],
        }
        one, other = AVACE().terms(**arguments), AVACE().terms(**exchanged)
        assert_close(one.parts["space"], other.parts["time"])
        assert_close(one.parts["inside_time"], other.parts["inside"])
        weighted = AVACE(time_weight=0.3).terms(**arguments)
        assert_close(weighted.total, one.parts["space"] + 0.3 * one.parts["time"])

    @pytest.mark.parametrize("form", FORMS)
    def test_either_part_can_be_had_alone(self, form: str) -> None:
        arguments = given_(b=3, has_box=torch.tensor([True, False, True]))
        arguments["has_interval"] = torch.tensor([True, True, False])
        both = AVACE(form=form, space_weight=0.4, time_weight=0.3).terms(**arguments)
        space = AVACE(form=form, time_weight=0).terms(**arguments)
        time = AVACE(form=form, space_weight=0).terms(**arguments)
        assert_close(both.samples, 0.4 * space.samples + 0.3 * time.samples)
        assert set(space.parts) == {"space", "inside"}
        assert set(time.parts) == {"time", "inside_time"}
        assert space.applies.tolist() == [True, False, True]
        assert time.applies.tolist() == [True, True, False]
        arguments["image_map"].requires_grad_()
        arguments["audio_map"].requires_grad_()
        AVACE(form=form, space_weight=0)(**arguments).backward()
        assert arguments["image_map"].grad is None
        assert arguments["audio_map"].grad[:2].any()


@pytest.mark.parametrize("form", FORMS)
class TestTheMapCanBeWrong:
    """Fault 2 of the released code: a map that is constant by construction, a loss of 0.5 for ever."""

    def test_descent_moves_the_attention_inside(self, form: str) -> None:
        logits = torch.zeros(2, 3, 8)
        logits[:, :, 2] = 2.0  # of the two patches in the box it begins by favouring the first
        logits.requires_grad_()
        share = torch.zeros(2, 8)
        share[:, 2:4] = 1
        rest = given_(b=2, n=8, m=3, patch_target=share, has_interval=torch.zeros(2).bool())
        optimiser = torch.optim.SGD([logits], lr=5.0)
        inside = []
        for _ in range(600 if form == "dice" else 100):  # which is flat about its lowest point
            value = AVACE(form=form, time_weight=0).terms(**(rest | {"image_map": logits.softmax(2)}))
            inside.append(float(value.parts["inside"]))
            optimiser.zero_grad()
            value.total.backward()
            optimiser.step()
        assert inside[0] < 0.6
        assert inside[-1] > (0.95 if form == "dice" else 0.97)
        first, second = logits.softmax(2)[:, :, 2:4].mean((0, 1)).tolist()
        if form != "sum":
            assert abs(first - second) < 0.02, "the whole box"
        else:
            assert first > 5 * second, "one patch will do"

    def test_both_maps_get_a_gradient_and_it_is_right(self, form: str) -> None:
        rest = given_(b=2)
        rest["image_mask"] = torch.tensor([[True] * 4, [True, True, True, False]])

        def total(image_logits: Tensor, audio_logits: Tensor) -> Tensor:
            maps = {"image_map": image_logits.softmax(2), "audio_map": audio_logits.softmax(2)}
            return AVACE(form=form)(**(rest | maps))

        inputs = [torch.randn(2, *s, dtype=torch.float64, generator=generator(1)) for s in ((3, 4), (4, 3))]
        inputs = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(total, inputs)
        total(*inputs).backward()
        assert all((x.grad.abs().sum((1, 2)) > 1e-3).all() for x in inputs)

    def test_attention_that_underflowed_still_gives_numbers(self, form: str) -> None:
        logits = torch.tensor([[[0.0, 200.0, 0.0]]], requires_grad=True)  # float32: exp(-200) is 0
        arguments = given_(
            n=3, m=1, image_map=logits.softmax(2), patch_target=torch.tensor([[1.0, 0.0, 0.0]])
        )
        value = AVACE(form=form).terms(**arguments)
        value.total.backward()
        assert value.total > (0.99 if form == "dice" else 1.9)
        assert value.total.isfinite()
        assert logits.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_maps_in_half_precision_are_summed_in_float32(self, form: str, dtype: torch.dtype) -> None:
        arguments = given_(b=2, n=300, m=40)
        arguments["image_map"][:, :, 7] = 0
        arguments["patch_target"][:, 7] = 0
        reference = AVACE(form=form)(**arguments)
        low = {k: v.to(dtype) if v.is_floating_point() else v for k, v in arguments.items()}
        with torch.autocast("cpu", dtype=dtype):
            value = AVACE(form=form)(**low)
        assert value.dtype == torch.float32
        assert_close(value, reference, torch.bfloat16)


@pytest.mark.parametrize("form", FORMS)
class TestSamplesWithoutTruth:
    @quick
    @given(seed=seeds)
    def test_shards_of_a_batch_average_to_the_batch(self, form: str, seed: int) -> None:
        random = generator(seed)
        arguments = given_(
            b=4,
            seed=seed,
            has_box=torch.rand(4, generator=random) < 0.5,
            has_interval=torch.rand(4, generator=random) < 0.5,
            image_mask=torch.rand(4, 4, generator=random) < 0.5,
            audio_mask=torch.rand(4, 3, generator=random) < 0.5,
        )
        loss = AVACE(form=form)
        whole = loss.terms(**arguments)
        halves = [loss.terms(**rows(arguments, part)) for part in (slice(0, 2), slice(2, 4))]
        assert_close((halves[0].total + halves[1].total) / 2, whole.total)
        assert whole.total.isfinite()
        for name in ("space", "time"):
            assert_close((halves[0].parts[name] + halves[1].parts[name]) / 2, whole.parts[name])
        assert (whole.samples[~whole.applies] == 0).all()

    def test_they_add_zero_and_get_no_gradient(self, form: str) -> None:
        arguments = given_(
            b=4, has_box=torch.tensor([True, False, True, True]), has_interval=torch.zeros(4).bool()
        )
        arguments["patch_target"][2] = 0  # a box that covers nothing
        arguments["image_mask"][3] = False  # no image
        arguments["image_map"].requires_grad_()
        value = AVACE(form=form).terms(**arguments)
        value.total.backward()
        alone = AVACE(form=form).terms(**rows(arguments, slice(0, 1)))
        assert value.applies.tolist() == [True, False, False, False]
        assert_close(value.total, alone.total / 4)
        assert_close(value.parts["inside"], alone.parts["inside"])
        assert value.parts["inside_time"].isnan(), "nothing to average"
        assert (arguments["image_map"].grad[0] != 0).any()
        assert (arguments["image_map"].grad[1:] == 0).all()

    def test_a_batch_without_any_truth_is_zero_and_can_be_differentiated(self, form: str) -> None:
        no = torch.zeros(2, dtype=torch.bool)
        arguments = given_(b=2, has_box=no, has_interval=no)
        arguments["image_map"].requires_grad_()
        value = AVACE(form=form).terms(**arguments)
        value.total.backward()
        assert value.total == 0
        assert not value.applies.any()
        assert (arguments["image_map"].grad == 0).all()

    def test_padding_is_nothing(self, form: str) -> None:
        """Two patches and one audio token more, masked, with no attention on them and junk in their truth."""
        plain = given_(b=2)
        padded = given_(
            b=2,
            n=6,
            image_map=torch.nn.functional.pad(plain["image_map"], (0, 2, 0, 1), value=0.0),
            audio_map=torch.nn.functional.pad(plain["audio_map"], (0, 1, 0, 2), value=0.0),
            patch_target=torch.nn.functional.pad(plain["patch_target"], (0, 2), value=1.0),
            time_target=torch.nn.functional.pad(plain["time_target"], (0, 1), value=1.0),
            image_mask=torch.tensor([[True] * 4 + [False] * 2] * 2),
            audio_mask=torch.tensor([[True] * 3 + [False]] * 2),
        )
        assert_close(AVACE(form=form)(**padded), AVACE(form=form)(**plain))


@pytest.mark.parametrize("form", ["cross_entropy", "dice"])
@quick
@given(seed=seeds)
def test_the_target_itself_is_the_one_map_without_divergence(form: str, seed: int) -> None:
    share = torch.rand(2, 5, generator=generator(seed), dtype=torch.float64)
    goal = share / share.sum(1, keepdim=True)
    best = given_(b=2, n=5, patch_target=share, image_map=goal[:, None].expand(2, 3, 5))
    other = given_(b=2, n=5, patch_target=share, seed=seed)
    loss = AVACE(form=form, time_weight=0)
    assert_close(loss(**best), 0.0)
    assert loss(**other) > 0


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'sum', 'cross_entropy' or 'dice', not 'kl'"):
        AVACE(form="kl")


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="both 0: nothing is left to learn"):
        AVACE(space_weight=0, time_weight=0)


def grid(rows_: int, columns: int) -> Tensor:
    return torch.tensor(
        [
            [x / columns, y / rows_, (x + 1) / columns, (y + 1) / rows_]
            for y in range(rows_)
            for x in range(columns)
        ]
    )


class TestCoverage:
    def test_by_hand(self) -> None:
        """Two overlapping boxes on a 2 x 2 grid: shares of the union, the overlap once."""
        pair = torch.tensor([[[0.0, 0.0, 0.5, 0.25], [0.25, 0.0, 0.75, 0.25]]])
        assert_close(box_coverage(grid(2, 2), pair, torch.tensor([[True, True]])), [[0.5, 0.25, 0, 0]])
        assert_close(box_coverage(grid(2, 2), pair, torch.tensor([[True, False]])), [[0.5, 0, 0, 0]])
        assert_close(box_coverage(grid(2, 2), pair, torch.tensor([[False, False]])), [[0.0, 0, 0, 0]])
        assert_close(box_coverage(grid(2, 2), pair[:, :0], torch.ones(1, 0).bool()), [[0.0, 0, 0, 0]])

    @quick
    @given(
        st.lists(boxes(), min_size=1, max_size=3),
        st.sampled_from([1, 2, 3, 4]),
        st.sampled_from([1, 2, 6, 8]),
    )
    def test_it_is_the_union_painted_on_a_raster(
        self, batch: list[list[tuple[int, int, int, int]]], down: int, across: int
    ) -> None:
        """Corners on a 24 x 24 raster, whose cells every grid here divides: painting is then exact."""
        most = max(map(len, batch))
        padded = torch.full((len(batch), most, 4), torch.nan)
        mask = torch.zeros(len(batch), most, dtype=torch.bool)
        painted = np.zeros((len(batch), 24, 24))
        for k, sample in enumerate(batch):
            for i, (left, top, right, bottom) in enumerate(sample):
                padded[k, i] = torch.tensor([left, top, right, bottom]) / 24
                mask[k, i] = True
                painted[k, top:bottom, left:right] = 1
        truth = painted.reshape(len(batch), down, 24 // down, across, 24 // across).mean((2, 4))
        share = box_coverage(grid(down, across), padded, mask)
        assert_close(share, truth.reshape(len(batch), -1), torch.float32)

    def test_a_box_that_leaves_the_image_covers_what_is_in_it(self) -> None:
        outside = torch.tensor([[[-1.0, 0.5, 0.5, 9.0]]])
        assert_close(box_coverage(grid(2, 2), outside, torch.tensor([[True]])), [[0, 0, 1.0, 0]])

    def test_intervals_by_hand(self) -> None:
        """Tokens of 1 s, two of which overlap; intervals 0.5-1.25 and 0.75-2, whose overlap counts once."""
        spans = torch.tensor([[0.0, 1.0], [0.5, 1.5], [1.5, 2.5], [3.0, 4.0]])
        pair = torch.tensor([[[0.5, 1.25], [0.75, 2.0]]])
        assert_close(interval_coverage(spans, pair, torch.tensor([[True, True]])), [[0.5, 1.0, 0.5, 0]])
        assert_close(interval_coverage(spans, pair, torch.tensor([[True, False]])), [[0.5, 0.75, 0, 0]])
        assert_close(interval_coverage(spans, pair[:, :0], torch.ones(1, 0).bool()), [[0.0, 0, 0, 0]])
