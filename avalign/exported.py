"""The way back from an exported folder (avalign/export.py writes it) to the model that answers.

exported/
    README.md           model card
    recipe.yaml         what was trained and how
    connector/          weights.safetensors of all parts but the language model; config.json has their shapes
    llm/                the language model as transformers writes one: once merged, or if it is the run's own
    adapter/            or LoRA as peft writes it, to be put on the model that the recipe names
    tokenizer/          with its chat template
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from avalign import registry
from avalign.build import build_model, trained_parts
from avalign.errors import AvalignError
from avalign.llm.huggingface import HuggingFaceLlm, released
from avalign.model import ADAPTER, TOKENIZER, WEIGHTS, AudioVisualLM, read_weights
from avalign.recipe import Recipe
from avalign.recipe_io import read

CONNECTOR, LLM, CONFIG, CARD = "connector", "llm", "config.json", "README.md"


def is_exported(folder: Path) -> bool:
    return (folder / CONNECTOR / CONFIG).is_file()


def connector_weights(model: AudioVisualLM, recipe: Recipe) -> dict[str, Tensor]:
    """Those of all parts but the language model. Stock ones that no stage trained stay where they were."""
    own = model.own_weights(trained_parts(recipe))
    return {name: weight for name, weight in own.items() if not name.startswith("llm.")}


def load_exported(folder: Path) -> AudioVisualLM:
    """The model of an exported folder, on the CPU. It answers as the run does that it was exported from."""
    recipe = read(folder / "recipe.yaml")
    released = issubclass(registry.load("llm", recipe.model.llm.name), HuggingFaceLlm)
    whole = (folder / LLM).is_dir()
    if whole and released:
        recipe = _with_llm(recipe, folder / LLM)
    model = build_model(recipe, folder / TOKENIZER)
    if whole and not released:
        _read_llm(model.llm.lm, folder / LLM)
    read_weights(model, folder / CONNECTOR / WEIGHTS, connector_weights(model, recipe))
    model.load_adapter(folder / ADAPTER)
    return model


def _with_llm(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the exported language model in place of the released one it began as."""
    changed = {"model": str(folder), "pretrained": True, "config": None, "tokenizer": None, "dtype": "auto"}
    changed |= {"tuning": "frozen", "dora": False, "quantisation": "none"}
    llm = replace(recipe.model.llm, options={**recipe.model.llm.options, **changed})
    return replace(recipe, model=replace(recipe.model, llm=llm))


def _read_llm(lm: Any, folder: Path) -> None:
    """Weights into a language model that its own component has built: all of them, and no others."""
    try:
        lm.load_state_dict(released(str(folder)).state_dict())
    except RuntimeError as error:
        raise AvalignError(
            f"{folder}: not the language model of {folder.parent / 'recipe.yaml'}: {error}"
        ) from error
