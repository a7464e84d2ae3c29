"""Where a FLAC file's samples begin and end, by the heads of its frames: RFC 9639, sections 8.2 and 9.1."""

from __future__ import annotations

import mmap
from functools import cache

MARK = b"fLaC"
STREAMINFO = 34  # bytes
TAIL = 1 << 17  # bytes at the end that are searched, where the longest frame is not told
HEAD = 16  # bytes of the longest head of a frame


def stated(content: bytes | mmap.mmap) -> int | None:
    """The samples that the file's own header says it has; None for one that does not say, or is no FLAC."""
    info = _streaminfo(content)
    return None if info is None else (int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)) or None


def counted(content: bytes | mmap.mmap) -> int | None:
    """The samples up to the end of the last frame that begins; None where none is found."""
    info = _streaminfo(content)
    if info is None:
        return None
    longest = int.from_bytes(info[7:10], "big") or TAIL
    tail = content[max(0, len(content) - longest - TAIL // 16) :]
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if (span := _span_of(tail[at : at + HEAD], info)) is not None:
            return span[1]
    return None


def begins_late(content: bytes | mmap.mmap) -> bool:
    """Whether the first frame is not the one of number 0: it was cut from a longer file."""
    info = _streaminfo(content)
    at, last = behind_tag(content) + len(MARK), False
    while info is not None and not last and at + 4 <= len(content):
        last = bool(content[at] & 0x80)
        at += 4 + int.from_bytes(content[at + 1 : at + 4], "big")
    span = None if info is None else _span_of(content[at : at + HEAD], info)
    return span is not None and span[0] > 0


def behind_tag(content: bytes | mmap.mmap) -> int:
    """Where, in bytes, a file begins that an ID3 tag was put before."""
    if content[:3] != b"ID3":
        return 0
    return 10 + sum(byte << 7 * k for k, byte in enumerate(reversed(content[6:10])))  # of 7 bits each


def _streaminfo(content: bytes | mmap.mmap) -> bytes | None:
    begin = behind_tag(content)
    if content[begin : begin + 4] != MARK:
        return None
    info = content[begin + 8 : begin + 8 + STREAMINFO]
    return bytes(info) if len(info) == STREAMINFO else None


def _span_of(head: bytes, info: bytes) -> tuple[int, int] | None:
    """The samples at which a frame begins and ends, if these bytes are the head of one."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1 or 0x80 <= head[4] < 0xC0:
        return None
    size, rate = head[2] >> 4, head[2] & 15
    coded = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()  # bytes of the number
    more = {6: 1, 7: 2}.get(size, 0)
    end = 4 + coded + more + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not size or rate == 15 or len(head) <= end or _crc(head[:end]) != head[end]:
        return None
    number = head[4] if coded == 1 else head[4] & (0x7F >> coded)
    for byte in head[5 : 4 + coded]:
        number = number << 6 | byte & 0x3F
    if more:
        samples = int.from_bytes(head[4 + coded : 4 + coded + more], "big") + 1
    else:
        samples = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    first = number if head[1] & 1 else number * int.from_bytes(info[:2], "big")
    return first, first + samples


def _crc(head: bytes) -> int:
    crc = 0
    for byte in head:
        crc = _table()[crc ^ byte]
    return crc


@cache
def _table() -> tuple[int, ...]:
    """CRC of 8 bits by x^8 + x^2 + x + 1."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte << 1 ^ 0x07 if byte & 0x80 else byte << 1) & 0xFF
        table.append(byte)
    return tuple(table)
