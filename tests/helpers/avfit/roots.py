"""Every data set of the shipped plans in small: annotation files as published, generated, and no media."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

CLIPS = 6  # of each split

# class in OpenImages and AudioSet -> mid
OBJECTS = {"Dog": "/m/0bt9lr", "Cat": "/m/01yrx", "Car": "/m/0k4j", "Train": "/m/07jdr", "Piano": "/m/05r5c"}
SOUNDS = {"Dog": "/m/0bt9lr", "Cat": "/m/01yrx", "Car": "/m/0k4j", "Train": "/m/07jdr", "Piano": "/m/05r5c"}
SPLITS = ("train", "validation", "test")


def write(file: Path, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def youtube(split: str, number: int) -> str:
    """An id of 11 characters that no other split has."""
    return f"{split[:5]:_<6}{number:05d}"


def vgg_ss(folder: Path) -> None:
    rows = [
        {"file": f"{youtube('vggss', k)}_000010", "class": "dog barking", "bbox": [[0.1, 0.1, 0.6, 0.7]]}
        for k in range(CLIPS)
    ]
    write(folder / "vggss.json", [json.dumps(rows)])


def openimages(folder: Path, images: int = 40) -> None:
    write(folder / "class-descriptions-boxable.csv", [f"{mid},{name}" for name, mid in OBJECTS.items()])
    columns = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
        "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    mids = list(OBJECTS.values())
    for split in SPLITS:
        rows = [columns]
        for k in range(images):
            for box, mid in enumerate(dict.fromkeys((mids[k % 5], mids[(k // 5) % 5]))):
                left = 0.05 + 0.5 * box
                rows.append(f"{split}{k:08x},xclick,{mid},1,{left},{left + 0.35},0.2,0.8,0,0,0,0,0")
        write(folder / f"{split}-annotations-bbox.csv", rows)


def audioset(folder: Path, clips: int = 30) -> None:
    rows = [f'{k},{mid},"{name}"' for k, (name, mid) in enumerate(SOUNDS.items())]
    write(folder / "class_labels_indices.csv", ["index,mid,display_name", *rows])
    mids = list(SOUNDS.values())
    for split in ("balanced_train", "unbalanced_train", "eval"):
        head = ["# Segments csv", "# num_ytids", "# YTID, start_seconds, end_seconds, positive_labels"]
        rows = [
            f'{youtube(split[:3], k)}, {10 * (k % 3)}.000, {10 * (k % 3) + 10}.000, "{mids[k % 5]}"'
            for k in range(clips)
        ]
        write(folder / f"{split}_segments.csv", [*head, *rows])


def audioset_strong(folder: Path, clips: int = 30) -> None:
    write(folder / "mid_to_display_name.tsv", [f"{mid}\t{name}" for name, mid in SOUNDS.items()])
    mids = list(SOUNDS.values())
    for split in ("train", "eval"):
        rows = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel"]
        for k in range(clips):
            clip = f"{youtube(f's{split}', k)}_{1000 * (k % 3)}"
            rows.append(f"{clip}\t1.0\t{3 + k % 4}.500\t{mids[k % 5]}")
            rows.append(f"{clip}\t8.0\t9.250\t{mids[(k + 1 + k // 5) % 5]}")
        write(folder / f"audioset_{split}_strong.tsv", rows)


def vgg_sound(folder: Path, clips: int = 30) -> None:
    labels = ("dog barking", "cat meowing", "playing piano", "train horning", "car passing by")
    rows = [
        f"{youtube(f'v{split}', k)},{k},{labels[k % 5]},{split}"
        for split in ("train", "test")
        for k in range(clips)
    ]
    write(folder / "vggsound.csv", rows)


def pascal_voc(folder: Path, images: int = 30) -> None:
    classes = ("dog", "cat", "car", "train", "bird", "sheep")
    number = 0
    for split in ("train", "val", "test"):
        ids = [f"{number + k:06d}" for k in range(images)]
        number += images
        write(folder / "ImageSets" / "Main" / f"{split}.txt", ids)
        for k, image in enumerate(ids):
            objects = "".join(
                f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{1 + 50 * place}</xmin>"
                f"<ymin>11</ymin><xmax>{40 + 50 * place}</xmax><ymax>80</ymax></bndbox></object>"
                for place, name in enumerate(dict.fromkeys((classes[k % 6], classes[(k // 6) % 6])))
            )
            size = "<size><width>100</width><height>100</height><depth>3</depth></size>"
            xml = f"<annotation><filename>{image}.jpg</filename>{size}{objects}</annotation>"
            write(folder / "Annotations" / f"{image}.xml", [xml])


def esc50(folder: Path) -> None:
    classes = ("dog", "cat", "engine", "train", "chirping_birds", "sheep")
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for k, name in enumerate(classes * 2):
            rows.append(f"{fold}-{fold}{k:04d}-A-{k}.wav,{fold},{k},{name},False,{fold}{k:04d},A")
    write(folder / "meta" / "esc50.csv", rows)


def llp(folder: Path) -> None:
    clips = {split: [f"{youtube(f'l{split}', k)}_30_40" for k in range(CLIPS)] for split in ("val", "test")}
    for split, names in clips.items():
        rows = [f"{name}\tDog,Speech" for name in names]
        write(folder / f"AVVP_{split}_pd.csv", ["filename\tevent_labels", *rows])
    for kind in ("audio", "visual"):
        rows = [f"{name}\t{k}\t{k + 3}\tDog" for names in clips.values() for k, name in enumerate(names)]
        write(folder / f"AVVP_eval_{kind}.csv", ["filename\tonset\toffset\tevent_labels", *rows])


def avqa(folder: Path) -> None:
    for split, number in (("train", 0), ("val", 1000)):
        rows = [
            {
                "id": number + k,
                "video_name": f"{youtube(f'q{split}', k)}_000020",
                "video_id": number + k,
                "question_text": "What makes the sound?",
                "multi_choice": ["dog", "cat", "car", "train"],
                "answer": k % 4,
                "question_relation": "Both",
                "question_type": "Which",
            }
            for k in range(CLIPS)
        ]
        write(folder / f"{split}_qa.json", [json.dumps(rows)])


def music_avqa(folder: Path) -> None:
    for place, split in enumerate(("train", "val", "test")):
        rows = [
            {
                "video_id": f"{k:08d}",  # the same videos in every split, as published
                "question_id": 100 * place + k,
                "type": json.dumps(["Audio-Visual", "Counting"]),
                "question_content": "How many <Object> are playing?",
                "templ_values": json.dumps(["flute"]),
                "question_deleted": 0,
                "anser": "two",
            }
            for k in range(CLIPS)
        ]
        write(folder / "json_update" / f"avqa-{split}.json", [json.dumps(rows)])


def valor(folder: Path) -> None:
    for split in ("train", "val", "test"):
        rows = [
            {"video_id": f"{youtube(f'c{split}', k)}_10.000_20.000", "desc": f"a dog barks {k} times"}
            for k in range(CLIPS)
        ]
        write(folder / f"desc_{split}.json", [json.dumps(rows)])


def flickr_soundnet(folder: Path) -> None:
    write(folder / "flickr_test.csv", [f"{1000 + k},{k}" for k in range(CLIPS)])
    box = "<bbox><name>sound</name><xmin>20</xmin><ymin>30</ymin><xmax>120</xmax><ymax>200</ymax></bbox>"
    for k in range(CLIPS):
        annotators = "".join(f"<annotator{a}>{box}</annotator{a}>" for a in range(3))
        write(folder / "Annotations" / f"{1000 + k}.xml", [f"<annotation>{annotators}</annotation>"])


def avsbench(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rows = ["name,start,category,split"]
    for split in ("train", "val", "test"):
        for k in range(2):
            rows.append(f"{youtube(f'a{split}', k)},0,dog,{split}")
            for frame in range(1, 2 if split == "train" else 6):
                name = youtube(f"a{split}", k)
                place = folder / "s4_data" / "gt_masks" / split / "dog" / name / f"{name}_{frame}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                mask = np.zeros((32, 32), np.uint8)
                mask[8:20, 4:24] = 255
                Image.fromarray(mask).save(place)
    write(folder / "s4_meta_data.csv", rows)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    **{"vgg_ss": vgg_ss, "openimages": openimages, "audioset": audioset, "audioset_strong": audioset_strong},
    **{"vgg_sound": vgg_sound, "pascal_voc": pascal_voc, "esc50": esc50, "llp": llp, "avqa": avqa},
    **{"music_avqa": music_avqa, "valor": valor, "flickr_soundnet": flickr_soundnet, "avsbench": avsbench},
}
