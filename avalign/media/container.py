"""Media files that hold streams, opened by PyAV, and the clock that all streams of a file share.

Time is what a player shows: 0 where the first stream of the file begins, and every stream at its own time
stamps. A stream that begins later has nothing before: no frame, and silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from avalign.media.file import MediaError, MediaFile, openable

CONTAINERS = (  # that hold their own media: a playlist (HLS, concat, SDP) would open other files
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,"
    "mp3,aac,wav,w64,ogg,flac,aiff,au,caf,amr,ac3"
)
UNKNOWN = {  # by whether FFmpeg knows the format
    True: "it is of a format that avalign does not read; docs/media.md lists those that it reads",
    False: "it is no audio or video of a format that avalign reads, or its beginning is broken",
}
CUT_ANYWHERE = ("ac3", "flac", "mpeg", "mpegts")  # formats that are read from any position on
IN_ORDER = ("avi", "asf")  # formats that stamp frames in the order of decoding, none by when it is shown
MICROSECONDS = 1_000_000  # a container's own unit of time


@contextmanager
def opened(path: MediaFile, why_not: str) -> Iterator[Any]:
    """The file's container; whatever PyAV says of it, now or while it is decoded, becomes a MediaError."""
    import av

    begun = False
    try:
        with av.open(openable(path), options={"format_whitelist": CONTAINERS}) as container:
            begun = True
            yield container
    except MediaError:
        raise
    except (av.error.ArgumentError, av.error.InvalidDataError) as error:
        if begun:
            raise MediaError(path, f"{why_not}; PyAV: {error}") from error
        kind = why_not.split(":")[0]
        raise MediaError(path, f"{kind}: {UNKNOWN[type(error) is av.error.ArgumentError]}") from error
    except Exception as error:  # of decoders and of what broken headers claim: rates of 0, times beyond int64
        raise MediaError(path, f"{why_not}; PyAV: {error}") from error


def stream_of(container: Any, kind: str, path: MediaFile) -> Any:
    """The file's stream of a kind that players begin with: of those marked as default, or of all, the one of
    most channels or pixels, and of equals the first. A cover image is no video."""
    import av

    found = [
        stream
        for stream in getattr(container.streams, kind)
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not found:
        raise MediaError(path, f"holds no {kind}")
    return max(found, key=_preference)


def _preference(stream: Any) -> tuple[bool, int]:
    import av

    size = stream.channels if stream.type == "audio" else stream.width * stream.height
    return bool(stream.disposition & av.stream.Disposition.default), size or 0


def beginning(container: Any) -> Fraction:
    """The time stamp, in seconds, where the file's clock stands at 0: the first that any stream has."""
    return Fraction(container.start_time or 0, MICROSECONDS)


def packets_from(container: Any, stream: Any, time: Fraction) -> Iterator[Any]:
    """What a stream holds from the last position at or before `time`, of the file's clock, that a seek finds.

    Where a file has no index that may be a later one, within a packet even, or none: what comes must be
    looked at.
    """
    import av

    stamp = (beginning(container) + time) / stream.time_base
    try:
        container.seek(int(stamp // 1), stream=stream, backward=True)
    except av.FFmpegError:
        return
    yield from container.demux(stream)


def frames_on(packet: Any) -> list[Any]:
    """What the decoder gives on a packet. An empty one that has its time: the image before stays."""
    return packet.decode() if packet.size or packet.dts is None else []


def decoded(packets: Iterator[Any], *, sought: bool) -> Iterator[tuple[Any, list[Any]]]:
    """Packets, each with the frames that the decoder gives on it. A last one that cannot be decoded was cut
    off, and is passed over; so is, where packets were `sought`, what cannot be before the first frame."""
    import av

    begun, failed = not sought, None
    for packet in packets:
        if failed is not None and packet.size:
            raise failed
        try:
            frames = frames_on(packet)
        except av.FFmpegError as error:
            if begun and not packet.size:
                raise
            failed = error if begun else None
            continue
        begun = begun or bool(frames)
        yield packet, frames


def all_frames(container: Any, stream: Any) -> Iterator[Any]:
    """What is decoded of a container just opened; of formats that are cut anywhere, from the first packet on
    that can be."""
    cut = container.format.name in CUT_ANYWHERE
    for _, frames in decoded(container.demux(stream), sought=cut):
        yield from frames


def frames_from(container: Any, stream: Any, time: Fraction) -> Iterator[Any]:
    """What is decoded from a position at or before `time`, of the file's clock, as `packets_from` finds."""
    for _, frames in decoded(packets_from(container, stream, time), sought=True):
        yield from frames
