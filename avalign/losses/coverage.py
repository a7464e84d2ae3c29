"""The share of each token's position that the truth covers: boxes over patches, intervals over spans."""

from __future__ import annotations

import torch
from torch import Tensor


def box_coverage(patches: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
    """Share of each patch covered by the union of a sample's boxes, exact: overlaps count once.

    Shapes: patches (n, 4), boxes (b, k, 4), all (left, top, right, bottom) in one unit; mask (b, k),
            True where real -> (b, n) in 0..1
    """
    patches, boxes = _exact(patches), _exact(boxes).masked_fill(~mask[:, :, None], 0)
    # The edges of all boxes cut the plane into cells; a cell lies wholly in a box or wholly outside.
    x, x_in = _cells(boxes[:, :, 0], boxes[:, :, 2])
    y, y_in = _cells(boxes[:, :, 1], boxes[:, :, 3])
    covered = (x_in[:, :, :, None] & y_in[:, :, None, :]).any(1).to(boxes.dtype)
    across = _overlap(patches[:, 0], patches[:, 2], x)
    down = _overlap(patches[:, 1], patches[:, 3], y)
    area = (patches[:, 2] - patches[:, 0]) * (patches[:, 3] - patches[:, 1])
    return _share(torch.einsum("bnx,bxy,bny->bn", across, covered, down), area)


def interval_coverage(spans: Tensor, intervals: Tensor, mask: Tensor) -> Tensor:
    """Share of each token's span that lies inside the union of a sample's intervals.

    Shapes: spans (m, 2), intervals (b, k, 2), (start, end) in s; mask (b, k) -> (b, m) in 0..1
    """
    spans, intervals = _exact(spans), _exact(intervals).masked_fill(~mask[:, :, None], 0)
    edges, inside = _cells(intervals[:, :, 0], intervals[:, :, 1])
    covered = inside.any(1).to(intervals.dtype)
    length = _overlap(spans[:, 0], spans[:, 1], edges)
    return _share(torch.einsum("bmx,bx->bm", length, covered), spans[:, 1] - spans[:, 0])


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _cells(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted edges (b, 2k) and, of the 2k - 1 cells between them, which lie in which (b, k, 2k - 1)."""
    edges = torch.cat([start, end], 1).sort(1).values
    middle = ((edges[:, 1:] + edges[:, :-1]) / 2)[:, None, :]
    return edges, (start[:, :, None] < middle) & (middle < end[:, :, None])


def _overlap(start: Tensor, end: Tensor, edges: Tensor) -> Tensor:
    """Length that each of n spans shares with each cell: (n,), (n,), (b, 2k) -> (b, n, 2k - 1)"""
    left, right = edges[:, None, :-1], edges[:, None, 1:]
    return (torch.minimum(end[:, None], right) - torch.maximum(start[:, None], left)).clamp(min=0)


def _share(covered: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, covered / total.clamp(min=1e-12), 0).clamp(0, 1)
