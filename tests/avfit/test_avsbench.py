"""AVSBench: boxes hold what the masks hold, of the right class, in the layouts of all three subsets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avalign.answers import read_boxes
from avalign.avfit.datasets.avsbench import AvsBench
from avalign.avfit.datasets.masks import OBJECT, _classes_by_colour, boxes_of, read_mask
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

CLASSES = {"background": 0, "dog": 1, "frying-food": 2, "tiger": 58}
S4, MS3, AVSS = (
    "s4_data/gt_masks/{split}/dog_barking/{clip}/{clip}_{frame}.png",
    "ms3_data/gt_masks/{split}/{clip}/{clip}_{frame}.png",
    "{part}/{clip}/labels_rgb/{frame}.png",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "label2idx.json").write_text(json.dumps(CLASSES))
    (tmp_path / "s4_meta_data.csv").write_text("name,start,category,split\nv,0,dog_barking,test\n")
    (tmp_path / "ms3_meta_data.csv").write_text("name,split\nv,val\n")
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(AvsBench(**options).read(folder))


# ---- the real masks ----


@pytest.mark.parametrize(
    ("mask", "subset", "table", "place", "box", "label"),
    [
        (
            *("s4_4R3qHn1n50_0.png", "s4", "name,start,category,split\nv,3,lawn_mowing,train\n"),
            "s4_data/gt_masks/train/lawn_mowing/v/v_1.png",
            *((170, 143, 495, 430), "mower"),
        ),
        (
            *("ms3_3vheOi4y540_1.png", "ms3", "name,split\nv,test\n"),
            "ms3_data/gt_masks/test/v/v_1.png",
            *((337, 0, 897, 604), "man"),
        ),
        (
            *("avss_aldtLqTVYI_labels_rgb_0.png", "avss", "uid,label,split\nv,v2,test\n"),
            "v2/v/labels_rgb/0.png",
            *((507, 239, 860, 720), "clarinet"),
        ),
    ],
)
def test_the_published_masks(
    tmp_path: Path, mask: str, subset: Any, table: str, place: str, box: tuple[int, ...], label: str
) -> None:
    """The label file is a copy that counts the background as 1. Corners in pixels, read off the masks."""
    shutil.copy(excerpt("avsbench/crab_label2idx.json"), tmp_path / "label2idx.json")
    (tmp_path / place).parent.mkdir(parents=True)
    shutil.copy(excerpt(f"avsbench/masks/{mask}"), tmp_path / place)
    tables = {"s4": "s4_meta_data.csv", "ms3": "ms3_meta_data.csv", "avss": "metadata.csv"}
    (tmp_path / tables[subset]).write_text(table)
    with Image.open(tmp_path / place) as opened:
        width, height = opened.size
    made = readings(tmp_path, subset=subset)[0].made[0]
    x0, y0, x1, y1 = box
    assert made.boxes == ((x0 / width, y0 / height, x1 / width, y1 / height),)
    assert (made.label, made.provenance["classes"]) == (label, [label])
    assert [b.label for b in read_boxes(made.response)] == [label]


def test_a_crumb_of_15_pixels_is_told_and_has_no_box(tmp_path: Path) -> None:
    mask = read_mask(excerpt("avsbench/masks/ms3_3vheOi4y540_1.png"))
    assert (mask == 9).sum() == 15
    assert [index for index, _ in boxes_of(mask, 0.001, 0.125)[0]] == [41]
    everything, small = boxes_of(mask, 0, 0)
    assert (small, {index for index, _ in everything}) == (0, {9, 41})


def test_a_clarinet_behind_two_hands_is_one_object(tmp_path: Path) -> None:
    mask = read_mask(excerpt("avsbench/masks/avss_aldtLqTVYI_labels_rgb_0.png"))
    assert len(boxes_of(mask, 0, 0)[0]) == 4
    assert len(boxes_of(mask, 0.001, 0.125)[0]) == 1


# ---- layouts and rows ----


def test_s4_has_five_masks_a_clip_and_one_in_training(folder: Path) -> None:
    table = "name,start,category,split\na,0,dog_barking,train\nb,0,dog_barking,val\n"
    (folder / "s4_meta_data.csv").write_text(table)
    for split, clip, frames in (("train", "a", 5), ("val", "b", 5)):
        for frame in range(1, frames + 1):
            write(folder, S4.format(split=split, clip=clip, frame=frame), binary((0, 0, 10, 5)))
    read = readings(folder)
    assert [r.item for r in read] == ["a/1", "b/1", "b/2", "b/3", "b/4", "b/5"]
    assert record_counts(read) == (6, 0)
    made = read[2].made[0]
    assert made.boxes == ((0, 0, 0.25, 0.25),)
    assert (made.label, made.split, made.response) == (
        *("dog_barking", "val", "[dog barking, 0.00, 0.00, 0.25, 0.25]"),
    )
    assert made.image == "s4_data/visual_frames/val/dog_barking/b/b_2.png"
    assert made.audio == "s4_data/audio_wav/val/dog_barking/b.wav"
    assert (made.audio_start, made.audio_end, made.frame_times) == (None, None, ())
    assert len({r.made[0].id for r in read}) == 6


def test_avss_counts_from_0_and_its_parts_have_their_numbers_of_masks(folder: Path) -> None:
    rows = [("a", "v1s", "train"), ("a", "v1m", "train"), ("c", "v1s", "test"), ("d", "v2", "train")]
    table = "uid,label,split\n" + "".join(f"{c},{p},{s}\n" for c, p, s in rows)
    (folder / "metadata.csv").write_text(table + "e,v3,test\na,v1s,train\n")
    for clip, part, _ in rows:
        for frame in range(10):
            colours = np.zeros((20, 40, 3), np.uint8)
            colours[5:15, 10:30] = (0, 128, 0)  # class 2
            write(folder, AVSS.format(part=part, clip=clip, frame=frame), colours)
    read = readings(folder, subset="avss")
    assert record_counts(read) == (1 + 5 + 5 + 10, 2)
    assert reasons(read) == {"row of an unknown part": 1, "repeated clip": 1}
    assert [r.item for r in read[:3]] == ["a/0", "a/0", "a/1"]
    made = read[1].made[0]
    assert (made.label, made.boxes) == ("frying-food", ((0.25, 0.25, 0.75, 0.75),))
    assert (made.image, made.audio) == ("v1m/a/frames/0.jpg", "v1m/a/audio.wav")
    assert len({m.id for r in read for m in r.made}) == 21


def test_ms3_names_its_frames_otherwise_and_tells_no_class_in_binary_masks(folder: Path) -> None:
    write(folder, MS3.format(split="val", clip="v", frame=3), binary((0, 0, 10, 5)))
    read = readings(folder, subset="ms3")
    assert record_counts(read) == (1, 4)
    assert reasons(read) == {"no readable mask": 4}
    assert read[0].problems[0].detail == "ms3_data/gt_masks/val/v/v_1.png: no such file"
    made = read[2].made[0]
    assert made.image == "ms3_data/visual_frames/v/v.mp4_3.png"
    assert (made.label, made.response) == (None, "[0.00, 0.00, 0.25, 0.25]")


def test_the_second_of_a_frame_can_be_heard_and_seen_in_a_video(folder: Path) -> None:
    write(folder, S4.format(split="test", clip="v", frame=2), binary((0, 0, 10, 5)))
    options = {"image": "{clip}.mp4", "audio": "{category}/{clip}.mp4", "audio_span": "second"}
    made = readings(folder, **options)[1].made[0]
    assert (made.audio_start, made.audio_end) == (1.0, 2.0)
    assert made.frame_times == (1.9375,)
    assert (made.image, made.audio) == ("v.mp4", "dog_barking/v.mp4")


def test_a_frame_of_several_classes_has_boxes_of_each_the_largest_first(folder: Path) -> None:
    indices = np.zeros((20, 40), np.uint8)
    indices[0:5, 0:10], indices[10:20, 10:30], indices[0:5, 30:40] = 2, 1, 58
    write(folder, MS3.format(split="val", clip="v", frame=1), indices)
    made = readings(folder, subset="ms3")[0].made[0]
    assert [b.label for b in read_boxes(made.response)] == ["dog", "frying-food", "tiger"]
    assert made.boxes == ((0.25, 0.5, 0.75, 1), (0, 0, 0.25, 0.25), (0.75, 0, 1, 0.25))
    assert (made.label, made.provenance["classes"]) == (None, ["dog", "frying-food", "tiger"])


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((20, 40), np.uint8), "nothing in the mask"),
        (np.full((20, 40), 3, np.uint8), "class without a name to write"),
        (np.full((20, 40, 3), 77, np.uint8), "no readable mask"),
        (np.full((20, 40), 300, np.uint16), "no readable mask"),
        (b"no picture", "no readable mask"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_by_name(folder: Path, mask: Any, reason: str) -> None:
    write(folder, S4.format(split="test", clip="v", frame=1), mask)
    read = readings(folder)[:1]
    assert reasons(read) == {reason: 1}
    assert not read[0].made
    assert read[0].where == "s4_meta_data.csv:2"


def test_a_mask_of_crumbs_alone_is_refused(folder: Path) -> None:
    write(folder, S4.format(split="test", clip="v", frame=1), binary((0, 0, 1, 1)))
    assert reasons(readings(folder, least=0.01)[:1]) == {"object too small for a box": 1}
    assert record_counts(readings(folder, least=0)[:1]) == (1, 0)


def test_rows_that_cannot_be_used_are_refused_by_name(folder: Path) -> None:
    rows = "v,0,dog,test\n,0,dog,test\nw,0,dog,tset\nx,0\n..,0,dog,train\nv,0,dog,test\ny,0,a/b,train\n"
    (folder / "s4_meta_data.csv").write_text("name,start,category,split\n" + rows)
    assert reasons(readings(folder)) == {
        **{"no readable mask": 5, "row without a name or with an unknown split": 3},
        **{"unsafe name": 2, "repeated clip": 1},
    }


@pytest.mark.parametrize("content", [None, "[]", '{"dog": 1}', '{"background": "0"}', '{"backg'])
def test_a_label_file_that_is_needed_and_is_none_is_named(folder: Path, content: str | None) -> None:
    (folder / "label2idx.json").unlink()
    if content is not None:
        (folder / "label2idx.json").write_text(content)
    write(folder, S4.format(split="test", clip="v", frame=1), binary((0, 0, 10, 5)))
    assert record_counts(readings(folder)) == (1, 4)  # binary masks need none
    write(folder, S4.format(split="test", clip="v", frame=2), np.ones((20, 40), np.uint8))
    with pytest.raises(AvalignError, match=r"label2idx\.json"):
        readings(folder)


def test_options_that_lead_elsewhere_are_refused() -> None:
    with pytest.raises(AvalignError, match=r"labels: .* is not a path below"):
        AvsBench(labels="../label2idx.json")
    with pytest.raises(AvalignError, match=r"masks: .* no field 'part'"):
        AvsBench(masks="{part}/{clip}_{frame}.png")


# ---- masks ----


@given(st.integers(0, 255))
def test_a_class_has_the_same_colour_as_in_pascal_voc(index: int) -> None:
    """Written out bit by bit, as VOC's development kit defines it."""
    red = green = blue = 0
    rest = index
    for place in range(7, -1, -1):
        red, green, blue = (
            red | (rest & 1) << place,
            green | (rest >> 1 & 1) << place,
            blue | (rest >> 2 & 1) << place,
        )
        rest >>= 3
    assert _classes_by_colour()[red << 16 | green << 8 | blue] == index


def test_known_colours() -> None:
    """aeroplane 1, boat 4, dog 12, tv monitor 20 of PASCAL VOC"""
    colours = {0x800000: 1, 0x000080: 4, 0x400080: 12, 0x004080: 20}
    assert {colour: _classes_by_colour()[colour] for colour in colours} == colours


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA"])
def test_two_levels_are_object_and_background_in_every_mode(tmp_path: Path, mode: str) -> None:
    Image.fromarray(binary((3, 1, 9, 4))).convert(mode).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.shape == (20, 40)
    assert (mask[1:4, 3:9] == OBJECT).all()
    assert (mask == OBJECT).sum() == 18
    assert (mask == 0).sum() == 20 * 40 - 18


def smooth(box: tuple[int, int, int, int]) -> np.ndarray:
    """(80, 160): a mask drawn at half the size and enlarged, as an editor does: grey around its edges."""
    mask = Image.fromarray(binary(box)).resize((80, 40)).resize((160, 80), Image.Resampling.BILINEAR)
    assert len(np.unique(np.asarray(mask))) > 4
    return np.asarray(mask)


@pytest.mark.parametrize("kind", ["L", "P", "RGB", "RGBA", "LA", "I;16", "jpg", "colour jpg"])
def test_the_grey_edge_of_a_smooth_mask_is_no_class(tmp_path: Path, kind: str) -> None:
    levels = smooth((3, 1, 9, 4))
    file = tmp_path / ("mask.jpg" if "jpg" in kind else "mask.png")
    picture = Image.fromarray(levels.astype(np.uint16) * 257 if kind == "I;16" else levels)
    modes = {"jpg": "L", "colour jpg": "RGB"}
    (picture if kind == "I;16" else picture.convert(modes.get(kind, kind))).save(file)
    ((index, box),), small = boxes_of(read_mask(file), 0.001, 0.1)
    assert (index, small) == (OBJECT, 0)
    assert np.abs(np.array(box) - (3 / 40, 1 / 20, 9 / 40, 4 / 20)).max() <= 1 / 80


def test_what_is_transparent_in_a_mask_is_background(tmp_path: Path) -> None:
    pixels = np.full((20, 40, 4), 255, np.uint8)
    pixels[..., 3] = binary((3, 1, 9, 4))
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == OBJECT).sum() == 18


def test_a_palette_of_colours_is_left_aside_and_one_of_black_and_white_is_two_levels(tmp_path: Path) -> None:
    indices = np.zeros((20, 40), np.uint8)
    indices[1:4, 3:9] = 1
    mask = Image.fromarray(indices).convert("P")
    for palette, index in (([0, 0, 0, 128, 0, 0], 1), ([0, 0, 0, 255, 255, 255], OBJECT)):
        mask.putpalette(palette)
        mask.save(tmp_path / "mask.png")
        found = read_mask(tmp_path / "mask.png")
        assert set(np.unique(found)) == {0, index}
        assert (found == index).sum() == 18


def test_classes_in_16_bits_are_classes(tmp_path: Path) -> None:
    Image.fromarray(np.where(binary((3, 1, 9, 4)) > 0, 45, 0).astype(np.uint16)).save(tmp_path / "mask.png")
    assert set(np.unique(read_mask(tmp_path / "mask.png"))) == {0, 45}


def test_a_truncated_mask_is_named(tmp_path: Path) -> None:
    write(tmp_path, "mask.png", np.random.default_rng(0).integers(0, 9, (200, 200)).astype(np.uint8))
    content = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"mask\.png: cannot be decoded"):
        read_mask(tmp_path / "mask.png")


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.02]))
def test_objects_hold_every_pixel_and_lie_apart(seed: int, join: float, least: float) -> None:
    """Every pixel is in a box of its class, boxes are tight, and two of a class are farther than `join`."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 40), np.int16)
    for _ in range(rng.integers(1, 7)):
        y, x, h, w = rng.integers(0, (28, 38, 9, 9))
        mask[y : y + h + 1, x : x + w + 1] = rng.integers(1, 4)
    everything, none = boxes_of(mask, 0, join)
    kept, small = boxes_of(mask, least, join)
    assert none == 0
    assert len(kept) + small == len(everything)
    assert set(kept) <= set(everything)
    covered = np.zeros_like(mask)
    for index, box in everything:
        columns, rows = (slice(round(box[i] * n), round(box[i + 2] * n)) for i, n in ((0, 40), (1, 30)))
        inside = mask[rows, columns] == index
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        covered[rows, columns][inside] = index
    assert (covered == mask).all()
    ys, xs = np.nonzero(mask)
    for index in np.unique(mask[mask > 0]):
        here = [(y, x) for y, x in zip(ys, xs, strict=True) if mask[y, x] == index]
        groups = components(here, 1 + round(join * 30), 1 + round(join * 40))
        tight = {
            (min(xs) / 40, min(ys) / 30, (max(xs) + 1) / 40, (max(ys) + 1) / 30)
            for ys, xs in (zip(*group, strict=True) for group in groups)
        }
        assert tight == {box for i, box in everything if i == index}


def components(pixels: list[tuple[int, int]], down: int, across: int) -> list[list[tuple[int, int]]]:
    """Pixels chained by steps of at most `down` rows and `across` columns, found one by one."""
    left, groups = set(pixels), []
    while left:
        group = [left.pop()]
        for y, x in group:
            near = {(v, u) for v, u in left if abs(v - y) <= down and abs(u - x) <= across}
            left -= near
            group.extend(near)
        groups.append(group)
    return groups


def binary(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((20, 40), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    return mask


def write(folder: Path, name: str, mask: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(mask, bytes):
        (folder / name).write_bytes(mask)
    else:
        Image.fromarray(mask).save(folder / name)
