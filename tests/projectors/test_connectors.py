"""What a connector may ask for: the prompt's text and the vocabulary, in training as in answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avalign.config.recipe import Component, Recipe
from avalign.errors import AvalignError
from avalign.llm import AUDIO, IMAGE
from avalign.model.build import build_model
from avalign.model.model import AudioVisualLM
from avalign.projectors.linear import Linear
from avalign.types import Sample, Tokens
from tests.helpers import tiny
from tests.helpers.strategies import quick
from tests.helpers.tolerances import assert_close


class Curious(Linear):
    """Remembers what it was given, and moves its tokens by the mean of it."""

    def __init__(self, dim_in: int, dim_out: int, wants: Sequence[str]) -> None:
        super().__init__(dim_in, dim_out)
        self.wants = tuple(wants)
        self.given: dict[str, Any] = {}

    def forward(self, tokens: Tokens, **given: Any) -> Tokens:  # type: ignore[override]
        self.given = given
        out = super().forward(tokens)
        shift = torch.zeros(())
        if "instruction" in given:
            asked = given["instruction"]
            shift = asked.values.sum(1, keepdim=True) / asked.mask.sum(1)[:, None, None]
        if "vocabulary" in given:
            shift = shift + given["vocabulary"].mean(0)
        return replace(out, values=out.values + shift)


def curious(*wants: str, other: Sequence[str] = ()) -> AudioVisualLM:
    llm = tiny.small_llama()
    return tiny.model(
        llm=llm,
        image_connector=Curious(tiny.WIDTH, llm.width, wants),
        audio_connector=Curious(tiny.WIDTH, llm.width, other),
    )


@pytest.fixture(scope="module")
def shared() -> AudioVisualLM:
    return curious("instruction")


def trained(model: AudioVisualLM, samples: Sequence[Sample]) -> Tokens:
    """The instruction tokens of a training batch."""
    with torch.no_grad():
        model(model.collator()(samples))
    instruction: Tokens = model.image_connector.given["instruction"]
    return instruction


def asked(model: AudioVisualLM, samples: Sequence[Sample]) -> Tokens:
    """The same when the samples are answered."""
    model.answer(samples)
    instruction: Tokens = model.image_connector.given["instruction"]
    return instruction


def test_the_instruction_is_the_prompts_text_without_media_response_and_padding(
    shared: AudioVisualLM,
) -> None:
    samples = [
        tiny.sample(0, instruction="Is it <image>there <audio>or here?", response="True"),
        tiny.sample(1, instruction="<image><audio>When?"),
    ]
    instruction = trained(shared, samples)
    for row, sample in enumerate(samples):
        ids = shared.llm.chat.prompt_ids(sample.instruction, 1, 1)
        text = torch.tensor([token for token in ids if token not in (IMAGE, AUDIO)])
        assert len(text) == len(ids) - 2
        expected = shared.llm.lm.get_input_embeddings()(text)
        assert instruction.mask[row].tolist() == [k < len(text) for k in range(instruction.mask.shape[1])]
        assert torch.equal(instruction.values[row, : len(text)], expected)
        assert not instruction.values[row, len(text) :].any()
    assert instruction.mask[0].all(), "no longer than the longest prompt"


answers = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<>"), min_size=1, max_size=30
).filter(str.strip)


@quick
@given(st.lists(answers, min_size=3, max_size=3))
def test_no_response_ever_changes_the_instruction_and_answering_gives_the_same(
    shared: AudioVisualLM, responses: list[str]
) -> None:
    samples = [
        tiny.sample(0),
        tiny.sample(1, instruction="<audio>When is it heard, then?<image>"),
        tiny.sample(2, instruction="<image>True or False?").without(audio=True),
    ]
    one = trained(shared, samples)
    said = [replace(sample, response=text) for sample, text in zip(samples, responses, strict=True)]
    for other in (trained(shared, said), _instruction_of_prompts(shared, said)):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.mask, other.mask)


def _instruction_of_prompts(model: AudioVisualLM, samples: Sequence[Sample]) -> Tokens:
    batch = model.collator().prompts(samples)
    return model.llm.instruction(batch.input_ids, batch.attention_mask, batch.labels)


def test_an_answer_is_made_with_the_instruction_that_was_trained_with(shared: AudioVisualLM) -> None:
    samples = [tiny.sample(0), tiny.sample(1, instruction="<image><audio>True or False, True or False?")]
    one, other = trained(shared, samples), asked(shared, samples)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.mask, other.mask)


def test_an_empty_instruction_is_one_masked_token() -> None:
    model = curious("instruction")
    ids = torch.tensor([[IMAGE, AUDIO]])
    found = model.llm.instruction(ids, torch.ones(1, 2), torch.full((1, 2), -100))
    assert found.values.shape == (1, 1, model.llm.width)
    assert not found.values.any()
    assert found.mask.tolist() == [[False]]


def test_each_connector_is_given_what_it_wants_and_no_more() -> None:
    model = curious("vocabulary", other=("instruction", "vocabulary"))
    outputs = model(model.collator()([tiny.sample()]))
    image, audio = model.image_connector.given, model.audio_connector.given
    assert set(image) == {"vocabulary"}
    assert set(audio) == {"instruction", "vocabulary"}
    table = model.llm.lm.get_input_embeddings().weight
    assert image["vocabulary"] is table
    assert outputs.logits.isfinite().all()
    plain = curious()
    plain(plain.collator()([tiny.sample()]))
    assert plain.image_connector.given == {}


def test_a_scaled_vocabulary_is_as_the_language_model_reads_it() -> None:
    """Gemma's table is scaled as it is looked up: what is mixed of its rows has to be as large."""
    llm = tiny.small_llama()

    class Scaled(nn.Embedding):
        embed_scale = 3.0

        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) * self.embed_scale

    llm.lm.set_input_embeddings(Scaled.from_pretrained(llm.lm.get_input_embeddings().weight.detach()))
    every = torch.arange(len(llm.vocabulary()))
    assert_close(llm.vocabulary(), llm.lm.get_input_embeddings()(every), torch.float32)


@pytest.mark.parametrize("part", ["image_projector", "audio_projector"])
@pytest.mark.parametrize("want", ["instruction", "vocabulary"])
def test_a_projector_that_wants_the_language_models_width_is_refused(
    part: str, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Linear, "wants", (want,), raising=False)
    recipe = Recipe("r")
    for name in ("image_projector", "audio_projector", "image_connector", "audio_connector"):
        setattr(recipe.model, name, Component("linear" if name == part else "mlp"))
    said = rf"^model\.{part}: Linear wants '{want}', .* only be an image_connector or an audio_connector"
    with pytest.raises(AvalignError, match=said):
        build_model(recipe, tiny.TEXTS)


def test_a_want_that_nobody_knows_is_refused_with_the_nearest() -> None:
    said = r"^model\.image_connector: Curious wants 'instructions'. Did you mean 'instruction'\?"
    with pytest.raises(AvalignError, match=said):
        curious("instructions")
