"""How long FLAC and MP3 files are by what their headers count out: players believe it, decoders do not."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

from avalign.media.flac import behind_tag, stated

SLACK = 3  # frames of an MP3 that encoders count otherwise: the header's own, and those that are trimmed
RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1; a half of it in MPEG-2, a quarter in MPEG-2.5
SEARCHED = 4096  # bytes behind the tags, in which the first frame begins


class Counted(NamedTuple):
    """Seconds that a header promises, and by how many the audio may be off that keeps the promise."""

    seconds: float
    slack: float


def counted_by_header(file: Path, rate: int) -> Counted | None:
    """rate: Hz, as the audio decodes. None for other files, and for headers that count nothing."""
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        samples = stated(content)
        if samples is not None:
            return Counted(samples / rate, 0.5 / rate)
        begin = behind_tag(content)
        return _mp3(content[begin : begin + SEARCHED])


def _mp3(content: bytes) -> Counted | None:
    """By the frame that Xing, LAME, FFmpeg ("Xing", "Info") and Fraunhofer ("VBRI") put before the audio."""
    at = content.find(b"\xff")
    while 0 <= at < len(content) - 4 and not _layer_3(content[at : at + 4]):
        at = content.find(b"\xff", at + 1)
    frame = content[at:] if at >= 0 else b""
    if len(frame) < 200:
        return None
    version, mono = frame[1] >> 3 & 3, frame[3] >> 6 == 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    rate = RATES[frame[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    a_frame = (1152 if version == 3 else 576) / rate
    tag = frame[4 + {(3, False): 32, (3, True): 17, (2, False): 17, (0, False): 17}.get((version, mono), 9) :]
    if frame[36:40] == b"VBRI":
        frames, cut = int.from_bytes(frame[50:54], "big"), 0
    elif tag[:4] in (b"Xing", b"Info") and tag[7] & 1:
        frames = int.from_bytes(tag[8:12], "big")
        ends = int.from_bytes(tag[141:144], "big") if tag[7] & 15 == 15 and tag[120:124].strip(b"\0") else 0
        cut = (ends >> 12) + (ends & 0xFFF)  # samples that the encoder put before and behind
    else:
        return None
    return Counted(frames * a_frame - cut / rate, SLACK * a_frame) if frames else None


def _layer_3(head: bytes) -> bool:
    """Whether four bytes are the head of a frame of MPEG audio, layer III."""
    known = head[1] >> 5 == 7 and head[1] >> 3 & 3 != 1 and head[1] >> 1 & 3 == 1
    return known and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
