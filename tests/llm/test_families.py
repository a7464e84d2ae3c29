"""Each family is asked as it was taught, stops where its turn ends, and reads embeddings as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from avalign.llm import AUDIO, IMAGE, HuggingFaceLlm
from avalign.types import Tokens
from tests.helpers.families import ANSWER, FAMILIES, QUESTION, WINDOW, Family, write
from tests.helpers.strategies import generator
from tests.helpers.tolerances import assert_close

SEEN, HEARD = 3, 2
every = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(family, tmp_path_factory.mktemp(name)) for name, family in FAMILIES.items()}


@pytest.fixture(scope="module")
def llms(folders: dict[str, Path]) -> dict[str, HuggingFaceLlm]:
    return {name: load(folders[name], FAMILIES[name]).eval() for name in FAMILIES}


def load(folder: Path, family: Family, **options: Any) -> HuggingFaceLlm:
    return HuggingFaceLlm([], model=str(folder), **{"tuning": "frozen", **family.options, **options})


# -- questions and answers -----------------------------------------------------------------------------------


@every
def test_a_question_reads_as_the_family_publishes_it(llms: Any, folders: Any, name: str) -> None:
    family = FAMILIES[name]
    assert llms[name].chat.render(QUESTION) == family.asked
    assert llms[name].chat.render(QUESTION, ANSWER).startswith(family.asked + family.answered)
    if family.instructed is not None:
        assert load(folders[name], family, system="Be brief.").chat.render(QUESTION) == family.instructed


@every
def test_prompt_ids_are_those_of_the_chat_template_with_the_places_taken_out(
    llms: Any, folders: Any, name: str
) -> None:
    """Also where a place stands inside a word, at an end, or alone."""
    llm = llms[name]
    own = AutoTokenizer.from_pretrained(folders[name])
    own.chat_template = llm.tokenizer.chat_template
    own.add_special_tokens({"extra_special_tokens": ["<image>", "<audio>"]})
    places = dict(zip(own.convert_tokens_to_ids(["<image>", "<audio>"]), (IMAGE, AUDIO), strict=True))
    for text in (
        QUESTION,
        f"<image><audio>{QUESTION}",
        "Is it <image>, or in 1<audio>2?",
        "<audio>",
        f" {QUESTION} <image>",
    ):
        expected = own.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        if FAMILIES[name].adds_bos:
            expected.insert(0, llm.tokenizer.bos_token_id)
        ids = llm.chat.prompt_ids(text, 1, 1)
        assert ids == [places.get(i, i) for i in expected]
        assert len(llm.chat.prompt_ids(text, SEEN, HEARD)) == len(ids) + (
            (SEEN - 1) * ("<image>" in text) + (HEARD - 1) * ("<audio>" in text)
        )
        if llm.tokenizer.bos_token is not None:
            begins = FAMILIES[name].adds_bos or llm.tokenizer.bos_token in FAMILIES[name].asked
            assert ids.count(llm.tokenizer.bos_token_id) == begins


@every
@pytest.mark.parametrize("answer", [ANSWER, "True", "a dog sounds, then 2 bells", "", "ünï 犬"])
def test_an_answer_stands_behind_its_question_as_in_a_conversation(llms: Any, name: str, answer: str) -> None:
    """What is taught is what the template would read, up to and with the token that ends the turn."""
    llm, family = llms[name], FAMILIES[name]
    talk = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    whole = llm.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
    ids = llm.chat.prompt_ids(QUESTION, 0, 0)[family.adds_bos :] + llm.chat.response_ids(answer)
    assert ids == whole[: len(ids)]
    assert ids[-1] == llm.end_id == llm.tokenizer.convert_tokens_to_ids(family.end)
    assert llm.tokenizer.decode(llm.chat.response_ids(answer)[:-1]).strip() == answer


# -- what is read --------------------------------------------------------------------------------------------


def nothing(b: int, width: int) -> tuple[Tokens, Tokens]:
    empty = Tokens(torch.zeros(b, 0, width), torch.ones(b, 0, dtype=torch.bool))
    return empty, empty


def media(b: int, width: int, seed: int = 0) -> tuple[Tokens, Tokens]:
    random = generator(seed)
    return tuple(  # type: ignore[return-value]
        Tokens(torch.randn(b, count, width, generator=random), torch.ones(b, count, dtype=torch.bool))
        for count in (SEEN, HEARD)
    )


def rows(llm: HuggingFaceLlm, texts: list[str], left: bool) -> tuple[Tensor, Tensor]:
    ids = [llm.chat.prompt_ids(text, SEEN, HEARD) for text in texts]
    longest = max(map(len, ids))

    def padded(row: list[int], value: int) -> list[int]:
        return [value] * (longest - len(row)) + row if left else row + [value] * (longest - len(row))

    mask = torch.tensor([padded([1] * len(row), 0) for row in ids])
    return torch.tensor([padded(row, llm.pad_id) for row in ids]), mask


@every
def test_text_as_embeddings_is_text_as_ids(llms: Any, name: str) -> None:
    """Gemma scales its embeddings: once, whichever way they come."""
    llm = llms[name]
    ids, mask = rows(llm, [QUESTION], left=False)
    with torch.no_grad():
        expected = llm.lm(input_ids=ids).logits
        assert_close(llm(ids, mask, *nothing(1, llm.width)), expected, torch.float32)
    assert expected.std() > 1e-2


QUESTIONS = [
    f"<image><audio>{QUESTION}",
    "Is it <image>, or heard in <audio>, or neither of both?",
    "<audio>When?",
]


@every
@pytest.mark.parametrize("left", [True, False])
def test_padding_batch_mates_and_absent_tokens_change_nothing(llms: Any, name: str, left: bool) -> None:
    """Not even in layers that reach back over a few tokens only: what is absent takes none of them up."""
    llm, family = llms[name], FAMILIES[name]
    ids, mask = rows(llm, QUESTIONS, left)
    assert not family.slides or ids.shape[1] > 2 * WINDOW
    image, audio = media(3, llm.width)
    image.mask[0, 1] = image.mask[1] = audio.mask[2, 0] = False
    with torch.no_grad():
        together = llm(ids, mask, image, audio)
        for row, question in enumerate(QUESTIONS):
            one = [Tokens(t.values[row : row + 1], t.mask[row : row + 1]) for t in (image, audio)]
            alone = llm(*rows(llm, [question], left), *one)
            keep = torch.ones_like(ids[row], dtype=torch.bool) & mask[row].bool()
            for place, tokens in ((IMAGE, image), (AUDIO, audio)):
                keep[ids[row] == place] = tokens.mask[row][: int((ids[row] == place).sum())]
            assert_close(together[row][keep], alone[0][keep[mask[row].bool()]], torch.float32)
            less = [Tokens(t.values[:, t.mask[0]], t.mask[:, t.mask[0]]) for t in one]
            short = ids[row][keep][None]
            without = llm(short, torch.ones_like(short), *less)
            assert_close(together[row][keep], without[0], torch.float32)


@every
def test_generation_is_the_likeliest_token_alone_or_in_a_batch(llms: Any, name: str) -> None:
    llm = llms[name]
    image, audio = media(3, llm.width)
    image.mask[0] = False
    audio.mask[1, 1] = False
    answers = llm.generate(*rows(llm, QUESTIONS, left=True), image, audio, 2 * WINDOW)
    for row, question in enumerate(QUESTIONS):
        one = [Tokens(t.values[row : row + 1], t.mask[row : row + 1]) for t in (image, audio)]
        ids = llm.chat.prompt_ids(question, SEEN, HEARD)
        told: list[int] = []
        with torch.no_grad():
            while len(told) < 2 * WINDOW:
                given = torch.tensor([ids + told])
                likeliest = int(llm(given, torch.ones_like(given), *one)[0, -1].argmax())
                if likeliest in llm.end_ids:
                    break
                told.append(likeliest)
        assert answers[row] == llm.tokenizer.decode(told, skip_special_tokens=True).strip()


@every
def test_what_is_taught_is_said_and_ends_with_the_turn(folders: Any, name: str) -> None:
    """A few steps on one answer, in training mode; then the same answer and nothing behind it."""
    llm = load(folders[name], FAMILIES[name], tuning="full").train()
    image, audio = media(1, llm.width)
    prompt, response = llm.chat.prompt_ids(QUESTIONS[0], SEEN, HEARD), llm.chat.response_ids(ANSWER)
    ids = torch.tensor([prompt + response])
    optimiser = torch.optim.Adam(llm.parameters(), lr=0.02)
    for _ in range(60):
        logits = llm(ids, torch.ones_like(ids), image, audio)[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(response))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.05:
            break
    given = torch.tensor([prompt])
    steps: list[int] = []
    llm.lm.register_forward_pre_hook(lambda *_: steps.append(1))
    assert llm.eval().generate(given, torch.ones_like(given), image, audio, 40) == [ANSWER]
    assert len(steps) == len(response), "it went on after the end of its turn"
