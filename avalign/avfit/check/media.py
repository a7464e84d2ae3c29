"""Media files measured once, whoever uses them, and then held against what each record needs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from avalign.avfit.check.audio_meter import AudioMeter, step_of
from avalign.avfit.check.counted import Counted, counted_by_header
from avalign.avfit.check.cut_off import lacking
from avalign.avfit.check.lines import AUDIO, IMAGE, VIDEO
from avalign.media.audio import decoded_audio
from avalign.media.container import IN_ORDER, beginning, frames_on, opened, stream_of
from avalign.media.file import END_SLACK, MediaError, must_be_a_file
from avalign.media.plain_audio import blocks, later_streams
from avalign.media.read import read_image
from avalign.media.video import YET_TO_COME

SMALL = 1 << 20  # bytes of a file whose content is compared
CANCELLED = 20.0  # decibels lost as channels are mixed down that are told
LATE = 0.1  # seconds into its file at which a video or audio may begin
GUESSING = ("mp3", "aac", "mpegts", "mpeg", "ogg")  # formats that have no length in a header
ROUNDED = 1e-3  # seconds: times of 32 bits
KIND_NAMES = {IMAGE: "picture", VIDEO: "video", AUDIO: "sound"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of media.

    min_side:  pixels of an image's shorter side
    min_rate:  Hz, of the audio's sample rate
    silence:   dB of full scale that a span's loudest sample must be above
    clipped:   share of a file's samples that may be at full scale (0.999 and above)
    """

    min_side: int = 32
    min_rate: int = 16_000
    silence: float = -60.0
    clipped: float = 0.001


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What was measured of a file; code and why: the finding that made it unusable.

    begin:    of a video's first frame, or of audio, in seconds of the file's clock
    end:      of a video's last frame, or of the audio that it is seen with
    seconds:  of audio
    peaks:    loudest sample of each 0.1 s, a byte each in hex: half decibels below full scale
    band:     Hz below which all but a millionth of the audio's energy lies, if it ends there as at a wall
    gaps:     where the audio's time stamps jump ahead
    anew:     where they begin anew
    mixing:   decibels that are lost as the channels are mixed down
    breaks:   how less is there than was promised
    more:     how more is there than the header counts
    streams:  Ogg streams that follow the first one
    digest:   of the content of a small file, where asked for
    """

    code: str = ""
    why: str = ""
    width: int = 0
    height: int = 0
    begin: float = 0.0
    end: float = 0.0
    seconds: float = 0.0
    rate: int = 0
    peaks: str = ""
    full_scale: float = 0.0
    band: float = 0.0
    gaps: str = ""
    anew: str = ""
    mixing: float = 0.0
    breaks: str = ""
    more: str = ""
    streams: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """row: the record's; times in seconds, NaN where not given (see check_lines.USES)"""

    row: int
    start: float
    end: float
    last: float


def measured(file: Path, kind: int) -> MediaInfo:
    """Everything that can be told of a file by itself."""
    try:
        must_be_a_file(file)
    except MediaError as error:
        return MediaInfo(code="media file is missing", why=error.why)
    try:
        return {IMAGE: _image, VIDEO: _video, AUDIO: _audio}[kind](file)
    except MediaError as error:
        lacks = lacking(file)
        if lacks or "truncated" in error.why:
            return MediaInfo(code="media breaks off", why=lacks or without_path(error))
        return MediaInfo(code="media cannot be decoded", why=without_path(error))


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


def _image(file: Path) -> MediaInfo:
    height, width, _ = read_image(file).shape
    return MediaInfo(width=width, height=height)


def _video(file: Path) -> MediaInfo:
    """All packets are read and the key frames decoded."""
    with opened(file, "cannot be decoded as a video") as container:
        stream = stream_of(container, "video", file)
        stream.codec_context.skip_frame = "NONKEY"
        zero, begin, last, reached, size = beginning(container), inf, -1.0, 0.0, (0, 0)
        key = inf
        for packet in container.demux():
            stamp = packet.dts if container.format.name in IN_ORDER else packet.pts
            if stamp is not None:
                at = float(stamp * packet.time_base - zero)
                reached = max(reached, at + float((packet.duration or 0) * packet.time_base))
                if packet.stream is stream:
                    last = max(last, at)
                    key = at if key == inf and packet.is_keyframe else key
                    if at >= key and not packet.is_discard:  # what is shown before cannot be decoded
                        begin = min(begin, at)
            if packet.stream is stream:
                for frame in frames_on(packet):
                    size = size if any(size) else (frame.width, frame.height)
        if last < 0 or not any(size):
            raise MediaError(file, "holds no frame that can be decoded")
        end = max(reached, last + 1 / float(stream.average_rate or 25))
        promised = (container.duration or 0) / 1_000_000 - _counted_from_0(container)
    breaks = lacking(file) or _broken(promised, end)
    return MediaInfo(
        width=size[0], height=size[1], begin=max(0.0, begin) if begin < inf else 0.0, end=end, breaks=breaks
    )


def _audio(file: Path) -> MediaInfo:
    plain = blocks(file)
    if not isinstance(plain, str):
        rate, promised, pieces = plain
        begins = [f"{seconds:.2f} s" for seconds in later_streams(file)]
        streams = f"{len(begins) + 1} of them, later ones begin at {_first(begins)}" if begins else ""
        return _measured_audio(file, rate, promised, pieces, streams=streams)
    with opened(file, plain) as container:
        stream = stream_of(container, "audio", file)
        promised = 0.0
        if stream.duration and container.format.name not in GUESSING:
            start = 0 if _counted_from_0(container) else stream.start_time or 0
            promised = float((start + stream.duration) * stream.time_base)
        gaps: list[tuple[float, float]] = []
        decoded = (samples for _, samples in decoded_audio(container, stream, gaps))
        return _measured_audio(file, int(stream.rate), promised - float(beginning(container)), decoded, gaps)


def _measured_audio(
    file: Path,
    rate: int,
    promised: float,
    pieces: Iterator[np.ndarray],
    gaps: Sequence[tuple[float, float]] = (),
    streams: str = "",
) -> MediaInfo:
    meter = AudioMeter(rate)
    for samples in pieces:
        meter.add(samples)
    if meter.samples == 0:
        raise MediaError(file, "holds no audio samples")
    if meter.not_finite:
        raise MediaError(file, f"{meter.not_finite} audio samples are NaN or infinite")
    counted = counted_by_header(file, rate) or Counted(0.0, inf)
    off = meter.seconds - counted.seconds
    other = f"{meter.seconds:.2f} s are there, its header counts {counted.seconds:.2f} s"
    return MediaInfo(
        begin=sum(length for at, length in gaps if at == 0),
        seconds=meter.seconds,
        rate=meter.rate,
        peaks=meter.peaks().hex(),
        full_scale=meter.full_scale(),
        band=meter.band() if meter.ends_in_a_wall() else 0.0,
        gaps=_first([f"{length:.2f} s at {at:.2f} s" for at, length in gaps if at > 0 and length > 0]),
        anew=_first([f"{at:.2f} s" for at, length in gaps if length < 0]),
        mixing=round(meter.lost_to_mixing(), 1),
        breaks=lacking(file) or (other if off < -counted.slack else _broken(promised, meter.seconds)),
        more=other if off > counted.slack else "",
        streams=streams,
    )


def _counted_from_0(container: Any) -> float:
    """Seconds by which a header's length is more than what is there: of a later piece of an MP4 that was sent
    in pieces FFmpeg counts it from 0 on, not from where its stamps begin."""
    return max(0.0, float(beginning(container))) if "mp4" in container.format.name.split(",") else 0.0


def _first(said: list[str]) -> str:
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _broken(promised: float, there: float) -> str:
    """Half a second or a fiftieth may lack: what headers say is rounded, and padded by codecs."""
    if promised - there > max(0.5, 0.02 * promised):
        return f"{there:.2f} s are there, its header says {promised:.2f} s"
    return ""


# ---- measurements against needs ----


def problems_of(
    name: str, kind: int, info: MediaInfo, uses: list[Use], limits: Limits
) -> Iterator[tuple[str, int, str]]:
    """(code, row of a record, detail): once for what a file suffers from, once a use for what a use does."""
    users = f"{name}, used by {len(uses)} record{'s' * (len(uses) > 1)}"
    first = uses[0].row
    if info.code:
        yield info.code, first, f"{users}: {info.why}"
        return
    if info.breaks:
        yield "media breaks off", first, f"{users}: {info.breaks}"
    if kind != AUDIO and min(info.width, info.height) < limits.min_side:
        yield "small picture", first, f"{users}: {info.width} x {info.height} pixels"
    if kind == VIDEO:
        if info.begin > LATE:
            yield "video begins late", first, f"{users}: its first frame is seen at {info.begin:.2f} s"
        for use in uses:
            if use.start + YET_TO_COME < info.begin - ROUNDED:
                yield (
                    "frame before the video's first",
                    use.row,
                    f"{name}: {use.start:g} s, the first is seen at {info.begin:.2f} s",
                )
            if use.last > info.end + END_SLACK:
                yield "frame behind the video's end", use.row, f"{name}: {use.last:g} s of {info.end:.2f} s"
    if kind == AUDIO:
        if info.begin > LATE:
            yield "sound begins late", first, f"{users}: its first sample is heard at {info.begin:.2f} s"
        if info.more:
            yield "header counts too little", first, f"{users}: {info.more}"
        if info.streams:
            yield "sound of several streams", first, f"{users}: {info.streams}"
        if info.rate < limits.min_rate:
            yield "low sample rate", first, f"{users}: {info.rate} Hz"
        elif info.band and info.band < 0.55 * limits.min_rate / 2:
            yield "upsampled sound", first, f"{users}: {info.rate} Hz, nothing above {info.band:.0f} Hz"
        if info.anew:
            yield "clock begins anew", first, f"{users}: at {info.anew}"
        if info.gaps:
            yield "sound has gaps", first, f"{users}: {info.gaps}"
        if info.mixing > CANCELLED:
            yield "channels cancel", first, f"{users}: their mean is {info.mixing:g} dB weaker than they are"
        if info.full_scale > limits.clipped:
            yield "clipped sound", first, f"{users}: {info.full_scale:.2%} of its samples at full scale"
        yield from _spans(name, info, uses, limits)


def _spans(name: str, info: MediaInfo, uses: list[Use], limits: Limits) -> Iterator[tuple[str, int, str]]:
    peaks = np.frombuffer(bytes.fromhex(info.peaks), np.uint8)
    per_second = info.rate / step_of(info.rate)
    for use in uses:
        start = 0.0 if np.isnan(use.start) else use.start
        end = info.seconds if np.isnan(use.end) else use.end
        lasts = f"{name} lasts {info.seconds:.2f} s"
        if end > info.seconds + END_SLACK or start >= info.seconds:
            yield "sound is shorter than its span", use.row, f"{lasts}, the span is [{start:g}, {end:g}] s"
            continue
        if use.last > end - start + END_SLACK:
            yield (
                "interval behind the sound's end",
                use.row,
                f"{lasts}, an interval ends at {use.last:g} s of a span of {end - start:g} s",
            )
        begin = int(start * per_second + 1e-3)  # times are of 32 bits
        within = peaks[begin : max(int(np.ceil(end * per_second - 1e-3)), begin + 1)]
        loudest = -0.5 * int(within.min()) if len(within) else -127.5
        if loudest < limits.silence:
            yield "silent sound", use.row, f"{name}, [{start:g}, {end:g}] s: its loudest is {loudest:g} dB"
