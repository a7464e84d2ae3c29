"""A study's table as files: table.json, table.md, and report.html with a plot of every metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avalign.report.drawings import forest_plot
from avalign.report.page import render
from avalign.studies.tables import as_markdown, clear, heading, n_of, shown, took, within
from avalign.system.atomic_write import atomic_write


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write the three files into `folder`, again and again while runs go on; returns the page."""
    atomic_write(folder / "table.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / "table.md", as_markdown(results))
    atomic_write(folder / "report.html", page(results))
    return folder / "report.html"


def page(results: dict[str, Any]) -> str:
    names, arms = list(results["metrics"]), results["arms"]
    others = {label: arm for label, arm in arms.items() if label != results["reference"]}
    return render(
        "study.html",
        title=f"{results['study']}, a study",
        heading=results["study"],
        subtitle=results["about"],
        links=[(x, x.capitalize()) for x in ("scores", "differences", "plots", "runs")],
        doubts=results["warnings"],
        metrics=[(task, metric) for task, _, metric in (name.partition("/") for name in names)],
        scores=[
            {
                **{"arm": label, "scores": [shown(arm["scores"][name]) for name in names]},
                **{"time": took(arm["seconds"]), "n": n_of(arm)},
            }
            for label, arm in arms.items()
        ],
        trivial=[
            (shown(trivial), trivial and trivial["name"])
            for trivial in (results["trivial"][name] for name in names)
        ],
        said=" ".join(heading(results)),
        reference=results["reference"],
        differences=[
            {"arm": label, "cells": [_difference(arm["scores"][name]["difference"]) for name in names]}
            for label, arm in others.items()
        ],
        resamples=results["resamples"],
        plots=[_plots(results, name) for name in names],
        runs=[{"arm": label} | run for label, arm in arms.items() for run in arm["runs"]],
        commits=", ".join(results["commits"]) or "unknown",
        definitions="\n".join(f"{name}: {said}" for name, said in results["metrics"].items()),
    )


def _difference(found: dict[str, Any] | None) -> dict[str, Any]:
    """To the reference: over seeds, and below it over test samples, the interval alone."""
    seeds, samples = shown(found, sign=True), within(found).partition(" ")[2]
    return {"seeds": seeds, "samples": samples, "is_clear": clear(found)}


def _plots(results: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores beside the best trivial answer, and differences beside none."""
    scores = {label: arm["scores"][name] for label, arm in results["arms"].items()}
    trivial, reference = results["trivial"][name], results["reference"]
    less = [(label, score["difference"]) for label, score in scores.items() if label != reference]
    return (
        forest_plot(name, list(scores.items()), None if trivial is None else trivial["mean"]),
        forest_plot(f"{name}, less {reference}", less, 0.0),
    )
