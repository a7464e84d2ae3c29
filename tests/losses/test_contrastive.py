"""Contrastive losses: their values by hand, what is a negative and what is not, and what they teach."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from avalign.losses import Contrastive, SigLip
from avalign.losses import similarity as similarity_module
from avalign.losses.pairs import compare
from avalign.losses.similarity import SIMILARITIES, Similarity
from avalign.ot import all_pairs
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close

LOSSES = [Contrastive, SigLip]


def tokens(b: int = 4, n: int = 5, m: int = 3, d: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = generator(seed)
    return tuple(torch.randn(b, k, d, generator=random, dtype=torch.float64) for k in (n, m))  # type: ignore


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


class TestSimilarity:
    """By hand: one picture of three patches, the last one padding, and one sound of two tokens."""

    image = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [-9.0, -9.0]]])
    audio = torch.tensor([[[1.0, 0.0], [3.0, 3.0]]])
    mask = torch.tensor([[True, True, False]])

    @pytest.mark.parametrize(
        ("similarity", "expected"),
        [
            ("mean", (1.0 * 2.0 + 0.5 * 1.5) / (math.hypot(1, 0.5) * math.hypot(2, 1.5))),
            ("max", (2.0 * 3.0 + 1.0 * 3.0) / (math.hypot(2, 1) * math.hypot(3, 3))),
            ("max_mean", (1 + math.sqrt(0.5)) / 2),  # the tokens' best patches: (1, 0), then either
            ("max_mean_both", ((1 + math.sqrt(0.5)) / 2 + (1 + math.sqrt(0.5)) / 2) / 2),
            # at epsilon 0.1, by softmax over cosines (1, 0), then (r, r), r = sqrt(0.5)
            ("soft_attention", (1 / (1 + math.exp(-10)) + math.sqrt(0.5)) / 2),
        ],
    )
    def test_by_hand(self, similarity: str, expected: float) -> None:
        found = compare(self.image, self.audio, self.mask, similarity=similarity)
        assert_close(found.forth, [[expected]], torch.float32)
        assert_close(found.back, [[expected]], torch.float32)

    def test_max_mean_looks_one_way_and_both_looks_both(self) -> None:
        """The sound is one token on the first patch: it finds its patch, the second patch finds nothing."""
        one = torch.tensor([[[1.0, 0.0]]])
        assert_close(compare(self.image, one, self.mask, similarity="max_mean").forth, [[1.0]])
        assert_close(compare(self.image, one, self.mask, similarity="max_mean_both").forth, [[0.75]])

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_entries_are_of_the_image_of_the_row_and_the_sound_of_the_column(self, similarity: str) -> None:
        image, audio = tokens()
        found = compare(image, audio, similarity=similarity)
        for i in range(4):
            for j in range(4):
                alone = compare(image[i : i + 1], audio[j : j + 1], similarity=similarity)
                assert_close(found.forth[i, j], alone.forth[0, 0])
                assert_close(found.back[j, i], alone.forth[0, 0])

    def test_in_blocks_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        image, audio = tokens(5)
        whole = compare(image, audio, similarity="max_mean_both").forth
        monkeypatch.setattr(similarity_module, "BLOCK", 2 * 5 * 5 * 3)
        assert_close(compare(image, audio, similarity="max_mean_both").forth, whole)

    def test_weights_of_tokens_stand_for_uniform_ones(self) -> None:
        """The second sound token, at r to either patch, weighs 3 of 4."""
        weights = torch.tensor([[1.0, 3.0]])
        for name in ("max_mean", "soft_attention"):
            found = compare(self.image, self.audio, self.mask, audio_weights=weights, similarity=name)
            first = 1.0 if name == "max_mean" else 1 / (1 + math.exp(-10))
            assert_close(found.forth, [[(first + 3 * math.sqrt(0.5)) / 4]], torch.float32)

    @pytest.mark.parametrize("prices", [(0.02, math.inf), (0.05, 0.1), (math.inf, math.inf)])
    def test_transport_is_that_of_all_pairs_with_masks_and_marginals(
        self, prices: tuple[float, float]
    ) -> None:
        image, audio = tokens()
        mask = torch.rand(4, 5, generator=generator(1)) < 0.6
        mask[:, 0] = True
        weights = torch.rand(4, 3, generator=generator(2), dtype=torch.float64)
        marginal = weights / weights.sum(1, keepdim=True)
        similarity = Similarity("transport", 0.2, *prices, tolerance=1e-10)
        found = compare(image, audio, mask, audio_weights=weights, similarity=similarity)
        for k in range(4):  # every image with the audio k behind it
            alone = all_pairs(
                image, audio.roll(-k, 0), None, marginal.roll(-k, 0), mask, epsilon=0.2,
                rho_source=prices[0], rho_target=prices[1], tolerance=1e-10,
            )  # fmt: skip
            for i in range(4):
                assert_close(found.forth[i, (i + k) % 4], 1 - alone.value[i, i])
        assert_close(found.back, found.forth.T)

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_gradient_is_right(self, similarity: str) -> None:
        image, audio = (x.requires_grad_() for x in tokens(3))
        mask = torch.rand(3, 5, generator=generator(1)) < 0.6
        mask[:, 0] = True
        assert torch.autograd.gradcheck(
            lambda x, y: compare(x, y, mask, similarity=similarity).forth, (image, audio), fast_mode=True
        )

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_processes_exchange_one_vector_of_a_sample_where_tokens_are_pooled(
        self, similarity: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that they may hold sets of different lengths, and send less."""
        exchanged = []
        monkeypatch.setattr(similarity_module, "gather", lambda each: exchanged.append(each.shape) or each)
        compare(*tokens(4, n=5, m=3), similarity=similarity)
        sizes = {shape[1] for shape in exchanged}
        assert sizes == ({1} if similarity in ("mean", "max") else {3})

    def test_a_pair_without_a_token_is_named(self) -> None:
        image, audio = tokens(3)
        mask = torch.ones(3, 5, dtype=torch.bool)
        mask[2] = False
        with pytest.raises(ValueError, match=r"item\(s\) \[2\] have no image token"):
            compare(image, audio, mask)


class TestInfoNce:
    def test_by_hand(self) -> None:
        """Cosines [[1, 0], [0.8, 0.6]] at T = 0.5: logits [[2, 0], [1.6, 1.2]]."""
        image = torch.tensor([[[1.0, 0.0]], [[0.8, 0.6]]])
        audio = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        value = Contrastive(temperature=0.5).terms(image, audio)
        lse = [math.log(math.exp(a) + math.exp(b)) for a, b in ((2, 0), (1.6, 1.2), (2, 1.6), (0, 1.2))]
        samples = [(lse[0] - 2 + lse[2] - 2) / 2, (lse[1] - 1.2 + lse[3] - 1.2) / 2]
        assert_close(value.samples, samples, torch.float32)
        assert_close(value.total, sum(samples) / 2, torch.float32)
        assert value.parts["accuracy"] == 0.75, "the second image is nearer to the first sound"
        assert_close(value.parts["temperature"], 0.5, torch.float32)

    @quick
    @given(seed=seeds, b=st.integers(2, 6))
    def test_it_is_cross_entropy_on_the_matrix_of_logits(self, seed: int, b: int) -> None:
        image, audio = tokens(b, seed=seed)
        logits = compare(image, audio).forth / 0.07
        truth = torch.arange(b)
        expected = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
        assert_close(Contrastive(learn_temperature=False)(image, audio), expected, torch.float32)

    def test_tokens_all_alike_cost_the_logarithm_of_their_number(self) -> None:
        image, audio = (torch.ones(5, k, 4) for k in (3, 2))
        assert_close(Contrastive()(image, audio), math.log(5), torch.float32)

    def test_what_is_no_pair_is_nobodys_negative(self) -> None:
        image, audio = tokens(5)
        value = Contrastive().terms(
            image, audio, has_image=flags(1, 1, 0, 1, 1), has_audio=flags(1, 1, 1, 1, 0)
        )
        kept = Contrastive().terms(image[[0, 1, 3]], audio[[0, 1, 3]])
        assert_close(value.samples[[0, 1, 3]], kept.samples, torch.float32)
        assert value.applies.tolist() == [True, True, False, True, False]
        assert_close(value.total, kept.total * 3 / 5, torch.float32)
        assert_close(value.parts["accuracy"], kept.parts["accuracy"])

    def test_the_only_pair_of_a_batch_adds_nothing_and_says_so(self) -> None:
        image, audio = (x.requires_grad_() for x in tokens(3))
        value = Contrastive().terms(image, audio, has_image=flags(1, 0, 0))
        value.total.backward()
        assert value.total == 0
        assert not value.applies.any()
        assert value.parts["accuracy"].isnan()
        assert not image.grad.any()

    def test_a_batch_of_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"batch of 1 sample has no negatives: raise train\.batch_size"):
            Contrastive().terms(*tokens(1))

    def test_temperature_is_learnt_and_stays_above_its_bound(self) -> None:
        image = torch.eye(4)[:, None]
        loss = Contrastive()
        loss(image, image).backward()
        assert loss.log_temperature.grad > 0, "pairs are perfect: the colder, the better"
        loss.zero_grad()
        loss.log_temperature.data.fill_(-9.0)
        value = loss.terms(image, -image)
        assert_close(value.parts["temperature"], 0.01, torch.float32)
        value.total.backward()
        assert loss.log_temperature.grad < 0, "at the bound it can still be moved away from it"
        fixed = Contrastive(learn_temperature=False)
        assert not list(fixed.parameters())
        assert not fixed.state_dict()

    def test_descent_brings_pairs_together(self) -> None:
        image, audio = tokens(6, d=8)
        image, audio = image.float().requires_grad_(), audio.float().requires_grad_()
        loss = Contrastive(similarity="max_mean_both")
        optimiser = torch.optim.Adam([image, audio, *loss.parameters()], lr=0.2)
        accuracy = []
        for _ in range(20):
            value = loss.terms(image, audio)
            accuracy.append(float(value.parts["accuracy"]))
            optimiser.zero_grad()
            value.total.backward()
            optimiser.step()
        assert accuracy[0] < 0.7
        assert accuracy[-1] == 1


class TestSigLip:
    def test_by_hand(self) -> None:
        """Cosines [[1, 0], [0.8, 0.6]], T = 0.5, bias -1: logits [[1, -1], [0.6, 0.2]]."""
        image = torch.tensor([[[1.0, 0.0]], [[0.8, 0.6]]])
        audio = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        value = SigLip(temperature=0.5, bias=-1.0).terms(image, audio)

        def miss(z: float) -> float:
            return math.log(1 + math.exp(-z))

        # a sample's part: half of its row, half of its column
        first = (miss(1) + miss(1) + miss(1) + miss(-0.6)) / 2
        second = (miss(-0.6) + miss(0.2) + miss(1) + miss(0.2)) / 2
        assert_close(value.samples, [first, second], torch.float32)
        assert_close(value.total, (miss(1) + miss(1) + miss(-0.6) + miss(0.2)) / 2, torch.float32)
        assert_close(value.parts["bias"], -1.0)

    def test_both_weights_learn(self) -> None:
        loss = SigLip()
        loss(*tokens()).backward()
        assert loss.bias.grad != 0
        assert loss.log_temperature.grad != 0

    def test_a_batch_of_one_has_its_own_pair(self) -> None:
        image, audio = tokens(1)
        value = SigLip(temperature=1.0, bias=0.0).terms(image, audio)
        assert_close(value.total, math.log(1 + math.exp(-compare(image, audio).forth.item())), torch.float32)


@pytest.mark.parametrize("kind", LOSSES)
class TestBoth:
    def test_of_one_class_are_no_negatives_where_asked(self, kind: type) -> None:
        """Samples 0 and 2 are of one class, 1 and 3 of none that is known."""
        image, audio = tokens()
        classes = torch.tensor([5, -1, 5, -1])
        kept = kind().terms(image, audio, classes=classes)
        assert_close(kept.samples, kind().terms(image, audio).samples, torch.float32)
        dropped = kind(false_negatives="drop").terms(image, audio, classes=classes)
        assert_close(dropped.samples[[1, 3]], kept.samples[[1, 3]], torch.float32)
        for own in (0, 2):  # as if the other were not there
            rows = [own, 1, 3]
            alone = kind().terms(image[rows], audio[rows]).samples[0]
            assert_close(dropped.samples[own], alone, torch.float32)

    def test_a_batch_of_one_class_has_no_negatives_then(self, kind: type) -> None:
        image, audio = tokens()
        value = kind(false_negatives="drop").terms(image, audio, classes=torch.full((4,), 3))
        if kind is Contrastive:
            assert value.total == 0
            assert not value.applies.any()
        else:
            alone = [kind()(image[k : k + 1], audio[k : k + 1]) for k in range(4)]
            assert_close(value.samples, torch.stack(alone), torch.float32)

    def test_only_grounded_pairs_where_asked(self, kind: type) -> None:
        image, audio = tokens()
        boxed = flags(1, 0, 1, 1)
        assert_close(kind()(image, audio, has_box=boxed), kind()(image, audio), torch.float32)
        value = kind(pairs="grounded").terms(image, audio, has_box=boxed)
        assert_close(value.samples[boxed], kind().terms(image[boxed], audio[boxed]).samples, torch.float32)
        assert value.samples[1] == 0

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_padding_and_absent_samples_get_no_gradient(self, kind: type, similarity: str) -> None:
        image, audio = tokens()
        mask = torch.ones(4, 5, dtype=torch.bool)
        mask[0, 3:] = False
        image[0, 3:], image[2] = torch.nan, torch.inf
        image, audio = image.requires_grad_(), audio.requires_grad_()
        value = kind(similarity=similarity).terms(image, audio, image_mask=mask, has_image=flags(1, 1, 0, 1))
        value.total.backward()
        assert value.total.isfinite()
        assert not image.grad[0, 3:].any()
        assert not image.grad[2].any()
        assert not audio.grad[2].any()
        assert image.grad[[0, 1, 3]].isfinite().all()
        assert (image.grad[[0, 1, 3]].abs().sum((1, 2)) > 0).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0.001}, "temperature must be 0.01 or above"),
            ({"temperature": float("nan")}, "temperature must be"),
            (
                {"similarity": "median"},
                "one of mean, max, max_mean, max_mean_both, soft_attention, transport, not 'median'",
            ),
            (
                {"epsilon": 0.1},
                "similarity 'mean' takes no 'epsilon', which is for 'soft_attention' or 'trans",
            ),
            (
                {"similarity": "max_mean", "rho_audio": 0.1},
                "'max_mean' takes no 'rho_audio', which is for 'tr",
            ),
            ({"similarity": "transport", "epsilon": 0.0}, "epsilon must be above 0, not 0"),
            ({"similarity": "transport", "rho_image": -1.0}, "rho_image must be 0 or above, not -1"),
            ({"similarity": "transport", "rho_audio": math.nan}, "rho_audio must be 0 or above, not nan"),
            ({"pairs": "some"}, "pairs must be one of all, grounded, not 'some'"),
            ({"false_negatives": "no"}, "false_negatives must be one of keep, drop"),
        ],
    )
    def test_options_that_cannot_be_are_refused(self, kind: type, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            kind(**options)
