"""Questions and answers as ids, in the form that a tokenizer's chat template gives them.

The instruction's placeholders `<image>` and `<audio>` become rows of IMAGE and AUDIO ids, one for every token
that will be put there. The ids are negative, so that no tokenizer and no embedding table has to change.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from avalign.errors import AvalignError, suggest

IMAGE, AUDIO = -200, -201
PLACEHOLDERS = {"<image>": IMAGE, "<audio>": AUDIO}

# The forms of models whose tokenizers come without a template, by name. Each is Jinja, as in transformers.
_BOS = "{{ bos_token if bos_token is defined else '' }}"
TEMPLATES = {
    # the question, and the answer on a line of its own
    "plain": _BOS + "{% for m in messages %}"
    "{{ m.content + (eos_token if m.role == 'assistant' else '\\n') }}"
    "{% endfor %}",
    # lmsys/vicuna-*-v1.5; its default system prompt is part of the form that it was taught
    "vicuna": _BOS
    + "{% if messages[0].role != 'system' %}{{ 'A chat between a curious user and an artificial "
    "intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user\\'s "
    "questions. ' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}"
    "{% elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    # Llama 2, for its base models: as the chat models were taught
    "llama-2": "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n'"
    " if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
}
_SAID = "An answer, said once."  # found again in what a template makes of it


def template_named(option: str) -> str:
    """The template that an option stands for: a name of TEMPLATES, a file, or Jinja itself."""
    if option in TEMPLATES:
        return TEMPLATES[option]
    if "{{" in option or "{%" in option:
        return option
    if Path(option).is_file():
        return Path(option).read_text(encoding="utf-8")
    raise AvalignError(
        f"model.llm.template: {option!r} is no known template, no file, and no Jinja either (that holds "
        f"'{{{{' or '{{%').{suggest(option, TEMPLATES)}"
    )


class Chat:
    """A tokenizer and the form in which its model reads questions and writes answers.

    system: what stands before the first question, where the template has room for it
    end_id: of the token that ends an answer: the first one behind it in the template that is a single token
            by definition (<|eot_id|>, <end_of_turn>, <|im_end|>, ...), else the tokenizer's end of text
    """

    def __init__(self, tokenizer: Any, system: str | None = None) -> None:
        from tokenizers import AddedToken

        if tokenizer.chat_template is None:
            tokenizer.chat_template = TEMPLATES["plain"]
        self.tokenizer, self.system = tokenizer, system
        # a copy that knows the placeholders, so that the text around them is cut as around any special token
        self._reader = copy.deepcopy(tokenizer)
        self._reader.add_tokens([AddedToken(p, special=True, normalized=False) for p in PLACEHOLDERS])
        self._fast = getattr(self._reader, "backend_tokenizer", None)  # the same ids in a third of the time
        if self._fast is not None:
            self._fast.no_truncation()
            self._fast.no_padding()
        self._placeholder_ids = {
            self._reader.convert_tokens_to_ids(placeholder): placeholder for placeholder in PLACEHOLDERS
        }
        bare, with_special = (
            self._reader.encode("a", add_special_tokens=special) for special in (False, True)
        )
        own = tokenizer.bos_token_id
        self._adds_bos = own is not None and with_special[: 1 + len(bare)] == [own, *bare]
        self._find_end()

    def render(self, instruction: str, answer: str | None = None) -> str:
        """The text that the model is given, ready to be answered; or the same with its answer."""
        messages = [{"role": "user", "content": instruction}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        text = self._apply(messages, answer is None)
        for placeholder in PLACEHOLDERS:
            if text.count(placeholder) != instruction.count(placeholder):
                raise AvalignError(
                    f"model.llm.template: the chat template makes {text.count(placeholder)} of "
                    f"{instruction.count(placeholder)} {placeholder} in {instruction!r}"
                )
        return text

    def prompt_ids(self, instruction: str, image_tokens: int, audio_tokens: int) -> list[int]:
        """Ids of a prompt, its placeholders widened to as many ids as tokens will fill them."""
        for placeholder in PLACEHOLDERS:
            if instruction.count(placeholder) > 1:
                raise ValueError(f"instruction {instruction!r} has more than one {placeholder}")
        counts = {"<image>": image_tokens, "<audio>": audio_tokens}
        ids: list[int] = []
        for i in self._encode(self.render(instruction)):
            found = self._placeholder_ids.get(i)
            ids += [i] if found is None else [PLACEHOLDERS[found]] * counts[found]
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self._adds_bos and ids[:1] != [bos] else ids

    def response_ids(self, response: str) -> list[int]:
        """Ids of an answer as it stands behind a prompt, with its end."""
        text = self._lead + response + self._trail
        ids, before = self._encode(self._context + text), self._context_ids
        if ids[: len(before)] == before:
            return [*ids[len(before) :], self.end_id]
        # the last sign of the prompt and the first of the answer are one token together: apart, as when asked
        return [*self._encode("<image>" + text)[1:], self.end_id]

    def _encode(self, text: str) -> list[int]:
        if self._fast is not None:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        return list(self._reader.encode(text, add_special_tokens=False))

    def _apply(self, messages: list[dict[str, str]], ask: bool) -> str:
        from jinja2 import TemplateError

        def made(system: str | None) -> str:
            first = [] if system is None else [{"role": "system", "content": system}]
            return str(
                self.tokenizer.apply_chat_template(
                    first + messages, tokenize=False, add_generation_prompt=ask, enable_thinking=False
                )
            )

        try:
            text = made(self.system)
        except TemplateError as error:
            if self.system is not None:
                raise AvalignError(
                    f"model.llm.system: the chat template takes no system prompt (it says: {error}). Leave "
                    f"`system` out and say it in the instructions, or give another `template`"
                ) from error
            raise AvalignError(f"model.llm.template: the chat template fails: {error}") from error
        if self.system is not None and self.system.strip() not in text:
            raise AvalignError("model.llm.system: the chat template leaves the system prompt out")
        return text

    def _find_end(self) -> None:
        """What the template puts before and behind an answer, and the token that ends it."""
        prompt = self.render("a")
        before, found, after = self.render("a", _SAID).rpartition(_SAID)
        self._lead = before[len(prompt) :] if found and before.startswith(prompt) else ""
        added = {str(token): i for i, token in self.tokenizer.added_tokens_decoder.items()}
        ends = sorted((after.index(token), -len(token), token) for token in added if token in after)
        self._trail, end = (after[: ends[0][0]], added[ends[0][2]]) if ends else ("", None)
        self.end_id: int = self.tokenizer.eos_token_id if end is None else end
        if self.end_id is None:
            raise AvalignError(
                "model.llm.template: no token ends an answer: the chat template writes none, and the "
                "tokenizer has no eos_token"
            )
        cut = max((prompt.rfind(token) for token in added), default=-1)
        self._context = "<image>" + prompt if cut < 0 else prompt[cut:]
        self._context_ids = self._encode(self._context)
