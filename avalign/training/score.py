"""The scores of a run: its model asked MeerkatBench's questions, what it answered, and the report page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import count, evaluate
from avalign.export.load import load
from avalign.model.build import build_source
from avalign.report.report import report_page
from avalign.system.atomic_write import swapped_in, unfinished
from avalign.training.run_folder import held


def score(
    run: Path, recipe: Recipe | None = None, split: str = "test", out: Path | None = None
) -> dict[str, Any]:
    """Score a run on MeerkatBench's tasks; writes eval/ and report.html, both new or both as they were.

    recipe: with other evaluation settings or another source than the run's own
    out:    folder to write instead, for a run that cannot or must not be written
    """
    own = read(run / "recipe.yaml")
    recipe = own if recipe is None else recipe
    for part in ("model", "losses", "train"):
        if getattr(recipe, part) != getattr(own, part):
            raise AvalignError(f"{run} was trained with another `{part}`: that cannot be changed any more")
    if out is not None and out.resolve() in run.resolve().parents:
        raise AvalignError(f"--out {out}: the run lies in it; name a folder of its own")
    if out is not None and out.resolve().is_relative_to(run.resolve()):
        raise AvalignError(f"--out {out}: lies in the run; name a folder of its own")
    scores_in = run / "eval" if out is None else out / "eval"
    page = (run if out is None else out) / "report.html"
    model, source = load(run), build_source(recipe)
    settings = recipe.evaluation
    model.max_new_tokens = settings.max_new_tokens
    total = sum(count(source, split, task, settings.samples) for task in settings.tasks)
    if (
        out is not None
        and scores_in.is_dir()
        and any(scores_in.iterdir())
        and not (scores_in / "scores.json").is_file()
    ):
        raise AvalignError(f"--out {out}: its eval/ holds no scores but other files; name another folder")
    if out is None and not os.access(run, os.W_OK):
        raise AvalignError(f"{run}: cannot be written; name another folder for the scores: --out DIR")
    with (
        held(run) if out is None else nullcontext(),
        swapped_in(scores_in) as beside,
        unfinished(page) as page_beside,
        _scoring_bar(total) as progress,
    ):
        scores = evaluate(
            model,
            source,
            tasks=settings.tasks,
            samples=settings.samples,
            batch_size=settings.batch_size,
            bootstrap=settings.bootstrap,
            seed=recipe.seed,
            modality_check=settings.modality_check,
            out=beside,
            split=split,
            figures=settings.figures,
            progress=progress,
        )
        page_beside.write_text(report_page(run, beside), encoding="utf-8")
    return scores


@contextmanager
def _scoring_bar(total: int) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the samples of all tasks, moved by what it yields."""
    with tqdm(total=total, desc="score", mininterval=2.0, dynamic_ncols=True) as bar:
        before = 0

        def progress(task: str, done: int, of: int) -> None:
            nonlocal before
            bar.set_postfix(task=task, refresh=False)
            bar.update(done - before)
            before = 0 if done == of else done

        yield progress
