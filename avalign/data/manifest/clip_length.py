"""How long a record's clip lasts."""

from __future__ import annotations

from avalign.data.manifest.record import Record
from avalign.types import CLIP_SECONDS

LONGEST = 1e5  # seconds that a length is believed


def clip_length(record: Record) -> dict[str, float]:
    """How long a record says that its clip lasts, in seconds: the same whoever asks, with media or without.

    Clips called 10 s last 9.97 s or 10.031 s as they decode.
    """
    said = record.provenance.get("seconds")
    if record.audio_start is not None and record.audio_end is not None:
        return {CLIP_SECONDS: record.audio_end - record.audio_start}
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 < said < LONGEST:
        return {CLIP_SECONDS: float(said)}
    return {}
