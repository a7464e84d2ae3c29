"""Audio of files that soundfile reads to the sample: WAV, FLAC, AIFF, Ogg and their kin.

Not MP3: its length is guessed there, wrongly where rates vary or the file was cut. Of Ogg files that were
put one behind the other, as web radio records them, soundfile reads the first: each is read by itself here.
Not FLAC either that goes on behind the samples that its header counts, where soundfile stops.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from avalign.media.file import END_SLACK, MediaError, MediaFile, Stored, openable, too_short
from avalign.media.flac import begins_late, counted
from avalign.media.ogg import beginnings, begins_before_0, last_pages

BROKEN = (ValueError, OverflowError, MemoryError, RuntimeError)  # of headers that say too much
UNKNOWN = 1 << 40  # frames: a FLAC stream that does not say how many it has says more
BLOCK = 1 << 20  # numbers that are read at a time
ELSEWHERE = "cannot be decoded as audio"  # by soundfile alone
SOUGHT = (  # subtypes whose audio is the same after a seek
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("IMA_ADPCM", "MS_ADPCM", "OPUS", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"),
)
Looked = TypeVar("Looked")
UNSET = (0, 0xFFFFFFFF)  # lengths in a WAV file's header that was written before they were known


def read_plain(path: MediaFile, start: float, end: float | None) -> tuple[np.ndarray, int] | str:
    """(samples, channels) float32 and the rate in Hz; or why this file is not for soundfile."""
    import soundfile

    try:
        with _files(path) as files:
            if _guessed(path, files[0]):
                return ELSEWHERE
            rate = int(files[0].samplerate)
            if any(file.samplerate != rate or file.channels != files[0].channels for file in files):
                raise MediaError(path, "holds audio of different rates or channels one behind the other")
            frames = sum(file.frames for file in files)
            first, last = round(start * rate), frames if end is None else round(end * rate)
            if (first and first >= frames) or last > frames + END_SLACK * rate:
                raise MediaError(path, too_short(frames / rate, start, end))
            pieces, at = [], 0
            for file, unsought in zip(files, _unsought(path, files), strict=True):
                low, high = max(first - at, 0), min(last - at, file.frames)
                if high > low or len(files) == 1:
                    _seek(file, low, unsought)
                    pieces.append(file.read(high - low, dtype="float32", always_2d=True))
                    if len(pieces[-1]) < high - low:
                        there = at + low + len(pieces[-1])
                        raise MediaError(
                            path, f"breaks off at {there / rate:.2f} s, its header says {frames / rate:.2f} s"
                        )
                at += file.frames
            return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)), rate
    except soundfile.SoundFileError as error:
        return f"cannot be decoded as audio: {error}"
    except BROKEN as error:
        raise MediaError(path, f"cannot be decoded as audio: {error}") from error


def plain_seconds(path: MediaFile) -> float | str:
    """How long it lasts, in seconds; or why this file is not for soundfile."""
    import soundfile

    try:
        with _files(path) as files:
            if _guessed(path, files[0]):
                return ELSEWHERE
            for file in files:  # headers lie of files that were cut off
                file.seek(max(0, file.frames - 1))
                if len(file.read(1)) < min(1, file.frames):
                    return "its end, as its header says it, cannot be read"
            return float(sum(file.frames / file.samplerate for file in files))
    except soundfile.SoundFileError as error:
        return f"cannot be decoded as audio: {error}"
    except BROKEN as error:
        raise MediaError(path, f"cannot be decoded as audio: {error}") from error


def blocks(path: MediaFile) -> tuple[int, float, Iterator[np.ndarray]] | str:
    """The rate in Hz, how many seconds the header promises, and all samples, (samples, channels) float32, a
    block at a time; or why this file is not for soundfile."""
    promised = plain_seconds(path)
    if isinstance(promised, str):
        return promised
    with _files(path) as files:
        rate = int(files[0].samplerate)

    def read() -> Iterator[np.ndarray]:
        import soundfile

        try:
            with _files(path) as files:
                for file in files:
                    size = max(1, BLOCK // file.channels)
                    while len(samples := file.read(size, dtype="float32", always_2d=True)):
                        yield samples
        except (soundfile.SoundFileError, *BROKEN) as error:
            raise MediaError(path, f"cannot be decoded as audio: {error}") from error

    return rate, promised, read()


def later_streams(path: MediaFile) -> list[float]:
    """When the streams of an Ogg file begin that follow its first, in seconds."""
    with _files(path) as files:
        ends = accumulate(file.frames / file.samplerate for file in files[:-1])
        return list(ends)


def _guessed(path: MediaFile, file: Any) -> bool:
    if file.frames == 0 and file.format in ("WAV", "WAVEX"):
        return _streamed(path)
    if file.format == "FLAC":
        longer = file.frames >= UNKNOWN or (_looked_at(path, counted) or 0) > file.frames
        return bool(longer or _looked_at(path, begins_late))
    if file.subtype == "VORBIS" and _looked_at(path, begins_before_0):
        return True
    return bool(file.format == "MP3")


def _unsought(path: MediaFile, files: list[Any]) -> list[int]:
    """Of each file, how many samples at its end are to be reached by reading, as libsndfile's seeks fail.

    It counts from a page's end back, and the last page of Vorbis may end within a block; and codecs that go
    on from the sample before, as speech's do, begin anew where they are sought.
    """
    if files[0].subtype == "VORBIS":
        return list(_looked_at(path, last_pages))
    if files[0].subtype in SOUGHT:
        return [0] * len(files)
    return [file.frames for file in files]


def _seek(file: Any, sample: int, unsought: int) -> None:
    begin = max(0, file.frames - unsought - 1)
    if not unsought or sample <= begin:
        file.seek(sample)
        return
    file.seek(begin)
    while begin < sample:
        read = len(file.read(min(sample - begin, BLOCK // file.channels), always_2d=True))
        if not read:
            return
        begin += read


def _streamed(path: MediaFile) -> bool:
    """Whether a WAV file of 0 samples was written as a stream: more is there than its lengths cover."""
    if isinstance(path, Stored):
        content = path.content()
        head, size = content[:8], len(content)
    else:
        with open(path, "rb") as file:
            head, size = file.read(8), Path(path).stat().st_size
    length = int.from_bytes(head[4:], "little")
    return length in UNSET or length + 8 < size


@contextmanager
def _files(path: MediaFile) -> Iterator[list[Any]]:
    """The file, opened; several where Ogg streams follow each other."""
    import soundfile

    with ExitStack() as stack:
        begins = _ogg_streams(path)
        if len(begins) < 2:
            yield [stack.enter_context(soundfile.SoundFile(openable(path)))]
            return
        content = path.content() if isinstance(path, Stored) else Path(path).read_bytes()
        parts = [content[a:b] for a, b in zip(begins, (*begins[1:], len(content)), strict=True)]
        yield [stack.enter_context(soundfile.SoundFile(BytesIO(part))) for part in parts]


def _ogg_streams(path: MediaFile) -> tuple[int, ...]:
    """Where, in bytes, the streams of an Ogg file begin that follow each other; () for other files."""
    return _looked_at(path, beginnings)


def _looked_at(path: MediaFile, look: Callable[[bytes | mmap.mmap], Looked]) -> Looked:
    """What `look` finds in a file's content."""
    if isinstance(path, Stored):
        return look(path.content())
    try:
        state = Path(path).stat()
        return _of_file(str(path), state.st_size, state.st_mtime_ns, look)
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=65536)
def _of_file(path: str, size: int, changed: int, look: Callable[[bytes | mmap.mmap], Looked]) -> Looked:
    """size, changed: so that a file that was replaced is looked at again"""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return look(content)
