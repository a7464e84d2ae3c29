"""Where the list of a source names a sample: what a user opens to put right what is wrong with it."""

from __future__ import annotations

from avalign.interfaces import Samples


def name_location(error: Exception, source: Samples, split: str, task: str, index: int) -> None:
    """Put the file and line of sample `index` before what the error says, if the source knows them."""
    location = source.where(split, task, index)
    if location is not None:
        error.args = (f"{location}: {error}",)
