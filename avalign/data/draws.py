"""What training draws from a source: a sequence in which a draw's number decides all about it.

So a resumed run, another number of processes and another number of loader workers see the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from avalign.batch import Batch, Sample
from avalign.collate import Collator, SampleError
from avalign.data.media import MediaError
from avalign.errors import AvalignError

ATTEMPTS = 50  # bad draws in a row after which the data, not a sample, is at fault

Drawn = tuple[Sample, list[str]]


class Draws(Dataset[Drawn]):
    """`count` training samples of a mixture of tasks.

    tasks: task -> weight in the mixture
    first: number of the first draw, so that stages go on where the one before ended
    on_error: "raise", or "skip": a bad sample is left out for the next one drawn, and named with its reason
    """

    def __init__(
        self,
        source: Any,
        tasks: Mapping[str, float],
        *,
        seed: Sequence[int],
        first: int,
        count: int,
        collator: Collator,
        on_error: str = "raise",
    ) -> None:
        self.source, self.seed, self.first, self.count = source, tuple(seed), first, count
        self.collator, self.on_error = collator, on_error
        self.names = [task for task, weight in tasks.items() if weight > 0]
        weights = np.array([tasks[task] for task in self.names], dtype=float)
        if not self.names:
            raise AvalignError("a stage has no task of weight above 0")
        self.shares = weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Drawn:
        """The sample, and what was skipped before it was found."""
        rng = np.random.default_rng((*self.seed, number))
        skipped: list[str] = []
        for attempt in range(ATTEMPTS):
            task = self.names[int(rng.choice(len(self.names), p=self.shares))]
            index = self.first + number if attempt == 0 else int(rng.integers(2**31))
            try:
                sample = self.source.sample("train", task, index)
                self.collator.check(sample)
            except (MediaError, SampleError) as error:
                if self.on_error != "skip":
                    raise
                skipped.append(str(error))
            else:
                return sample, skipped
        raise AvalignError(f"{ATTEMPTS} samples in a row cannot be used; the last: {skipped[-1]}")

    def collate(self, drawn: Sequence[Drawn]) -> dict[str, Batch | list[str]]:
        """What the trainer is given: the batch, and what was skipped on the way to it."""
        samples = self.collator([sample for sample, _ in drawn])
        return {"batch": samples, "skipped": [why for _, skipped in drawn for why in skipped]}
