"""`avalign bench-loss`: every transport loss on the same features, by time, memory and accuracy."""

from __future__ import annotations

import gc
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from avalign.errors import AvalignError, suggest
from avalign.ot import cosine_cost, cosine_sinkhorn, exact
from avalign.speed import truth as truths
from avalign.speed.competitor import Competitor, Ready, Settings, Unavailable, marginal_error
from avalign.speed.floor import Rates, floor_seconds, measure_rates
from avalign.speed.inputs import KINDS, Features, Shape, draw, load
from avalign.speed.machine import all_versions, describe
from avalign.speed.measure import Times, device_seconds, interleaved, peak_memory
from avalign.speed.ours import OURS
from avalign.speed.peers import PEERS

REFERENCE = "sinkhorn"  # what ratios are to, when it is among those measured
DEFAULT_SHAPE = Shape(16, 196, 64, 512)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BRACKETED = 3  # items whose certificate is held against the exact cost
Status = Literal["measured", "absent", "unavailable", "failed"]


def competitors(names: Sequence[str]) -> list[Competitor]:
    """Those named, in the order of the list; "all" is every one."""
    known = {each.name: each for each in (*OURS, *PEERS)}
    for name in names:
        if name != "all" and name not in known:
            raise AvalignError(f"--backend: no back end is named {name!r}.{suggest(name, (*known, 'all'))}")
    return [each for name, each in known.items() if "all" in names or name in names]


def read_settings(epsilon: float, tolerance: float | None, rounds: int | None) -> Settings:
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise AvalignError(f"--epsilon must be above 0, got {epsilon}.")
    if tolerance is not None and rounds is not None:
        raise AvalignError(
            "--tolerance and --rounds exclude each other: rounds are fixed, or end by the error."
        )
    if tolerance is not None and not 0 < tolerance < 1:
        raise AvalignError(f"--tolerance must be between 0 and 1, an L1 error of mass 1, got {tolerance}.")
    if rounds is not None and rounds < 1:
        raise AvalignError(f"--rounds must be at least 1, got {rounds}.")
    return Settings(epsilon, 1e-3 if tolerance is None and rounds is None else tolerance, rounds)


def read_problems(features: str, shapes: Sequence[str] | None, seed: int) -> list[Features]:
    """Features of a kind at each shape, or those of a file, which has its own shape."""
    for kind in KINDS:
        if features == kind:
            return [draw(kind, Shape.read(each), seed) for each in shapes or [str(DEFAULT_SHAPE)]]
    if not features.endswith(".safetensors"):
        raise AvalignError(
            f"--features: {features!r} is neither a kind nor a .safetensors file.{suggest(features, KINDS)}"
        )
    if shapes:
        raise AvalignError(f"--shape: {features} has its own shape; give one or the other.")
    return [load(Path(features))]


def read_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise AvalignError(f"--dtype: features are not measured in {name!r}.{suggest(name, DTYPES)}")
    return DTYPES[name]


def read_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise AvalignError(f"--device: {name!r} is none torch knows; give cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise AvalignError(f"--device: {name!r} is not measured here; give cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AvalignError("--device: torch finds no CUDA GPU here.")
    return device


def bench(
    chosen: Sequence[Competitor],
    problems: Iterable[Features],
    settings: Settings,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    repeats: int = 10,
    seed: int = 0,
    rates: Rates | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Everything measured, ready for JSON: what on, with what, and a table of rows for each problem."""
    if repeats < 1:
        raise AvalignError(f"--repeats must be at least 1, got {repeats}.")
    machine, found = describe(device), all_versions()
    if rates is None:
        progress("rates of products and of copying")
        rates = measure_rates(device)
    tables = [
        compare(chosen, each.to(device, dtype), settings, rates, repeats, seed, progress) for each in problems
    ]
    return {
        "settings": {
            **asdict(settings),
            "dtype": str(dtype).removeprefix("torch."),
            "repeats": repeats,
            "seed": seed,
        },
        "machine": machine,
        "versions": found,
        "rates": asdict(rates),
        "problems": tables,
    }


def compare(
    chosen: Sequence[Competitor],
    features: Features,
    settings: Settings,
    rates: Rates,
    repeats: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """One problem of a report: its floor, the bracket of some items, and a row for each competitor."""
    progress(f"{features.shape}: the float64 solution")
    table = _Table(features, settings, rates)
    gc.collect()
    gc.freeze()  # what is there already is no garbage, and would be walked through before every measurement
    try:
        for each in chosen:
            progress(f"{features.shape}: {each.name}")
            table.add(each)
        progress(f"{features.shape}: {repeats} repeats of {len(table.ready)}, interleaved")
        return table.measure(repeats, seed)
    finally:
        gc.unfreeze()


@dataclass
class _Prepared:
    competitor: Competitor
    ready: Ready
    row: dict[str, Any]


class _Table:
    """One problem: its truth, and a row for each competitor."""

    def __init__(self, features: Features, settings: Settings, rates: Rates) -> None:
        self.features, self.settings, self.rates = features, settings, rates
        self.truth = truths.work_out(features, settings)
        self.rows: list[dict[str, Any]] = []
        self.ready: list[_Prepared] = []

    def add(self, competitor: Competitor) -> None:
        """Make ready, warm up, and hold its answer against the truth; a failure is a row that says why."""
        row: dict[str, Any] = {"name": competitor.name, "about": competitor.about, "ours": competitor.ours}
        self.rows.append(row)
        missing = [name for name in competitor.modules if importlib.util.find_spec(name) is None]
        if missing:
            row |= _no("absent", f"pip install {competitor.install}")
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what did not converge is a column of the table
            try:
                ready = competitor.prepare(self.features, self.settings)
                ready.forward()
                row |= self._accuracy(ready) | {"status": "measured", "note": "; ".join(ready.notes)}
                row["peak_memory"] = peak_memory(ready.step, self.features.image.device)
            except Unavailable as error:
                row |= _no("unavailable", str(error))
            except Exception as error:  # another library may fail in any way; the others still count
                row |= _no("failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
            else:
                self.ready.append(_Prepared(competitor, ready, row))

    def measure(self, repeats: int, seed: int) -> dict[str, Any]:
        device = self.features.image.device
        runs: dict[tuple[str, str], Callable[[], Any]] = {}
        for each in self.ready:
            runs[each.competitor.name, "forward"] = each.ready.forward
            runs[each.competitor.name, "step"] = each.ready.step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = interleaved(runs, repeats, device, seed)
            for each in self.ready:
                name, row = each.competitor.name, each.row
                row |= {part: _times(times[name, part]) for part in ("forward", "step")}
                row["step"]["device_seconds"] = device_seconds(each.ready.step, device)
                row["floor"] = self._floor(each.ready)
                row["share_of_floor"] = row["floor"] / row["step"]["median"]
        self._ratios()
        return {
            "shape": dict(zip("bnmd", self.features.shape.sizes, strict=True)),
            "floor": {name: self._floor_of(name) for name in self.rates.product},
            "truth_marginal_error": self.truth.marginal_error,
            "bracket": self._bracket(),
            "rows": self.rows,
        }

    def _accuracy(self, ready: Ready) -> dict[str, Any]:
        answer, own = ready.answer(), self.truth.of(ready.value_of)
        error = marginal_error(ready.plan())
        scale = self.truth.exact if ready.value_of == "exact" else self.truth.smoothed
        found = {
            "engine": ready.engine,
            "products": ready.products,
            "value": float(answer.value.double().mean()),
            "value_of": ready.value_of,
            "rounds": ready.rounds,
            "converged": ready.converged,
            "marginal_error": {"worst": float(error.max()), "mean": float(error.mean())},
            "value_error": truths.value_error(answer, own, scale),
            "gradient_error": truths.gradient_error(answer, own),
        }
        if self.truth.same_rounds is not None and ready.value_of == "dual":
            found["value_error_same_rounds"] = truths.value_error(answer, self.truth.same_rounds, scale)
            found["gradient_error_same_rounds"] = truths.gradient_error(answer, self.truth.same_rounds)
        return found

    def _floor_of(self, products: str) -> float:
        return floor_seconds(
            self.features.shape,
            self.features.image.element_size(),
            self.rates.product[products].value,
            self.rates.copy.value,
        )

    def _floor(self, ready: Ready) -> float:
        """By the rate of the products it reads, or of the features' own precision where that is lower."""
        features = str(self.features.image.dtype).removeprefix("torch.")
        return self._floor_of("bfloat16" if "bfloat16" in (ready.products, features) else "float32")

    def _ratios(self) -> None:
        """How many times as long as ours: as REFERENCE, else as the first of ours that was measured."""
        ours = [row for row in self.rows if row["ours"] and row["status"] == "measured"]
        ours.sort(key=lambda row: row["name"] != REFERENCE)
        for row in self.rows:
            if row["status"] == "measured" and ours:
                row["ratio"] = row["step"]["median"] / ours[0]["step"]["median"]
                row["ratio_to"] = ours[0]["name"]

    def _bracket(self) -> list[dict[str, float]]:
        """Of the first items: our certified bounds of the exact cost, and that cost by the simplex."""
        image, audio = (side[:BRACKETED] for side in (self.features.image, self.features.audio))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = cosine_sinkhorn(
                image,
                audio,
                epsilon=self.settings.epsilon,
                tolerance=self.settings.tolerance,
                rounds=self.settings.most_rounds,
            )
        costs = exact(cosine_cost(image.double(), audio.double())).value
        bounds = zip(plan.lower.tolist(), costs.tolist(), plan.upper.tolist(), strict=True)
        return [{"lower": low, "exact": cost, "upper": high} for low, cost, high in bounds]


def _no(status: Status, why: str) -> dict[str, Any]:
    return {"status": status, "note": why}


def _times(times: Times) -> dict[str, Any]:
    low, high = times.quartiles
    return {
        "median": times.median,
        "quartiles": [low, high],
        "busy_threads": times.busy,
        "seconds": list(times.wall),
    }
