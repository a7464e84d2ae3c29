"""A small Llama trained from scratch, and a tokenizer that keeps every digit apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from avalign.config.recipe import Share
from avalign.llm.base import LanguageModel
from avalign.llm.chat import PLACEHOLDERS, TEMPLATES
from avalign.llm.tokenizer_files import saved_tokenizer


def digit_tokenizer(corpus: Sequence[str], vocabulary: int = 1024) -> Any:
    """A byte-level BPE that keeps every digit a token of its own, and loses no text.

    Merges stay inside words, single digits (with the point that follows one) and runs of other signs, so that
    "[dog, 0.12" reads [ · dog · ", " · 0. · 1 · 2.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?\p{L}+|\d\.?|[^\p{L}\d]+?(?= ?\p{L}|\d|$)"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_without_placeholders(text) + "\n" for text in corpus], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=TEMPLATES["plain"],
        clean_up_tokenization_spaces=False,
    )


def _without_placeholders(text: str) -> str:
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return text


class SmallLlama(LanguageModel):
    """A Llama trained from scratch, with a tokenizer built from the source's corpus (numbers digit by digit).

    hidden:    width of the model
    layers:    number of blocks
    heads:     of each attention
    feed:      width of each feed-forward layer; 3 * hidden when not given
    dropout:   of the attention weights
    positions: ids that it can read and write
    """

    def __init__(
        self,
        corpus: Sequence[str] | Path,
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 4,
        heads: PositiveInt = 4,
        feed: PositiveInt | None = None,
        dropout: Share = 0.0,
        positions: PositiveInt = 1024,
    ) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        if hidden % heads or hidden // heads % 2:
            raise ValueError(f"hidden {hidden} is not {heads} heads of an even width each")
        tokenizer = saved_tokenizer(corpus) if isinstance(corpus, Path) else digit_tokenizer(corpus)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=3 * hidden if feed is None else feed,
            attention_dropout=dropout,
            max_position_embeddings=positions,
            initializer_range=hidden**-0.5,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        lm = LlamaForCausalLM(config)
        # words start larger than what the layers add to them: smaller ones are drowned by the first layer,
        # and what compares a word with what is seen or heard is learnt late
        torch.nn.init.normal_(lm.get_input_embeddings().weight)
        with torch.no_grad():
            for name, weight in lm.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight /= math.sqrt(2 * layers)
        # for prompts this short, torch's fused attention makes forward and backward twice as slow on a CPU
        lm.set_attn_implementation("eager")
        super().__init__(lm, tokenizer)
