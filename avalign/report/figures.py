"""One question as a figure: boxes on the image, attention over it, and the spectrogram with its intervals.

Colours are of Okabe and Ito's set, told apart by any eye: what was answered is blue and solid, the truth
orange and dashed, what the question named (fact checking) green and dotted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avalign.answers import Box, Interval, read_boxes, read_intervals
from avalign.errors import AvalignError, suggest
from avalign.system.atomic_write import must_be_writable, unfinished
from avalign.types import Sample

if TYPE_CHECKING:  # imported where it draws: reading scores needs no matplotlib
    from matplotlib.axes import Axes

STYLES: dict[str, tuple[str, Any]] = {  # colour and line
    "answer": ("#0072B2", "-"),
    "truth": ("#E69F00", (0, (4, 2))),
    "question": ("#009E73", (0, (1, 1.2))),
}
INK, FAINT = "#222222", "#777777"
FLOOR_DB = -70.0  # of the spectrogram, below its loudest point
LOWEST_HZ = 60.0
WIDTH, LEFT, RIGHT, GAP = 8.0, 0.75, 0.2, 0.25  # inches, of the whole and of its margins
SPECTROGRAM, TRACK = 1.7, 0.19  # inches, heights of the spectrogram and of a row under it


def draw_prediction(
    image: np.ndarray | None,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    predicted_box: Box | None = None,
    true_boxes: Sequence[Box] = (),
    predicted_interval: Interval | None = None,
    true_intervals: Sequence[Interval] = (),
    asked_boxes: Sequence[Box] = (),
    asked_intervals: Sequence[Interval] = (),
    image_map: np.ndarray | None = None,
    audio_map: np.ndarray | None = None,
    audio_times: np.ndarray | None = None,
    title: str = "",
    path: Path,
) -> Path:
    """Write a PNG of what was asked about, and what was answered.

    Shapes: image (height, width, 3) uint8; audio (samples,); image_map (rows, columns) attention over the
    image;
            audio_map (m,) attention over the audio, of tokens whose spans are audio_times (m, 2) in seconds
    Units:  boxes in 0..1 of the image, intervals in seconds, sample_rate in Hz
    asked_boxes, asked_intervals: those that stand in the question
    """
    from matplotlib.figure import Figure

    boxes = {"answer": [predicted_box] if predicted_box else [], "truth": true_boxes, "question": asked_boxes}
    intervals = {
        "answer": [predicted_interval] if predicted_interval else [],
        "truth": true_intervals,
        "question": asked_intervals,
    }
    panels = 0 if image is None else 1 if image_map is None else 2
    image_height = 0.0
    if image is not None:
        widest = (WIDTH - LEFT - RIGHT - GAP * (panels - 1)) / panels
        image_height = min(widest * image.shape[0] / image.shape[1], 3.6)
    tracks = [
        *(bool(spans) for spans in intervals.values()),
        audio_map is not None and audio_times is not None,
    ]
    lines = title.count("\n") + 1 if title else 0
    top = 0.15 + 0.21 * lines + (0.3 if image is not None else 0.05)
    audio_height = SPECTROGRAM + TRACK * sum(tracks) if audio is not None else 0.0
    between = 0.3 if image is not None and audio is not None else 0.0
    bottom = 0.5 if audio is not None else 0.15
    height = top + image_height + between + audio_height + bottom
    figure = Figure(figsize=(WIDTH, height), facecolor="white")

    def axes(left: float, down: float, width: float, high: float) -> Axes:
        """By its left and top edge and size in inches."""
        return figure.add_axes((left / WIDTH, 1 - (down + high) / height, width / WIDTH, high / height))

    if title:
        figure.text(
            LEFT / WIDTH,
            1 - 0.12 / height,
            title,
            va="top",
            color=INK,
            fontsize=10,
            linespacing=1.35,
        )
    if image is not None:
        width = image_height * image.shape[1] / image.shape[0]
        axis = axes(LEFT, top, width, image_height)
        _show_image(axis, image)
        _show_boxes(axis, boxes)
        if image_map is not None:
            axis = axes(LEFT + width + GAP, top, width, image_height)
            _show_attention(axis, image, image_map)
            _show_boxes(axis, boxes, legend=False)
    if audio is not None:
        down = top + image_height + between
        axis = axes(LEFT, down, WIDTH - LEFT - RIGHT, SPECTROGRAM)
        _show_audio(axis, audio, sample_rate, intervals)
        if any(tracks):
            axis.tick_params(labelbottom=False, bottom=False)
            axis = axes(LEFT, down + SPECTROGRAM, WIDTH - LEFT - RIGHT, TRACK * sum(tracks))
            _show_tracks(axis, intervals, audio_map, audio_times)
        axis.set_xlim(0, len(audio) / sample_rate)
        axis.set_xlabel("seconds", color=FAINT, fontsize=8.5, labelpad=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as beside:
        figure.savefig(beside, dpi=110, format=path.suffix[1:] or "png")
    return path


def must_be_drawable(path: Path, option: str = "--out") -> None:
    """AvalignError unless a figure can be written there, as far as that can be told before it is drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    ending = path.suffix[1:]
    if ending and ending.lower() not in kinds and not path.is_dir():
        raise AvalignError(f"{option} {path}: no image format ends so.{suggest(ending.lower(), kinds)}")
    must_be_writable(path, option)


def draw_samples(model: Any, samples: Sequence[Sample], folder: Path) -> list[Path]:
    """<task>-<index>.png of each sample's answer and truth; `model` has `explain(sample)`."""
    paths = []
    for index, sample in enumerate(samples):
        explained = model.explain(sample)
        paths.append(
            draw_answer(sample, explained, folder / f"{sample.task}-{index:03d}.png", truth=sample.response)
        )
    return paths


def draw_answer(sample: Sample, explained: Any, path: Path, *, truth: str = "") -> Path:
    """The figure of an explanation (answer, image_map, audio_map, audio_times) of a sample.

    Of a video, its middle frame under the attention of all frames.
    """
    boxes, intervals = read_boxes(explained.answer), read_intervals(explained.answer)
    question = re.sub(r"\s*<(?:image|audio)>\s*", " ", sample.instruction).strip()
    title = _wrapped(f"Q: {question}") + "\n" + _wrapped(f"A: {explained.answer.strip() or '(nothing)'}")
    image = sample.image
    return draw_prediction(
        image[len(image) // 2] if image is not None and image.ndim == 4 else image,  # the video's middle
        sample.audio,
        sample.sample_rate,
        predicted_box=boxes[0].box if boxes else None,
        true_boxes=sample.boxes,
        predicted_interval=intervals[0] if intervals else None,
        true_intervals=sample.intervals,
        asked_boxes=[found.box for found in read_boxes(sample.instruction)],
        asked_intervals=read_intervals(sample.instruction, denied=True),
        image_map=explained.image_map,
        audio_map=explained.audio_map,
        audio_times=explained.audio_times,
        title=title + ("\n" + _wrapped(f"Truth: {truth}") if truth else ""),
        path=path,
    )


def _wrapped(text: str, width: int = 105) -> str:
    """At most two lines, with nothing that matplotlib would take for mathematics or has no glyph for."""
    import textwrap

    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    shown = "".join(sign if font.get_char_index(ord(sign)) else "\ufffd" for sign in " ".join(text.split()))
    return "\n".join(textwrap.wrap(shown, width, max_lines=2, placeholder=" ...")).replace("$", r"\$")


# ---- the image ----


def _show_image(axis: Axes, image: np.ndarray) -> None:
    axis.imshow(image, extent=(0, 1, 1, 0), aspect="auto", interpolation="bicubic")
    _bare(axis)


def _show_attention(axis: Axes, image: np.ndarray, image_map: np.ndarray) -> None:
    """The map as light over the image, grey and dimmed."""
    grey = 0.1 + 0.6 * image.astype(float).mean(-1) / 255
    strength = image_map / max(float(image_map.max()), 1e-12)
    extent = (0.0, 1.0, 1.0, 0.0)
    axis.imshow(grey, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
    axis.imshow(
        strength,
        extent=extent,
        aspect="auto",
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.9 * strength**0.5,
        interpolation="bicubic",
    )
    axis.set_title("where the sound attends", loc="left", fontsize=8.5, color=FAINT, pad=5)
    _bare(axis)


def _show_boxes(axis: Axes, boxes: Mapping[str, Sequence[Box]], *, legend: bool = True) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    named = {name: STYLES[name] for name, some in boxes.items() if some}
    for name in reversed(named):  # the answer last, over the others
        colour, line = STYLES[name]
        for x0, y0, x1, y1 in boxes[name]:
            edge = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=2.2, linestyle=line)
            edge.set_path_effects([Stroke(linewidth=4.2, foreground="white", alpha=0.85), Normal()])
            edge.set_clip_on(False)
            axis.add_patch(edge)
    if legend and named:
        axis.legend(
            [Line2D([], [], color=colour, linewidth=2.2, linestyle=line) for colour, line in named.values()],
            list(named),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            fontsize=8.5,
            frameon=False,
            labelcolor=FAINT,
            borderpad=0,
            borderaxespad=0.45,
            handlelength=2.4,
        )


# ---- the audio ----


def spectrogram(audio: np.ndarray, sample_rate: int, rows: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) in dB below the loudest point, at `rows` frequencies spaced by ratio, which are
    returned in Hz.

    A Hann window of about 32 ms, a column every 8 ms (fewer for long audio).
    """
    size = 1 << max(4, round(np.log2(0.032 * sample_rate)))
    hop = max(size // 4, len(audio) // 1500)
    padded = np.pad(audio.astype(np.float64), (size // 2, size))
    columns = 1 + len(audio) // hop
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: columns * hop : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    bins = np.arange(power.shape[1]) * sample_rate / size
    hertz = np.geomspace(LOWEST_HZ, sample_rate / 2, rows)
    shown = np.stack([np.interp(hertz, bins, frame) for frame in power], 1)
    loudest = float(shown.max()) or 1.0
    return 10 * np.log10(np.maximum(shown / loudest, 1e-12)), hertz


def _show_audio(
    axis: Axes, audio: np.ndarray, sample_rate: int, intervals: Mapping[str, Sequence[Interval]]
) -> None:
    levels, hertz = spectrogram(audio, sample_rate)
    low, high = np.log10(hertz[[0, -1]])
    seconds = len(audio) / sample_rate
    axis.imshow(
        levels,
        origin="lower",
        extent=(0, seconds, low, high),
        aspect="auto",
        cmap="magma",
        vmin=FLOOR_DB,
        vmax=0,
    )
    ticks = [f for f in (100, 300, 1000, 3000, 10_000) if hertz[0] <= f <= hertz[-1]]
    axis.set_yticks(np.log10(ticks), [f"{f // 1000}k" if f >= 1000 else str(f) for f in ticks])
    axis.set_ylabel("Hz", color=FAINT, fontsize=8.5, labelpad=2)
    for name, (colour, line) in reversed(STYLES.items()):
        for edge in (edge for interval in intervals[name] for edge in interval):
            axis.axvline(edge, color="white", linewidth=3.2, alpha=0.85)
            axis.axvline(edge, color=colour, linewidth=1.8, linestyle=line)
    axis.set_xlim(0, seconds)
    _plain(axis)


def _show_tracks(
    axis: Axes,
    intervals: Mapping[str, Sequence[Interval]],
    attention: np.ndarray | None,
    times: np.ndarray | None,
) -> None:
    """A row each for answer, truth, question and attention, on the spectrogram's axis of time."""
    rows: list[str] = []
    for name, (colour, _) in STYLES.items():
        if intervals[name]:
            axis.broken_barh([(s, e - s) for s, e in intervals[name]], (len(rows) + 0.2, 0.6), color=colour)
            rows.append(name)
    if attention is not None and times is not None:
        for (start, end), share in zip(times, attention / max(float(attention.max()), 1e-12), strict=True):
            span = (float(start), float(end - start))
            axis.broken_barh([span], (len(rows) + 0.2, 0.6), color=INK, alpha=float(share), linewidth=0)
        rows.append("attention")
    axis.set_ylim(len(rows), 0)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    _plain(axis)
    axis.tick_params(axis="y", length=0)


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=8.5, colors=FAINT, length=2.5)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _bare(axis: Axes) -> None:
    _plain(axis)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlim(0, 1)
    axis.set_ylim(1, 0)
