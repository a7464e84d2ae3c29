"""Frames out of video files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, dropwhile
from typing import Any

import numpy as np

from avalign.media.container import IN_ORDER, beginning, decoded, frames_on, opened, packets_from, stream_of
from avalign.media.file import END_SLACK, MediaError, MediaFile

EARLIER = (0, 1, 3, 7)  # seconds before the time that is meant, from which it is sought in turn
ROUNDING = Fraction(1, 1000)  # seconds by which time stamps may be late: Matroska's are of milliseconds
YET_TO_COME = 1.0  # seconds for which the first frame stands for those before it
SHARED = ("mpeg",)  # formats in which a stamp belongs to the first frame that begins in a packet


def decode_frames(path: MediaFile, times: Sequence[float]) -> np.ndarray:
    """For each time, in seconds of the file's clock, the frame that is seen then: (k, h, w, 3) uint8.

    That is the last one that begins by then. The file's last frame is seen until the file ends, by its own
    length or the other streams'; the first is taken for up to a second before it begins. MediaError for
    times outside.
    """
    with opened(path, "cannot be decoded as a video") as container:
        stream = stream_of(container, "video", path)
        delay = _delay(container, stream)
        frames = (_frame_at(container, stream, Fraction(time), delay, path) for time in times)
        return np.stack([upright(frame) for frame in frames])


def _frame_at(container: Any, stream: Any, time: Fraction, delay: int | None, path: MediaFile) -> Any:
    """A seek leads to a key frame, without an index perhaps to a later one: then it is begun earlier, and at
    last the file is read from its first packet on."""
    for earlier in EARLIER:
        if time < earlier:
            break
        packets = packets_from(container, stream, time - earlier)
        if container.format.name in SHARED:
            packets = _from_a_stamp(packets)
        packets = dropwhile(lambda packet: not packet.is_keyframe, packets)
        frame, _, last = _look(_timed(container, stream, decoded(packets, sought=True), delay), time)
        if frame is not None and (last is None or time <= last + _length(frame, stream)):
            return frame
    with opened(path, "cannot be decoded as a video") as anew:
        stream = stream_of(anew, "video", path)
        packets = decoded(anew.demux(stream), sought=False)
        frame, first, last = _look(_timed(anew, stream, packets, delay), time)
        length = 0 if frame is None else _length(frame, stream)  # a stream tells while its file is open
    if frame is not None:
        if last is None or time <= last + length or time <= _end(path):
            return frame
        raise MediaError(path, f"has no frame at {float(time):g} s: the last begins at {float(last):.2f} s")
    if first is None:
        raise MediaError(path, "holds no frame that can be decoded")
    begins, frame = first
    if begins <= time + YET_TO_COME:
        return frame
    raise MediaError(path, f"has no frame at {float(time):g} s: the first begins at {float(begins):.2f} s")


def _look(
    timed: Iterator[tuple[Fraction, Any]], time: Fraction
) -> tuple[Any | None, tuple[Fraction, Any] | None, Fraction | None]:
    """The last frame that begins by `time`, or None; when the first begins, and that frame; when the last
    begins, if the stream ended before a later frame came."""
    first, best, begins = None, None, Fraction(0)
    for begins, frame in timed:
        if best is None and frame.is_corrupt:  # decoded of what came before the seek
            continue
        first = first or (begins, frame)
        if begins > time + ROUNDING:
            return best, first, None
        best = frame
    return best, first, None if best is None else begins


def _timed(
    container: Any, stream: Any, packets: Iterator[tuple[Any, list[Any]]], delay: int | None
) -> Iterator[tuple[Fraction, Any]]:
    """Frames as they are seen, each with when it begins, in seconds of the file's clock. One without a stamp
    begins where the one before ends.

    delay: None, or the packets that a decoder takes ahead of what it gives, of a format that is IN_ORDER
    """
    begin = beginning(container)
    before: tuple[Fraction, Any] | None = None
    sent: list[Fraction] = []
    for packet, frames in packets:
        if delay is not None and packet.size:
            known = packet.dts is not None or not sent
            sent.append((packet.dts or 0) * packet.time_base if known else sent[-1] + _between(stream))
        for number, frame in enumerate(frames):
            stamp = frame.pts if frame.pts is not None or before is not None else frame.dts
            if delay is not None:
                ahead = delay + (packet.size > 0)  # the last packet is empty, and all the rest comes of it
                begins = sent[min(max(len(sent) - ahead + number, 0), len(sent) - 1)] - begin
            elif stamp is not None:
                begins = stamp * stream.time_base - begin
            elif before is not None:
                begins = before[0] + _lasts(before[1], stream)
            else:
                continue
            yield begins, frame
            before = begins, frame


def _delay(container: Any, stream: Any) -> int | None:
    """As `_timed` takes it; found out at the beginning of the file."""
    if container.format.name not in IN_ORDER:
        return None
    return next((ahead for ahead, packet in enumerate(container.demux(stream)) if frames_on(packet)), 0)


def _from_a_stamp(packets: Iterator[Any]) -> Iterator[Any]:
    """From the second packet on that has its own stamp: the first was read from its middle on, and gave its
    stamp, and those counted from it, to the wrong frames."""
    stamped = (packet for packet in packets if packet.pos is not None)
    next(stamped, None)
    begun = next(stamped, None)
    return iter(()) if begun is None else chain([begun], packets)


def _lasts(frame: Any, stream: Any) -> Fraction:
    """How long a frame is seen, in seconds."""
    return (frame.duration or 0) * stream.time_base or _between(stream)


def _between(stream: Any) -> Fraction:
    """From one frame to the next, in seconds, as far as the file says it."""
    return 1 / Fraction(stream.average_rate or 25)


def _length(frame: Any, stream: Any) -> Fraction:
    """How long a frame may be seen, in seconds, the slack of annotations included."""
    return _lasts(frame, stream) + Fraction(END_SLACK)


def _end(path: MediaFile) -> Fraction:
    """When the last packet of any stream ends."""
    with opened(path, "cannot be decoded as a video") as container:
        ends = [
            (packet.pts + (packet.duration or 0)) * packet.time_base
            for packet in container.demux()
            if packet.pts is not None
        ]
        return max(ends, default=Fraction(0)) - beginning(container) + Fraction(END_SLACK)


def upright(frame: Any) -> np.ndarray:
    """The frame as it is meant to be seen, (h, w, 3) uint8: phones store it turned, or as in a mirror, and a
    matrix beside it that puts a stored pixel, (x, y) from the top left, at (a x + c y, b x + d y)."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3).astype(float)
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
