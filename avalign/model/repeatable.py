"""Whether a preprocessing makes the same of the same medium, and all that decides what it makes."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np
import torch

import avalign

DECODERS = ("av", "numpy", "pillow", "soundfile", "soxr", "torch", "torchvision")  # whose versions may count
ROOMS = ("data", "encoders", "media")  # of avalign: what turns a file into an encoder's input
TRIES = 4


def identity(preprocessing: Callable[..., Any], *example: Any) -> bytes | None:
    """A hash of its settings and its code, of avalign's and of the decoders' versions; None where there is
    none, as what it makes of the example is not the same each time, or it cannot be pickled."""
    try:
        settings = pickle.dumps(preprocessing, protocol=4)
        if not _same_each_time(preprocessing, example):
            return None
    except Exception:  # of a stranger's code: then everything is decoded, and its error is met there
        return None
    digest = blake2b(settings, digest_size=16)
    for module in sorted({text for _, text, _ in genops(settings) if text in sys.modules}):
        digest.update(_code(getattr(sys.modules[module], "__file__", None)))
    digest.update(_readers())
    return digest.digest()


def _same_each_time(preprocessing: Callable[..., Any], example: tuple[Any, ...]) -> bool:
    """Also that it draws nothing from the shared random generators, which are left as they were."""
    before = _random_states()
    try:
        first, *others = [preprocessing(*example) for _ in range(TRIES)]
        return all(torch.equal(first, other) for other in others) and _are_same(before, _random_states())
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002  (whatever a stranger's code draws from)
        torch.set_rng_state(before[2])


def _random_states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _are_same(states: tuple[Any, Any, torch.Tensor], others: tuple[Any, Any, torch.Tensor]) -> bool:
    numpys = zip(states[1], others[1], strict=True)
    return (
        states[0] == others[0]
        and all(np.array_equal(one, other) for one, other in numpys)
        and torch.equal(states[2], others[2])
    )


@cache
def _readers() -> bytes:
    """What reads media, in the versions that are at work."""
    digest = blake2b(digest_size=16)
    for name in DECODERS:
        try:
            digest.update(f" {name} {version(name)}".encode())
        except PackageNotFoundError:
            digest.update(f" {name} -".encode())
    house = Path(avalign.__file__).parent
    for file in sorted(file for room in ROOMS for file in (house / room).rglob("*.py")):
        digest.update(_code(str(file)))
    return digest.digest()


def _code(file: str | None) -> bytes:
    try:
        return b"" if file is None else blake2b(Path(file).read_bytes(), digest_size=16).digest()
    except OSError:  # of a package within an archive: its version has to do
        return b""
