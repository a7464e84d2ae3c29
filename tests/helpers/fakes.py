"""Small components under the shipped names, so that recipes are tested without the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from avalign import registry

SOURCE = '''
from __future__ import annotations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from pydantic import Field
if TYPE_CHECKING:
    from torch import Tensor

class Plain:
    """A part without options."""

class Mlp:
    """Linear maps with GELU between.

    Shapes: (b, n, d)
    """
    def __init__(self, dim_in: Tensor, dim_out: int, *, hidden: int = 4096,
                 depth: Annotated[int, Field(gt=0)] = 2): ...

class Fusion:
    """Cross attention."""
    def __init__(self, dim: int, *, heads: int = 4, dropout: float = 0.0,
                 kind: Literal["pre", "post"] = "pre", betas: tuple[float, float] = (0.9, 0.99),
                 gate: bool = True, names: list[str] | None = None, size: int | str = 7,
                 cache: Path | None = None, strange: object = object(), odd: int = None): ...

class Needy:
    """A loss that cannot do without an option."""
    def __init__(self, *, epsilon: float, target: Tensor = None): ...
'''

LOCATIONS = {
    "image_encoder": {"small": "avalign_fakes:Plain"},
    "audio_encoder": {"small": "avalign_fakes:Plain"},
    "projector": {"linear": "avalign_fakes:Plain", "mlp": "avalign_fakes:Mlp"},
    "fusion": {"avace": "avalign_fakes:Fusion", "none": "avalign_fakes:Plain"},
    "loss": {
        "language_modelling": "avalign_fakes:Plain",
        "avopt": "avalign_fakes:Mlp",
        "avace": "avalign_fakes:Plain",
        "needy": "avalign_fakes:Needy",
    },
    "llm": {"small": "avalign_fakes:Plain"},
    "source": {"avworld": "avalign_fakes:Plain"},
}


def install(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the registry ship the fakes above, from a module written into `folder`."""
    write_module(patch, folder, "avalign_fakes", SOURCE)
    patch.setattr(registry, "SHIPPED", LOCATIONS)


def write_module(patch: pytest.MonkeyPatch, folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, name, raising=False)
