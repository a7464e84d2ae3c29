"""A finished run as plain Hugging Face folders with a model card: `avalign export runs/x --out x --merge`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from avalign.build import trained_parts
from avalign.card import write_card
from avalign.errors import AvalignError
from avalign.exported import CARD, CONFIG, CONNECTOR, LLM, connector_weights, is_exported
from avalign.json_file import json_if_there
from avalign.model import ADAPTER, PARTS, TOKENIZER, WEIGHTS, AudioVisualLM
from avalign.recipe import Recipe
from avalign.recipe_io import dump, read, write
from avalign.train import load
from avalign.versions import versions


def export(run: Path, out: Path, merge: bool = False, overwrite: bool = False) -> Path:
    """Write `out` from a finished run, whole or not at all. `avalign.load(out)` answers as the run does.

    merge:     the language model whole, LoRA added into its weights; without it, LoRA apart in adapter/, and
               a model that was not trained not at all
    overwrite: an earlier export
    """
    out = out.resolve()
    _check_place(run, out, overwrite)
    if is_exported(run):
        raise AvalignError(f"{run} was exported from a run: export that one")
    model = load(run).cpu()
    recipe = read(run / "recipe.yaml")
    _check_merge(run, model, merge)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write(unfinished, run, model, recipe, merge)
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


def _check_place(run: Path, out: Path, overwrite: bool) -> None:
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
    llm: Any = model.llm
    if merge and getattr(llm, "quantisation", "none") != "none":
        raise AvalignError(
            f"{run}: LoRA merged into {llm.quantisation} weights would be rounded away in part: export "
            f"without --merge, and put adapter/ on the whole model"
        )
    if not merge and hasattr(llm.lm, "peft_config") and not llm.pretrained:
        raise AvalignError(
            f"{run}: its language model began as random weights, which are nowhere else: --merge"
        )


def _write(folder: Path, run: Path, model: AudioVisualLM, recipe: Recipe, merge: bool) -> None:
    folder.mkdir(parents=True)
    write(replace(recipe, data=replace(recipe.data, root=None)), folder / "recipe.yaml")
    _write_connector(folder / CONNECTOR, run, model, recipe)
    _write_llm(folder, model, merge)
    model.llm.tokenizer.save_pretrained(folder / TOKENIZER)
    write_card(folder / CARD, run, folder, model, recipe)


def _write_connector(folder: Path, run: Path, model: AudioVisualLM, recipe: Recipe) -> None:
    folder.mkdir()
    weights = {
        name: weight.detach().contiguous() for name, weight in connector_weights(model, recipe).items()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    held = {name.partition(".")[0] for name in weights}
    described = {
        "model": yaml.safe_load(dump(recipe))["model"],
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
    adapted = hasattr(lm, "peft_config")
    if adapted and not merge:
        model.save_adapter(folder / ADAPTER)
        (folder / ADAPTER / CARD).unlink(missing_ok=True)  # peft's own, a form with nothing filled in
        return
    if not merge and llm.pretrained:
        return  # as it was released
    if adapted:
        lm = lm.merge_and_unload(safe_merge=True)
    lm.generation_config = GenerationConfig(
        bos_token_id=llm.tokenizer.bos_token_id, eos_token_id=llm.end_ids, pad_token_id=llm.pad_id
    )
    lm.save_pretrained(folder / LLM)
    llm.tokenizer.save_pretrained(folder / LLM)
