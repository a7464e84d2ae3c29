"""Frames and sound out of video files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from avalign.data.media import END_SLACK, MediaError, MediaFile, openable, too_short


def decode_frames(path: MediaFile, times: Sequence[float]) -> np.ndarray:
    """For each time, in seconds from the start, the last frame that begins by then: (k, h, w, 3) uint8.

    Within END_SLACK of the end the last frame is taken; a time behind that raises MediaError.
    """
    with _opened(path, "cannot be decoded as a video") as container:
        stream = _stream(container, "video", path)
        return np.stack([_upright(_shown_at(container, stream, time, path)) for time in times])


def _shown_at(container: Any, stream: Any, time: float, path: MediaFile) -> Any:
    begin = stream.start_time or 0
    container.seek(begin + int(Fraction(time) / stream.time_base), stream=stream, backward=True)
    best, seen = None, 0.0
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        seen = float((frame.pts - begin) * stream.time_base)
        if seen > time and best is not None:
            return best
        best = frame
        if seen > time:
            break
    rate = float(stream.average_rate or 25)
    if best is None or time > seen + 1 / rate + END_SLACK:
        raise MediaError(path, f"has no frame at {time:g} s: the last begins at {seen:.2f} s")
    return best


def decode_audio(path: MediaFile, start: float, end: float | None, why_not: str) -> tuple[np.ndarray, int]:
    """Sound from `start` to `end` seconds: (samples, channels) float32 in [-1, 1] and its rate in Hz.

    why_not: why the file is being tried as a video, said when it is none either
    """
    import av

    with _opened(path, why_not) as container:
        stream = _stream(container, "audio", path)
        rate = int(stream.rate)
        if start:
            container.seek(int(Fraction(start) / stream.time_base), stream=stream, backward=True)
        to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        pieces, first, position = [], round(start * rate), None
        last = None if end is None else round(end * rate)
        for frame in container.decode(stream):
            for piece in to_float.resample(frame):
                if position is None:
                    begin = stream.start_time or 0
                    position = (
                        0
                        if frame.pts is None
                        else round(float((frame.pts - begin) * stream.time_base) * rate)
                    )
                samples = piece.to_ndarray().T
                low = max(0, first - position)
                high = len(samples) if last is None else min(len(samples), last - position)
                if high > low:
                    pieces.append(samples[low:high])
                position += len(samples)
            if last is not None and position is not None and position >= last:
                break
        heard = sum(map(len, pieces))
        wanted = 1 if last is None else last - first - round(END_SLACK * rate)
        if heard < wanted:
            raise MediaError(path, too_short((position or 0) / rate, start, end))
        return np.concatenate(pieces).astype(np.float32), rate


def audio_seconds(path: MediaFile, why_not: str) -> float:
    """How long a file's sound lasts, as its header says. why_not: as for `decode_audio`"""
    with _opened(path, why_not) as container:
        stream = _stream(container, "audio", path)
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None:
            return float(container.duration) / 1_000_000  # in microseconds
    raise MediaError(path, "its header does not say how long it lasts")


@contextmanager
def _opened(path: MediaFile, why_not: str) -> Iterator[Any]:
    """The file's container; whatever PyAV says of it, now or while it is decoded, becomes a MediaError."""
    import av

    try:
        with av.open(openable(path)) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise MediaError(path, f"{why_not}; PyAV: {error}") from error


def _stream(container: Any, kind: str, path: MediaFile) -> Any:
    found = getattr(container.streams, kind)
    if not found:
        raise MediaError(path, f"holds no {kind}")
    return found[0]


def _upright(frame: Any) -> np.ndarray:
    """The frame as it is meant to be seen: phones store a turned picture and the angle."""
    picture = frame.to_ndarray(format="rgb24")
    quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns))
