"""ARIG, audio-referred image grounding: where in the image is what is heard?

    prompt    <image> <audio> Where is the object that makes this sound?
    answer    [dog, 0.10, 0.20, 0.50, 0.60]
    parse     the first box read by `grammar.read_boxes`, and its label; no box: unparsed
    score     IoU of that box with the true box it fits best; cIoU of all boxes answered, on a 224 x 224 grid
    map       a heat map, if one comes with the answer: the model's attention, or an external model's. Resized
              to 224 x 224, its top 50 % are its prediction; its scores stand apart, as "map ..."

A worked example. Truth [dog, 0.1, 0.2, 0.5, 0.6], answer "[dog, 0.3, 0.2, 0.5, 0.6]": the answer is the right
half of the truth, so IoU = 0.08 / 0.16 = 0.5. On the grid the truth is pixels 22..111 x 44..133 and the
answer 67..111 x 44..133: cIoU = 45 / 90 = 0.5. It counts in IoU@0.5 and in cIoU, and its area under the
success rate at 0, 0.05, ..., 1 is 0.525. The class is right.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from avalign.answers import Unit, answer_in, normalise_answer, read_boxes, write_box
from avalign.evaluation.metrics.bootstrap import Metric, mean, mean_of_groups
from avalign.evaluation.metrics.overlap import (
    GRID,
    best_iou,
    binarised,
    ciou,
    fill,
    resized,
    success_auc,
    truth_map,
)
from avalign.evaluation.tasks.task import Scored, Trivial, most_common
from avalign.interfaces import Mapped
from avalign.types import Sample


class Arig(Mapped):
    name = "arig"
    title = "ARIG: audio-referred image grounding"
    headline = "mean IoU"
    group_name = "class"
    definitions = {  # noqa: RUF012
        "mean IoU": "first box answered against the true box it fits best",
        "macro mean IoU": "mean over classes of mean IoU",
        "IoU@0.5": "share of samples with IoU >= 0.5",
        "cIoU@0.5": "share of samples with cIoU >= 0.5; box protocol: answered boxes filled with 1, truth "
        "min(sum of its boxes / consensus, 1): the union for VGG-SS (consensus 1), two annotators' agreement "
        "for Flickr-SoundNet (consensus 2); 224 x 224, corners int(224 * clip(x, 0, 1))",
        "cIoU AUC": "trapezoid area under the share of cIoU >= i/20, i = 0..20 (least: 0.025); box protocol",
        "mean cIoU": "mean of cIoU; box protocol",
        "class accuracy": "label answered with the box equals the true class after normalisation",
        "map cIoU@0.5": "share of samples with map cIoU >= 0.5; heat-map protocol: the map resized to 224 "
        "x 224 (bilinear, corners on corners, as EZ-VSL), its top 50 % of pixels 1; truth as for boxes. A "
        "truth of under a quarter of the image cannot reach 0.5. An answer without its map counts as 0. "
        "Beside it a constant map (whole image) and one that falls with the distance from the centre (centre "
        "box)",
        "map AUC": "trapezoid area under the share of map cIoU >= i/20, i = 0..20; heat-map protocol",
        "mean map cIoU": "mean of map cIoU; heat-map protocol",
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        return [_score(sample, answer) for sample, answer in zip(samples, answers, strict=True)]

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        iou = np.array([s.values["IoU"] for s in scored])
        consensus = np.array([s.values["cIoU"] for s in scored])
        yield mean("mean IoU", iou)
        if all(sample.label for sample in samples):
            yield mean_of_groups("macro mean IoU", iou, [str(sample.label) for sample in samples])
        yield mean("IoU@0.5", iou >= 0.5)
        yield mean("cIoU@0.5", consensus >= 0.5)
        yield mean("cIoU AUC", success_auc(consensus))
        yield mean("mean cIoU", consensus)
        if all("class" in s.values for s in scored):
            yield mean("class accuracy", [s.values["class"] for s in scored])
        if all("map cIoU" in s.values for s in scored):
            by_map = np.array([s.values["map cIoU"] for s in scored])
            yield mean("map cIoU@0.5", by_map >= 0.5)
            yield mean("map AUC", success_auc(by_map))
            yield mean("mean map cIoU", by_map)

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        """Boxes, labelled with the most common class of training."""
        boxes = np.array([box for sample in train for box in sample.boxes], dtype=float).reshape(-1, 4)
        labels = [sample.label for sample in train if sample.label]
        label = most_common(labels) if labels else None

        def written(box: Sequence[float] | np.ndarray) -> str:
            return write_box(np.clip(box, 0, 1).tolist(), label, decimals=4)

        def random_box(sample: Sample) -> str:
            """A training box's size at a random position."""
            generator = np.random.default_rng([seed, zlib.crc32(sample.id.encode())])
            x0, y0, x1, y1 = boxes[generator.integers(len(boxes))]
            left, top = generator.uniform(0, 1 - (x1 - x0)), generator.uniform(0, 1 - (y1 - y0))
            return written((left, top, left + x1 - x0, top + y1 - y0))

        untaught: dict[str, Trivial] = {
            "whole image": lambda _: written((0, 0, 1, 1)),
            "centre box": lambda _: written((0.25, 0.25, 0.75, 0.75)),
        }
        if not len(boxes):
            return untaught
        mean_box = boxes.mean(0)
        return {
            **untaught,
            "mean box of training": lambda _: written(mean_box),
            "random box of training sizes": random_box,
        }

    def map_values(self, sample: Sample, heat: np.ndarray | None) -> dict[str, float]:
        if heat is None:
            return {"map cIoU": 0.0}
        return {"map cIoU": ciou(binarised(resized(heat)), truth_map(sample.boxes, sample.consensus))}

    def trivial_maps(self) -> dict[str, np.ndarray]:
        """As EZ-VSL's maps they need no training: one that says nothing, and one that says "the middle"."""
        line = np.linspace(-1, 1, GRID)
        return {"whole image": np.ones((GRID, GRID)), "centre box": -np.hypot(line[:, None], line)}

    def group(self, sample: Sample) -> str | None:
        return sample.label


def box_unit(sample: Sample) -> tuple[Unit, tuple[float, float] | None]:
    """Of numbers that do not tell it, and the image's width and height in pixels, as the sample's
    provenance says: "box_unit" (shares, where it says none), "image_size"."""
    size = sample.provenance.get("image_size")
    width, height = size if isinstance(size, list | tuple) and len(size) == 2 else (0, 0)
    known = isinstance(width, int | float) and isinstance(height, int | float) and width > 0 and height > 0
    return sample.provenance.get("box_unit", "relative"), (width, height) if known else None


def _score(sample: Sample, answer: str) -> Scored:
    if not sample.boxes:
        raise ValueError(f"sample {sample.id}: has no true box, so ARIG cannot score it")
    found = read_boxes(answer_in(answer), *box_unit(sample))
    values = {"IoU": 0.0, "cIoU": 0.0}
    if sample.label is not None:
        values["class"] = 0.0
    if not found:
        return Scored(None, values)
    values["IoU"] = best_iou(found[0].box, sample.boxes)
    values["cIoU"] = ciou(fill([f.box for f in found]), truth_map(sample.boxes, sample.consensus))
    if sample.label is not None:
        values["class"] = float(normalise_answer(found[0].label or "") == normalise_answer(sample.label))
    return Scored({"boxes": [list(f.box) for f in found], "label": found[0].label}, values)
