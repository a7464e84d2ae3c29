"""One loss out of several: each term gets the tensors its arguments name; the weighted sum is learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from avalign.config.recipe import weight_at
from avalign.errors import AvalignError, suggest
from avalign.interfaces import LossWithTerms
from avalign.losses.coverage import box_coverage, interval_coverage
from avalign.losses.value import LossValue
from avalign.system.terminal import warn
from avalign.types import Batch, Outputs

Weight = float | dict[int, float]


class ObjectiveError(AvalignError):
    """A term that cannot be computed, named with what to change."""


class NonFiniteTerm(ObjectiveError):
    """A term that came out as NaN or infinity."""


class UnreachableTerm(ObjectiveError):
    """A term whose gradient reaches nothing that is being trained: it would be logged and learn nothing."""


# What a loss may name in its `terms`, or its forward if it has none. None: this model or batch has none.
SUPPLIES: dict[str, Callable[[Outputs, Batch], Tensor | None]] = {
    "image": lambda out, batch: out.image.values,  # (b, n, d), projected
    "audio": lambda out, batch: out.audio.values,  # (b, m, d)
    "image_mask": lambda out, batch: out.image.mask,  # (b, n), True where real
    "audio_mask": lambda out, batch: out.audio.mask,  # (b, m)
    "has_image": lambda out, batch: batch.has_image,  # (b,)
    "has_audio": lambda out, batch: batch.has_audio,  # (b,)
    "image_map": lambda out, batch: out.fused.image_map,  # (b, m, n), rows sum to 1
    "audio_map": lambda out, batch: out.fused.audio_map,  # (b, n, m)
    "patch_target": lambda out, batch: _patch_target(out, batch),  # (b, n), covered share of each patch
    "time_target": lambda out, batch: _time_target(out, batch),  # (b, m), share inside the intervals
    "has_box": lambda out, batch: batch.has_image & batch.box_mask.any(1),  # (b,)
    "has_interval": lambda out, batch: batch.has_audio & batch.interval_mask.any(1),  # (b,)
    "classes": lambda out, batch: batch.classes,  # (b,), one number for each class, -1 unknown
    "logits": lambda out, batch: out.logits,  # (b, t, v)
    "labels": lambda out, batch: out.labels,  # (b, t), -100 outside the response
}

WHY_NONE = {
    "image_map": "the fusion returned no attention map: choose a fusion that does (model.fusion: avace)",
    "audio_map": "the fusion returned no attention map: choose a fusion that does (model.fusion: avace)",
    "patch_target": "the image tokens have no position: choose an image encoder and projector that keep it",
    "time_target": "the audio tokens have no time: choose an audio encoder and projector that keep it",
    "logits": "the language model was not run",
}


class Objective(nn.Module):
    """The weighted sum of named loss terms, and a log of each.

    terms: label -> (loss, weight). A weight is a number or a schedule {step: number} (config.recipe.Weight
           says how it is read). At a step at which it is 0, the term is off: it is not computed at all.
    """

    def __init__(self, terms: Mapping[str, tuple[nn.Module, Weight]]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict({label: loss for label, (loss, _) in terms.items()})
        self.weights = {label: weight for label, (_, weight) in terms.items()}
        for label, weight in self.weights.items():
            numbers = list(weight.values()) if isinstance(weight, dict) else [weight]
            if not numbers:
                raise ObjectiveError(f"losses.{label}.weight is a schedule without any step")
            for number in numbers:
                if not 0 <= number < float("inf"):
                    raise ObjectiveError(f"losses.{label}.weight must be 0 (off) or above, got {number}")
        self._arguments = {label: _arguments(label, loss) for label, (loss, _) in terms.items()}

    def active(self, step: int = 0) -> dict[str, float]:
        """The terms that are computed at a step, with their weights. Steps count from 0 in every stage."""
        weights = {label: weight_at(weight, step) for label, weight in self.weights.items()}
        return {label: weight for label, weight in weights.items() if weight != 0}

    def needs_logits(self, step: int = 0) -> bool:
        """Whether any active term reads the language model's output; if none does it need not run."""
        return any("logits" in self._arguments[label] for label in self.active(step))

    def with_weights(self, weights: Mapping[str, Weight]) -> Objective:
        """The same losses, some weighted otherwise: what a stage of training asks for."""
        for label in weights:
            if label not in self.weights:
                raise ObjectiveError(f"no loss term {label!r}.{suggest(label, self.weights)}")
        merged = self.weights | dict(weights)
        return Objective({label: (self.losses[label], merged[label]) for label in self.weights})

    def terms(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, LossValue]:
        """Every active term by itself, not weighted."""
        supplied: dict[str, Tensor | None] = {}
        values = {}
        for label in self.active(step):
            arguments = {}
            for name, required in self._arguments[label].items():
                if name not in supplied:
                    supplied[name] = SUPPLIES[name](outputs, batch)
                if supplied[name] is not None:
                    arguments[name] = supplied[name]
                elif required:
                    raise ObjectiveError(
                        f"loss {label!r} needs {name!r}, but {WHY_NONE.get(name, 'there is none')}; "
                        f"or set losses.{label}.weight: 0"
                    )
            try:
                value = _value(label, self.losses[label], arguments)
            except ValueError as error:
                raise ObjectiveError(f"loss {label!r}: {error}") from error
            _refuse_nonfinite(label, value)
            values[label] = value
        return values

    def total(self, terms: Mapping[str, LossValue], step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the log: each term, not weighted, and its parts ("avace/space"), detached.

        A weight that is scheduled is in the log too ("avace/weight"), 0 as well.
        """
        if not terms:
            raise ObjectiveError(
                f"no loss term is on: every weight is 0 ({', '.join(self.weights) or 'no terms'})"
            )
        active = self.active(step)
        total = torch.stack([active[label] * value.total for label, value in terms.items()]).sum()
        log = {}
        for label, value in terms.items():
            log[label] = value.total.detach()
            log |= {f"{label}/{part}": number for part, number in value.parts.items()}
        for label, weight in self.weights.items():
            if isinstance(weight, dict):
                log[f"{label}/weight"] = torch.tensor(active.get(label, 0.0))
        return total, log

    def forward(self, outputs: Outputs, batch: Batch, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        return self.total(self.terms(outputs, batch, step), step)


def refuse_unreachable(terms: Mapping[str, LossValue], parameters: Iterable[nn.Parameter]) -> None:
    """Raise UnreachableTerm unless every term moves some of these parameters. Run on a term's first batch.

    A term that applies to no sample of the batch is not checked. The graph is kept for backward.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for label, value in terms.items():
        gradients: Iterable[Tensor | None] = []
        if trained and value.total.requires_grad:
            # Whether or not it applies to a sample here: another process, to one of whose samples it does,
            # may wait for what this one has to say about features that both have gathered.
            gradients = torch.autograd.grad(value.total, trained, retain_graph=True, allow_unused=True)
        count = None if value.applies is None else int(value.applies.sum())
        if count == 0:
            continue
        reached = [gradient for gradient in gradients if gradient is not None]
        if not reached:
            raise UnreachableTerm(
                f"loss {label!r} reaches no trainable parameter: what it reads is frozen, with nothing "
                f"trainable in between. Train a part below it, or set losses.{label}.weight: 0"
            )
        if not any(gradient.count_nonzero() for gradient in reached):
            samples = "the batch" if count is None else f"{count} sample(s) of the batch"
            raise UnreachableTerm(
                f"loss {label!r} has a gradient of exactly 0 on all {len(reached)} trainable parameters "
                f"below it, though it applies to {samples}: it is constant and would learn nothing"
            )


def _arguments(label: str, loss: nn.Module) -> dict[str, bool]:
    """The names among the loss's arguments that the objective supplies, and whether each is required."""
    wanted = {}
    called = loss.terms if isinstance(loss, LossWithTerms) else loss.forward
    for name, parameter in inspect.signature(called).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        if name in SUPPLIES:
            wanted[name] = required
        elif required:
            raise ObjectiveError(
                f"loss {label!r} asks for {name!r}, which no batch supplies.{suggest(name, SUPPLIES)}"
            )
    return wanted


def _value(label: str, loss: nn.Module, arguments: Mapping[str, Tensor | None]) -> LossValue:
    """All that the loss says of the batch: a scalar, if it offers no `terms`."""
    if isinstance(loss, LossWithTerms):
        value = loss.terms(**arguments)
        if not isinstance(value, LossValue):
            got = type(value).__name__
            raise ObjectiveError(f"loss {label!r}: its `terms` returned a {got}, not a LossValue")
        return value
    value = loss(**arguments)
    if isinstance(value, LossValue):
        _note_renamed(type(loss).__name__)
        return value
    if isinstance(value, Tensor) and value.ndim == 0:
        return LossValue(value)
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ObjectiveError(
        f"loss {label!r} returned {got}, not a scalar tensor: return a mean over samples, or rename forward "
        "to `terms` and return LossValue.of(samples, applies)"
    )


@cache  # once a class
def _note_renamed(kind: str) -> None:
    warn(f"{kind}: a forward that returns a LossValue is named `terms` now, and understood in this release")


def _refuse_nonfinite(label: str, value: LossValue) -> None:
    if value.total.isfinite():
        return
    location = ""
    if value.samples is not None:
        location = f" in row(s) {(~value.samples.isfinite()).nonzero().flatten().tolist()} of the batch"
    raise NonFiniteTerm(f"loss {label!r} is {value.total.item()}{location}")


def _patch_target(outputs: Outputs, batch: Batch) -> Tensor | None:
    boxes = outputs.image.boxes
    return None if boxes is None else box_coverage(boxes, batch.boxes, batch.box_mask)


def _time_target(outputs: Outputs, batch: Batch) -> Tensor | None:
    times = outputs.audio.times
    return None if times is None else interval_coverage(times, batch.intervals, batch.interval_mask)
