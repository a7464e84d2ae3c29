"""shards: a manifest and its media packed into tar files, few and large, for many machines."""

from __future__ import annotations

from pathlib import Path

from avalign.config.recipe import NonNegative
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record
from avalign.data.shards.tars import ShardTable
from avalign.errors import AvalignError
from avalign.media.file import MediaFile


class Shards(Manifest):
    """Samples packed with their media into WebDataset tar files by `avalign data shard`.

    `data.root` is the folder of the shards. Each sample is read where it lies, by its number: so training
    goes through the same samples in the same order as from the manifest that was packed, over any number of
    processes, and a run may go on from one to the other. Every part that is read is held against its CRC32.

    sources: source -> weight in the samples of a task, as for `manifest`; by number of records when not given
    """

    def __init__(self, *, sources: dict[str, NonNegative] | None = None) -> None:
        super().__init__(sources=sources)

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Open the shards under `root` and note which record belongs to which split and task."""
        if root is None:
            raise AvalignError("source shards: data.root has to name the folder of the shards")
        self.folder = Path(root)
        self.shards = ShardTable(self.folder)
        self._open(self.shards, self.folder, seed)

    def files(self, record: Record, number: int) -> tuple[MediaFile | None, MediaFile | None]:
        return self.shards.stored(number, "image"), self.shards.stored(number, "audio")
