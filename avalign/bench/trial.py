"""One problem, and the competitors that are made ready for it in this process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from avalign.bench import truth as truths
from avalign.bench.competitor import Competitor, Ready, Settings, Unavailable, marginal_error
from avalign.bench.inputs import Features
from avalign.bench.limits import Limits, bounded, gib, is_out_of_memory, text_of
from avalign.bench.measure import Sample, device_seconds, peak_memory, timed
from avalign.bench.truth import Truth

Part = Literal["forward", "step"]
Status = Literal["measured", "absent", "unavailable", "stopped", "failed"]
LONGEST = 300  # characters of an error


class Lost(Exception):
    """A competitor that cannot be measured to the end: stopped by a limit, or failed; and why."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(status, why)
        self.status, self.why = status, why


def no(status: Status, why: str) -> dict[str, Any]:
    return {"status": status, "note": why}


@dataclass
class Trial:
    """Truth and features lie on one device."""

    features: Features
    settings: Settings
    truth: Truth
    limits: Limits
    ready: dict[str, Ready] = field(default_factory=dict)
    broken: bool = False  # a device that refuses all further work: this process can measure nothing more

    @property
    def device(self) -> torch.device:
        return self.features.image.device

    def prepare(self, competitor: Competitor) -> dict[str, Any]:
        """Made ready, warmed up, held against the truth: its part of the row; a failure says why."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what did not converge is a column of the table
            try:
                with bounded(self.limits, self.device):
                    ready = competitor.prepare(self.features, self.settings)
                    ready.forward()
                    row = self._accuracy(ready) | {"status": "measured", "note": "; ".join(ready.notes)}
                    row["peak_memory"] = peak_memory(ready.step, self.device)
            except Unavailable as error:
                return no("unavailable", str(error))
            except Exception as error:  # another library may fail in any way; the others still count
                lost = self._lost(error)
                return no(lost.status, lost.why)
        self.ready[competitor.name] = ready
        return row

    def time(self, name: str, part: Part) -> Sample:
        run = getattr(self.ready[name], part)
        try:
            with warnings.catch_warnings(), bounded(self._limits_of_a_run, self.device):
                warnings.simplefilter("ignore")
                return timed(run, self.device)
        except Exception as error:
            raise self._lost(error) from error

    def device_seconds(self, name: str) -> float | None:
        try:
            return device_seconds(self.ready[name].step, self.device)
        except Exception as error:
            raise self._lost(error) from error

    @property
    def _limits_of_a_run(self) -> Limits:
        """A GPU's was held to when it was made ready: there, to set it costs the memory that torch keeps."""
        return self.limits if self.device.type == "cpu" else Limits()

    def _lost(self, error: Exception) -> Lost:
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            except Exception:  # whatever the driver says, this process has lost the device
                self.broken = True
        if is_out_of_memory(error) and self.limits.bytes is not None:
            return Lost("stopped", f"over the memory limit of {gib(self.limits.bytes)}")
        line = text_of(error).partition("\n")[0]
        return Lost("failed", f"{type(error).__name__}: {line[:LONGEST]}")

    def _accuracy(self, ready: Ready) -> dict[str, Any]:
        answer, own = ready.answer(), self.truth.of(ready.value_of)
        error = marginal_error(ready.plan())
        scale = self.truth.exact if ready.value_of == "exact" else self.truth.smoothed
        found = {
            "engine": str(ready.engine),
            "products": ready.products,
            "value": float(answer.value.double().mean()),
            "value_of": ready.value_of,
            "iterations": _number(ready.iterations),
            "converged": _number(ready.converged),
            "marginal_error": {"worst": float(error.max()), "mean": float(error.mean())},
            "value_error": truths.value_error(answer, own, scale),
            "gradient_error": truths.gradient_error(answer, own),
        }
        if self.truth.same_iterations is not None and ready.value_of == "dual":
            found["value_error_same_iterations"] = truths.value_error(
                answer, self.truth.same_iterations, scale
            )
            found["gradient_error_same_iterations"] = truths.gradient_error(
                answer, self.truth.same_iterations
            )
        return found


def _number(told: float | None) -> float | None:
    return None if told is None else float(told)
