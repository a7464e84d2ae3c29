"""`avalign bench-loss`: every transport loss on the same features, by time, memory and accuracy."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from avalign.bench import truth as truths
from avalign.bench.competitor import Competitor, Settings
from avalign.bench.floor import Rates, floor_seconds, measure_rates
from avalign.bench.inputs import KINDS, Features, Shape, generate, load
from avalign.bench.limits import Limits
from avalign.bench.machine import all_versions, describe
from avalign.bench.measure import Times, interleaved
from avalign.bench.ours import OURS
from avalign.bench.peers import PEERS
from avalign.bench.trial import Lost, Part, no
from avalign.bench.workers import Workers
from avalign.errors import AvalignError, suggest
from avalign.ot import cosine_cost, cosine_sinkhorn, exact

REFERENCE = "sinkhorn"  # what ratios are to, when it is among those measured
DEFAULT_SHAPE = Shape(16, 196, 64, 512)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BRACKETED = 3  # items whose certificate is held against the exact cost
PARTS: tuple[Part, ...] = get_args(Part)


def competitors(names: Sequence[str]) -> list[Competitor]:
    """Those named, in the order of the list; "all" is every one."""
    known = {each.name: each for each in (*OURS, *PEERS)}
    for name in names:
        if name != "all" and name not in known:
            raise AvalignError(f"--backend: no back end is named {name!r}.{suggest(name, (*known, 'all'))}")
    return [each for name, each in known.items() if "all" in names or name in names]


def read_settings(epsilon: float, tolerance: float | None, iterations: int | None) -> Settings:
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise AvalignError(f"--epsilon must be above 0, got {epsilon}.")
    if tolerance is not None and iterations is not None:
        raise AvalignError(
            "--tolerance and --iterations exclude each other: iterations are fixed, or end by the error."
        )
    if tolerance is not None and not 0 < tolerance < 1:
        raise AvalignError(f"--tolerance must be between 0 and 1, an L1 error of mass 1, got {tolerance}.")
    if iterations is not None and iterations < 1:
        raise AvalignError(f"--iterations must be at least 1, got {iterations}.")
    return Settings(epsilon, 1e-3 if tolerance is None and iterations is None else tolerance, iterations)


def read_problems(features: str, shapes: Sequence[str] | None, seed: int) -> list[Features]:
    """Features of a kind at each shape, or those of a file, which has its own shape."""
    for kind in KINDS:
        if features == kind:
            return [generate(kind, Shape.read(each), seed) for each in shapes or [str(DEFAULT_SHAPE)]]
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
    limits: Limits | None = None,
    rates: Rates | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Everything measured, ready for JSON: what on, with what, and a table of rows for each problem."""
    if repeats < 1:
        raise AvalignError(f"--repeats must be at least 1, got {repeats}.")
    limits = limits or Limits()
    machine, found = describe(device), all_versions()
    if rates is None:
        progress("rates of products and of copying")
        rates = measure_rates(device)
    with Workers(device, limits, torch.get_num_threads()) as workers:
        tables = [
            compare(chosen, each.to(device, dtype), settings, rates, repeats, seed, workers, progress)
            for each in problems
        ]
    return {
        "settings": {
            **asdict(settings),
            "dtype": str(dtype).removeprefix("torch."),
            "repeats": repeats,
            "seed": seed,
            "time_limit": limits.seconds,
            "memory_limit": limits.bytes,
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
    seed: int,
    workers: Workers,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """One problem of a report: its floor, the bracket of some items, and a row for each competitor."""
    shape = features.shape
    progress(f"{shape}: the float64 solution")
    truth = truths.work_out(features, settings)
    table = _Table(features, rates)
    workers.begin(features, settings, truth)
    for each in chosen:
        progress(f"{shape}: {each.name}")
        table.add(each, workers)
    progress(f"{shape}: {repeats} repeats of {len(table.measured())}, interleaved")
    table.measure(workers, repeats, seed)
    return {
        "shape": dict(zip("bnmd", shape.sizes, strict=True)),
        "floor": {name: table.floor_of(name) for name in rates.product},
        "truth_marginal_error": truth.marginal_error,
        "bracket": _bracket(features, settings),
        "rows": [row for _, row in table.rows],
    }


class _Table:
    """One problem: a row for each competitor, measured or with the reason why not."""

    def __init__(self, features: Features, rates: Rates) -> None:
        self.features, self.rates = features, rates
        self.rows: list[tuple[Competitor, dict[str, Any]]] = []

    def add(self, competitor: Competitor, workers: Workers) -> None:
        """Made ready, warmed up, and its answer held against the truth."""
        row: dict[str, Any] = {"name": competitor.name, "about": competitor.about, "ours": competitor.ours}
        self.rows.append((competitor, row))
        missing = [name for name in competitor.modules if importlib.util.find_spec(name) is None]
        if missing:
            row |= no("absent", f"pip install {competitor.install}")
        else:
            row |= workers.prepare(competitor)

    def measured(self) -> list[tuple[Competitor, dict[str, Any]]]:
        return [(competitor, row) for competitor, row in self.rows if row["status"] == "measured"]

    def measure(self, workers: Workers, repeats: int, seed: int) -> None:
        def ask(row: dict[str, Any], method: Callable[..., Any], *words: Any) -> Any:
            """None, also where it is lost, by which its row is then marked."""
            if row["status"] != "measured":
                return None
            try:
                return method(*words)
            except Lost as lost:
                row |= no(lost.status, lost.why)
                return None

        runs = {
            (competitor.name, part): partial(ask, row, workers.time, competitor, part)
            for competitor, row in self.measured()
            for part in PARTS
        }
        times = interleaved(runs, repeats, seed)
        for competitor, row in self.measured():
            seconds = ask(row, workers.device_seconds, competitor)
            row |= {part: _times(times[competitor.name, part]) for part in PARTS}
            row["step"]["device_seconds"] = seconds
            row["floor"] = self._floor(row)
            row["share_of_floor"] = row["floor"] / row["step"]["median"]
        self._ratios()

    def floor_of(self, products: str) -> float:
        return floor_seconds(
            self.features.shape,
            self.features.image.element_size(),
            self.rates.product[products].value,
            self.rates.copy.value,
        )

    def _floor(self, row: dict[str, Any]) -> float:
        """By the rate of the products it reads, or of the features' own precision where that is lower."""
        features = str(self.features.image.dtype).removeprefix("torch.")
        return self.floor_of("bfloat16" if "bfloat16" in (row["products"], features) else "float32")

    def _ratios(self) -> None:
        """How many times as long as ours: as REFERENCE, else as the first of ours that was measured."""
        measured = [row for _, row in self.measured()]
        ours = sorted((row for row in measured if row["ours"]), key=lambda row: row["name"] != REFERENCE)
        for row in measured if ours else []:
            row["ratio"] = row["step"]["median"] / ours[0]["step"]["median"]
            row["ratio_to"] = ours[0]["name"]


def _bracket(features: Features, settings: Settings) -> list[dict[str, float]]:
    """Of the first items: our certified bounds of the exact cost, and that cost by the simplex."""
    image, audio = (side[:BRACKETED] for side in (features.image, features.audio))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = cosine_sinkhorn(
            image,
            audio,
            epsilon=settings.epsilon,
            tolerance=settings.tolerance,
            iterations=settings.most_iterations,
        )
    costs = exact(cosine_cost(image.double(), audio.double())).value
    bounds = zip(plan.lower.tolist(), costs.tolist(), plan.upper.tolist(), strict=True)
    return [{"lower": low, "exact": cost, "upper": high} for low, cost, high in bounds]


def _times(times: Times) -> dict[str, Any]:
    low, high = times.quartiles
    return {
        "median": times.median,
        "quartiles": [low, high],
        "busy_threads": times.busy,
        "seconds": list(times.wall),
    }
