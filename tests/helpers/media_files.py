"""Small media files of every kind, made by PyAV as cameras, recorders and sites make them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.helpers.coded_video import coded

FPS, SECONDS = 25, 4
BURST = 0.02  # seconds of 2 kHz at every second from 0.5 s on: where sound is on the clock


@dataclass(frozen=True)
class Kind:
    """A file: its ending, codecs (None: no such stream) and when each stream begins, in seconds."""

    suffix: str
    audio: str | None
    video: str | None = None
    late_audio: float = 0.0
    late_video: float = 0.0
    rate: int = 48_000
    video_seconds: float = SECONDS
    gap: tuple[float, float] | None = None  # seconds of the sound that were lost, from and to

    def __str__(self) -> str:
        late = f" audio {self.late_audio:+g}" * bool(self.late_audio)
        late += f" video {self.late_video:+g}" * bool(self.late_video)
        gap = f" gap {self.gap[0]:g}-{self.gap[1]:g}" if self.gap else ""
        return f"{self.suffix} {self.video or ''} {self.audio or ''} {self.rate}{late}{gap}"


FILMS = (
    ("mp4", "aac", "libx264"), ("mov", "aac", "libx264"), ("mp4", "aac", "mpeg4"), ("3gp", "aac", "mpeg4"),
    ("mkv", "aac", "libx264"), ("mkv", "libopus", "libx264"), ("mkv", "flac", "mpeg4"),
    ("mkv", "libmp3lame", "libx264"), ("webm", "libopus", "libvpx"), ("ts", "aac", "libx264"),
    ("ts", "mp2", "mpeg2video"), ("mpg", "mp2", "mpeg2video"), ("flv", "aac", "flv1"),
    ("flv", "libmp3lame", "libx264"),
    ("ogv", "libopus", "libvpx"), ("ogv", "flac", "libvpx"),
)  # fmt: skip
SOUNDS = [
    Kind(suffix, audio, rate=rate)
    for suffix, audio, rate in (
        ("m4a", "aac", 44_100), ("mp3", "libmp3lame", 44_100), ("mp3", "libmp3lame", 48_000),
        ("ogg", "libopus", 48_000), ("aac", "aac", 48_000), ("flac", "flac", 48_000),
        ("flac", "flac", 96_000),
        ("wav", "pcm_s16le", 8_000), ("wav", "pcm_s16le", 192_000), ("aiff", "pcm_s16be", 44_100),
        ("mka", "flac", 48_000), ("webm", "libopus", 48_000),
        ("w64", "pcm_s16le", 48_000), ("au", "pcm_s16be", 48_000), ("caf", "pcm_s16be", 48_000),
        ("avi", "pcm_s16le", 48_000),
    )
]  # fmt: skip


def bursts(rate: int, seconds: float = SECONDS) -> np.ndarray:
    """(samples,) float32: a burst at 0.5 s, 1.5 s, ... over faint noise that is another everywhere."""
    t = np.arange(round(rate * seconds)) / rate
    heard = (t - 0.5) % 1 < BURST
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(t))
    return (0.7 * np.sin(2 * np.pi * 2000 * t) * heard + noise).astype(np.float32)


def write(folder: Path, kind: Kind) -> Path:
    file = folder / f"{abs(hash(kind))}.{kind.suffix}"
    if file.exists():
        return file
    with av.open(str(file), "w") as container:
        streams = []
        if kind.video is not None:
            streams.append(_video(container, kind))
        if kind.audio is not None:
            streams.append(_audio(container, kind))
        packets = [packet for stream in streams for packet in stream]
        for packet in sorted(
            packets, key=lambda p: float((p.dts if p.dts is not None else p.pts) * p.time_base)
        ):
            container.mux(packet)
    return file


def _video(container, kind: Kind):
    options = {"libvpx": {"deadline": "realtime", "cpu-used": "-16"}, "libx264": {"qp": "4"}}
    stream = container.add_stream(kind.video, rate=FPS, options=options.get(kind.video, {}))
    stream.height, stream.width, _ = coded(0).shape
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = 30
    stream.codec_context.thread_count = 1  # of more, the others of frames so small spin
    stream.bit_rate = 2_000_000
    if kind.video == "libx264":
        stream.codec_context.max_b_frames = 2
    tick = Fraction(1, FPS)
    stream.codec_context.time_base = tick
    late = round(kind.late_video * FPS)
    for number in range(round(FPS * kind.video_seconds)):
        frame = av.VideoFrame.from_ndarray(coded(number), format="rgb24")
        frame.pts, frame.time_base = number + late, tick
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _audio(container, kind: Kind):
    stream = container.add_stream(kind.audio, rate=kind.rate, layout="mono")
    if kind.audio == "aac":
        stream.options = {"aac_pns": "0"}  # noise that decoders draw anew
    if kind.audio not in ("flac", "pcm_s16le", "pcm_s16be"):
        stream.bit_rate = 128_000
    sound = bursts(kind.rate)
    tick = Fraction(1, kind.rate)
    size = 960 if kind.audio == "libopus" else 1024
    fmt = stream.codec_context.format.name
    convert = av.AudioResampler(format=fmt, layout="mono", rate=kind.rate)
    for begin in range(0, len(sound), size):
        piece = av.AudioFrame.from_ndarray(sound[None, begin : begin + size], format="fltp", layout="mono")
        piece.rate, piece.pts, piece.time_base = kind.rate, begin, tick
        for frame in convert.resample(piece):
            frame.pts, frame.time_base = begin + round(kind.late_audio * kind.rate), tick
            for packet in stream.encode(frame):
                if not _lost(packet, kind):
                    yield packet
    yield from stream.encode(None)


def _lost(packet, kind: Kind) -> bool:
    return kind.gap is not None and kind.gap[0] <= float(packet.pts * packet.time_base) < kind.gap[1]


def heard_at(audio: np.ndarray, rate: int) -> list[float]:
    """When bursts begin, in seconds."""
    loud = np.flatnonzero(np.abs(audio) > 0.3) / rate
    return [float(t) for t, step in zip(loud, np.diff(loud, prepend=-1), strict=True) if step > 0.4]
