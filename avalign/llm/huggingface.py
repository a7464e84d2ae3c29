"""Any causal LM of the Hugging Face hub or a local folder: released weights, or their shapes alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from avalign.errors import AvalignError, suggest
from avalign.llm.base import LanguageModel
from avalign.llm.chat import TEMPLATES, template_named
from avalign.llm.lora import with_lora
from avalign.llm.shapes import SHAPES
from avalign.llm.small import digit_tokenizer
from avalign.llm.tokenizer_files import first_line, saved_tokenizer, tokenizer_of
from avalign.weights.tensors import is_finite, read_tensors, refuse_not_finite


class HuggingFaceLlm(LanguageModel):
    """Any causal LM of the Hugging Face hub or a local folder: Llama, Vicuna, Qwen, Gemma, Phi, ...

    model:        hub id or folder. Of a checkpoint that has eyes of its own (Gemma 3) the language model
    pretrained:   load its weights. False: random ones in its shapes, without asking the hub for those in
                  avalign/llm/shapes.py; no tokenizer is loaded before there is text
    config:       fields of the model's configuration in place of its own, with `pretrained: false`; with
                  model_type among them, all of it
    tokenizer:    hub id or folder, the model's own when not given; digits: one built from the source's
                  corpus, every digit a token
    template:     chat template where the tokenizer has none, or another than its own: plain, vicuna, llama-2,
                  a Jinja file, or Jinja itself. Thinking is turned off where a template can
    system:       prompt, where the template takes one
    tuning:       frozen, lora (the released weights stay, low-rank updates learn) or full
    rank:         LoRA's r (32 was best of 4, 16, 32 in Meerkat)
    alpha:        LoRA's scale, as alpha / rank
    dropout:      of LoRA's input
    targets:      the linear maps that LoRA updates: attention, all-linear (all but the output), or names
    dora:         learn direction and length of each row apart (arXiv:2402.09353), with `tuning: lora`
    quantisation: of the weights that do not learn, by bitsandbytes: none, 8bit (LLM.int8()) or 4bit (NF4 with
                  its scales quantised too, arXiv:2305.14314)
    dtype:        of the weights; auto: as stored
    """

    def __init__(
        self,
        corpus: Sequence[str] | Path,
        *,
        model: str = "meta-llama/Llama-2-7b-chat-hf",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        template: str | None = None,
        system: str | None = None,
        tuning: Literal["frozen", "lora", "full"] = "lora",
        rank: int = 32,
        alpha: int = 32,
        dropout: float = 0.1,
        targets: Literal["attention", "all-linear"] | list[str] = "attention",
        dora: bool = False,
        quantisation: Literal["none", "8bit", "4bit"] = "none",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    ) -> None:
        if config is not None and pretrained:
            raise AvalignError("model.llm.config changes a model's shapes, so it needs `pretrained: false`.")
        if dora and tuning != "lora":
            raise AvalignError(f"model.llm.dora is a way of LoRA, so it needs `tuning: lora`, not {tuning}.")
        if quantisation != "none":
            _check_quantisation(quantisation, tuning, pretrained, dora)
        if template is not None and not isinstance(corpus, Path):
            template = template_named(template)
        lm = released(model, dtype, quantisation) if pretrained else _initialised(model, config, dtype)
        if tuning == "lora":
            lm = with_lora(lm, rank, alpha, dropout, targets, dora)
        super().__init__(lm)
        self._tokenizer_from = (corpus, model, tokenizer, template)
        self.system, self.tuning, self.quantisation = system, tuning, quantisation
        self.pretrained = pretrained and tuning != "full"
        if tuning == "frozen":
            self.lm.requires_grad_(False)
        if pretrained:
            _ = self.chat  # a tokenizer or template that will not do is named before training

    def load_tokenizer(self) -> Any:
        corpus, model, named, template = self._tokenizer_from
        folder = corpus if isinstance(corpus, Path) else model if named is None else named
        if isinstance(corpus, Path):
            tokenizer = saved_tokenizer(corpus)
        elif named == "digits":
            tokenizer = digit_tokenizer(corpus)
        else:
            try:
                tokenizer = tokenizer_of(folder)
            except AvalignError as error:
                raise AvalignError(f"model.llm.tokenizer: {error}") from error
            except Exception as error:  # the library raises that very class for a tokenizer.json cut short
                raise AvalignError(
                    f"model.llm.tokenizer: {str(folder)!r} could not be loaded as a tokenizer. It is neither "
                    f"a folder with tokenizer.json nor a hub id that is reachable or cached (fetch it with "
                    f"`hf download {folder}`; `tokenizer: digits` needs no download). The library says: "
                    f"{first_line(error)}"
                ) from error
        saved = isinstance(corpus, Path) and tokenizer.chat_template is not None
        if template is not None and not saved:  # a run keeps its template beside its tokenizer
            tokenizer.chat_template = template_named(template)
        if tokenizer.chat_template is None:
            raise AvalignError(
                f"model.llm.template: the tokenizer of {str(folder)!r} has no chat template, so it is not "
                f"known how this model is asked. Give one: {', '.join(TEMPLATES)}, a Jinja file or Jinja"
            )
        rows = self.lm.get_input_embeddings().num_embeddings
        highest = max(tokenizer.get_vocab().values())
        if highest >= rows:
            raise AvalignError(
                f"model.llm.tokenizer: {str(folder)!r} has ids up to {highest}, {model!r} embeds {rows}"
            )
        return tokenizer


# by what a config.json holds, beside huggingface_hub's own
_MISREAD = (OSError, ValueError, KeyError, TypeError, ArithmeticError)

# ---- weights --------------------------------------------------------------------------------------


def released(model: str, dtype: str = "auto", quantisation: str = "none") -> Any:
    """The model with all of its own weights and no others, or AvalignError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True, "trust_remote_code": False}
    options["ignore_mismatched_sizes"] = True  # they are refused by name, below
    if quantisation != "none":
        options["quantization_config"] = _quantised(quantisation, dtype)
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        text = config.get_text_config()
        kind: Any = AutoModelForCausalLM
        if text is not config:  # eyes, ears and a language model: the last one alone
            kind = _text_class(text)
            options |= {
                "config": text,
                "key_mapping": {r"^(model\.language_model|language_model\.model)\.": "model."},
            }
        lm, report = kind.from_pretrained(model, **options)
    except (*_MISREAD, SafetensorError, StrictDataclassError) as error:
        raise AvalignError(
            f"model.llm.model: {model!r} could not be loaded as a causal language model. It is neither "
            f"a folder with config.json, tokenizer and safetensors nor a hub id that is reachable or "
            f"cached (fetch it with `hf download {model}`). The library says: "
            f"{' '.join(str(error).split())[:300] or type(error).__name__}"
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
    parts = ("model.", "lm_head.") if text is not config else ("",)
    extra = sorted(name for name in report["unexpected_keys"] if name.startswith(parts))
    if extra:
        raise AvalignError(
            f"model.llm.model: {model!r} holds {len(extra)} weights that its architecture "
            f"({type(lm).__name__}) has no place for: {', '.join(extra[:5])}"
        )
    if not all(map(is_finite, lm.state_dict().values())):
        _refuse_files(model)
        refuse_not_finite(model, lm.state_dict())
    return _greedy(lm)


def _refuse_files(model: str) -> None:
    """AvalignError that names the file, of a model that is known to hold nan or infinity."""
    from transformers.utils import cached_file

    folder = Path(cached_file(model, "config.json")).parent
    for file in sorted(folder.glob("*.safetensors")):
        refuse_not_finite(file, read_tensors(file))


def _initialised(model: str, config: dict[str, Any] | None, dtype: str) -> Any:
    """The same model with random weights (none at all on the meta device)."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    changes = dict(config or {})
    fields: dict[str, Any] = dict(SHAPES.get(model, {}))
    if "model_type" in changes:
        fields = {}
    elif Path(model).is_dir() or not fields:
        try:
            fields = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config().to_dict()
        except (*_MISREAD, StrictDataclassError) as error:
            raise AvalignError(
                f"model.llm.model: the shapes of {model!r} are not known: it is no folder with config.json, "
                f"no hub id that is reachable or cached, and not in avalign/llm/shapes.py."
                f"{suggest(model, SHAPES)} Or give `config` with model_type. The library says: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
    if "num_hidden_layers" in changes:
        fields.pop("layer_types", None)  # of as many layers as there were
    fields |= changes
    kind = fields.pop("model_type")
    try:
        stock = AutoConfig.for_model(kind)
        unknown = [name for name in changes if name != "model_type" and not hasattr(stock, name)]
        if unknown:
            raise AvalignError(
                f"model.llm.config: a {kind} model has no field {unknown[0]!r}."
                f"{suggest(unknown[0], stock.to_dict())}"
            )
        settings = AutoConfig.for_model(kind, **fields).get_text_config()
        chosen = (settings.dtype or "float32") if dtype == "auto" else dtype
        lm = AutoModelForCausalLM.from_config(settings, dtype=chosen)
    except (ValueError, KeyError, TypeError, ArithmeticError, StrictDataclassError) as error:
        why = " ".join(str(error).split())
        raise AvalignError(f"model.llm.config: no language model can be built from it: {why}") from error
    return _greedy(lm)


def _text_class(config: Any) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def _greedy(lm: Any) -> Any:
    """Without what released models bring along for generation (sampling, a penalty): of it, the ends stay."""
    from transformers import GenerationConfig

    stock = lm.generation_config
    lm.generation_config = GenerationConfig(
        bos_token_id=stock.bos_token_id, eos_token_id=stock.eos_token_id, pad_token_id=stock.pad_token_id
    )
    return lm


# ---- quantisation ---------------------------------------------------------------------------------


def _check_quantisation(quantisation: str, tuning: str, pretrained: bool, dora: bool) -> None:
    option = f"model.llm.quantisation: {quantisation}"
    if tuning == "full":
        raise AvalignError(f"{option} weights cannot learn: `tuning: full` needs `quantisation: none`.")
    if not pretrained:
        raise AvalignError(f"{option} is of released weights: it needs `pretrained: true`.")
    if dora and quantisation == "8bit":  # bitsandbytes 0.50 loses the scales once peft 0.21 has read them
        raise AvalignError(f"{option} weights do not go with `dora`: take 4bit or none.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise AvalignError(
            f"{option} needs the package 'bitsandbytes', which is not installed: pip install bitsandbytes"
        )


def _quantised(quantisation: str, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if quantisation == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else getattr(torch, dtype),
    )
