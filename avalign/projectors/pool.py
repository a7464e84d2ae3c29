"""Fewer image tokens for the language model: neighbouring patches are averaged, then mapped."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import nn

from avalign.interfaces import Projector
from avalign.layers.pooling import pooled_spans
from avalign.types import Tokens


class Pool(nn.Module, Projector):
    """Mean of every `factor` x `factor` patches, or of `factor`^2 neighbours in time, then one linear map.

    (b, n, dim_in) -> (b, n / factor^2, dim_out), frame by frame

    factor: patches a side that become one token. The patches must be a square grid whose side it divides; of
            audio, factor^2 tokens become one
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
            f"divides, or audio of a multiple of {self.factor**2} tokens; this encoder has {n} tokens"
            + (f" in {frames} frames" if frames > 1 else "")
        )

    def forward(self, tokens: Tokens) -> Tokens:
        n = tokens.values.shape[1]
        self.token_count(n, tokens.frames)  # refuses what does not fit
        f, boxes, times, frame_times = self.factor, tokens.boxes, tokens.times, tokens.frame_times
        if times is not None:  # audio: tokens in order of time
            values = self.linear(reduce(tokens.values, "b (n each) d -> b n d", "mean", each=f * f))
            mask = rearrange(tokens.mask, "b (n each) -> b n each", each=f * f).all(-1)
            return Tokens(values, mask, times=pooled_spans(times, f * f))
        side = round((n // tokens.frames) ** 0.5)
        if side * side * tokens.frames != n or side % f:
            raise ValueError(self._unfit(n, tokens.frames))
        cells = "(rows y columns x)"  # frames lie below each other, as one tall image
        sides = {"y": f, "x": f, "columns": side // f}
        values = self.linear(reduce(tokens.values, f"b {cells} d -> b (rows columns) d", "mean", **sides))
        mask = rearrange(tokens.mask, f"b {cells} -> b (rows columns) (y x)", **sides).all(-1)
        if boxes is not None:
            first, *_, last = rearrange(boxes, f"{cells} corners -> (y x) (rows columns) corners", **sides)
            boxes = torch.cat([first[:, :2], last[:, 2:]], -1)
        if frame_times is not None:
            frame_times = rearrange(frame_times, f"b {cells} -> (y x) b (rows columns)", **sides)[0]
        return Tokens(values, mask, boxes=boxes, frames=tokens.frames, frame_times=frame_times)
