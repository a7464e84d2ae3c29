"""Meerkat's published results beside ours, where the samples come from the same data set; and what differs.

The numbers are those of the paper's tables (Meerkat, ECCV 2024, arXiv:2407.01851), in percent. A number
that is not known stands nowhere. Published test lists are known by their length, and where the whole list
could be had by the names in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from avalign.types import Sample


@dataclass(frozen=True)
class Published:
    """A test list and what was reported on it.

    rows:    model -> its numbers in percent, one for each column
    ours:    rows of ours to stand below: name -> our metric for each column; a metric may name the group it
             is of: "accuracy | exist" is that of the one group whose name holds "exist"
    clips:   of the published test list; None where that is not known
    names:   sha256 of the list's sorted names, a line each
    counted: samples that the paper says it tested on
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    ours: Mapping[str, tuple[str, ...]]
    clips: int | None = None
    names: str | None = None
    counted: str | None = None
    remarks: tuple[str, ...] = field(default=())


_BOXES = {
    "this model, boxes": ("cIoU@0.5", "cIoU AUC"),
    "this model, heat maps": ("map cIoU@0.5", "map AUC"),
}
_PROTOCOLS = (
    "EZ-VSL, FNAC and Alignment give heat maps (the map protocol), Meerkat answers with boxes; how the paper "
    "scored a box is not known, so the two protocols stand apart.",
)


def _arig(
    title: str, results: Sequence[tuple[float, float]], counted: str, clips: int | None = None
) -> Published:
    models = ("EZ-VSL", "FNAC", "Alignment", "BuboGPT", "Meerkat")
    rows = dict(zip(models, results, strict=True))
    return Published(title, ("cIoU", "AUC"), rows, _BOXES, clips=clips, counted=counted, remarks=_PROTOCOLS)


_F1 = {
    f"this model, {name}": (name,)
    for name in (
        "segment F1",
        "event F1",
        "Type@AV segment F1",
        "Type@AV event F1",
        "Event@AV segment F1",
        "Event@AV event F1",
        "sound-event segment F1",
    )
}
_WHICH_F1 = ("Which F1 the paper means is not known.",)

PUBLISHED: dict[tuple[str, str], Published] = {  # by task, and what the source's name begins with or holds
    ("arig", "vgg_ss"): _arig(
        "VGG-SS",
        ((38.85, 39.54), (41.85, 40.80), (42.64, 41.48), (40.31, 39.68), (48.51, 45.62)),
        "4.38K",
        5158,
    ),
    ("arig", "flickr_soundnet"): _arig(
        "Flickr-SoundNet",
        ((83.94, 63.60), (85.14, 64.30), (82.40, 64.60), (81.17, 62.29), (88.35, 67.88)),
        "2.78K",
        250,
    ),
    ("arig", "pascal_sound"): _arig(
        "PascalSound",
        ((51.90, 40.25), (57.38, 48.03), (58.34, 49.86), (58.52, 51.63), (65.23, 56.10)),
        "0.56K",
    ),
    ("arig", "avsbench"): _arig(
        "AVSBench",
        ((60.06, 49.64), (68.78, 56.19), (71.57, 57.52), (74.33, 59.49), (79.82, 65.35)),
        "0.49K",
    ),
    ("igatl", "llp"): Published(
        "LLP",
        ("F1",),
        {"Meerkat": (54.96,)},
        _F1,
        clips=1200,
        names="eb64b9c3bf32f8573be8c3bb1ea08b1d119f0e321ccb82d5cbe98f3edd3e8c16",
        counted="2.32K",
        remarks=_WHICH_F1,
    ),
    ("igatl", "audioset_strong"): Published(
        "AudioSet Strong", ("F1",), {"Meerkat": (56.85,)}, _F1, counted="24.1K", remarks=_WHICH_F1
    ),
    ("avfc", "audioset"): Published(
        "AVFact (OpenImages x AudioSet)",
        ("F1 of type 1",),
        {"Meerkat": (85.0,)},
        {"this model": ("F1 | type1",)},
        counted="321K",
        remarks=(
            "The paper gives 0.85. Its claims were drawn by its authors: no list of them is published.",
        ),
    ),
    ("avqa", "avqa"): Published(
        "AVQA",
        ("existence",),
        {"Meerkat": (88.24,)},
        {"this model": ("accuracy | exist",)},
        counted="16.9K",
    ),
    ("avqa", "music_avqa"): Published(
        "MUSIC-AVQA",
        ("existential",),
        {"Meerkat": (83.62,)},
        {"this model": ("accuracy | exist",)},
        counted="7.36K",
    ),
    ("avcap", "valor"): Published(
        "VALOR-32K", ("BLEU@4",), {"Meerkat": (16.88,)}, {"this model": ("BLEU@4",)}, counted="3.50K"
    ),
}


def published_on(task: str, source: str) -> Published | None:
    """What was reported on a data set, by the name that records give their source."""
    name = source.casefold().replace("-", "_").replace(" ", "_")
    of_task = {key: known for (of, key), known in PUBLISHED.items() if of == task}
    for key, known in of_task.items():
        if name.startswith(key):
            return known
    return next((known for key, known in of_task.items() if "audioset" in key and key in name), None)


def beside_the_paper(
    task: str, samples: Sequence[Sample], result: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The paper's table with our rows below it, as text, and in what the test lists differ.

    None where the samples are of several sources, or of one that nothing is known of.
    """
    sources = {str(sample.provenance.get("source", "")) for sample in samples}
    known = published_on(task, sources.pop()) if len(sources) == 1 else None
    if known is None:
        return None
    rows = [[model, *(f"{x:.2f}" for x in numbers)] for model, numbers in known.rows.items()]
    for name, metrics in known.ours.items():
        values = [_ours(metric, result) for metric in metrics]
        if any(value is not None for value in values):
            rows.append([name, *("n/a" if value is None else f"{100 * value:.2f}" for value in values)])
    return {
        "title": known.title,
        "columns": list(known.columns),
        "rows": rows,
        "remarks": list(_remarks(known, samples)),
    }


def _ours(metric: str, result: Mapping[str, Any]) -> float | None:
    name, _, part = metric.partition(" | ")
    metrics = result["metrics"]
    if part:
        groups = result["groups"]["rows"] if result["groups"] else {}
        found = [row["metrics"] for group, row in groups.items() if part in group.casefold()]
        metrics = found[0] if len(found) == 1 else {}
    value = metrics.get(name)
    return None if value is None else value["value"]


def _remarks(known: Published, samples: Sequence[Sample]) -> Iterable[str]:
    names = {clip_of(sample) for sample in samples}
    tested = f"{len(names):,} clips, {len(samples):,} samples"
    if known.clips is None:
        yield f"Whether this is the published test list is not known; tested on {tested}."
    elif len(names) != known.clips:
        published = f"published: {known.clips:,} clips"
        yield f"Not the same list as the published one: n differs ({tested}; {published})."
    elif known.names is None:
        yield f"As many as the published test list has ({tested}); whether the same was not checked."
    elif known.names == hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest():
        yield f"The clips are those of the published test list ({tested})."
    else:
        yield f"Not the same list as the published one: as many clips ({known.clips:,}), but other names."
    if known.counted is not None:
        yield f"The paper counts {known.counted} test samples and names no list" + (
            f": not the published {known.clips:,} clips." if known.clips is not None else "."
        )
    yield from known.remarks
    yield "Models trained on other data are not comparable: these numbers stand beside each other, no more."


def clip_of(sample: Sample) -> str:
    """What a data set calls the clip a sample is of: its provenance's "clip", or its id behind the source."""
    clip = sample.provenance.get("clip")
    return clip if isinstance(clip, str) else sample.id.partition("/")[2] or sample.id
