"""LoRA on a language model: put on the maps that a recipe names, and added into the weights again."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from torch import nn

from avalign.errors import AvalignError, suggest

# peft's, of an adapter on an output that is also the input embedding; `merged` sees to it
_TIED = "Model has `tie_word_embeddings=True`"


def with_lora(lm: Any, rank: int, alpha: int, dropout: float, targets: str | list[str], dora: bool) -> Any:
    """The model, all of its weights frozen, with low-rank updates that learn."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_targets(lm, targets),
        use_dora=dora,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_TIED)
            return get_peft_model(lm, settings)
    except ValueError as error:
        raise AvalignError(f"model.llm.targets: {error}") from error


def _targets(lm: nn.Module, targets: str | list[str]) -> str | list[str]:
    """Names of linear maps as peft takes them; each one must be there."""
    if targets == "all-linear":
        return targets
    linear = [name.split(".") for name, module in lm.named_modules() if isinstance(module, nn.Linear)]
    if targets == "attention":
        found = {
            path[-1] for path in linear if any("attn" in part or "attention" in part for part in path[:-1])
        }
        if not found:
            raise AvalignError(
                "model.llm.targets: this model has no linear maps in modules called attention: name them."
                f"{suggest('', {path[-1] for path in linear})}"
            )
        return sorted(found)
    asked = [targets] if isinstance(targets, str) else targets
    for name in asked:
        if not any(path[-name.count(".") - 1 :] == name.split(".") for path in linear):
            raise AvalignError(
                f"model.llm.targets: no linear map of this model is called {name!r}."
                f"{suggest(name, {path[-1] for path in linear})} Or all-linear, or attention."
            )
    if not asked:
        raise AvalignError("model.llm.targets: is empty: name at least one linear map, or `tuning: frozen`.")
    return asked


def merged(lm: Any) -> Any:
    """The model with its updates added into its weights: as it answers, and without peft.

    A map that shares its weight with another module, as an output tied to the input embedding, gets one of
    its own first: what was learnt for one of them would change the other too.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = lm.get_base_model()
    holders = Counter(id(weight) for module in base.modules() for weight in module._parameters.values())
    for module in base.modules():
        layer: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else None
        if layer is not None and holders[id(layer.weight)] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    if base.config.tie_word_embeddings and not _is_tied(base):
        base.config.tie_word_embeddings = base.config.get_text_config().tie_word_embeddings = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_TIED)
        return lm.merge_and_unload(safe_merge=True)


def _is_tied(base: Any) -> bool:
    output = base.get_output_embeddings()
    output = output.get_base_layer() if hasattr(output, "get_base_layer") else output
    return output is None or output.weight is base.get_input_embeddings().weight
