"""Weights of a file into a module: all that are expected, no others, each of its shape and kind."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from avalign.errors import AvalignError
from avalign.weights.tensors import read_tensors, refuse_not_finite


def load_exactly(model: nn.Module, file: Path, expected: dict[str, Tensor]) -> None:
    """Those of a file into a module. Anything missing, extra or of another shape is an error, by name."""
    found = read_tensors(file)
    must_fit(file, found, expected)
    model.load_state_dict(found, strict=False)  # compared above, name by name; stock weights are not in it


def must_fit(file: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    wrong = [f"missing {name}" for name in expected if name not in found]
    wrong += [f"unknown {name}" for name in found if name not in expected]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, the recipe makes it {tuple(weight.shape)}"
        for name, weight in expected.items()
        if name in found and found[name].shape != weight.shape
    ]
    wrong += [
        f"{name} is {_kind(found[name])}, the recipe makes it {_kind(weight)}"
        for name, weight in expected.items()
        if name in found and found[name].shape == weight.shape and found[name].dtype != weight.dtype
    ]
    if wrong:
        shown = "; ".join(wrong[:4]) + ("; ..." if len(wrong) > 4 else "")
        raise AvalignError(f"{file}: made by another recipe: {len(wrong)} weights do not fit: {shown}")
    refuse_not_finite(file, found)


def _kind(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")
