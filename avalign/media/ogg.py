"""What the pages of an Ogg file tell of its streams: RFC 3533, and Vorbis I, sections 4 and A.2.

A page's granule is the sample at which its last packet ends.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

BEGINNING = b"OggS\x00\x02"  # of a stream's first page
MARK = BEGINNING[:4]
TAIL = 1 << 18  # bytes: four of the longest pages
MODE = 41  # bits of a mode in Vorbis' setup: of long blocks or not, window, transform, mapping
NONE = (1 << 64) - 1  # the granule of a page in which no packet ends
Content = bytes | mmap.mmap


class Page(NamedTuple):
    """lengths: of its segments, in bytes"""

    last: bool
    granule: int
    serial: bytes
    lengths: bytes
    body: int


def beginnings(content: Content) -> tuple[int, ...]:
    """Where, in bytes, the streams of an Ogg file begin that follow each other; () for other files.

    Streams that lie side by side, as audio and video do, have their first pages side by side: they count
    as one.
    """
    if content[:4] != MARK:
        return ()
    found: list[int] = []
    at = end = 0
    while at >= 0:
        if at != end or not found:
            found.append(at)
        page = _page(content, at)
        end = at if page is None else page.body + sum(page.lengths)
        at = content.find(BEGINNING, at + 1)
    return tuple(found)


def last_pages(content: Content) -> tuple[int, ...]:
    """How many samples end in the last page of each stream that `beginnings` finds."""
    begins = beginnings(content)
    return tuple(_last_page(content, a, b) for a, b in pairwise((*begins, len(content))))


def begins_before_0(content: Content) -> bool:
    """Whether Vorbis' first page holds more samples than its granule counts: it was cut from a longer file,
    and what is before 0 is not to be heard."""
    heads = [packet for packet, _ in islice(_packets(content), 3)]
    if len(heads) < 3 or heads[0][:7] != b"\x01vorbis" or len(heads[0]) < 30:
        return False
    sizes, modes = (1 << (heads[0][28] & 15), 1 << (heads[0][28] >> 4)), _modes(heads[2])
    if not modes:
        return False
    samples = before = 0
    for packet, page in _packets(content, skipped=3):
        mode = (packet[0] >> 1) & ((1 << (len(modes) - 1).bit_length()) - 1) if packet else len(modes)
        if mode < len(modes):
            size = sizes[modes[mode]]
            samples += (before + size) // 4 if before else 0
            before = size
        if page is not None:
            return not page.last and page.granule < samples
    return False


def _page(content: Content, at: int) -> Page | None:
    head = content[at : at + 27]
    if len(head) < 27 or head[:4] != MARK:
        return None
    lengths = content[at + 27 : at + 27 + head[26]]
    granule = int.from_bytes(head[6:14], "little")
    return Page(bool(head[5] & 4), granule, head[14:18], lengths, at + 27 + len(lengths))


def _last_page(content: Content, begin: int, end: int) -> int:
    tail = content[max(begin, end - TAIL) : end]
    at, last = len(tail), None
    while (at := tail.rfind(MARK, 0, at)) >= 0:
        page = _page(tail, at)
        if page is None or page.granule == NONE or (last is not None and page.serial != last.serial):
            continue
        if last is not None:
            return last.granule - page.granule
        last = page
    return 0 if last is None else last.granule


def _packets(content: Content, skipped: int = 0) -> Iterator[tuple[bytes, Page | None]]:
    """Packets of the first stream, after some that are `skipped`; with the last that ends in a page, it."""
    at, packet, serial = 0, b"", None
    while (page := _page(content, at)) is not None:
        serial = serial or page.serial
        body, at = page.body, page.body + sum(page.lengths)
        if page.serial != serial:
            continue
        ends = [number for number, length in enumerate(page.lengths) if length < 255]
        for number, length in enumerate(page.lengths):
            packet += content[body : body + length]
            body += length
            if length < 255:
                if skipped <= 0:
                    yield packet, page if number == ends[-1] else None
                skipped, packet = skipped - 1, b""


def _modes(setup: bytes) -> list[int]:
    """Of each mode whether its blocks are long, 1 or 0: they stand at the end, behind much else."""
    bits = int.from_bytes(setup, "little")
    end = bits.bit_length() - 1  # the last bit that is set ends the packet
    found: list[int] = []
    for count in range(1, 65):
        begin = end - MODE * count
        if begin < 6 or bits >> begin + 1 & 0xFFFFFFFF or bits >> begin + 33 & 0xFF > 63:
            break
        if (bits >> begin - 6 & 63) + 1 == count:
            found = [bits >> begin + MODE * number & 1 for number in range(count)]
    return found
