"""The dataset of training: samples of a source, each decided by its number alone.

So a resumed run, another number of processes and another number of loader workers see the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch.utils.data import Dataset

from avalign.data.collate import Collator, SampleError
from avalign.data.features import FeatureReader
from avalign.data.location import name_location
from avalign.data.mixture import Mixture
from avalign.errors import AvalignError
from avalign.interfaces import Samples
from avalign.media.file import MediaError
from avalign.offered import completed
from avalign.types import Batch, Sample

ATTEMPTS = 50  # bad samples in a row after which the data, not a sample, is at fault

Sampled = tuple[Sample, list[str]]


class TrainingDataset(Dataset[Sampled]):
    """`count` training samples of a mixture of tasks; each task's samples in the order of their numbers.

    tasks: task -> weight in the mixture
    first: task -> number of its first sample, so that stages go on where the one before ended; 0 if not given
    on_error: "raise", or "skip": a bad sample is left out for the next one sampled, and named with its reason

    features: what is read in the place of media, if anything; set before a loader is made
    """

    def __init__(
        self,
        source: Samples,
        tasks: Mapping[str, float],
        *,
        seed: Sequence[int],
        count: int,
        collator: Collator,
        first: Mapping[str, int] | None = None,
        on_error: str = "raise",
    ) -> None:
        self.source, self.seed = completed(source, Samples), tuple(seed)
        self.first, self.count = dict(first or {}), count
        self.collator, self.on_error = collator, on_error
        self.features: FeatureReader | None = None
        if not any(weight > 0 for weight in tasks.values()):
            raise AvalignError("a stage has no task of weight above 0")
        self.mixture = Mixture(tasks, self.seed)
        weights = np.array([tasks[task] for task in self.mixture.names], dtype=float)
        self.shares = weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sampled:
        """The sample, and what was skipped before it was found."""
        task, index = self.mixture[number]
        index += self.first.get(task, 0)
        rng = None
        skipped: list[str] = []
        for _ in range(ATTEMPTS):
            if skipped:  # any other: the next of its task may be another number's
                rng = np.random.default_rng((*self.seed, number, 1)) if rng is None else rng
                task = self.mixture.names[int(rng.choice(len(self.shares), p=self.shares))]
                index = int(rng.integers(2**31))
            try:
                sample = self._sample(task, index)
                self.collator.check(sample)
            except (MediaError, SampleError) as error:
                name_location(error, self.source, "train", task, index)
                if self.on_error != "skip":
                    raise
                skipped.append(str(error))
            else:
                return sample, skipped
        raise AvalignError(f"{ATTEMPTS} samples in a row cannot be used; the last: {skipped[-1]}")

    def _sample(self, task: str, index: int) -> Sample:
        if self.features is None:
            return self.source.sample("train", task, index)
        return self.features.sample(self.source, "train", task, index)

    def __getitems__(self, numbers: Sequence[int]) -> list[Sampled] | str:
        """As a loader asks. A problem comes as what it says: raised, it would come out of a loader's process
        as a traceback of that process."""
        try:
            return [self[number] for number in numbers]
        except AvalignError as error:
            return str(error)

    def after(self) -> dict[str, int]:
        """What `first` has to be for samples that go on behind these."""
        sampled = self.mixture.before(self.count)
        return {task: self.first.get(task, 0) + sampled.get(task, 0) for task in {**self.first, **sampled}}

    def collate(self, sampled: Sequence[Sampled] | str) -> dict[str, Batch | list[str] | str]:
        """What the trainer is given: the batch, and what was skipped on the way to it; or the problem."""
        if isinstance(sampled, str):
            return {"problem": sampled}
        try:
            samples = [sample for sample, _ in sampled]
            batch = self.collator(samples)
        except AvalignError as error:
            return {"problem": str(error)}
        if self.features is not None:
            batch = self.features.batch(samples, batch)
        return {"batch": batch, "skipped": [why for _, skipped in sampled for why in skipped]}
