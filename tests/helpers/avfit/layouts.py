"""A small valid folder of each data set, laid out as published, with content made up."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

VOC = """<annotation>
	<folder>VOC2007</folder>
	<filename>{id}.jpg</filename>
	<size><width>200</width><height>100</height><depth>3</depth></size>
	<object>
		<name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
		<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>100</xmax><ymax>60</ymax></bndbox>
	</object>
	<object>
		<name>person</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
		<bndbox><xmin>101</xmin><ymin>1</ymin><xmax>200</xmax><ymax>100</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>110</xmin><ymin>1</ymin><xmax>120</xmax><ymax>9</ymax></bndbox></part>
	</object>
</annotation>
"""
BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
"""
FLICKR = """<annotation>
	<one><bbox><name>x</name><xmin>0</xmin><ymin>64</ymin><xmax>128</xmax><ymax>256</ymax></bbox></one>
	<two><bbox><name>x</name><xmin>12</xmin><ymin>60</ymin><xmax>140</xmax><ymax>250</ymax></bbox></two>
</annotation>
"""
LLP_ROWS = (
    "filename\tonset\toffset\tevent_labels\n-x_cdefghij_10_20\t0\t7\tDog\nshort_0_10\t2\t10\tFrying_(food)\n"
)
AVE_ROWS = (
    "Bark&-x_cdefghij&good&2&9\n",
    "Race car, auto racing&zyxwvutsrqp&good&0&10\n",
    "Bark&b_&good&1&3\n",
)
AVQA = {
    "id": 7,
    "video_name": "-x_cdefghij_000030",
    "video_id": 3,
    "question_text": "What sounds?",
    "multi_choice": ["dog", "a cat", "rain", "bell"],
    "answer": 2,
    "question_relation": "Sound",
    "question_type": "Which",
}
MUSIC = {
    "video_id": "00000028",
    "question_id": 7,
    "type": '["Audio-Visual", "Counting"]',
    "question_content": "Is the <Object> on the <LR> louder than the <Object>?",
    "templ_values": '["acoustic_guitar", "left", "piano"]',
    "question_deleted": 0,
    "anser": "electric_bass",
}
EVENTS = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"


def mask() -> bytes:
    """A picture of 8 x 4 pixels, its left half an object."""
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


# name -> file -> content
LAYOUTS: dict[str, dict[str, str | bytes]] = {
    "vgg_ss": {
        "vggss.json": json.dumps(
            [
                {"file": "-abcdefghi__000010", "class": "dog barking", "bbox": [[0.1, 0.2, 0.5, 0.6]]},
                {"file": "zyxwvutsrqp_000200", "class": "sea waves", "bbox": [[0, 0, 1, 1], [0, 0, 0.5, 1]]},
            ]
        )
    },
    "avsbench": {
        "s4_meta_data.csv": "name,start,category,split\n-v_1,0,dog_barking,train\n",
        "s4_data/gt_masks/train/dog_barking/-v_1/-v_1_1.png": mask(),
    },
    "flickr_soundnet": {
        "flickr_test.csv": "111,202\r\n222,3\r\n",
        "Annotations/111.xml": FLICKR,
        "Annotations/222.xml": FLICKR,
    },
    "llp": {
        "AVVP_val_pd.csv": "filename\tevent_labels\n-x_cdefghij_10_20\tDog,Speech\n",
        "AVVP_test_pd.csv": "filename\tevent_labels\nshort_0_10\tFrying_(food)\n",
        "AVVP_eval_audio.csv": LLP_ROWS,
        "AVVP_eval_visual.csv": LLP_ROWS,
    },
    "ave": {
        "Annotations.txt": "".join(AVE_ROWS),
        "trainSet.txt": AVE_ROWS[0],
        "valSet.txt": AVE_ROWS[1],
        "testSet.txt": AVE_ROWS[2],
    },
    "avqa": {
        "train_qa.json": json.dumps([AVQA]),
        "val_qa.json": json.dumps([AVQA | {"id": "8", "answer": 0}]),
        "video_map.json": json.dumps({AVQA["video_name"]: 3}),
    },
    "music_avqa": {
        "json_update/avqa-train.json": json.dumps([MUSIC]),
        "json_update/avqa-val.json": json.dumps([MUSIC, MUSIC | {"question_id": "8"}]),
        "json_update/avqa-test.json": json.dumps([MUSIC]),
    },
    "valor": {
        "desc_train.json": json.dumps([{"video_id": "-x_cdefghij_30.000_40.000", "desc": "A dog barks."}]),
        "desc_val.json": json.dumps([{"video_id": "abcdefghijk_0_10", "desc": "Rain falls."}] * 2),
        "desc_test.json": json.dumps([{"video_id": "zyxwvutsrqp_0.000_9.500", "desc": "A bell."}]),
    },
    "openimages": {
        "class-descriptions-boxable.csv": '/m/0bt9lr,Dog\n/m/01yrx,Cat\n/m/09ddx,"Duck, drake"\n',
        "train-annotations-bbox.csv": BOXES
        + "0000000000000001,xclick,/m/0bt9lr,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n"
        + "0000000000000001,xclick,/m/01yrx,1,0.500000,0.750000,0.250000,1.000000,-1,-1,-1,-1,-1\n"
        + "0000000000000002,freeform,/m/0bt9lr,1,0.0,1.0,0.0,1.0,0,1,1,0,0\n"
        + "00000000000000a3,activemil,/m/09ddx,1,0.0,0.5,0.0,0.5,0,0,0,0,0\n",
        "validation-annotations-bbox.csv": BOXES
        + "0000000000000004,xclick,/m/0bt9lr,1,0.1,0.5,0.2,0.6,0,0,0,1,0\n",
        "test-annotations-bbox.csv": BOXES + "0000000000000005,xclick,/m/01yrx,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n",
    },
    "pascal_voc": {
        "ImageSets/Main/train.txt": "000001\n000002\n",
        "ImageSets/Main/val.txt": "000003\n",
        "ImageSets/Main/test.txt": "000004\n",
        **{f"Annotations/00000{n}.xml": VOC.format(id=f"00000{n}") for n in (1, 2, 3, 4)},
    },
    "audioset": {
        "class_labels_indices.csv": 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/0bt9lr,"Dog"\n',
        "balanced_train_segments.csv": SEGMENTS + '--abcdefghi, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"\n',
        "unbalanced_train_segments.csv": SEGMENTS
        + '---bcdefghi, 0.000, 8.500, "/m/09x0r"\n_bcdefghijk, 30.000, 40.000, "/m/0bt9lr"\n',
        "eval_segments.csv": SEGMENTS + 'zyxwvutsrqp, 120.000, 130.000, "/m/0bt9lr"\n',
    },
    "audioset_strong": {
        "mid_to_display_name.tsv": "/m/09x0r\tSpeech\n/m/0bt9lr\tDog\n",
        "audioset_train_strong.tsv": EVENTS
        + "--abcdefgh__21000\t1.419\t1.599\t/m/09x0r\n"
        + "--abcdefgh__21000\t0.0\t10.0\t/m/0bt9lr\n"
        + "zyxwvutsrqp_0\t9.764\t10.0\t/m/0bt9lr\n",
        "audioset_eval_strong.tsv": EVENTS + "_bcdefghijk_140000\t3.729\t4.58\t/m/0bt9lr\n",
    },
    "vgg_sound": {
        "vggsound.csv": "---bcdefghi,1,people marching,test\n"
        + '--0bcdefghi,30,"female speech, woman speaking",train\n'
        + "--1bcdefghi,242,dog barking,train\n"
    },
    "esc50": {
        "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
        + "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        + "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
        + "4-210593-B-20.wav,4,20,crying_baby,True,210593,B\n"
        + "5-9032-A-0.wav,5,0,dog,True,9032,A\n"
    },
}


def lay_out(name: str, folder: Path, **changed: str | bytes) -> Path:
    """The folder of a data set. changed: files by their names without folder and ending, with "_" for "-" """
    contents = dict(LAYOUTS[name])
    for key, content in changed.items():
        files = [file for file in contents if Path(file).stem.replace("-", "_") == key]
        assert len(files) == 1, f"no file {key} of {name}"
        contents[files[0]] = content
    return written(contents, folder)


def written(contents: dict[str, str | bytes], folder: Path) -> Path:
    for file, content in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
