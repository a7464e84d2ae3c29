"""Audio out of containers and compressed files, by PyAV, every sample at its time on the file's clock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import numpy as np

from avalign.media.container import all_frames, beginning, frames_from, opened, stream_of
from avalign.media.file import END_SLACK, MediaError, MediaFile, too_short

# seconds before a part from which it is sought: codecs need what came before
EARLIER = (Fraction(1, 2), 2, 8)
BACK = 1.0  # seconds by which time stamps that go back are not an overlap, but begin anew
UNSTAMPED = ("ac3",)  # formats whose stamps FFmpeg counts from rounded lengths: they drift, and none is taken
EXACT = (  # codecs whose audio is the same, at the same position, after a seek; and pcm_ but for OTHER_PCM
    *("flac", "alac", "aac", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "opus", "libopus"),
    *("vorbis", "adpcm_ms", "adpcm_ima_wav"),
)
OTHER_PCM = ("pcm_dvd", "pcm_bluray")  # whose packets hold more than samples
POSITION_BY_BYTES = ("avi", "wav", "w64")
PAGE = 255  # packets of an Ogg page at most
LONGEST_GAP = 3600  # seconds
ROUNDING = 0.015  # seconds that a time stamp may be off: less than any packet that can be lost lasts


def decode_audio(path: MediaFile, start: float, end: float | None, why_not: str) -> tuple[np.ndarray, int]:
    """Audio from `start` to `end` seconds of the file's clock: (samples, channels) float32, and Hz.

    why_not: why the file is being tried as a container, said when it is none either
    """
    with opened(path, why_not) as container:
        stream = stream_of(container, "audio", path)
        rate, rounded = int(stream.rate), _rounded(stream)  # of its beginning: they may change
        decoded = _from_before(container, stream, Fraction(start))
        if decoded is not None:
            audio, _ = _part(continuous(decoded, rate, rounded, start), path, rate, start, end)
            if audio is not None:
                return audio, rate
    with opened(path, why_not) as container:  # no seek leads there, or time stamps begin anew before
        stream = stream_of(container, "audio", path)
        decoded = _from_the_beginning(container, stream)
        audio, reached = _part(continuous(decoded, rate, rounded, start), path, rate, start, end)
        if audio is None:
            raise MediaError(path, too_short(reached, start, end))
        return audio, rate


def _part(
    pieces: Generator[tuple[int, np.ndarray], None, None],
    path: MediaFile,
    rate: int,
    start: float,
    end: float | None,
) -> tuple[np.ndarray | None, float]:
    """The audio from `start` to `end`, None where there is less; and when what was decoded ends, in s."""
    found, first, reached = [], round(start * rate), 0
    last = None if end is None else round(end * rate)
    if last == first:
        return np.zeros((0, 1), np.float32), start
    with closing(pieces):
        for position, samples in pieces:
            low = max(0, first - position)
            high = len(samples) if last is None else min(len(samples), last - position)
            if high > low:
                found.append(samples[low:high])
            reached = position + len(samples)
            if last is not None and reached >= last:
                break
    if not reached:
        raise MediaError(path, "holds no audio samples")
    needed = 1 if last is None else last - first - round(END_SLACK * rate)
    return (np.concatenate(found) if found and sum(map(len, found)) >= needed else None), reached / rate


def decoded_audio(
    container: Any, stream: Any, gaps: list[tuple[float, float]]
) -> Iterator[tuple[int, np.ndarray]]:
    """All the audio of a container just opened, as `continuous` gives it. gaps: is given those found"""
    stamped = _from_the_beginning(container, stream)
    return continuous(stamped, int(stream.rate), _rounded(stream), gaps=gaps)


def continuous(
    stamped: Iterator[tuple[int | None, np.ndarray]],
    rate: int,
    rounded: float,
    start: float = 0.0,
    gaps: list[tuple[float, float]] | None = None,
) -> Generator[tuple[int, np.ndarray], None, None]:
    """The audio piece by piece, from `start` seconds or before on: where a piece begins, in samples of the
    file's clock, and its samples, (samples, channels) float32.

    Each begins where the one before ends. There is silence before the stream begins and where time stamps
    jump ahead; what they show twice is heard once; jumps of less than half a piece are their rounding.
    rounded: samples by which stamps are; where whole pieces seem to be lost, it is so many
    gaps:    is given where time stamps jump, and by how much, in seconds, less than 0 where they begin anew;
             0 and when, if the stream begins later
    """
    begin = round(start * rate)
    at, shift, longest = None, 0, round(ROUNDING * rate)  # shift: of time stamps that began anew
    for stamp, samples in stamped:
        longest = max(longest, len(samples) // 2)
        if at is None:
            due = begin if stamp is None else stamp
            at = min(due, begin)
        else:
            due = at if stamp is None else stamp + shift
            if at - due > BACK * rate:
                if gaps is not None:
                    gaps.append((at / rate, (due - at) / rate))
                due, shift = at, shift + at - due
            if abs(due - at) <= longest:
                due = at
            lost = at + round((due - at) / len(samples)) * len(samples)
            if abs(lost - due) <= rounded:
                due = lost
        if due - at > LONGEST_GAP * rate:
            raise ValueError(f"its audio's time stamps jump from {at / rate:.2f} s to {due / rate:.2f} s")
        if gaps is not None and due > at:
            gaps.append((at / rate, (due - at) / rate))
        while at < due:  # by the second, whatever is claimed
            silence = np.zeros((min(due - at, rate), samples.shape[1]), np.float32)
            yield at, silence
            at += len(silence)
        new = samples[at - due :]
        if len(new):
            yield at, new
            at += len(new)


def _from_before(
    container: Any, stream: Any, start: Fraction
) -> Iterator[tuple[int | None, np.ndarray]] | None:
    """What the decoder gives, from early enough for `start`; None where no seek leads there."""
    if start <= EARLIER[0]:
        return _from_the_beginning(container, stream)
    if container.format.name in UNSTAMPED or not _exact(container, stream):
        return None
    aligned = _grid(container, stream)
    for earlier in EARLIER:
        if start <= earlier:
            break
        found = _decoded(container, stream, frames_from(container, stream, start - earlier))
        decoded = _by_pages(container, stream, found)
        stamp, samples = next(decoded, (None, np.zeros((0, 1), np.float32)))
        if stamp is not None and stamp <= (start - EARLIER[0] / 2) * stream.rate:
            return chain([(aligned(stamp, len(samples)), samples)], decoded)
    return None


def _exact(container: Any, stream: Any) -> bool:
    """Whether what is decoded after a seek is that part of the whole. Not of Vorbis in Ogg, whose stamps
    FFmpeg counts back from a page's end, nor of FLAC that was cut from a longer file: its frames keep their
    numbers."""
    codec = stream.codec_context.name
    if container.format.name == "flac" and beginning(container):
        return False
    if codec.startswith("pcm_"):
        return codec not in OTHER_PCM
    return codec in EXACT and (container.format.name, codec) != ("ogg", "vorbis")


def _uncounted(container: Any, stream: Any) -> bool:
    """Whether stamps are to be passed over: FFmpeg makes them up of a file's bytes, by rules that are not
    every codec's. What has been decoded is counted instead."""
    if container.format.name in UNSTAMPED:
        return True
    alone = container.format.name in POSITION_BY_BYTES or len(container.streams) == 1
    return alone and not _exact(container, stream)


def _from_the_beginning(container: Any, stream: Any) -> Iterator[tuple[int | None, np.ndarray]]:
    """What is decoded of a container just opened."""
    return _by_pages(container, stream, _decoded(container, stream, all_frames(container, stream)))


def _by_pages(
    container: Any, stream: Any, stamped: Iterator[tuple[int | None, np.ndarray]]
) -> Iterator[tuple[int | None, np.ndarray]]:
    """Ogg tells when a page ends, and FFmpeg not when FLAC's first one begins: it ends as the next begins."""
    if (container.format.name, stream.codec_context.name) != ("ogg", "flac"):
        return stamped
    page: list[tuple[int | None, np.ndarray]] = []
    begin = at = 0
    for stamp, samples in stamped:
        if page and stamp is not None and stamp != at:
            return chain([(begin + stamp - at, page[0][1])], page[1:], [(stamp, samples)], stamped)
        begin, at = (begin, at) if page else (stamp or 0, stamp or 0)
        page.append((None if page else stamp, samples))
        at += len(samples)
        if len(page) > PAGE:
            break
    return chain(page, stamped)


def _decoded(container: Any, stream: Any, frames: Iterator[Any]) -> Iterator[tuple[int | None, np.ndarray]]:
    """Time stamps, in samples of the file's clock, None where there is none, and samples, (samples, channels)
    float32. Whatever rate and channels a stream goes over to, it is heard as it began."""
    import av

    rate, begin = int(stream.rate), beginning(container)
    layout, kind = stream.layout, None
    convert: Any = None
    decoded_samples, stampless = 0, _uncounted(container, stream)
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != kind:
            yield from _held_back(convert)
            kind, convert = now, av.AudioResampler(format="fltp", layout=layout, rate=rate)
        if stampless and (decoded_samples or container.format.name in UNSTAMPED):
            stamp = None if decoded_samples else 0
        else:
            stamp = None if frame.pts is None else round((frame.pts * frame.time_base - begin) * rate)
        for piece in convert.resample(frame):
            samples = piece.to_ndarray().T
            if not len(samples):
                continue
            yield stamp, samples
            decoded_samples += len(samples)
            stamp = None  # of what comes of the same frame
    yield from _held_back(convert)


def _held_back(convert: Any | None) -> Iterator[tuple[None, np.ndarray]]:
    """What a resampler still holds at the end of what it was given."""
    for piece in [] if convert is None else convert.resample(None):
        if piece.samples:
            yield None, piece.to_ndarray().T


def _rounded(stream: Any) -> float:
    """By how many samples time stamps may be off that are counted in something longer than a sample."""
    slack = 1.5 * float(stream.time_base * stream.rate)
    return slack if slack > 2 else 0.0


def _grid(container: Any, stream: Any) -> Callable[[int, int], int]:
    """Puts a time stamp that is rounded, to a millisecond in Matroska and FLV, where its samples begin:
    pieces of one length end one after the other from the second on. The container has just been opened."""
    slack = _rounded(stream)
    first = list(islice(_from_the_beginning(container, stream), 3)) if slack else []
    if len(first) < 3 or first[0][0] is None or len(first[1][1]) != len(first[2][1]):
        return lambda stamp, samples: stamp
    anchor, length = first[0][0] + len(first[0][1]), len(first[1][1])

    def aligned(stamp: int, samples: int) -> int:
        near = anchor + round((stamp + samples - anchor) / length) * length - samples
        return near if abs(near - stamp) <= slack else stamp

    return aligned


def audio_seconds(path: MediaFile, why_not: str) -> float:
    """How long a file's audio lasts on the file's clock, as it decodes: headers guess, lie of files that were
    cut off, and count what codecs pad. why_not: as for `decode_audio`"""
    with opened(path, why_not) as container:
        stream = stream_of(container, "audio", path)
        last, anew = Fraction(0), False
        for packet in container.demux(stream):
            if packet.pts is not None:
                time = packet.pts * packet.time_base - beginning(container)
                anew = anew or time < last - Fraction(BACK)
                last = max(last, time)
    with opened(path, why_not) as container:
        stream = stream_of(container, "audio", path)
        rate, start = int(stream.rate), max(Fraction(0), last - 1)
        stamped = None if anew else _from_before(container, stream, start)
        if stamped is not None:
            ends = [
                at + len(samples) for at, samples in continuous(stamped, rate, _rounded(stream), float(start))
            ]
            if ends:
                return ends[-1] / rate
    with opened(path, why_not) as container:
        stream = stream_of(container, "audio", path)
        ends = [at + len(samples) for at, samples in decoded_audio(container, stream, [])]
        if ends:
            return ends[-1] / int(stream.rate)
    raise MediaError(path, "holds no audio samples")
