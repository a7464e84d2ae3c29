"""Fewer image tokens for the language model: neighbouring patches are averaged, then mapped."""

from __future__ import annotations

import torch
from torch import nn

from avalign.batch import Tokens


class Pool(nn.Module):
    """Mean of every `factor` x `factor` patches, or of `factor`^2 neighbours in time, then one linear map.

    (b, n, dim_in) -> (b, n / factor^2, dim_out), frame by frame

    factor: patches a side that become one token. The patches must be a square grid whose side it divides; of
            a sound, factor^2 tokens become one
    """

    def __init__(self, dim_in: int, dim_out: int, *, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(dim_in, dim_out)

    def token_count(self, n: int, frames: int = 1) -> int:
        if n % (frames * self.factor**2):
            raise ValueError(self._unfit(n, frames))
        return n // self.factor**2

    def _unfit(self, n: int, frames: int) -> str:
        return (
            f"projector 'pool' with factor {self.factor} needs a square grid of patches whose side it "
            f"divides, or sounds of a multiple of {self.factor**2} tokens; this encoder has {n} tokens"
            + (f" in {frames} frames" if frames > 1 else "")
        )

    def forward(self, tokens: Tokens) -> Tokens:
        b, n, d = tokens.values.shape
        count, f, where, when = self.token_count(n, tokens.frames), self.factor, tokens.where, tokens.when
        if where is not None and where.shape[1] == 2:  # a sound: tokens in order of time
            values = self.linear(tokens.values.view(b, count, f * f, d).mean(2))
            where = torch.stack([where[:: f * f, 0], where[f * f - 1 :: f * f, 1]], 1)
            return Tokens(values, tokens.mask.view(b, count, f * f).all(-1), where)
        side = round((n // tokens.frames) ** 0.5)
        if side * side * tokens.frames != n or side % f:
            raise ValueError(self._unfit(n, tokens.frames))
        rows = tokens.frames * side // f  # frames lie below each other, as one tall picture
        cells = (b, rows, f, side // f, f)
        values = self.linear(tokens.values.view(*cells, d).mean((2, 4)).view(b, count, d))
        mask = tokens.mask.view(cells).transpose(2, 3).reshape(b, count, f * f).all(-1)
        if where is not None:
            grid = where.view(*cells[1:], 4)
            where = torch.cat([grid[:, 0, :, 0, :2], grid[:, -1, :, -1, 2:]], -1).reshape(count, 4)
        if when is not None:
            when = when.view(cells)[:, :, 0, :, 0].reshape(b, count)
        return Tokens(values, mask, where, tokens.frames, when)
