"""What a fusion gives, as plain tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def fused_tensors(fused: Any) -> list[Tensor]:
    maps = [one for one in (fused.image_map, fused.audio_map) if one is not None]
    return [fused.image.values, fused.audio.values, *maps]
