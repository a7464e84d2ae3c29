"""A record as HTML: pictures with boxes, sound with intervals and a player, what is asked and answered."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from avalign.avfit.checking.check_media import leads_out, without_path
from avalign.avfit.checking.check_record import written_slot
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import Record
from avalign.data.media import MediaError, read_audio, read_frames, read_image, resample
from avalign.errors import AvalignError
from avalign.grammar import Box, Interval
from avalign.meerkatbench.page import folded
from avalign.meerkatbench.pictures import FLOOR_DB, STYLES, spectrogram

LONGER_SIDE = 640  # pixels of an embedded picture
MOST_FRAMES = 6  # of a film
MOST_RATE = 48_000  # Hz of an embedded sound

Find = Callable[[str], Path]


def card(record: Record, find: Find, seconds: float, phrasings: Phrasings) -> str:
    """find: a file by its path in the record, or MediaError. `seconds` of the sound are embedded at most."""
    asked_box, asked_interval = _asked(record)
    seen = _or_why(record.image, lambda: _pictures(record, find, asked_box))
    heard = _or_why(record.audio, lambda: _sound(record, find, asked_interval, seconds))
    data = "".join(
        f' data-{name}="{escape(str(getattr(record, name)))}"' for name in ("task", "source", "split")
    )
    legend = _legend(record, bool(asked_box or asked_interval))
    return (
        f"<article{data}><header><b>{escape(record.id)}</b>{_badges(record)}</header>"
        f"{seen}{heard}{legend}<dl>{_texts(record, phrasings)}</dl>"
        + folded("files and provenance", _origin(record))
        + "</article>"
    )


def _or_why(name: str | None, made: Callable[[], str]) -> str:
    try:
        return "" if name is None else made()
    except MediaError as error:
        return f"<p class=unread>{escape(name or '')}: {escape(without_path(error))}</p>"


def below(root: Path, follow_links: bool, name: str) -> Path:
    """A file of the media root. MediaError where a link leads out of it."""
    if not follow_links and leads_out(root, name):
        raise MediaError(name, "is a link that leads out of the media root; it was not opened")
    return root / name


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


# ---- the picture ----


def _pictures(record: Record, find: Find, asked: Sequence[Box]) -> str:
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
            f'<figure><div class=pic style="aspect-ratio:{width}/{height}">'
            f'<img loading=lazy alt="" src="{_as_jpeg(frame)}">{_boxes(record.boxes, asked)}</div>'
            f"<figcaption>{said}{width} x {height}</figcaption></figure>"
        )
    left_out = len(record.frame_times) - len(times)
    note = f"<p class=note>{len(times)} of {len(record.frame_times)} frames</p>" if left_out else ""
    kind = "film" if len(shown) > 1 else "one"
    return f'<div class="pictures {kind}">{"".join(shown)}</div>{note}'


def _boxes(truth: Sequence[Box], asked: Sequence[Box]) -> str:
    """In a square of 1 x 1 that is stretched over the picture, so that boxes are where their numbers say."""
    drawn = []
    for name, boxes in (("question", asked), ("truth", truth)):  # dashes over dots: both are seen
        for box in boxes:
            if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                continue  # told by `avalign data check`; the text beside names its numbers
            place = f'x="{box[0]:g}" y="{box[1]:g}" width="{box[2] - box[0]:g}" height="{box[3] - box[1]:g}"'
            drawn.append((place, name))
    if not drawn:
        return ""
    rects = [f"<rect class=halo {place} />" for place, _ in drawn]
    rects += [f"<rect class={name} {place} />" for place, name in drawn]
    return f'<svg viewBox="0 0 1 1" preserveAspectRatio=none>{"".join(rects)}</svg>'


def _as_jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    shown = Image.fromarray(picture)
    shown.thumbnail((LONGER_SIDE, LONGER_SIDE))
    return _data_url("image/jpeg", shown, "JPEG", quality=88)


def _data_url(kind: str, picture: Any, form: str, **options: Any) -> str:
    written = io.BytesIO()
    picture.save(written, form, **options)
    return f"data:{kind};base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


# ---- the sound ----


def _sound(record: Record, find: Find, asked: Sequence[Interval], most: float) -> str:
    assert record.audio is not None
    file = find(record.audio)
    start, end = record.audio_start or 0.0, record.audio_end
    whole = True
    if end is None or end - start > most:
        try:
            audio, rate = read_audio(file, start, start + most)
            whole = False
        except MediaError:  # shorter than that, perhaps
            audio, rate = read_audio(file, start, end)
    else:
        audio, rate = read_audio(file, start, end)
    note = f"{rate:,} Hz"
    if rate > MOST_RATE:
        audio, rate = resample(audio, rate, MOST_RATE), MOST_RATE
        note += f", played at {rate:,}"
    lasts = len(audio) / rate
    tracks = "".join(
        f'<i class={name} style="left:{100 * a / lasts:.3f}%;width:{100 * (min(b, lasts) - a) / lasts:.3f}%" '
        f'title="{name} {a:g} to {b:g} s"></i>'
        for name, spans in (("truth", record.intervals), ("question", asked))
        for a, b in spans
        if 0 <= a < b and a < lasts
    )
    ticks = "".join(f'<span style="left:{100 * at / lasts:.2f}%">{at:g}</span>' for at in _ticks(lasts))
    note += f", {lasts:.2f} s" if whole else f", the first {lasts:.3g} s"
    if record.audio_start is not None:
        note += f" of [{start:g}, {'end' if end is None else f'{end:g}'}] s"
    note += f"; 60 Hz to {rate / 2000:g} kHz, log scale"
    return (
        f'<div class=sound><div class=spec><img alt="" src="{_as_spectrogram(audio, rate)}">{tracks}'
        f"<i class=now></i></div><div class=ticks>{ticks}</div>"
        f'<audio controls preload=metadata data-seconds="{lasts:.3f}" src="{_as_flac(audio, rate)}"></audio>'
        f"<p class=note>{note}</p></div>"
    )


def _ticks(seconds: float) -> list[float]:
    step = next((s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60) if seconds / s <= 6), 300)
    return [k * step for k in range(int(seconds / step * 0.97) + 1)]


def _as_spectrogram(audio: np.ndarray, rate: int) -> str:
    from matplotlib import colormaps
    from PIL import Image

    levels, _ = spectrogram(audio, rate)
    bright = np.clip(1 - levels[::-1] / FLOOR_DB, 0, 1)
    picture = Image.fromarray((255 * colormaps["magma"](bright)[..., :3]).astype(np.uint8))
    return _data_url("image/jpeg", picture.resize((800, 128)), "JPEG", quality=85)


def _as_flac(audio: np.ndarray, rate: int) -> str:
    import soundfile

    written = io.BytesIO()
    soundfile.write(written, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


# ---- the words ----


def _badges(record: Record) -> str:
    said = (record.task, record.kind, record.split, record.source)
    return "".join(f"<span>{escape(text)}</span>" for text in said if text)


def _legend(record: Record, asked: bool) -> str:
    parts = []
    if record.boxes or record.intervals:
        parts.append("<span><i class=truth></i>truth</span>")
    if asked:
        parts.append("<span><i class=question></i>named in the question</span>")
    if record.consensus > 1:
        parts.append(f"<span>{record.consensus} boxes must cover a point for it to count in full</span>")
    return f"<p class=legend>{''.join(parts)}</p>" if parts else ""


def _texts(record: Record, phrasings: Phrasings) -> str:
    asked = _filled(record, record.instruction)
    if not record.instruction:
        try:
            texts = phrasings.of(record)
            asked = f"{_filled(record, texts[0])} <small>(one of {len(texts)} phrasings)</small>"
        except AvalignError as error:
            asked = f"<em>{escape(str(error))}</em>"
    rows = [("instruction", asked), ("response", f"<b>{escape(record.response)}</b>")]
    rows += [("reference", escape(text)) for text in record.references[:10]]
    if record.label is not None:
        rows.append(("class", escape(record.label)))
    if record.boxes:
        rows.append(("boxes", escape(_numbers(record.boxes))))
    if record.intervals:
        rows.append(("intervals, s", escape(_numbers(record.intervals))))
    return "".join(f"<dt>{name}</dt><dd>{html}</dd>" for name, html in rows)


def _filled(record: Record, instruction: str) -> str:
    """The instruction with its tokens filled from the slots and marked; those that stay open stand out."""

    def fill(token: re.Match[str]) -> str:
        name = token.group(1)
        if name in ("image", "audio"):
            return f"<kbd>{name}</kbd> "
        if name in record.slots:
            with suppress(AvalignError):
                return f"<mark>{escape(written_slot(name, record))}</mark>"
        return f"<mark class=open>&lt;{name}&gt;</mark>"

    parts = re.split(r"(<\w+>)", instruction)
    return "".join(
        fill(token) if (token := re.fullmatch(r"<(\w+)>", part)) else escape(part) for part in parts
    )


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


_TRUTH, _QUESTION = STYLES["truth"][0], STYLES["question"][0]
CARD_STYLE = f"""
[hidden]{{display:none!important}}
.filters{{display:flex;flex-wrap:wrap;gap:8px 18px;align-items:center;margin:18px 0 0;font-size:13px;
 color:var(--faint)}}
.filters select{{font:inherit;color:var(--ink);padding:2px 4px}}
.samples{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr));gap:18px;
 align-items:start}}
article{{border:1px solid var(--line);border-radius:6px;padding:10px 12px;min-width:0}}
article header{{display:flex;flex-wrap:wrap;gap:4px 6px;align-items:baseline;margin-bottom:8px}}
article header b{{flex-basis:100%;font-size:13px;font-weight:600;overflow-wrap:anywhere}}
article header span{{font-size:11.5px;color:var(--faint);background:#f1f4f5;border-radius:3px;padding:0 6px;
 overflow-wrap:anywhere}}
.pictures{{display:grid;gap:6px}}
.pictures.film{{grid-template-columns:repeat(auto-fit,minmax(90px,1fr))}}
.pictures.one .pic{{max-height:240px;max-width:100%;margin:0 auto}}
.pic{{position:relative;overflow:visible}}
.pic img{{width:100%;height:100%;display:block}}
.pic svg{{position:absolute;inset:0;width:100%;height:100%;overflow:visible}}
.pic rect{{fill:none;vector-effect:non-scaling-stroke;stroke-width:2.2px}}
.pic rect.halo{{stroke:#fff;stroke-opacity:.8;stroke-width:4.4px}}
rect.truth{{stroke:{_TRUTH};stroke-dasharray:8 4}}
rect.question{{stroke:{_QUESTION};stroke-dasharray:2.2 2.6}}
article figcaption,article .note{{color:var(--faint);font-size:11.5px;margin:2px 0 0}}
.sound{{margin-top:8px}}
.spec{{position:relative;height:96px;overflow:hidden;border-radius:3px}}
.spec img{{width:100%;height:100%;display:block}}
.spec i{{position:absolute;top:0;bottom:0;border:2px solid;border-top-width:5px}}
.spec i.truth{{border-color:{_TRUTH};border-style:solid dashed}}
.spec i.question{{border-color:{_QUESTION};border-style:solid dotted;top:8px}}
.spec i.now{{border:0;width:1.5px;left:-3px;background:#fff}}
.ticks{{position:relative;height:15px;font-size:11px;color:var(--faint)}}
.ticks span{{position:absolute;border-left:1px solid #bcc4c9;padding-left:3px;line-height:13px}}
.sound audio{{width:100%;height:32px;margin-top:4px;display:block}}
.legend{{display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0 0;font-size:12px;color:var(--faint)}}
.legend i{{display:inline-block;width:20px;margin-right:5px;vertical-align:3px;
 border-top:2.5px dashed {_TRUTH}}}
.legend i.question{{border-top:2.5px dotted {_QUESTION}}}
article dl{{display:grid;grid-template-columns:auto 1fr;gap:3px 10px;margin:8px 0 0;font-size:13px}}
article dt{{color:var(--faint)}}article dd{{margin:0;overflow-wrap:anywhere;min-width:0}}
article kbd{{font:11px/1.4 inherit;font-family:inherit;color:var(--faint);border:1px solid var(--line);
 border-radius:3px;padding:0 4px}}
article mark{{background:#e5f3ee;border-radius:2px;padding:0 2px}}
article mark.open{{background:#ffe3d6}}
article details{{margin:8px 0 0;font-size:12px}}
article pre{{white-space:pre-wrap;overflow-wrap:anywhere;padding:8px;margin:6px 0 0}}
.unread{{margin:4px 0;padding:6px 10px;font-size:13px;border-left:3px solid #b34700;background:#fdf3ee;
 overflow-wrap:anywhere}}
"""
