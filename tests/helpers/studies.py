"""Studies written into a folder, and run folders as `avalign train` leaves them, made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalign.config.recipe_file import write
from avalign.evaluation.evaluate import evaluate
from avalign.studies.grid import Run
from avalign.types import Sample
from tests.helpers.paths import RECIPE

BASE = RECIPE
STUDY = f"""\
name: small
about: Is AVOpT worth anything?
base: {BASE}
overrides:
  evaluation: {{tasks: [avqa], samples: 10}}
arms:
  both: {{}}
  none: {{losses.avopt.weight: 0}}
reference: both
"""


def write_study(folder: Path, text: str = STUDY) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


class Questions:
    """A source whose every question is answered "yes"; another `seed` asks other questions."""

    tasks = ("avqa",)

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def sample(self, split: str, task: str, index: int) -> Sample:
        return Sample(f"{split}/{self.seed}/{index}", task, f"Question {index}?", "yes", kind="sounding")


class Answers:
    def __init__(self, right: Sequence[bool]) -> None:
        self.right = list(right)

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return ["yes" if self.right[int(sample.id.rpartition("/")[2])] else "no" for sample in samples]


def make_run(run: Run, right: Sequence[bool], *, list_seed: int | None = None, **written: Any) -> None:
    """A finished run that got those questions right.

    list_seed: of its questions, if not the run's own; written: "seconds" it took, "commit" it was made at
    """
    write(run.recipe, run.folder / "recipe.yaml")
    (run.folder / "model").mkdir()
    (run.folder / "model" / "complete").touch()
    evaluate(
        Answers(right),
        Questions(run.seed if list_seed is None else list_seed),
        tasks=["avqa"],
        samples=len(right),
        batch_size=50,
        bootstrap=20,
        seed=run.seed,
        modality_check=False,
        out=run.folder / "eval",
        figures=0,
    )
    (run.folder / "versions.json").write_text(json.dumps({"commit": written.get("commit", "abc")}))
    (run.folder / "report.html").touch()
    if "seconds" in written:
        lines = [
            {"started": 5.0, "threads": 1, "jobs": 2},
            {"started": 5.0, "seconds": written["seconds"], "exit": 0},
        ]
        (run.folder / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def share(count: int, of: int = 10) -> list[bool]:
    """The first `count` right."""
    return [i < count for i in range(of)]
