"""Files that were cut off: what a file lacks by its own marks, which decoders often pass over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

TAIL = 1 << 17  # bytes: two of the longest Ogg pages


def lacking(file: Path) -> str:
    """What a .wav, Ogg or MP4 file lacks by its own lengths and end marks; "" for nothing, or for others."""
    size = file.stat().st_size
    with open(file, "rb") as opened:
        head = opened.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _wav(opened, size)
        if head[:4] == b"OggS":
            return _ogg(opened, size)
        if head[4:8] == b"ftyp":
            return _mp4(opened, size)
    return ""


def _wav(opened: BinaryIO, size: int) -> str:
    at = 12
    while at <= size - 8:
        opened.seek(at)
        name, length = opened.read(4), int.from_bytes(opened.read(4), "little")
        at += 8
        if name == b"data":
            lacks = 0 if length in (0, 0xFFFFFFFF) else at + length - size  # those: written as a stream
            return f"{lacks} of {length} bytes of samples are lacking" if lacks > 0 else ""
        at += length + length % 2
    return ""


def _ogg(opened: BinaryIO, size: int) -> str:
    opened.seek(max(0, size - TAIL))
    tail = opened.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27 or not tail[page + 5] & 4:
        return "its last Ogg page is not marked as the last"
    segments = tail[page + 26]
    needed = page + 27 + segments + sum(tail[page + 27 : page + 27 + segments])
    return "its last Ogg page is cut off" if len(tail) < needed else ""


def _mp4(opened: BinaryIO, size: int) -> str:
    at = 0
    while at < size:
        opened.seek(at)
        length, name = int.from_bytes(opened.read(4), "big"), opened.read(4)
        if length == 1:  # the length is written in 64 bits behind the name
            length = int.from_bytes(opened.read(8), "big")
        if length == 0:  # to the file's end
            return ""
        if length < 8 or at + length > size:
            return f"its part {name!r} of {length} bytes is cut off after {size - at}"
        at += length
    return ""
