"""Media files measured once, whoever uses them, and then held against what each record needs of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avalign.avfit.checking.check_lines import PICTURE, SOUND, VIDEO
from avalign.avfit.checking.cut_off import lacking
from avalign.avfit.checking.sound_meter import SoundMeter, step_of
from avalign.data.media import END_SLACK, MediaError, must_be_a_file, read_image
from avalign.data.video import decoded_audio, opened, stream_of

SMALL = 1 << 20  # bytes of a file whose content is compared
KIND_NAMES = {PICTURE: "picture", VIDEO: "video", SOUND: "sound"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of media.

    min_side:  pixels of a picture's shorter side
    min_rate:  Hz, of a sound's sample rate
    silence:   dB of full scale that a span's loudest sample must be above
    clipped:   share of a file's samples that may be at full scale (0.999 and above)
    """

    min_side: int = 32
    min_rate: int = 16_000
    silence: float = -60.0
    clipped: float = 0.001


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of a file; code and why: the finding that made it unusable.

    end:      of a video's last frame, in seconds; seconds: of a sound
    peaks:    loudest sample of each 0.1 s, a byte each in hex: half decibels below full scale
    band:     Hz below which all but a millionth of a sound's energy lies
    breaks:   how less is there than was promised
    digest:   of the content of a small file, where asked for
    """

    code: str = ""
    why: str = ""
    width: int = 0
    height: int = 0
    end: float = 0.0
    seconds: float = 0.0
    rate: int = 0
    peaks: str = ""
    full_scale: float = 0.0
    band: float = 0.0
    breaks: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """row: the record's; times in seconds, NaN where not given (see check_lines.USES)"""

    row: int
    start: float
    end: float
    last: float


def leads_out(root: Path, name: str) -> bool:
    """Whether a path below the root is, by links, another place. Nothing is opened to tell."""
    try:
        real, top = os.path.realpath(root / name), os.path.realpath(root)
    except (OSError, ValueError):  # a name that no file can have
        return False
    return os.path.commonpath([real, top]) != top


def measured(file: Path, kind: int) -> Facts:
    """Everything that can be told of a file by itself."""
    try:
        must_be_a_file(file)
    except MediaError as error:
        return Facts(code="media file is missing", why=error.why)
    try:
        return {PICTURE: _picture, VIDEO: _video, SOUND: _sound}[kind](file)
    except MediaError as error:
        lacks = lacking(file)
        if lacks or "truncated" in error.why:
            return Facts(code="media breaks off", why=lacks or without_path(error))
        return Facts(code="media cannot be decoded", why=without_path(error))


def without_path(error: MediaError) -> str:
    """Why, without the whole path that decoders put into what they say: the record's path stands beside."""
    return error.why.replace(error.file, Path(error.file).name)


def digest(file: Path) -> str:
    """Of a small file's bytes; "" for others."""
    try:
        if file.stat().st_size > SMALL:
            return ""
        return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    except OSError:
        return ""


def _picture(file: Path) -> Facts:
    height, width, _ = read_image(file).shape
    return Facts(width=width, height=height)


def _video(file: Path) -> Facts:
    """All packets are read and the key frames decoded."""
    with opened(file, "cannot be decoded as a video") as container:
        stream = stream_of(container, "video", file)
        stream.codec_context.skip_frame = "NONKEY"
        begin, last, reached, size = stream.start_time or 0, -1.0, 0.0, (0, 0)
        for packet in container.demux():
            if packet.pts is not None:
                start = packet.stream.start_time or 0
                until = packet.pts - start + (packet.duration or 0)
                reached = max(reached, float(until * packet.time_base))
                if packet.stream is stream:
                    last = max(last, float((packet.pts - begin) * stream.time_base))
            if packet.stream is stream:
                for frame in packet.decode():
                    size = size if any(size) else (frame.width, frame.height)
        if last < 0 or not any(size):
            raise MediaError(file, "holds no frame that can be decoded")
        end = last + 1 / float(stream.average_rate or 25)
        promised = (container.duration or 0) / 1_000_000
    breaks = lacking(file) or _broken(promised, max(reached, end))
    return Facts(width=size[0], height=size[1], end=end, breaks=breaks)


def _sound(file: Path) -> Facts:
    import soundfile

    promised = 0.0
    try:
        with soundfile.SoundFile(file) as opened_sound:
            meter = SoundMeter(opened_sound.samplerate)
            size = max(1, (1 << 20) // opened_sound.channels)
            while len(samples := opened_sound.read(size, dtype="float32", always_2d=True)):
                meter.hear(samples)
            promised = max(0, opened_sound.frames) / opened_sound.samplerate
    except soundfile.SoundFileError as error:
        with opened(file, f"cannot be decoded as audio: {error}") as container:
            stream = stream_of(container, "audio", file)
            meter = SoundMeter(int(stream.rate))
            for _, samples in decoded_audio(container, stream):
                meter.hear(samples)
            if stream.duration:
                promised = float(stream.duration * stream.time_base)
    except (ValueError, OverflowError, MemoryError, RuntimeError, ZeroDivisionError) as error:
        raise MediaError(file, f"cannot be decoded as audio: {error}") from error
    if meter.samples == 0:
        raise MediaError(file, "holds no audio samples")
    if meter.not_finite:
        raise MediaError(file, f"{meter.not_finite} audio samples are NaN or infinite")
    return Facts(
        seconds=meter.seconds,
        rate=meter.rate,
        peaks=meter.peaks().hex(),
        full_scale=meter.full_scale(),
        band=meter.band(),
        breaks=lacking(file) or _broken(promised, meter.seconds),
    )


def _broken(promised: float, there: float) -> str:
    """Half a second or a fiftieth may lack: what headers say is rounded, and padded by codecs."""
    if promised - there > max(0.5, 0.02 * promised):
        return f"{there:.2f} s are there, its header says {promised:.2f} s"
    return ""


# ---- facts against needs ----


def judged(
    name: str, kind: int, facts: Facts, uses: list[Use], limits: Limits
) -> Iterator[tuple[str, int, str]]:
    """(code, row of a record, detail): once for what a file suffers from, once a use for what a use does."""
    users = f"{name}, used by {len(uses)} record{'s' * (len(uses) > 1)}"
    first = uses[0].row
    if facts.code:
        yield facts.code, first, f"{users}: {facts.why}"
        return
    if facts.breaks:
        yield "media breaks off", first, f"{users}: {facts.breaks}"
    if kind != SOUND and min(facts.width, facts.height) < limits.min_side:
        yield "small picture", first, f"{users}: {facts.width} x {facts.height} pixels"
    if kind == VIDEO:
        for use in uses:
            if use.last > facts.end + END_SLACK:
                yield "frame behind the video's end", use.row, f"{name}: {use.last:g} s of {facts.end:.2f} s"
    if kind == SOUND:
        if facts.rate < limits.min_rate:
            yield "low sample rate", first, f"{users}: {facts.rate} Hz"
        elif facts.band and facts.band < 0.55 * limits.min_rate / 2:
            yield "upsampled sound", first, f"{users}: {facts.rate} Hz, nothing above {facts.band:.0f} Hz"
        if facts.full_scale > limits.clipped:
            yield "clipped sound", first, f"{users}: {facts.full_scale:.2%} of its samples at full scale"
        yield from _spans(name, facts, uses, limits)


def _spans(name: str, facts: Facts, uses: list[Use], limits: Limits) -> Iterator[tuple[str, int, str]]:
    peaks = np.frombuffer(bytes.fromhex(facts.peaks), np.uint8)
    per_second = facts.rate / step_of(facts.rate)
    for use in uses:
        start = 0.0 if np.isnan(use.start) else use.start
        end = facts.seconds if np.isnan(use.end) else use.end
        lasts = f"{name} lasts {facts.seconds:.2f} s"
        if end > facts.seconds + END_SLACK or start >= facts.seconds:
            yield "sound is shorter than its span", use.row, f"{lasts}, the span is [{start:g}, {end:g}] s"
            continue
        if use.last > end - start + END_SLACK:
            yield (
                "interval behind the sound's end",
                use.row,
                f"{lasts}, an interval ends at {use.last:g} s of a span of {end - start:g} s",
            )
        begin = int(start * per_second + 1e-3)  # times are of 32 bits
        heard = peaks[begin : max(int(np.ceil(end * per_second - 1e-3)), begin + 1)]
        loudest = -0.5 * int(heard.min()) if len(heard) else -127.5
        if loudest < limits.silence:
            yield "silent sound", use.row, f"{name}, [{start:g}, {end:g}] s: its loudest is {loudest:g} dB"
