"""How near is near enough: one row per dtype, with its reason. Tests take theirs from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Tolerance:
    absolute: float
    relative: float
    reason: str


TOLERANCES = {
    torch.float64: Tolerance(
        1e-8, 1e-8, "what a solve to a marginal error of 1e-10 leaves in potentials and values"
    ),
    torch.float32: Tolerance(
        2e-5, 1e-4, "a hundred roundings of 6e-8, through exp(C / epsilon) at epsilon >= 0.02"
    ),
    torch.float16: Tolerance(5e-4, 3e-3, "inputs rounded to 11 bits (2.5e-4 each); sums are in float32"),
    torch.bfloat16: Tolerance(4e-3, 2e-2, "inputs rounded to 8 bits (2e-3 each); sums are in float32"),
}

PARTS_OF_SOUND = {  # a part of a file against that part of all of it, absolute, of samples in [-1, 1]
    "exact": Tolerance(1e-7, 0, "the decoder is in the same state: PCM, FLAC, AAC, MP3, Opus, Vorbis"),
    "mp2": Tolerance(3.1e-5, 0, "FFmpeg's decoder rounds to 16 bits, and carries what it rounded off"),
    "ac3": Tolerance(0.03, 0, "what the encoder left out is noise that decoders draw anew, as in E-AC-3"),
}
RESAMPLED = Tolerance(1e-5, 0, "soxr's float32 filter, and its ends' remainder 20 ms away: -100 dB")


def assert_close(actual: Any, expected: Any, dtype: torch.dtype = torch.float64) -> None:
    """Values (not dtypes) agree as far as `dtype` lets them."""
    row = TOLERANCES[dtype]
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64).detach(),
        torch.as_tensor(expected, dtype=torch.float64).detach(),
        atol=row.absolute,
        rtol=row.relative,
    )
