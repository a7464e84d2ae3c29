"""The Q-Former out of a BLIP-2 or InstructBLIP checkpoint in transformers' format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from avalign.errors import AvalignError
from avalign.system.json_file import read_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# the two models' names for the norm of queries and text
RENAMED = {"embeddings.layernorm.": "layernorm."}
# a word table: our instruction comes embedded, by the LLM
LEFT_OUT = "embeddings.word_embeddings.", "embeddings.position_ids"


@dataclass(frozen=True)
class QFormerCheckpoint:
    """What a checkpoint holds of its Q-Former.

    Shapes: queries (1, q, hidden); positions (p, hidden) of text, or None where it reads none
    """

    source: Path
    settings: dict[str, Any] | None  # the qformer_config of its config.json; None for a file without one
    weights: dict[str, Tensor]  # by the names of transformers' Blip2QFormerModel
    queries: Tensor
    positions: Tensor | None

    @property
    def reads(self) -> int:
        """Width of the tokens that its cross-attention reads."""
        return int(self.weights["encoder.layer.0.crossattention.attention.key.weight"].shape[1])

    @property
    def takes_text(self) -> bool:
        return any(".intermediate." in name for name in self.weights)

    def without_text(self) -> dict[str, Tensor]:
        """The weights that queries pass through."""
        text = (".intermediate.", ".output.dense", ".output.LayerNorm")
        return {
            name: weight
            for name, weight in self.weights.items()
            if "attention." in name or not any(part in name for part in text)
        }


def read_qformer(source: Path) -> QFormerCheckpoint:
    """From a folder (config.json and safetensors, whole or in shards) or one .safetensors file.

    Only the Q-Former's tensors are read: the language model beside them may be many gigabytes.
    AvalignError names what is missing or no safetensors file.
    """
    settings = None
    if source.is_dir():
        settings = _settings(source / CONFIG)
        files = _files(source)
    elif source.is_file():
        files = [source]
    else:
        raise AvalignError(f"{source}: no such file or folder.")
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _read(file)
    prefix = next(
        (name.removesuffix("query_tokens") for name in found if name.endswith("query_tokens")), None
    )
    if prefix is None:
        raise AvalignError(f"{source}: holds no query_tokens, so it is no BLIP-2 or InstructBLIP checkpoint.")
    weights, positions = {}, None
    for name, weight in found.items():
        short = name.removeprefix(prefix).removeprefix("qformer.")
        if short == "embeddings.position_embeddings.weight":
            positions = weight
        elif short != "query_tokens" and not short.startswith(LEFT_OUT):
            for theirs, ours in RENAMED.items():
                short = short.replace(theirs, ours) if short.startswith(theirs) else short
            weights[short] = weight
    checkpoint = QFormerCheckpoint(source, settings, weights, found[f"{prefix}query_tokens"], positions)
    try:
        checkpoint.reads  # noqa: B018 (the one weight that tells)
    except KeyError as error:
        raise AvalignError(f"{source}: its Q-Former has no weight {error}.") from None
    return checkpoint


def _settings(file: Path) -> dict[str, Any]:
    config = read_json(file)
    if not isinstance(config.get("qformer_config"), dict):
        raise AvalignError(f"{file}: has no qformer_config, so it is not of BLIP-2 or InstructBLIP.")
    return dict(config["qformer_config"])


def _files(folder: Path) -> list[Path]:
    """Those files of a folder that hold the Q-Former."""
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise AvalignError(f"{folder / INDEX}: has no weight_map.")
        return sorted({folder / str(file) for name, file in shards.items() if _is_ours(name)})
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise AvalignError(
        f"{folder}: holds no {WEIGHTS} or {INDEX}. Only safetensors are read, others can run code."
    )


def _is_ours(name: str) -> bool:
    return name.endswith("query_tokens") or "qformer." in name or name.startswith("embeddings.position_emb")


def _read(file: Path) -> dict[str, Tensor]:
    """The Q-Former's tensors of one file; the others stay on disk."""
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        raise AvalignError(f"{file}: only .safetensors files are read, others can run code.")
    if not file.is_file():
        raise AvalignError(f"{file}: no such file.")
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys() if _is_ours(name)}  # noqa: SIM118
    except SafetensorError as error:
        raise AvalignError(f"{file}: is not a complete safetensors file: {error}") from error
