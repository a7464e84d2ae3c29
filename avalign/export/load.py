"""From a run, or the folder that an export wrote (hugging_face.py), to the model that answers.

exported/
    README.md           model card
    recipe.yaml         what was trained and how
    connector/          weights.safetensors of all parts but the language model; config.json has their shapes
    llm/                the language model as transformers writes one: once merged, or if it is the run's own
    adapter/            or LoRA as peft writes it, to be put on the model that the recipe names
    tokenizer/          with its chat template
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avalign import registry
from avalign.config.portable import found_again, needed
from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read
from avalign.config.saved_recipe import changed_files
from avalign.errors import AvalignError
from avalign.llm.huggingface import HuggingFaceLlm, released
from avalign.local_components.trust import trusting
from avalign.model.build import build_model, trained_parts
from avalign.model.model import ADAPTER, TOKENIZER, WEIGHTS, AudioVisualLM
from avalign.system.complete import COMPLETE
from avalign.system.terminal import warn
from avalign.weights.strict import load_exactly

CONNECTOR, LLM, CONFIG, CARD = "connector", "llm", "config.json", "README.md"


def is_exported(folder: Path) -> bool:
    return (folder / CONNECTOR / CONFIG).is_file()


def connector_weights(model: AudioVisualLM, recipe: Recipe) -> dict[str, Tensor]:
    """Those of all parts but the language model. Stock ones that no stage trained stay where they were."""
    own = model.own_weights(trained_parts(recipe))
    return {name: weight for name, weight in own.items() if not name.startswith("llm.")}


def load_exported(folder: Path, known: Mapping[str, str] | None = None) -> AudioVisualLM:
    """The model of an exported folder, on the CPU. It answers as the run does that it was exported from.

    known: where models lie that it builds on, by their folders' last names
    """
    recipe, nowhere = found_again(read(folder / "recipe.yaml"), folder, known)
    released = issubclass(registry.load("llm", recipe.model.llm.name), HuggingFaceLlm)
    has_llm = (folder / LLM).is_dir()
    if has_llm and released:
        recipe = _with_llm(recipe, folder / LLM)
    lacking = [name for name in nowhere if needed(recipe, name)]
    if lacking:  # never asked of the hub, where a stranger may have the same name
        raise AvalignError(
            f"{folder} was exported without {', '.join(lacking)}, which it builds on: put it beside that "
            "folder, or name the folder that holds it in AVALIGN_MODELS"
        )
    model = build_model(recipe, folder / TOKENIZER)
    if has_llm and not released:
        _read_llm(model.llm.lm, folder / LLM)
    load_exactly(model, folder / CONNECTOR / WEIGHTS, connector_weights(model, recipe))
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


def load(run: str | os.PathLike[str], *, trust_code: bool = False) -> AudioVisualLM:
    """The model of a run, ready to answer: `avalign.load("runs/meerkat").generate(image, audio, text)`.

    run:        its folder, or one that `avalign export` wrote
    trust_code: run the Python files that it carries; those this user trained with always run
    """
    with trusting(trust_code):
        return _load_run(Path(run))


def _load_run(folder: Path) -> AudioVisualLM:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if is_exported(folder):
        return load_exported(folder).to(device).eval()
    if not (folder / "recipe.yaml").is_file():
        raise AvalignError(f"{folder} is not the folder of a run: it holds no recipe.yaml.")
    for what in changed_files(folder).values():
        warn(what)
    recipe = read(folder / "recipe.yaml")
    if not (folder / "model" / COMPLETE).exists():
        raise AvalignError(f"{folder}: its training has not finished; go on with --resume --run {folder}")
    model = build_model(recipe, folder / "model" / TOKENIZER)
    model.load(folder / "model", trained_parts(recipe))
    return model.to(device).eval()
