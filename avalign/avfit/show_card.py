"""A record as data of a page (templates/samples.html): images with boxes, audio with intervals, what is
asked and answered."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avalign.answers import Box, Interval
from avalign.avfit.check.media import without_path
from avalign.avfit.check.record import written_slot
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames, read_image
from avalign.media.resample import resample
from avalign.report.figures import FLOOR_DB, spectrogram
from avalign.report.page import data_url
from avalign.report.ticks import time_ticks

if TYPE_CHECKING:
    from PIL.Image import Image

LONGER_SIDE = 640  # pixels of an embedded image
MOST_FRAMES = 6  # of a video
MOST_RATE = 48_000  # Hz of embedded audio

Find = Callable[[str], Path]


def card(record: Record, find: Find, seconds: float, phrasings: Phrasings) -> dict[str, Any]:
    """find: a file by its path in the record, or MediaError. `seconds` of the audio are embedded at most."""
    asked_box, asked_interval = _asked(record)
    return {
        **{"id": record.id, "task": record.task, "source": record.source, "split": record.split},
        "badges": [text for text in (record.task, record.kind, record.split, record.source) if text],
        "images": _or_why(record.image, lambda: _images(record, find, asked_box)),
        "audio": _or_why(record.audio, lambda: _audio(record, find, asked_interval, seconds)),
        "legend": _legend(record, bool(asked_box or asked_interval)),
        "instruction": _instruction(record, phrasings),
        "response": record.response,
        "texts": _text_rows(record),
        "origin": _origin(record),
    }


def _or_why(name: str | None, made: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """What is made, or the name of what cannot be read and why; None without a name."""
    try:
        return None if name is None else {"unread": None} | made()
    except MediaError as error:
        return {"name": name, "unread": without_path(error)}


def _asked(record: Record) -> tuple[tuple[Box, ...], tuple[Interval, ...]]:
    """The claim's box and interval, those of them that are any."""
    found: dict[str, tuple[Any, ...]] = {"box": (), "time": ()}
    for name in found:
        if name in record.slots:
            try:
                written_slot(name, record)
            except AvalignError:
                continue
            found[name] = (tuple(float(x) for x in record.slots[name]),)
    return found["box"], found["time"]


# ---- the image ----


def _images(record: Record, find: Find, asked: Sequence[Box]) -> dict[str, Any]:
    assert record.image is not None
    file = find(record.image)
    times = record.frame_times
    if len(times) > MOST_FRAMES:
        times = tuple(times[int(k)] for k in np.linspace(0, len(times) - 1, MOST_FRAMES).round())
    frames = read_frames(file, times) if times else read_image(file)[None]
    shown = []
    for k, frame in enumerate(frames):
        height, width, _ = frame.shape
        said = f"{times[k]:g} s, " if times else ""
        shown.append(
            {"url": _as_jpeg(frame), "width": width, "height": height, "said": f"{said}{width} x {height}"}
        )
    left_out = len(record.frame_times) > len(times)
    note = f"{len(times)} of {len(record.frame_times)} frames" if left_out else ""
    return {"frames": shown, "note": note, "boxes": _boxes(record.boxes, asked)}


def _boxes(truth: Sequence[Box], asked: Sequence[Box]) -> list[tuple[str, dict[str, str]]]:
    """What box it is, and where, in 0..1 of the image."""
    return [
        (
            kind,
            {"x": f"{x0:g}", "y": f"{y0:g}", "width": f"{x1 - x0:g}", "height": f"{y1 - y0:g}"},
        )
        for kind, boxes in (("question", asked), ("truth", truth))  # dashes over dots: both are seen
        for x0, y0, x1, y1 in boxes
        if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1  # others `avalign data check` tells; the text names them
    ]


def _as_jpeg(image: np.ndarray) -> str:
    from PIL import Image

    shown = Image.fromarray(image)
    shown.thumbnail((LONGER_SIDE, LONGER_SIDE))
    return _jpeg_url(shown, quality=88)


def _jpeg_url(image: Image, *, quality: int) -> str:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return data_url("image/jpeg", written.getvalue())


# ---- the audio ----


def _audio(record: Record, find: Find, asked: Sequence[Interval], most: float) -> dict[str, Any]:
    assert record.audio is not None
    file = find(record.audio)
    start, end = record.audio_start or 0.0, record.audio_end
    complete = True
    if end is None or end - start > most:
        try:
            audio, rate = read_audio(file, start, start + most)
            complete = False
        except MediaError:  # shorter than that, perhaps
            audio, rate = read_audio(file, start, end)
    else:
        audio, rate = read_audio(file, start, end)
    note = f"{rate:,} Hz"
    if rate > MOST_RATE:
        audio, rate = resample(audio, rate, MOST_RATE), MOST_RATE
        note += f", played at {rate:,}"
    lasts = len(audio) / rate
    note += f", {lasts:.2f} s" if complete else f", the first {lasts:.3g} s"
    if record.audio_start is not None:
        note += f" of [{start:g}, {'end' if end is None else f'{end:g}'}] s"
    note += f"; 60 Hz to {rate / 2000:g} kHz, log scale"
    return {
        **{"spectrogram": _as_spectrogram(audio, rate), "url": _as_flac(audio, rate), "note": note},
        **{"seconds": f"{lasts:.3f}", "tracks": _tracks(record.intervals, asked, lasts)},
        "ticks": [(f"{100 * at / lasts:.2f}", f"{at:g}") for at in time_ticks(lasts)],
    }


def _tracks(truth: Sequence[Interval], asked: Sequence[Interval], lasts: float) -> list[dict[str, str]]:
    """Intervals in percent of the audio, which lasts so many seconds."""
    return [
        {
            **{"kind": kind, "title": f"{kind} {start:g} to {end:g} s"},
            "left": f"{100 * start / lasts:.3f}",
            "width": f"{100 * (min(end, lasts) - start) / lasts:.3f}",
        }
        for kind, intervals in (("truth", truth), ("question", asked))
        for start, end in intervals
        if 0 <= start < end and start < lasts
    ]


def _as_spectrogram(audio: np.ndarray, rate: int) -> str:
    from matplotlib import colormaps
    from PIL import Image

    levels, _ = spectrogram(audio, rate)
    bright = np.clip(1 - levels[::-1] / FLOOR_DB, 0, 1)
    image = Image.fromarray((255 * colormaps["magma"](bright)[..., :3]).astype(np.uint8))
    return _jpeg_url(image.resize((800, 128)), quality=85)


def _as_flac(audio: np.ndarray, rate: int) -> str:
    import soundfile

    written = io.BytesIO()
    soundfile.write(written, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return data_url("audio/flac", written.getvalue())


# ---- the words ----


def _legend(record: Record, asked: bool) -> list[tuple[str | None, str]]:
    """The colour of each line, if it has one, and what it says."""
    said: list[tuple[str | None, str]] = []
    if record.boxes or record.intervals:
        said.append(("truth", "truth"))
    if asked:
        said.append(("question", "named in the question"))
    if record.consensus > 1:
        said.append((None, f"{record.consensus} boxes must cover a point for it to count in full"))
    return said


def _instruction(record: Record, phrasings: Phrasings) -> dict[str, Any]:
    """Its pieces, or why there are none; a note of how many phrasings it is one of."""
    said: dict[str, Any] = {"pieces": [], "note": None, "wrong": None}
    if record.instruction:
        return said | {"pieces": _filled(record, record.instruction)}
    try:
        instructions = phrasings.of(record)
    except AvalignError as error:
        return said | {"wrong": str(error)}
    note = f"(one of {len(instructions)} phrasings)"
    return said | {"pieces": _filled(record, instructions[0]), "note": note}


def _filled(record: Record, instruction: str) -> list[tuple[str, str]]:
    """("text" | "media" | "filled" | "open", words): tokens are filled from the slots or stay open."""

    def piece(words: str) -> tuple[str, str]:
        token = re.fullmatch(r"<(\w+)>", words)
        if token is None:
            return "text", words
        name = token.group(1)
        if name in ("image", "audio"):
            return "media", name
        if name in record.slots:
            with suppress(AvalignError):
                return "filled", written_slot(name, record)
        return "open", words

    return [piece(words) for words in re.split(r"(<\w+>)", instruction) if words]


def _text_rows(record: Record) -> list[tuple[str, str]]:
    rows = [("reference", text) for text in record.references[:10]]
    if record.label is not None:
        rows.append(("class", record.label))
    if record.boxes:
        rows.append(("boxes", _numbers(record.boxes)))
    if record.intervals:
        rows.append(("intervals, s", _numbers(record.intervals)))
    return rows


def _numbers(rows: Sequence[Sequence[float]]) -> str:
    shown = "  ".join("[" + ", ".join(f"{x:.4g}" for x in row) + "]" for row in rows[:8])
    return shown + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def _origin(record: Record) -> str:
    told = {
        "image": record.image,
        "frame_times": record.frame_times or None,
        "audio": record.audio,
        "slots": record.slots or None,
        "provenance": record.provenance,
    }
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in told.items() if value)
    return "\n".join(line if len(line) <= 1000 else line[:1000] + " ..." for line in lines)
