"""Where tokens lie: boxes of patches in 0..1 of the image, spans of audio tokens in seconds."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_boxes(rows: int, columns: int) -> Tensor:
    """Row by row from the top left. -> (rows * columns, 4) x_left, y_top, x_right, y_bottom in 0..1"""
    top, left = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corners = torch.stack([left / columns, top / rows, (left + 1) / columns, (top + 1) / rows], -1)
    return corners.reshape(rows * columns, 4)


def spans(count: int, seconds: float) -> Tensor:
    """Equal segments of a clip. -> (count, 2) start and end in seconds"""
    edges = torch.linspace(0, seconds, count + 1)
    return torch.stack([edges[:-1], edges[1:]], -1)


def spans_about(middles: Tensor, seconds: float) -> Tensor:
    """Segments of a clip nearer to their own middle than to another's. (m,) s -> (m, 2) start and end in s

    For tokens that overlap: they go on from each other, from 0 to the end of the clip.
    """
    between = (middles[1:] + middles[:-1]) / 2
    edges = torch.cat([between.new_zeros(1), between, between.new_full((1,), seconds)])
    return torch.stack([edges[:-1], edges[1:]], -1)


def within(times: Tensor, seconds: Tensor | None, batch: int) -> Tensor:
    """Which tokens begin before their clip ends. (m, 2), (b,) or None -> (b, m) bool"""
    if seconds is None:
        return torch.ones(batch, len(times), dtype=torch.bool, device=times.device)
    return times[None, :, 0] < seconds[:, None].to(times)
