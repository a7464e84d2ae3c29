"""Prompts keep their text and make room for media; the weights used are those of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from torch import Tensor

from avalign.llm import AUDIO, IMAGE, LanguageModel, SmallLlama, digit_tokenizer
from avalign.types import Tokens
from tests.helpers import tiny
from tests.helpers.llms import (  # noqa: F401 (fixtures)
    _offline,
    llm,
    tokenizer,
)
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close

IMAGE_TOKENS, AUDIO_TOKENS = 3, 2

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


# -- the tokenizer -------------------------------------------------------------------------------------------


@quick
@given(st.text())
def test_no_text_is_lost(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


@quick
@given(
    st.lists(st.decimals(0, 999, places=2).map(str), min_size=1, max_size=6), st.sampled_from([", ", " ", ""])
)
def test_every_digit_is_a_token_of_its_own(tokenizer: Any, numbers: list[str], between: str) -> None:
    """Even digits that always stand together in what it was built from."""
    text = f"[dog, {between.join(numbers)}]"
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text, add_special_tokens=False)]
    assert "".join(pieces) == text
    assert max(sum(letter.isdigit() for letter in piece) for piece in pieces) == 1
    assert sum(piece[0].isdigit() for piece in pieces) == sum(letter.isdigit() for letter in text)


def test_words_and_brackets_are_merged(tokenizer: Any) -> None:
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("[dog, 0.12", add_special_tokens=False)]
    assert pieces == ["[", "dog", ", ", "0.", "1", "2"]


def test_a_saved_tokenizer_reads_as_before(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    llm = SmallLlama(tmp_path, hidden=16, layers=1, heads=2)
    for text in ("[dog, 0.12, 0.34] ", "  two  spaces,\n ünï 犬 ٣", "Where? </s>"):
        assert llm.tokenizer.encode(text) == tokenizer.encode(text)
    assert (llm.end_id, llm.pad_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert llm.end_id != llm.pad_id


# -- prompts -------------------------------------------------------------------------------------------------


def test_places_become_as_many_ids_as_there_are_tokens(llm: SmallLlama) -> None:
    ids = llm.chat.prompt_ids("See <image>, hear <audio>: where?", IMAGE_TOKENS, AUDIO_TOKENS)
    first, second = ids.index(IMAGE), ids.index(AUDIO)
    assert ids[first : first + IMAGE_TOKENS] == [IMAGE] * IMAGE_TOKENS
    assert ids[second : second + AUDIO_TOKENS] == [AUDIO] * AUDIO_TOKENS
    texts = ids[:first], ids[first + IMAGE_TOKENS : second], ids[second + AUDIO_TOKENS :]
    assert [llm.tokenizer.decode(piece) for piece in texts] == ["See ", ", hear ", ": where?\n"]


@pytest.mark.parametrize("place", ["<image>", "<audio>"])
def test_two_places_of_a_kind_are_refused(llm: SmallLlama, place: str) -> None:
    with pytest.raises(ValueError, match=f"more than one {place}"):
        llm.chat.prompt_ids(f"{place} and {place}", IMAGE_TOKENS, AUDIO_TOKENS)


def test_a_response_ends_with_the_end(llm: SmallLlama) -> None:
    ids = llm.chat.response_ids("[dog, 0.12]")
    assert ids[-1] == llm.end_id
    assert ids.count(llm.end_id) == 1
    assert llm.tokenizer.decode(ids[:-1]) == "[dog, 0.12]"


@pytest.mark.parametrize("template_writes", [True, False])
@pytest.mark.parametrize("tokenizer_adds", [True, False])
def test_a_chat_model_is_asked_in_its_own_form_with_one_beginning(
    llm: SmallLlama, template_writes: bool, tokenizer_adds: bool
) -> None:
    """If it has any: some (Qwen, Phi 4) have a token for it that they never put anywhere."""
    chat = digit_tokenizer(tiny.TEXTS)
    chat.add_special_tokens({"bos_token": "<s>"})
    if tokenizer_adds:
        first = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", chat.bos_token_id)])
        chat.backend_tokenizer.post_processor = first
    begin = "{{ bos_token }}" if template_writes else ""
    chat.chat_template = begin + "[INST] {{ messages[0]['content'] }} [/INST]"
    ids = LanguageModel(llm.lm, chat).chat.prompt_ids("<image><audio>Where?", IMAGE_TOKENS, AUDIO_TOKENS)
    begins = template_writes or tokenizer_adds
    assert ids.count(chat.bos_token_id) == begins
    assert not begins or ids[0] == chat.bos_token_id
    assert (ids.count(IMAGE), ids.count(AUDIO)) == (IMAGE_TOKENS, AUDIO_TOKENS)
    assert chat.decode([i for i in ids[begins:] if i >= 0]) == "[INST] Where? [/INST]"


def test_without_a_padding_token_the_end_pads() -> None:
    endless = digit_tokenizer(tiny.TEXTS)
    endless.pad_token = None
    assert LanguageModel(tiny.small_llama().lm, endless).pad_id == endless.eos_token_id


# -- filling the places --------------------------------------------------------------------------------------


def media(b: int, count: int, width: int, seed: int = 0) -> Tokens:
    values = 0.3 * torch.randn(b, count, width, generator=generator(seed))
    return Tokens(values, torch.ones(b, count, dtype=torch.bool))


def prompts(llm: LanguageModel, texts: list[str], left: bool) -> tuple[Tensor, Tensor]:
    rows = [llm.chat.prompt_ids(text, IMAGE_TOKENS, AUDIO_TOKENS) for text in texts]
    longest = max(map(len, rows))
    padding = [[llm.pad_id] * (longest - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for pad, row in zip(padding, rows, strict=True)]
    pairs = zip(padding, rows, strict=True)
    mask = [
        [0] * len(pad) + [1] * len(row) if left else [1] * len(row) + [0] * len(pad) for pad, row in pairs
    ]
    return torch.tensor(ids), torch.tensor(mask)


QUESTIONS = ["<image><audio>Where is the dog, 0.12?", "Dog <audio> 1", "<image>When is it heard? [1.20, 2.64"]


def test_tokens_go_exactly_where_their_places_are(llm: SmallLlama) -> None:
    ids, mask = prompts(llm, QUESTIONS, left=True)
    image, audio = media(3, IMAGE_TOKENS, llm.width), media(3, AUDIO_TOKENS, llm.width, 1)
    image.mask[0, 1] = False
    audio.mask[1] = False
    filled = llm._fill(ids, mask, image, audio)
    table = llm.lm.get_input_embeddings().weight
    for row in range(3):
        waiting = {IMAGE: 0, AUDIO: 0}
        position = -1
        for column, i in enumerate(ids[row].tolist()):
            if i in waiting:
                tokens = image if i == IMAGE else audio
                expected, real = tokens.values[row, waiting[i]], bool(tokens.mask[row, waiting[i]])
                waiting[i] += 1
            else:
                expected, real = table[i], bool(mask[row, column])
            position += real
            assert torch.equal(filled["inputs_embeds"][row, column], expected)
            assert filled["attention_mask"][row, column] == real
            assert filled["position_ids"][row, column] == max(0, position)


def test_more_tokens_than_room_are_refused(llm: SmallLlama) -> None:
    ids, mask = prompts(llm, QUESTIONS, left=False)
    image, audio = media(3, IMAGE_TOKENS, llm.width), media(3, AUDIO_TOKENS + 1, llm.width)
    with pytest.raises(ValueError, match=r"<audio> placeholders hold 4 ids, the encoder gave 6 tokens"):
        llm(ids, mask, image, audio)


@pytest.mark.parametrize("left", [True, False])
def test_padding_and_batch_mates_change_no_logits(llm: SmallLlama, left: bool) -> None:
    ids, mask = prompts(llm, QUESTIONS, left)
    image, audio = media(3, IMAGE_TOKENS, llm.width), media(3, AUDIO_TOKENS, llm.width, 1)
    audio.mask[0, 1] = False
    together = llm(ids, mask, image, audio)
    assert together.isfinite().all()
    for row, question in enumerate(QUESTIONS):
        alone = llm(
            *prompts(llm, [question], left),
            Tokens(image.values[row : row + 1], image.mask[row : row + 1]),
            Tokens(audio.values[row : row + 1], audio.mask[row : row + 1]),
        )
        assert_close(together[row][mask[row].bool()], alone[0], torch.float32)


@quick
@given(seeds)
def test_masked_media_tokens_change_nothing(llm: SmallLlama, seed: int) -> None:
    ids, mask = prompts(llm, QUESTIONS, left=False)
    image, audio = media(3, IMAGE_TOKENS, llm.width, seed), media(3, AUDIO_TOKENS, llm.width, seed + 1)
    for tokens in (image, audio):
        tokens.mask = torch.rand(tokens.mask.shape, generator=generator(seed)) < 0.5
        tokens.mask[0] = False  # the whole picture: the prompt begins with what is masked
    text = (ids >= 0) & mask.bool()
    before = llm(ids, mask, image, audio)[text]
    for tokens in (image, audio):
        noise = 5 * torch.randn(tokens.values.shape, generator=generator(seed + 2))
        tokens.values = torch.where(tokens.mask[..., None], tokens.values, noise)
    assert before.isfinite().all()
    assert_close(llm(ids, mask, image, audio)[text], before, torch.float32)


def test_media_tokens_change_the_logits_after_them_and_none_before(llm: SmallLlama) -> None:
    ids, mask = prompts(llm, ["Dog <image> 1"], left=False)
    place = ids[0].tolist().index(IMAGE)
    nothing = media(1, AUDIO_TOKENS, llm.width)
    one, other = (llm(ids, mask, media(1, IMAGE_TOKENS, llm.width, seed), nothing)[0] for seed in (0, 1))
    assert torch.equal(one[:place], other[:place])
    assert ((one - other)[place:].abs().amax(1) > 1e-3).all()


def greedy(llm: LanguageModel, question: str, image: Tokens, audio: Tokens, steps: int) -> str:
    """The answer by running the whole text again for every token, unpadded."""
    prompt = llm.chat.prompt_ids(question, IMAGE_TOKENS, AUDIO_TOKENS)
    answer: list[int] = []
    for _ in range(steps):
        ids = torch.tensor([prompt + answer])
        answer.append(int(llm(ids, torch.ones_like(ids), image, audio)[0, -1].argmax()))
        if answer[-1] == llm.end_id:
            break
    return llm.tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_generation_says_the_likeliest_token_alone_or_in_a_batch(llm: SmallLlama) -> None:
    ids, mask = prompts(llm, QUESTIONS, left=True)
    image, audio = media(3, IMAGE_TOKENS, llm.width), media(3, AUDIO_TOKENS, llm.width, 1)
    image.mask[0] = False  # what is masked at the start takes no position
    audio.mask[1, 1] = False
    answers = llm.generate(ids, mask, image, audio, 8)
    assert len(set(answers)) == 3
    for row, question in enumerate(QUESTIONS):
        one = [Tokens(t.values[row : row + 1], t.mask[row : row + 1]) for t in (image, audio)]
        assert answers[row] == greedy(llm, question, one[0], one[1], 8)
        assert llm.generate(*prompts(llm, [question], left=True), *one, 8) == [answers[row]]


def test_an_answer_ends_at_the_end(llm: SmallLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = prompts(llm, QUESTIONS[1:2], left=True)
    image, audio = media(1, IMAGE_TOKENS, llm.width), media(1, AUDIO_TOKENS, llm.width)
    first = int(llm(ids, mask, image, audio)[0, -1].argmax())
    monkeypatch.setattr(llm, "end_id", first)
    steps: list[int] = []
    with llm.lm.register_forward_pre_hook(lambda *_: steps.append(1)):
        assert llm.generate(ids, mask, image, audio, 8) == [""]
    assert len(steps) == 1
