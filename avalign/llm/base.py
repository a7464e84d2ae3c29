"""What every language model does: placeholders filled with image and audio tokens, logits, answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from avalign import interfaces
from avalign.llm.chat import AUDIO, IMAGE, Chat
from avalign.types import IGNORED, Tokens


class LanguageModel(nn.Module, interfaces.LanguageModel):
    """A causal LM with its tokenizer. Subclasses say where both come from.

    tokenizer: when not given, `load_tokenizer` is asked for it, and only once there is text to read: a model
               that is built to be counted needs none
    """

    def __init__(self, lm: nn.Module, tokenizer: Any = None) -> None:
        super().__init__()
        self.lm = lm
        text = lm.config.get_text_config()
        self.width: int = text.hidden_size
        kinds = getattr(text, "layer_types", None)  # not given by families whose layers are all of one kind
        slides = kinds is None or "sliding_attention" in kinds
        self._window: int | None = getattr(text, "sliding_window", None) if slides else None
        if tokenizer is not None:
            self.tokenizer = tokenizer

    @property
    def positions(self) -> int | None:
        """How many ids it can read and write, where its configuration says; stretched rotary ones in full."""
        text = self.lm.config.get_text_config()
        known = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
        if not isinstance(known, int):
            return None
        rotary = getattr(text, "rope_parameters", None) or {}
        for each in (rotary, *(inner for inner in rotary.values() if isinstance(inner, dict))):
            before = each.get("original_max_position_embeddings") or text.max_position_embeddings
            known = max(known, int(before * (each.get("factor") or 1)))
        return known

    @property
    def adapted(self) -> bool:
        """Whether it learns by LoRA, which is saved in peft's format."""
        return hasattr(self.lm, "peft_config")

    # text to ids

    def load_tokenizer(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} was given no tokenizer and loads none")

    @cached_property
    def tokenizer(self) -> Any:
        return self.load_tokenizer()

    @cached_property
    def chat(self) -> Chat:
        """How this model is asked, and how it answers."""
        return Chat(self.tokenizer, self.system)

    @cached_property
    def end_id(self) -> int:
        return self.chat.end_id

    @cached_property
    def pad_id(self) -> int:
        return self.end_id if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)

    @property
    def end_ids(self) -> list[int]:
        """Every token that ends an answer: that of a turn, and the ends of text of tokenizer and model."""
        stock = getattr(self.lm, "generation_config", None)
        named = getattr(stock, "eos_token_id", None)
        found = [self.end_id, self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
        return list(dict.fromkeys(i for i in found if i is not None))

    # what connectors may ask for

    def instruction(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tokens:
        """Input embeddings of the prompts' text: no media, no response, no padding. -> (b, s, width)

        They stand at the left, zeros after them, as long as the longest prompt of the batch (at least 1):
        the same whether a prompt is trained, padded right and with its response, or answered, padded left.

        Shapes: all (b, t); labels IGNORED outside the response
        """
        text = attention_mask.bool() & (labels == IGNORED) & (input_ids >= 0)
        length = max(1, int(text.sum(1).max()))
        order = text.int().argsort(dim=1, descending=True, stable=True)[:, :length]
        mask = text.gather(1, order)
        values = self.lm.get_input_embeddings()(input_ids.clamp(min=0).gather(1, order))
        return Tokens(values.masked_fill(~mask[..., None], 0), mask)

    def vocabulary(self) -> Tensor:
        """The input embedding of every word. (v, width)"""
        table = self.lm.get_input_embeddings()
        scale = getattr(table, "embed_scale", None)  # of tables that scale what they are asked for (Gemma)
        return table.weight if scale is None else table.weight * scale

    # ids and tokens to text

    def _fill(
        self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens
    ) -> dict[str, Tensor]:
        """Embeddings with the placeholders filled, and the mask and positions that go with them."""
        embeddings = self.lm.get_input_embeddings()(input_ids.clamp(min=0))
        mask = attention_mask.bool()
        for placeholder, tokens in ((IMAGE, image), (AUDIO, audio)):
            here = input_ids == placeholder
            rows = here.any(1)
            values, real = tokens.values[rows].to(embeddings.dtype), tokens.mask[rows]
            if int(here.sum()) != real.numel():
                name = "<image>" if placeholder == IMAGE else "<audio>"
                raise ValueError(
                    f"{name} placeholders hold {int(here.sum())} ids, the encoder gave {real.numel()} tokens"
                )
            embeddings = embeddings.masked_scatter(here[..., None], values)
            mask = mask.masked_scatter(here, real)
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return {"inputs_embeds": embeddings, "attention_mask": mask.long(), "position_ids": positions}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens) -> Tensor:
        """(b, t) ids with their placeholders to fill -> (b, t, vocabulary) logits"""
        filled = self._fill(input_ids, attention_mask, image, audio)
        if not self._slides_over(input_ids.shape[1]):
            logits: Tensor = self.lm(**filled, use_cache=False).logits
            return logits
        order = filled["attention_mask"].argsort(dim=1, descending=True, stable=True)
        logits = self.lm(**_ordered(filled, order), use_cache=False).logits
        return logits.gather(1, order.argsort(dim=1)[..., None].expand_as(logits))

    def _slides_over(self, length: int) -> bool:
        """Whether some attention reaches back over less than the text. It counts columns, read or not, so
        that what is absent must not stand between others."""
        return self._window is not None and length > self._window

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens, max_new_tokens: int
    ) -> list[str]:
        """The likeliest answer, token by token, to prompts padded on the left."""
        filled = self._fill(input_ids, attention_mask, image, audio)
        if self._slides_over(input_ids.shape[1] + max_new_tokens):
            filled = _ordered(filled, filled["attention_mask"].argsort(dim=1, stable=True))
        ids = self.lm.generate(
            inputs_embeds=filled["inputs_embeds"],
            attention_mask=filled["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.pad_id,
            eos_token_id=self.end_ids,
        )
        ended = torch.isin(ids, torch.tensor(self.end_ids, device=ids.device)).cumsum(1) > 0
        told = [row[~end].tolist() for row, end in zip(ids, ended, strict=True)]
        return [str(text).strip() for text in self.tokenizer.batch_decode(told, skip_special_tokens=True)]


def _ordered(filled: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Columns (b, t, ...) in another order (b, t)."""
    embeddings = filled["inputs_embeds"]
    return {
        "inputs_embeds": embeddings.gather(1, order[..., None].expand_as(embeddings)),
        "attention_mask": filled["attention_mask"].gather(1, order),
        "position_ids": filled["position_ids"].gather(1, order),
    }
