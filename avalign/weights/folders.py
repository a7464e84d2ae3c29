"""Models in transformers' format, from a local folder or the hub: configuration, extractor and weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from avalign.errors import AvalignError, suggest
from avalign.interfaces import AudioEncoder
from avalign.system.json_file import read_json
from avalign.weights.pretrained import Loaded, load_all, model_file, read_weights


class StockTower(nn.Module, AudioEncoder):
    """An encoder around a model of transformers, which is its `model`.

    `loaded` is the report of what was loaded, None for random weights. Frozen, it keeps to evaluation mode:
    no dropout, and no batch norm that learns from every batch. Its own buffers, which are times and filters,
    stay in float32 whatever its weights are cast to: bfloat16 has no 29.98 s.
    """

    model: nn.Module

    @property
    def pretrained(self) -> bool:  # type: ignore[override]
        """Whether all its weights can be had again from where they came; else a run keeps its own."""
        return self.loaded is not None and self.loaded.complete

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            exact = before[name]
            if buffer is not None and exact is not None and buffer.dtype != exact.dtype:
                self._buffers[name] = exact.to(buffer.device)
        return self


def config_of(
    kinds: Mapping[str, type[Any]],
    model: str,
    *,
    pretrained: bool,
    changes: dict[str, Any] | None,
    stock: Mapping[str, Mapping[str, Any]],
    part: str = "",
) -> Any:
    """The configuration of `model` with `changes`, as one of transformers' classes.

    kinds:   model_type -> configuration class, those that the encoder takes
    changes: fields in place of the model's, for random weights only
    stock:   hub id -> the fields in which it differs from the first class's defaults: with random weights
             the hub is not asked for these, nor for one whose fields are given
    part:    field of a larger model's configuration that holds the tower's
    """
    if changes is not None and pretrained:
        raise AvalignError("option 'config' changes a model's shapes, so it needs `pretrained: false`.")
    fields: dict[str, Any] = {"model_type": next(iter(kinds)), **stock.get(model, {})}
    if pretrained or _is_folder(model) or not (model in stock or changes):
        file = model_file(model, "config.json")
        found = read_json(file)
        fields = {"model_type": next(iter(kinds)), **found[part]} if part in found else found
        if fields.get("model_type") not in kinds:
            raise AvalignError(
                f"{file}: is not the configuration of a model that this encoder takes: its model_type is "
                f"{fields.get('model_type')!r}. Known: {', '.join(kinds)}."
            )
    fields |= changes or {}
    kind = kinds.get(fields["model_type"])
    if kind is None:
        raise AvalignError(f"option 'config': model_type{suggest(str(fields['model_type']), kinds)}")
    known = kind().to_dict()
    for name in sorted(set(changes or {}) - set(known)):
        raise AvalignError(f"option 'config': {kind.__name__} has no field '{name}'.{suggest(name, known)}")
    try:
        return kind.from_dict(fields)
    except Exception as error:  # each class has its own checks
        raise AvalignError(f"{kind.__name__}: {' '.join(str(error).split())}") from error


def extractor_of(
    kind: type[Any],
    model: str,
    *,
    pretrained: bool,
    changes: dict[str, Any] | None,
    stock: Collection[str],
    otherwise: Callable[[], Any],
) -> Any:
    """transformers' feature extractor: the model's own; `otherwise` for random weights in shapes that are
    changed, or of a model in `stock`, which the hub is not asked for."""
    if not pretrained and (changes or (model in stock and not _is_folder(model))):
        return otherwise()
    found = read_json(model_file(model, "preprocessor_config.json", "processor_config.json"))
    return kind.from_dict(found.get("feature_extractor", found))


def load_tower(
    tower: nn.Module,
    model: str,
    prefixes: Collection[str],
    *,
    min_loaded: float,
    without: Mapping[str, tuple[str, ...]] | None = None,
    first: Mapping[str, int] | None = None,
) -> Loaded:
    """Load the weights of `tower`, from a file of the tower alone or of a larger model.

    prefixes: what the tower's names begin with in larger models; if some weights' do, the others are heads
    without:  reason -> beginnings of names, within the tower, of weights to leave out for it
    first:    name -> how many of its first rows are wanted
    """
    file = model_file(model, "model.safetensors", "pytorch_model.bin")
    found = read_weights(file)
    inner, heads = inner_weights(found, prefixes)
    weights = named_as_in(tower, inner)
    dropped = {"of the larger model": heads}
    for reason, beginnings in (without or {}).items():
        dropped[reason] = [name for name in weights if name.startswith(beginnings)]
        weights = {name: weight for name, weight in weights.items() if not name.startswith(beginnings)}
    for name, rows in (first or {}).items():
        if name in weights:
            weights[name] = weights[name][:rows]
    return load_all(tower, weights, file, min_loaded=min_loaded, dropped=dropped)


def inner_weights(
    weights: Mapping[str, Tensor], prefixes: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Those that begin with the first of `prefixes` that any begins with, without it; and the others' names.

    All of them where none begins with one.
    """
    for prefix in prefixes:
        inner = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        if inner:
            return inner, [name for name in weights if not name.startswith(prefix)]
    return dict(weights), []


def named_as_in(tower: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of `tower`, where files keep those of earlier releases of transformers (AST's layers,
    the weight norm of wav2vec 2.0)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [r for r in get_model_conversion_mapping(tower) if isinstance(r, WeightRenaming)]
    return {rename_source_key(name, renamings, [])[0]: weight for name, weight in weights.items()}


def _is_folder(model: str) -> bool:
    return Path(model).expanduser().is_dir()
