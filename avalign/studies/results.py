"""What a study's run folders say: each arm's mean, its difference to the reference, and how sure both are.

Two intervals stand beside every number, for two different questions.

`low`, `high`: would other seeds say the same? Student's t over the seeds' scores (for a difference, over
    the seeds' differences), n - 1 degrees of freedom. A seed decides the weights, the order of training and
    the test samples, so the spread of its scores holds all three. With 3 seeds t is 4.3: wide, and right to
    be, if scores of seeds are near normal. Resampling seeds is not done: of 3 seeds there are only 10
    resamples, and such an interval is too narrow (tests/studies/test_intervals.py measures both).
`samples`: would other test samples say the same of these very models? 95 % bootstrap within each seed, the
    mean over seeds taken of each resample; arm and reference resampled alike. It says nothing of other seeds.

Nothing is corrected for the number of comparisons: of 20 that differ in nothing, one interval misses 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from avalign.errors import AvalignError
from avalign.evaluation.evaluate import TASKS
from avalign.evaluation.metrics.bootstrap import LEVEL, Metric, percentiles
from avalign.evaluation.tasks.task import Scored
from avalign.studies.grid import Run, duration
from avalign.studies.study import Study
from avalign.system.json_file import json_if_there
from avalign.types import Sample

RESAMPLES = 2000

Table = dict[str, Any]


@dataclass
class Scores:
    """Of one finished run. metrics: those of the study that it has; trivial: each one's trivial answers."""

    run: Run
    metrics: dict[tuple[str, str], Metric] = field(default_factory=dict)
    trivial: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)  # task -> hash of its test samples
    commit: str = "unknown"


def collect(study: Study, all_runs: Sequence[Run], failed: Mapping[str, str]) -> Table:
    """The table of a study, ready for JSON. Runs that are not finished are left out, and named."""
    scores = {(run.arm, run.seed): read_scores(run, study.metrics) for run in all_runs if run.finished}
    warnings = [f"{run.label}: {_state(run, failed)}" for run in all_runs if not run.finished]
    commits = sorted({one.commit for one in scores.values()})
    if len(commits) > 1:
        warnings.append(f"the runs were made at different commits: {', '.join(commits)}")
    arms = {}
    for arm in study.arms:
        own = {seed: scores[arm, seed] for seed in study.seeds if (arm, seed) in scores}
        other = {s: scores[study.reference, s] for s in study.seeds if (study.reference, s) in scores}
        arms[arm] = {
            "runs": [_run_row(run) for run in all_runs if run.arm == arm],
            "seconds": _over_seeds(
                {s: time for s, one in own.items() if (time := seconds(one.run)) is not None}
            ),
            "scores": {
                _named(key): _score(key, own) | {"difference": _difference(key, arm, own, other, study)}
                for key in study.metrics
            },
        }
    return {
        "study": study.name,
        "about": study.about,
        "file": study.path.name,
        "reference": study.reference,
        "seeds": list(study.seeds),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "metrics": {_named(key): TASKS[key[0]].definitions[key[1]] for key in study.metrics},
        "test_samples": {_named(key): _counts(key, scores) for key in study.metrics},
        "commits": commits,
        "arms": arms,
        "trivial": {_named(key): _trivial(key, scores) for key in study.metrics},
        "warnings": warnings,
    }


def seconds(run: Run) -> float | None:
    """Training and scoring together, all attempts, repeated steps among them; None if nobody timed it."""
    ended = [record["seconds"] for record in run.attempts() if "seconds" in record]
    return float(sum(ended)) if ended else None


def read_scores(run: Run, wanted: Sequence[tuple[str, str]]) -> Scores:
    """The metrics of a run as functions of its samples, from eval/<task>.jsonl, held against scores.json."""
    folder = run.folder / "eval"
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    found = Scores(run)
    for task in dict.fromkeys(task for task, _ in wanted):
        if task not in scores["tasks"]:
            continue
        said = scores["tasks"][task]
        found.lists[task] = said["test_list"]
        metrics = _metrics(folder / f"{task}.jsonl", task, [m for t, m in wanted if t == task])
        for name, metric in metrics.items():
            value, written = metric.value(), said["metrics"][name]["value"]
            if (value is None) != (written is None) or (value is not None and abs(value - written) > 1e-9):
                raise AvalignError(
                    f"{folder}: {task}.jsonl gives {name} {value}, scores.json {written}: not of one "
                    f"evaluation. Score again: avalign eval {run.folder}"
                )
            found.metrics[task, name] = metric
            found.trivial[task, name] = {
                answer: scored["metrics"][name]["value"]
                for answer, scored in said["trivial"].items()
                if scored["metrics"].get(name, {}).get("value") is not None
            }
    versions = json_if_there(run.folder / "versions.json")
    if versions is not None:
        found.commit = str(versions.get("commit", "unknown"))
    return found


def _metrics(path: Path, task: str, names: Sequence[str]) -> dict[str, Metric]:
    samples, scored = [], []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            truth = row["truth"]
            samples.append(
                Sample(
                    id=row["id"],
                    task=task,
                    instruction=row["instruction"],
                    response=truth.get("response", ""),
                    references=tuple(truth.get("references", ())),
                    boxes=tuple(tuple(box) for box in truth.get("boxes", ())),
                    intervals=tuple(tuple(span) for span in truth.get("intervals", ())),
                    label=truth.get("label"),
                    kind=row["kind"],
                )
            )
            scored.append(Scored(row["parsed"], row["values"]))
    except (OSError, ValueError, KeyError) as error:
        raise AvalignError(f"{path} cannot be read: {error!r}") from error
    found: dict[str, Metric] = {}
    for metric in TASKS[task].metrics(samples, scored):
        if metric.name in names:
            found[metric.name] = metric
        if len(found) == len(names):
            break  # METEOR, the last, takes seconds
    return found


# ---- statistics ----------------------------------------------------------------------------------


def over_seeds(values: Sequence[float]) -> dict[str, float | int | None]:
    """n, mean, standard deviation (n - 1), Student's 95 % interval of the mean; None where n is too small."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if n < 2 or mean is None:
        return {"n": n, "mean": mean, "sd": None, "low": None, "high": None}
    sd = float(np.std(values, ddof=1))
    half = float(student.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5
    return {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def over_samples(
    pairs: Sequence[tuple[Metric, Metric | None]], resamples: int = RESAMPLES
) -> list[float] | None:
    """[low, high] of the mean over seeds of a metric, or of its difference to another's, by bootstrap.

    pairs: of each seed, the metric and what is subtracted. Samples are resampled within each seed, and both
           of a pair from the same resample: what they share does not count as uncertainty.
    """
    samples = []
    for number, (own, other) in enumerate(pairs):
        scores = own.resampled(resamples, number)
        less = None if other is None else other.resampled(resamples, number)
        if scores is None or (other is not None and less is None):
            return None
        samples.append(scores if less is None else scores - less)
    bounds = percentiles(np.mean(samples, axis=0)) if samples else None
    return None if bounds is None else list(bounds)


def _over_seeds(by_seed: Mapping[int, float]) -> dict[str, Any]:
    return {
        "values": {str(seed): value for seed, value in by_seed.items()},
        **over_seeds([*by_seed.values()]),
    }


def _score(key: tuple[str, str], own: Mapping[int, Scores]) -> dict[str, Any]:
    metrics = {seed: one.metrics[key] for seed, one in own.items() if key in one.metrics}
    values = {seed: value for seed, m in metrics.items() if (value := m.value()) is not None}
    return _over_seeds(values) | {"samples": over_samples([(metrics[seed], None) for seed in values])}


def _difference(
    key: tuple[str, str], arm: str, own: Mapping[int, Scores], other: Mapping[int, Scores], study: Study
) -> dict[str, Any] | None:
    """Arm less reference, seed by seed, on the same test samples."""
    if arm == study.reference:
        return None
    values, pairs = {}, []
    for seed in own.keys() & other.keys():
        a, b = own[seed], other[seed]
        if key not in a.metrics or key not in b.metrics:
            continue
        if a.lists[key[0]] != b.lists[key[0]]:
            raise AvalignError(
                f"{a.run.folder} and {b.run.folder} were scored on different samples of {key[0]}, so they "
                "cannot be paired: give both arms the same source and evaluation.samples"
            )
        mine, theirs = a.metrics[key].value(), b.metrics[key].value()
        if mine is not None and theirs is not None:
            values[seed] = mine - theirs
            pairs.append((a.metrics[key], b.metrics[key]))
    return _over_seeds(dict(sorted(values.items()))) | {"samples": over_samples(pairs)} if values else None


def _trivial(key: tuple[str, str], scores: Mapping[tuple[str, int], Scores]) -> dict[str, Any] | None:
    """The trivial answer with the highest mean over seeds; it is the same for every arm of a seed."""
    by_name: dict[str, dict[int, float]] = {}
    for (_, seed), one in scores.items():
        for name, value in one.trivial.get(key, {}).items():
            by_name.setdefault(name, {})[seed] = value
    if not by_name:
        return None
    best = max(by_name, key=lambda name: float(np.mean([*by_name[name].values()])))
    return {"name": best, **_over_seeds(dict(sorted(by_name[best].items())))}


def _counts(key: tuple[str, str], scores: Mapping[tuple[str, int], Scores]) -> list[int]:
    """How many test samples of a task each run was scored on; one number, if all had as many."""
    parts = [one.metrics[key].parts for one in scores.values() if key in one.metrics]
    return sorted({len(rows) for rows in parts if rows is not None})


def _named(key: tuple[str, str]) -> str:
    return f"{key[0]}/{key[1]}"


def _state(run: Run, failed: Mapping[str, str]) -> str:
    if run.label in failed:
        return f"failed: {failed[run.label]}"
    return f"not finished, at step {run.steps_done()} of {run.steps}" if run.begun else "not begun"


def _run_row(run: Run) -> dict[str, Any]:
    took, attempts = seconds(run), run.attempts()
    return {
        "seed": run.seed,
        "folder": f"{run.folder.parent.name}/{run.folder.name}",
        "finished": run.finished,
        "seconds": took,
        "took": None if took is None else duration(took),
        "attempts": len({record["started"] for record in attempts}),
        "threads": sorted({record["threads"] for record in attempts if "threads" in record}),
        "at_once": sorted({record["jobs"] for record in attempts if "jobs" in record}),
    }
