"""What every language model keeps to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avalign.answers import write_box
from avalign.llm import AUDIO, IMAGE, LanguageModel
from avalign.types import Tokens
from tests.helpers.contract.components import every
from tests.helpers.contract.saved import (
    assert_compiles,
    assert_every_weight_learns,
    assert_near_in_bf16,
    assert_saved_to_the_bit,
    noise,
    projection,
    stir,
)
from tests.helpers.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
QUESTION = "<image><audio>Which object makes the sound?"
ANSWERS = ["[dog, 0.12, 0.34, 0.56, 0.78]", "True", "a dog sounds"]
SEEN, HEARD = 4, 3  # tokens in the places


def asked(
    llm: LanguageModel, answers: list[str], seen: Tensor | None = None
) -> tuple[Tensor, Tensor, Tokens, Tokens]:
    """What forward takes, padded on the right."""
    ids = [llm.chat.prompt_ids(QUESTION, SEEN, HEARD) + llm.chat.response_ids(answer) for answer in answers]
    longest = max(map(len, ids))
    input_ids = torch.tensor([row + [llm.pad_id] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    image = Tokens(
        noise(3, SEEN, llm.width)[: len(ids)],
        torch.ones(len(ids), SEEN, dtype=torch.bool) if seen is None else seen,
    )
    audio = Tokens(
        noise(3, HEARD, llm.width, seed=7)[: len(ids)], torch.ones(len(ids), HEARD, dtype=torch.bool)
    )
    return input_ids, mask, image, audio


@every("llm")
class TestLlm:
    def test_it_predicts_every_position(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        given = asked(llm, ANSWERS)
        logits = llm(*given)
        assert logits.shape[:2] == given[0].shape
        assert logits.shape[2] > max(given[0].max().item(), llm.end_id, llm.pad_id)
        assert logits.isfinite().all()
        assert llm.width == llm.lm.get_input_embeddings().weight.shape[1]

    def test_places_are_widened_and_answers_read_back(self, build: Any, name: str) -> None:
        llm = build("llm", name)
        ids = llm.chat.prompt_ids(QUESTION, SEEN, HEARD)
        assert (ids.count(IMAGE), ids.count(AUDIO)) == (SEEN, HEARD)
        assert [i for i in ids if i < 0] == [IMAGE] * SEEN + [AUDIO] * HEARD
        for answer in [*ANSWERS, write_box((0.0, 0.05, 0.99, 1.0), "cat")]:
            *told, end = llm.chat.response_ids(answer)
            assert end == llm.end_id
            assert llm.tokenizer.decode(told) == answer

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        with torch.no_grad():
            together = llm(*asked(llm, ANSWERS))
            alone = llm(*asked(llm, ANSWERS[:1]))
            short = asked(llm, ["True", ANSWERS[0]])
            padded = llm(*short)
            single = llm(*(part[:1] if isinstance(part, Tensor) else first(part) for part in short))
        assert_close(together[0, : alone.shape[1]], alone[0], torch.float32)
        real = int(short[1][0].sum())
        assert_close(padded[0, :real], single[0, :real], torch.float32)

    def test_tokens_that_are_absent_are_not_read(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        seen = torch.ones(3, SEEN, dtype=torch.bool)
        seen[1] = False
        input_ids, mask, image, audio = asked(llm, ANSWERS, seen)
        other = replace(image, values=image.values.masked_fill(~seen[..., None], 50.0))
        with torch.no_grad():
            one, two = (llm(input_ids, mask, tokens, audio) for tokens in (image, other))
        real = mask.bool() & ~((input_ids == IMAGE) & ~seen.any(1, keepdim=True))
        assert_close(one[real], two[real], torch.float32)
        spoilt = replace(image, values=image.values + seen[..., None])
        with torch.no_grad():
            assert not torch.allclose(llm(input_ids, mask, spoilt, audio)[0], one[0]), "the rest is read"

    def test_tokens_that_are_absent_are_as_if_they_were_not_there(self, build: Any, name: str) -> None:
        """Also in what they would push apart: the words before the place and those behind it."""
        llm = build("llm", name).eval()
        stir(llm)
        question = "What is in <image>, and what in <audio>? Which object?"
        _, _, image, audio = asked(llm, ANSWERS[:1], torch.zeros(1, SEEN, dtype=torch.bool))
        found = []
        for places in (SEEN, 0):
            ids = torch.tensor([llm.chat.prompt_ids(question, places, HEARD)])
            with torch.no_grad():
                found.append(llm(ids, torch.ones_like(ids), image, audio)[ids != IMAGE])
        assert_close(found[0], found[1], torch.float32)

    def test_it_generates_alone_as_in_a_batch(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        stir(llm)
        prompts = [
            llm.chat.prompt_ids(q, SEEN, HEARD) for q in (QUESTION, QUESTION + " True or False? Which?")
        ]
        longest = max(map(len, prompts))
        input_ids = torch.tensor([[llm.pad_id] * (longest - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        _, _, image, audio = asked(llm, ANSWERS[:2])
        together = llm.generate(input_ids, mask, image, audio, 4)
        start = longest - len(prompts[0])
        alone = llm.generate(input_ids[:1, start:], mask[:1, start:], first(image), first(audio), 4)
        assert len(together) == 2
        assert together[:1] == alone

    def test_every_weight_learns_and_so_do_its_inputs(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        stir(llm)
        input_ids, mask, image, audio = asked(llm, ANSWERS)
        image.values.requires_grad_()
        audio.values.requires_grad_()
        logits = llm(input_ids, mask, image, audio)[mask.bool()]
        assert_every_weight_learns(llm, [logits])
        for gradient in torch.autograd.grad(
            projection([llm(input_ids, mask, image, audio)]), [image.values, audio.values]
        ):
            assert gradient.isfinite().all()
            assert gradient.flatten(0, 1).any(1).all(), "a token is not read"

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        given = asked(llm, ANSWERS)
        assert_near_in_bf16(lambda: [llm(*given)])

    def test_it_compiles(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        given = asked(llm, ANSWERS)
        assert_compiles(llm, llm.parameters(), lambda: [llm(*given)])

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first_one, second = (build("llm", name, seed).eval() for seed in (1, 2))
        stir(first_one)
        given = asked(first_one, ANSWERS)
        assert_saved_to_the_bit(first_one, second, lambda m: [m(*given)], tmp_path / "weights.safetensors")


def first(tokens: Tokens) -> Tokens:
    return replace(tokens, values=tokens.values[:1], mask=tokens.mask[:1])
