"""The language loss counts response tokens, all of them, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from avalign.losses import LanguageModelling
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close

VOCABULARY = 11
BRACKET = 3  # the id that "[" would have


def example(b: int = 3, t: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and labels: a prompt of some length, then a response of some length, then padding."""
    random = generator(seed)
    logits = torch.randn(b, t, VOCABULARY, generator=random, dtype=torch.float64, requires_grad=True)
    labels = torch.full((b, t), -100)
    for row in range(b):
        start, end = sorted(torch.randperm(t, generator=random)[:2].tolist())
        labels[row, start + 1 : end + 1] = torch.randint(0, VOCABULARY, (end - start,), generator=random)
    return logits, labels


@quick
@given(st.integers(1, 4), st.integers(2, 9), seeds)
def test_it_is_the_mean_over_samples_of_the_mean_over_their_tokens(b: int, t: int, seed: int) -> None:
    logits, labels = example(b, t, seed)
    by_hand = []
    for row in range(b):
        nll = [
            -logits[row, i].softmax(0)[labels[row, i + 1]].log()
            for i in range(t - 1)
            if labels[row, i + 1] != -100
        ]
        by_hand.append(sum(nll) / len(nll))
    value = LanguageModelling().terms(logits.float(), labels)
    assert_close(value.total, torch.stack(by_hand).mean(), torch.float32)
    assert_close(value.samples, torch.stack(by_hand), torch.float32)


@quick
@given(seeds)
def test_only_positions_before_a_response_token_get_a_gradient(seed: int) -> None:
    logits, labels = example(seed=seed)
    LanguageModelling()(logits, labels).backward()
    before_response = F.pad(labels[:, 1:] != -100, (0, 1))
    touched = logits.grad.abs().sum(2) > 0
    assert (touched == before_response).all()


def test_answers_without_a_bracket_count_as_others_do() -> None:
    """Fault 4 of the released code: the loss began at the last "[" of the batch, if there was one."""
    logits, labels = example()
    labels[labels == BRACKET] = BRACKET + 1
    without = LanguageModelling().terms(logits, labels)
    assert (without.samples > 0).all()
    first = labels[0] != -100
    bracketed = labels.clone()
    bracketed[2, (labels[2] != -100).nonzero()[-1]] = BRACKET
    with_one = LanguageModelling().terms(logits, bracketed)
    assert first.any()
    assert_close(with_one.samples[:2], without.samples[:2])
    assert with_one.samples[2] != without.samples[2]


@quick
@given(seeds, st.sampled_from([2, 4]))
def test_shards_of_a_batch_average_to_the_batch(seed: int, shards: int) -> None:
    logits, labels = example(4, seed=seed)
    loss = LanguageModelling()
    parts = [loss(x, y) for x, y in zip(logits.chunk(shards), labels.chunk(shards), strict=True)]
    assert_close(torch.stack(parts).mean(), loss(logits, labels), torch.float32)


def test_one_sample_is_what_torch_says() -> None:
    logits, labels = example(1)
    right = F.cross_entropy(logits[0, :-1], labels[0, 1:])
    assert_close(LanguageModelling()(logits, labels), right, torch.float32)


def test_logits_in_bfloat16_are_summed_in_float32() -> None:
    logits, labels = example(3, 40)
    value = LanguageModelling()(logits.bfloat16(), labels)
    assert value.dtype == torch.float32
    assert_close(value, LanguageModelling()(logits, labels), torch.bfloat16)


def test_a_row_with_nothing_to_learn_is_named() -> None:
    logits, labels = example()
    labels[1] = -100
    with pytest.raises(ValueError, match=r"no response token to learn in row\(s\) \[1\]"):
        LanguageModelling().terms(logits, labels)
    labels[1, 0] = 5  # nothing stands before it that could predict it
    with pytest.raises(ValueError, match=r"row\(s\) \[1\]"):
        LanguageModelling().terms(logits, labels)


def test_shapes_that_do_not_fit_are_named() -> None:
    logits, labels = example()
    with pytest.raises(ValueError, match=r"\(3, 9, 11\) and \(3, 8\)"):
        LanguageModelling().terms(logits, labels[:, 1:])
