"""Losses and outputs that objectives are tried with."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from avalign.losses import AVACE, AVOpT, LanguageModelling, LossValue
from avalign.losses.objective import (
    Objective,
)
from avalign.types import Batch, Fused, Outputs, Tokens
from tests.helpers.strategies import generator

ROWS, COLUMNS, AUDIO, WIDTH, LENGTH, VOCABULARY = 3, 2, 4, 5, 8, 7


def example(b: int = 4, seed: int = 0) -> tuple[Outputs, Batch, dict[str, nn.Parameter]]:
    """What a model would return for b samples, of which the last two lack an image or a sound."""
    random = generator(seed)

    def learned(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(b, *shape, generator=random, dtype=torch.float64))

    n, m = ROWS * COLUMNS, AUDIO
    parameters = {
        "image": learned(n, WIDTH),
        "audio": learned(m, WIDTH),
        "image_map": learned(m, n),
        "audio_map": learned(n, m),
        "logits": learned(LENGTH, VOCABULARY),
    }
    has_image = torch.tensor([True, True, True, False] * b)[:b]
    has_audio = torch.tensor([True, True, False, True] * b)[:b]
    patches = torch.tensor(
        [
            [x / COLUMNS, y / ROWS, (x + 1) / COLUMNS, (y + 1) / ROWS]
            for y in range(ROWS)
            for x in range(COLUMNS)
        ]
    )
    spans = torch.tensor([[float(i), i + 1.0] for i in range(m)])
    image = Tokens(parameters["image"], has_image[:, None].expand(b, n), boxes=patches)
    audio = Tokens(parameters["audio"], has_audio[:, None].expand(b, m), times=spans)
    labels = torch.randint(0, VOCABULARY, (b, LENGTH), generator=random)
    labels[:, :3] = -100
    batch = Batch(
        image=torch.zeros(b, 3, 4, 4),
        audio=torch.zeros(b, 16),
        has_image=has_image,
        has_audio=has_audio,
        seconds=torch.full((b,), 4.0),
        input_ids=torch.zeros(b, LENGTH, dtype=torch.long),
        attention_mask=torch.ones(b, LENGTH, dtype=torch.long),
        labels=labels,
        boxes=torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 1.0, 0.3]]]).repeat(b, 1, 1),
        box_mask=torch.tensor([[True, True], [True, False], [False, False], [True, True]] * b)[:b],
        intervals=torch.tensor([[[0.5, 2.0]]]).repeat(b, 1, 1),
        interval_mask=torch.tensor([[True], [False], [True], [True]] * b)[:b],
        classes=torch.tensor([7, 8, 7, -1] * b)[:b],
    )
    fused = Fused(image, audio, parameters["image_map"].softmax(2), parameters["audio_map"].softmax(2))
    return Outputs(image, audio, fused, parameters["logits"], labels), batch, parameters


def rows(outputs: Outputs, batch: Batch, part: slice | Tensor) -> tuple[Outputs, Batch]:
    def cut(tokens: Tokens) -> Tokens:
        return replace(tokens, values=tokens.values[part], mask=tokens.mask[part])

    fused = outputs.fused
    return (
        Outputs(
            cut(outputs.image),
            cut(outputs.audio),
            Fused(cut(fused.image), cut(fused.audio), fused.image_map[part], fused.audio_map[part]),
            outputs.logits[part],
            outputs.labels[part],
        ),
        Batch(
            **{
                f.name: None if getattr(batch, f.name) is None else getattr(batch, f.name)[part]
                for f in fields(Batch)
            }
        ),
    )


def meerkat(**weights: float) -> Objective:
    terms = {"language_modelling": LanguageModelling(), "avopt": AVOpT(epsilon=0.3), "avace": AVACE()}
    return Objective({label: (loss, weights.get(label, 1.0)) for label, loss in terms.items()})


class Mean(nn.Module):
    """A loss of someone's own: the mean of the image tokens, times what it was given."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.times = times

    def terms(self, image: Tensor) -> LossValue:
        samples = self.times * image.mean((1, 2))
        return LossValue.of(samples, torch.ones(len(image), dtype=torch.bool))
