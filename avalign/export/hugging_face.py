"""A finished run as plain Hugging Face folders with a model card: `avalign export runs/x --out x --merge`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from avalign.config.portable import paths_of, portable
from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read, write
from avalign.config.saved_recipe import components
from avalign.errors import AvalignError
from avalign.export.card import write_card
from avalign.export.load import (
    CARD,
    CONFIG,
    CONNECTOR,
    LLM,
    connector_weights,
    is_exported,
    load,
    load_exported,
)
from avalign.llm.lora import merged
from avalign.local_components import beside
from avalign.model.build import trained_parts
from avalign.model.model import ADAPTER, PARTS, TOKENIZER, WEIGHTS, AudioVisualLM
from avalign.system.atomic_write import atomic_write, share
from avalign.system.json_file import json_if_there, read_json
from avalign.system.versions import versions
from avalign.types import Sample

# that merging brings, as a share of the logits' size: bfloat16 has 8 bits, through many layers
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def export(run: Path, out: Path, merge: bool = False, overwrite: bool = False) -> Path:
    """Write `out` from a finished run, whole or not at all. `avalign.load(out)` answers as the run does:
    it is read back, and asked.

    merge:     the language model whole, LoRA added into its weights; without it, LoRA apart in adapter/, and
               a model that was not trained not at all
    overwrite: an earlier export
    """
    out = out.resolve()
    _check_destination(run, out, overwrite)
    if is_exported(run):
        raise AvalignError(f"{run} was exported from a run: export that one")
    model = load(run).cpu()
    recipe = read(run / "recipe.yaml")
    _check_merge(run, model, merge)
    # quantised weights are multiplied by no CPU for certain, and are not in an export
    said = None if model.llm.quantisation != "none" else _logits(model)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write(unfinished, run, model, recipe, merge)
        del model  # of the two, one in memory at a time
        if said is not None:
            _refuse_another(run, said, _logits(load_exported(unfinished, paths_of(recipe)).eval()))
        if out.exists() and any(out.iterdir()):
            before = out.with_name(f".{out.name}.before")
            shutil.rmtree(before, ignore_errors=True)
            out.rename(before)
            unfinished.rename(out)
            shutil.rmtree(before)
        else:
            unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _check_destination(run: Path, out: Path, overwrite: bool) -> None:
    if out.is_relative_to(run.resolve()) or run.resolve().is_relative_to(out):
        raise AvalignError(f"--out {out}: lies in the run, or the run in it; name a folder beside it")
    if out.exists() and not out.is_dir():
        raise AvalignError(f"--out {out}: is a file")
    if not out.exists() or not any(out.iterdir()):
        out.parent.mkdir(parents=True, exist_ok=True)
    elif not is_exported(out):
        raise AvalignError(f"--out {out}: holds files that are no export; name another folder")
    elif not overwrite:
        raise AvalignError(f"--out {out}: holds an export already; name another folder, or --overwrite it")


def _check_merge(run: Path, model: AudioVisualLM, merge: bool) -> None:
    llm = model.llm
    if merge and model.llm.quantisation != "none":
        raise AvalignError(
            f"{run}: LoRA merged into {model.llm.quantisation} weights would be rounded away in part: export "
            f"without --merge, and put adapter/ on the whole model"
        )
    if not merge and llm.adapted and not llm.pretrained:
        raise AvalignError(
            f"{run}: its language model began as random weights, which are nowhere else: --merge"
        )


def _logits(model: AudioVisualLM) -> Tensor:
    """What it says to a question about noise, seen and heard. (t, vocabulary), centred over the vocabulary"""
    random = np.random.default_rng(0)
    sample = Sample(
        "question",
        "avqa",
        "<image><audio>What is heard, and where is it?",
        "",
        image=random.integers(0, 256, (64, 64, 3), dtype=np.uint8),
        audio=random.normal(0, 0.1, 4_000).astype(np.float32),
    )
    with torch.no_grad():
        logits = model(model.collator().prompts([sample])).logits[0]
    return logits - logits.float().mean(-1, keepdim=True).to(logits.dtype)


def _refuse_another(run: Path, said: Tensor, again: Tensor) -> None:
    """AvalignError unless the export, read back, says what the run does, but for rounding."""
    before = said.double()
    apart = float((before - again.double()).norm() / before.norm().clamp(min=1e-30))
    if not apart <= ROUNDING[said.dtype]:  # nan is not
        raise AvalignError(
            f"{run}: the export, read back, answers otherwise than the run does (logits differ by "
            f"{apart:.2g} of their size): it is not kept"
        )


def _write(folder: Path, run: Path, model: AudioVisualLM, recipe: Recipe, merge: bool) -> None:
    folder.mkdir(parents=True)
    away = portable(recipe, folder)
    write(away, folder / "recipe.yaml")
    described = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["model"]
    _write_connector(folder / CONNECTOR, run, model, recipe, described)
    _write_llm(folder, model, merge)
    model.llm.tokenizer.save_pretrained(folder / TOKENIZER)
    write_card(folder / CARD, run, folder, model, _named_from(away, folder))
    _forget_paths(folder)
    share(folder, (file for file in folder.rglob("*") if file.is_file()))


def _named_from(recipe: Recipe, folder: Path) -> Recipe:
    """Components from files named as in the export's recipe.yaml, for people to read."""
    for component in components(recipe):
        component.name = beside(component.name, folder)
    return recipe


def _forget_paths(folder: Path) -> None:
    """transformers and peft note where a model was loaded from; a folder of this machine is no name."""
    for file in (*folder.rglob("*config.json"), *folder.rglob("tokenizer*.json")):
        if file.name == "tokenizer.json":
            continue
        told = read_json(file)
        for key in ("name_or_path", "_name_or_path", "base_model_name_or_path"):
            path = told.get(key)
            if isinstance(path, str) and Path(path).is_absolute():
                told[key] = Path(path).name
                atomic_write(file, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def _write_connector(
    folder: Path, run: Path, model: AudioVisualLM, recipe: Recipe, described_model: dict[str, Any]
) -> None:
    folder.mkdir()
    weights = {
        name: weight.detach().contiguous() for name, weight in connector_weights(model, recipe).items()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    held = {name.partition(".")[0] for name in weights}
    described = {
        "model": described_model,
        "stock": [
            part
            for part in PARTS[:-1]
            if part not in held and any(True for _ in getattr(model, part).parameters())
        ],
        "trained": sorted(trained_parts(recipe)),
        "weights": {
            name: {"shape": list(weight.shape), "dtype": str(weight.dtype).removeprefix("torch.")}
            for name, weight in weights.items()
        },
        "versions": {"trained": json_if_there(run / "versions.json"), "exported": versions()},
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _write_llm(folder: Path, model: AudioVisualLM, merge: bool) -> None:
    from transformers import GenerationConfig

    llm = model.llm
    lm: Any = llm.lm
    adapted = llm.adapted
    if adapted and not merge:
        model.save_adapter(folder / ADAPTER)
        (folder / ADAPTER / CARD).unlink(missing_ok=True)  # peft's own, a form with nothing filled in
        return
    if not merge and llm.pretrained:
        return  # as it was released
    if adapted:
        lm = merged(lm)
    lm.generation_config = GenerationConfig(
        bos_token_id=llm.tokenizer.bos_token_id, eos_token_id=llm.end_ids, pad_token_id=llm.pad_id
    )
    lm.save_pretrained(folder / LLM)
    llm.tokenizer.save_pretrained(folder / LLM)
