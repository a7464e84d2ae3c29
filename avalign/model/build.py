"""From a recipe to a model, its data and its objective: the only wiring there is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalign import registry
from avalign.config.recipe import Component, Recipe
from avalign.errors import AvalignError
from avalign.interfaces import INTERFACES, Source
from avalign.losses.objective import Objective
from avalign.model.feature_cache import FeatureCache
from avalign.model.model import AudioVisualLM
from avalign.offered import completed
from avalign.system.cache import cache_folder


def _make(kind: str, path: str, component: Component, *wired: Any) -> Any:
    """One component, its options by name; what it refuses is reported at its location in the recipe."""
    try:
        made = registry.load(kind, component.name)(*wired, **component.options)
    except (ValueError, TypeError) as error:
        if isinstance(error, AvalignError):
            raise
        raise AvalignError(f"{path}: {kind} {component.name!r}: {error}") from error
    try:
        return completed(made, INTERFACES[kind])
    except AvalignError as error:
        raise AvalignError(f"{path}: {kind} {component.name!r}: {error}") from error


def build_source(recipe: Recipe) -> Source:
    """The source of samples, its data found or generated."""
    source: Source = _make("source", "data.source", recipe.data.source)
    source.on_error = recipe.data.on_error
    source.prepare(recipe.data.root, seed=recipe.seed, workers=max(1, os.cpu_count() or 1))
    asked = {task for stage in recipe.train.stages for task, share in stage.tasks.items() if share}
    asked |= set(recipe.evaluation.tasks)
    unknown = sorted(asked - set(source.tasks))
    if unknown:
        raise AvalignError(
            f"source {recipe.data.source.name!r} has no task {', '.join(unknown)}. "
            f"Known: {', '.join(source.tasks)}"
        )
    return source


def build_model(recipe: Recipe, corpus: Sequence[str] | Path) -> AudioVisualLM:
    """The model as it is before training.

    corpus: what a tokenizer is built from, if the language model builds its own; or the folder of one
    """
    parts = recipe.model
    image = _make("image_encoder", "model.image_encoder", parts.image_encoder)
    audio = _make("audio_encoder", "model.audio_encoder", parts.audio_encoder)
    llm = _make("llm", "model.llm", parts.llm, corpus)
    width = parts.width

    def projector(name: str, dim_in: int, dim_out: int) -> Any:
        return _make("projector", f"model.{name}", getattr(parts, name), dim_in, dim_out)

    model = AudioVisualLM(
        image_encoder=image,
        audio_encoder=audio,
        image_projector=projector("image_projector", image.width, width),
        audio_projector=projector("audio_projector", audio.width, width),
        fusion=_make("fusion", "model.fusion", parts.fusion, width),
        image_connector=projector("image_connector", width, llm.width),
        audio_connector=projector("audio_connector", width, llm.width),
        llm=llm,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        frames=parts.frames,
    )
    _check_room(model)
    if recipe.data.features != "no":
        model.features = FeatureCache(
            cache_folder() / "features",
            dtype=recipe.data.features,
            most=recipe.data.features_gib * 2**30,
            options={
                part: json.dumps([component.name, component.options], sort_keys=True, default=str)
                for part, component in (
                    ("image_encoder", parts.image_encoder),
                    ("audio_encoder", parts.audio_encoder),
                )
            },
        )
    return model


def _check_room(model: AudioVisualLM) -> None:
    """Refuse what no sample can pass: more tokens of image and audio than the language model reads."""
    (image, audio), positions = model.media_tokens(), model.llm.positions
    if positions is not None and image + audio >= positions:
        raise AvalignError(
            f"model.llm: {image} tokens of the image and {audio} of the audio leave no room for text: the "
            f"language model has {positions} positions. Take fewer `frames`, or connectors that give fewer"
        )


def build_objective(recipe: Recipe) -> Objective:
    """Every loss term of the recipe with its weight."""
    return Objective(
        {
            label: (_make("loss", f"losses.{label}", term), term.weight)
            for label, term in recipe.losses.items()
        }
    )


def trained_parts(recipe: Recipe) -> set[str]:
    """The parts that some stage trains: what a run has to save even of a stock model."""
    from avalign.model.model import PARTS

    return {part for stage in recipe.train.stages for part in (stage.train or PARTS)}
