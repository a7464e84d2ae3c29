"""Families of language models in small: each one's architecture, special tokens and form of a conversation.

The templates are written here from the forms that the families publish; `asked` and `answered` are the same
conversation written out, so that a slip in a template is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)

from tests.helpers import tiny

QUESTION, ANSWER = "Where is the dog?", "[dog, 0.12]"
WINDOW = 8  # tokens that a sliding layer reaches back over: far fewer than a prompt has
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class Family:
    """A released model in small, and what its conversation reads like."""

    model_type: str
    asked: str  # QUESTION, ready to be answered
    answered: str  # what follows it when it was: ANSWER and its end, as the template has them
    end: str  # the token that ends an answer
    tokens: tuple[str, ...] = ()  # special ones, beside the three below
    bos: str | None = None
    eos: str = "</s>"
    pad: str = "<pad>"
    template: str | None = None  # of the tokenizer
    options: dict[str, Any] = field(default_factory=dict)  # of HuggingFaceLlm
    sentencepiece: str | None = None  # "new" or "legacy": words begin with ▁, as Llama 2's tokenizer has them
    adds_bos: bool = False  # the tokenizer puts it before every text, and the template leaves it out
    config: dict[str, Any] = field(default_factory=dict)
    instructed: str | None = None  # `asked` under the system prompt "Be brief."; None: it takes none

    @property
    def slides(self) -> bool:
        return self.config.get("sliding_window") is not None


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}SYSTEM{% endif %}"
    "{% for m in messages if m.role != 'system' %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ ((head | default('') if loop.first else '') + m.content) | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
FAMILIES = {
    "llama-2": Family(
        "llama",
        asked=f"<s>[INST] {QUESTION} [/INST]",
        answered=f" {ANSWER} </s>",
        end="</s>",
        bos="<s>",
        options={"template": "llama-2"},
        sentencepiece="new",
        instructed=f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{QUESTION} [/INST]",
    ),
    "vicuna": Family(
        "llama",
        asked="<s>A chat between a curious user and an artificial intelligence assistant. The assistant "
        f"gives helpful, detailed, and polite answers to the user's questions. USER: {QUESTION} ASSISTANT:",
        answered=f" {ANSWER}</s>",
        end="</s>",
        bos="<s>",
        options={"template": "vicuna"},
        sentencepiece="legacy",
        instructed=f"<s>Be brief. USER: {QUESTION} ASSISTANT:",
    ),
    "zephyr": Family(
        "mistral",
        asked=f"<|user|>\n{QUESTION}</s>\n<|assistant|>\n",
        answered=f"{ANSWER}</s>",
        end="</s>",
        bos="<s>",
        template="{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        sentencepiece="legacy",
        adds_bos=True,
        config={"sliding_window": WINDOW},
        instructed=f"<|system|>\nBe brief.</s>\n<|user|>\n{QUESTION}</s>\n<|assistant|>\n",
    ),
    "llama-3": Family(
        "llama",
        asked=f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        answered=f"{ANSWER}<|eot_id|>",
        end="<|eot_id|>",
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        template="{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        instructed="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "qwen-2.5": Family(
        "qwen2",
        asked=f"<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n",
        answered=f"{ANSWER}<|im_end|>",
        end="<|im_end|>",
        tokens=("<|im_start|>", "<|im_end|>"),
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        template="{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        + CHATML,
        config={"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        instructed=f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "qwen-3": Family(
        "qwen3",
        asked=f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        answered=f"{ANSWER}<|im_end|>",
        end="<|im_end|>",
        tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        eos="<|im_end|>",
        pad="<|endoftext|>",
        template="{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
        "{% endif %}",
        instructed=f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    "gemma-1": Family(
        "gemma",
        asked=f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
        answered=f"{ANSWER}<end_of_turn>",
        end="<end_of_turn>",
        tokens=("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        template=GEMMA.replace("SYSTEM", "{{ raise_exception('System role not supported') }}"),
    ),
    "gemma-2": Family(
        "gemma2",
        asked=f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
        answered=f"{ANSWER}<end_of_turn>",
        end="<end_of_turn>",
        tokens=("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        template=GEMMA.replace("SYSTEM", "{{ raise_exception('System role not supported') }}"),
        config={"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    ),
    "gemma-3": Family(
        "gemma3_text",
        asked=f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
        answered=f"{ANSWER}<end_of_turn>",
        end="<end_of_turn>",
        tokens=("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        template=GEMMA.replace(
            "{% if messages[0].role == 'system' %}SYSTEM{% endif %}",
            "{% set head = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}",
        ),
        config={
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        instructed=f"<bos><start_of_turn>user\nBe brief.\n\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi-3": Family(
        "phi3",
        asked=f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        answered=f"{ANSWER}<|end|>",
        end="<|end|>",
        tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        template="{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        sentencepiece="new",
        config={"sliding_window": WINDOW},
        instructed=f"<|system|>\nBe brief.<|end|>\n<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
    ),
    "phi-4": Family(
        "phi3",
        asked=f"<|im_start|>user<|im_sep|>{QUESTION}<|im_end|><|im_start|>assistant<|im_sep|>",
        answered=f"{ANSWER}<|im_end|>",
        end="<|im_end|>",
        tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        bos="<|endoftext|>",
        eos="<|im_end|>",
        template="{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
        instructed="<|im_start|>system<|im_sep|>Be brief.<|im_end|>"
        f"<|im_start|>user<|im_sep|>{QUESTION}<|im_end|><|im_start|>assistant<|im_sep|>",
    ),
}
TEXTS = [
    *tiny.TEXTS,
    QUESTION,
    ANSWER,
    "USER: ASSISTANT: [INST] [/INST] user model system assistant Be brief.",
]


def make_tokenizer(family: Family) -> Any:
    """A tokenizer of the family's kind with its special tokens, trained on a few words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    special = list(dict.fromkeys(t for t in (family.pad, family.bos, family.eos, *family.tokens) if t))
    named = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    if family.sentencepiece is None:
        learnt = Tokenizer(models.BPE())
        learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learnt.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        learnt.train_from_iterator(TEXTS, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=learnt, **named)
    learnt = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")  # no merge over a space
    first = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=first,
        initial_alphabet=[chr(i) for i in range(33, 127)],
        show_progress=False,
    )
    learnt.train_from_iterator([text.replace("\n", "") for text in TEXTS], trainer)
    import json

    made = json.loads(learnt.to_str())["model"]
    merges = [tuple(pair) for pair in made["merges"]]
    tokenizer = LlamaTokenizer(
        vocab=made["vocab"],
        merges=merges,
        legacy=family.sentencepiece == "legacy",
        add_bos_token=not family.tokens,
    )
    tokenizer.add_tokens(
        [AddedToken(t, special=True, normalized=False) for t in special], special_tokens=True
    )
    for name, token in named.items():
        setattr(tokenizer, name, token)
    return tokenizer


def write(family: Family, folder: Path, seed: int = 0, **sizes: int) -> Path:
    """The family's model with random weights as Hugging Face writes one."""
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = family.template
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(
        family.model_type,
        vocab_size=len(tokenizer) + 3,  # as released ones have, more rows than tokens
        pad_token_id=tokenizer.pad_token_id,
        **ids,
        **{**SIZES, **family.config, **sizes},
    )
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(config)
    tiny.spread(lm, seed)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
