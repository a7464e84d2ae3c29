"""Language models: any Hugging Face causal LM, frozen, with LoRA or in full; a small Llama from scratch.

The instruction's `<image>` and `<audio>` places become rows of IMAGE and AUDIO ids, one for every token that
will be put there. The ids are negative, so that no tokenizer and no embedding table has to change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avalign.batch import IGNORED, Tokens
from avalign.errors import AvalignError

IMAGE, AUDIO = -200, -201
_PLACES = re.compile(r"(<image>|<audio>)")


class LanguageModel(nn.Module):
    """A causal LM with its tokenizer. Subclasses say where both come from."""

    pretrained = False

    def __init__(self, lm: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.lm, self.tokenizer = lm, tokenizer
        self.width: int = lm.config.hidden_size
        self.end_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    # text to ids

    def template(self, instruction: str) -> str:
        """The prompt as this model was taught to read one."""
        if self.tokenizer.chat_template is None:
            return instruction + "\n"
        message = [{"role": "user", "content": instruction}]
        return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def prompt_ids(self, instruction: str, image_tokens: int, audio_tokens: int) -> list[int]:
        """Ids of a prompt, its places widened to as many ids as tokens will fill them."""
        for place in ("<image>", "<audio>"):
            if instruction.count(place) > 1:
                raise ValueError(f"instruction {instruction!r} has more than one {place}")
        text = self.template(instruction)
        bos = self.tokenizer.bos_token
        ids: list[int] = []
        if bos is not None and text.startswith(bos):
            text = text[len(bos) :]  # the template wrote it out
        if bos is not None:
            ids.append(self.tokenizer.bos_token_id)
        for piece in _PLACES.split(text):
            if piece == "<image>":
                ids += [IMAGE] * image_tokens
            elif piece == "<audio>":
                ids += [AUDIO] * audio_tokens
            elif piece:
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def response_ids(self, response: str) -> list[int]:
        return [*self.tokenizer.encode(response, add_special_tokens=False), self.end_id]

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
        """Embeddings with the places filled, and the mask and positions that go with them."""
        embeddings = self.lm.get_input_embeddings()(input_ids.clamp(min=0))
        mask = attention_mask.bool()
        for place, tokens in ((IMAGE, image), (AUDIO, audio)):
            here = input_ids == place
            rows = here.any(1)
            values, real = tokens.values[rows].to(embeddings.dtype), tokens.mask[rows]
            if int(here.sum()) != real.numel():
                raise ValueError(
                    f"{'<image>' if place == IMAGE else '<audio>'} places hold {int(here.sum())} ids, the "
                    f"encoder gave {real.numel()} tokens"
                )
            embeddings = embeddings.masked_scatter(here[..., None], values)
            mask = mask.masked_scatter(here, real)
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return {"inputs_embeds": embeddings, "attention_mask": mask.long(), "position_ids": positions}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens) -> Tensor:
        """(b, t) ids with their places to fill -> (b, t, vocabulary) logits"""
        logits: Tensor = self.lm(
            **self._fill(input_ids, attention_mask, image, audio), use_cache=False
        ).logits
        return logits

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens, max_new_tokens: int
    ) -> list[str]:
        """The likeliest answer, token by token, to prompts padded on the left."""
        filled = self._fill(input_ids, attention_mask, image, audio)
        ids = self.lm.generate(
            inputs_embeds=filled["inputs_embeds"],
            attention_mask=filled["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.pad_id,
            eos_token_id=self.end_id,
        )
        return [str(text).strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def digit_tokenizer(texts: Sequence[str], vocabulary: int = 1024) -> Any:
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
    tokenizer.train_from_iterator([_PLACES.sub("", text) + "\n" for text in texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


class SmallLlama(LanguageModel):
    """A Llama trained from scratch, with a tokenizer built from the source's texts (numbers digit by digit).

    hidden:  width of the model
    layers:  number of blocks
    heads:   of each attention
    feed:    width of each feed-forward layer; 3 * hidden when not given
    dropout: of the attention weights
    """

    def __init__(
        self,
        texts: Sequence[str] | Path,
        *,
        hidden: int = 128,
        layers: int = 4,
        heads: int = 4,
        feed: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        if isinstance(texts, Path):
            tokenizer = AutoTokenizer.from_pretrained(texts, local_files_only=True)
        else:
            tokenizer = digit_tokenizer(texts)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=3 * hidden if feed is None else feed,
            attention_dropout=dropout,
            max_position_embeddings=1024,
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


class HuggingFaceLlm(LanguageModel):
    """Any causal LM of the Hugging Face hub or a local folder, its weights as released.

    model:   hub id or folder
    tuning:  frozen, lora (the released weights stay, low-rank updates learn) or full
    rank:    LoRA's r (32 was best of 4, 16, 32 in Meerkat)
    alpha:   LoRA's scale, as alpha / rank
    dropout: of LoRA's input
    targets: names of the linear maps that LoRA updates
    dtype:   of the weights; auto: as stored
    """

    def __init__(
        self,
        texts: Sequence[str] | Path,
        *,
        model: str = "meta-llama/Llama-2-7b-chat-hf",
        tuning: Literal["frozen", "lora", "full"] = "lora",
        rank: int = 32,
        alpha: int = 32,
        dropout: float = 0.1,
        targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    ) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = texts if isinstance(texts, Path) else model
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            lm, report = AutoModelForCausalLM.from_pretrained(
                model,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused by name, below
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise AvalignError(
                f"model.llm.model: {model!r} could not be loaded as a causal language model. It is neither "
                f"a folder with config.json, tokenizer and safetensors nor a hub id that is reachable or "
                f"cached (fetch it with `hf download {model}`). The library says: "
                f"{str(error).splitlines()[0]}"
            ) from error
        missing = sorted(report["missing_keys"])
        missing += [
            f"{name}, which is {tuple(found)} and not {tuple(needed)}"
            for name, found, needed in sorted(report["mismatched_keys"])
        ]
        if missing:
            raise AvalignError(
                f"model.llm.model: {model!r} lacks {len(missing)} weights of its own architecture, which "
                f"would stay random: {', '.join(missing[:5])}"
            )
        if tuning == "lora":
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                target_modules=list(targets),
                task_type="CAUSAL_LM",
            )
            try:
                lm = get_peft_model(lm, settings)
            except ValueError as error:
                raise AvalignError(f"model.llm.targets: {error}") from error
        super().__init__(lm, tokenizer)
        self.tuning = tuning
        self.pretrained = tuning != "full"
        if tuning == "frozen":
            self.lm.requires_grad_(False)
