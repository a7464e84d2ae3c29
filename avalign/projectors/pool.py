"""Fewer image tokens for the language model: neighbouring patches are averaged, then mapped."""

from __future__ import annotations

import torch
from torch import nn

from avalign.batch import Tokens


class Pool(nn.Module):
    """Mean of every `factor` x `factor` patches, then one linear map.

    (b, n, dim_in) -> (b, n / factor^2, dim_out), frame by frame

    factor: patches a side that become one token. The patches must be a square grid whose side it divides
    """

    def __init__(self, dim_in: int, dim_out: int, *, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(dim_in, dim_out)

    def token_count(self, n: int, frames: int = 1) -> int:
        side = round((n // frames) ** 0.5)
        if side * side * frames != n or side % self.factor:
            raise ValueError(
                f"projector 'pool' with factor {self.factor} needs a square grid of patches whose side it "
                f"divides; this encoder has {n} tokens" + (f" in {frames} frames" if frames > 1 else "")
            )
        return n // self.factor**2

    def forward(self, tokens: Tokens) -> Tokens:
        b, n, d = tokens.values.shape
        count, f = self.token_count(n, tokens.frames), self.factor
        side = round((n // tokens.frames) ** 0.5)
        rows = tokens.frames * side // f  # frames lie below each other, as one tall picture
        cells = (b, rows, f, side // f, f)
        values = self.linear(tokens.values.view(*cells, d).mean((2, 4)).view(b, count, d))
        mask = tokens.mask.view(cells).transpose(2, 3).reshape(b, count, f * f).all(-1)
        where = tokens.where
        if where is not None:
            grid = where.view(*cells[1:], 4)
            where = torch.cat([grid[:, 0, :, 0, :2], grid[:, -1, :, -1, 2:]], -1).reshape(count, 4)
        when = tokens.when
        if when is not None:
            when = when.view(cells)[:, :, 0, :, 0].reshape(b, count)
        return Tokens(values, mask, where, tokens.frames, when)
