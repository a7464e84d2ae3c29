"""Tensors of safetensors files: whole, finite, and of the kind that is wanted; what is not is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avalign.errors import AvalignError


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU. AvalignError names a file that is cut or no safetensors file."""
    if file.is_dir():
        raise AvalignError(f"{file}: is a folder, not a safetensors file")
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 (no iterator)
    except FileNotFoundError:
        raise AvalignError(f"{file}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise AvalignError(
            f"{file}: not a complete safetensors file: it is cut, or is not a safetensors file ({error})"
        ) from error


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of it is nan or infinite. As fast as memory is read; integers always are."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    wide = tensor.float() if tensor.dtype.itemsize < 2 else tensor  # torch compares no numbers of 8 bits
    low, high = torch.aminmax(wide.detach())
    return bool(torch.isfinite(low) and torch.isfinite(high))  # a nan is both the least and the most


def refuse_not_finite(source: object, tensors: Mapping[str, Tensor]) -> None:
    """AvalignError that names the tensors of `source` which hold nan or infinity, if there are some."""
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        names = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        held = "1 tensor holds" if len(broken) == 1 else f"{len(broken)} tensors hold"
        raise AvalignError(f"{source}: {held} nan or infinity: {names}.")
