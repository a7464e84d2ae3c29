"""The paper's numbers beside ours: only of the same data set, and what differs is said."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from avalign.evaluation import paper
from avalign.evaluation.paper import PUBLISHED, beside_the_paper, published_on
from avalign.types import Sample
from tests.helpers.avfit.excerpts import excerpt


def samples(source, count, task="arig"):
    return [Sample(f"{source}/clip {k}", task, "", "", provenance={"source": source}) for k in range(count)]


def result(groups=None, **metrics):
    rows = {g: {"n": 1, "metrics": m} for g, m in (groups or {}).items()}
    return {"metrics": metrics, "groups": {"by": "x", "rows": rows} if rows else None}


def score(value):
    return {"value": value, "low": None, "high": None}


@pytest.mark.parametrize(
    ("task", "source", "title"),
    [
        ("arig", "vgg_ss", "VGG-SS"),
        ("arig", "VGG-SS", "VGG-SS"),
        ("arig", "avsbench_s4", "AVSBench"),
        ("igatl", "openimages_audioset_strong", "AudioSet Strong"),
        ("avqa", "avqa", "AVQA"),
        ("avqa", "music_avqa", "MUSIC-AVQA"),
        ("avcap", "valor", "VALOR-32K"),
        ("arig", "esc50", None),
        ("avqa", "vgg_ss", None),
        ("arig", "", None),
    ],
)
def test_a_source_is_known_by_its_name(task, source, title):
    found = published_on(task, source)
    assert (found and found.title) == title


def test_our_rows_stand_below_the_papers_and_boxes_apart_from_maps():
    ours = result(
        **{"cIoU@0.5": score(0.25), "cIoU AUC": score(0.3), "map cIoU@0.5": score(0.5), "map AUC": score(0.4)}
    )
    found = beside_the_paper("arig", samples("vgg_ss", 3), ours)
    assert found["rows"][0] == ["EZ-VSL", "38.85", "39.54"]
    assert found["rows"][4:] == [
        ["Meerkat", "48.51", "45.62"],
        ["this model, boxes", "25.00", "30.00"],
        ["this model, heat maps", "50.00", "40.00"],
    ]
    without_maps = result(**{"cIoU@0.5": score(0.25), "cIoU AUC": score(0.3)})
    assert len(beside_the_paper("arig", samples("vgg_ss", 3), without_maps)["rows"]) == 6
    assert beside_the_paper("arig", samples("vgg_ss", 1) + samples("ave", 1), ours) is None
    assert beside_the_paper("arig", samples("ave", 1), ours) is None


def test_a_number_of_one_group_is_that_groups():
    groups = {
        "Audio-Visual Existential": {"accuracy": score(0.75)},
        "Audio Counting": {"accuracy": score(0.1)},
    }
    found = beside_the_paper("avqa", samples("music_avqa", 2, "avqa"), result(groups))
    assert found["rows"] == [["Meerkat", "83.62"], ["this model", "75.00"]]
    two = groups | {"existence": {"accuracy": score(0.5)}}
    assert (
        len(beside_the_paper("avqa", samples("music_avqa", 2, "avqa"), result(two))["rows"]) == 1
    )  # which is meant?


@pytest.mark.parametrize(
    ("source", "count", "said"),
    [
        ("vgg_ss", 5140, "Not the same list as the published one: n differs (5,140 clips, 5,140 samples; "
                         "published: 5,158 clips)."),
        ("vgg_ss", 5158, "As many as the published test list has (5,158 clips"),
        ("flickr_soundnet", 249, "n differs (249 clips"),
        ("avsbench", 10, "Whether this is the published test list is not known"),
    ],
)  # fmt: skip
def test_whether_the_list_is_the_published_one_is_said(source, count, said):
    remarks = beside_the_paper("arig", samples(source, count), result())["remarks"]
    assert remarks[0].startswith(said) or said in remarks[0]
    assert any(remark.startswith("The paper counts") for remark in remarks)
    assert "Models trained on other data are not comparable" in remarks[-1]


def test_the_published_list_of_llp_is_known_by_its_names(monkeypatch):
    """Also with several questions a clip; other names of the same number are another list."""
    names = [f"{k}_0_10" for k in range(1200)]
    sums = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    known = replace(PUBLISHED["igatl", "llp"], names=sums)
    monkeypatch.setitem(paper.PUBLISHED, ("igatl", "llp"), known)
    made = [
        Sample(f"llp/{kind}/{name}/Dog", "igatl", "", "", provenance={"source": "llp", "clip": name})
        for kind in ("audio", "visual") for name in names
    ]  # fmt: skip
    first = beside_the_paper("igatl", made, result())["remarks"][0]
    assert first == "The clips are those of the published test list (1,200 clips, 2,400 samples)."
    other = [replace(s, provenance=s.provenance | {"clip": s.provenance["clip"] + "x"}) for s in made]
    assert "but other names" in beside_the_paper("igatl", other, result())["remarks"][0]


def test_the_hash_of_llps_list_is_that_of_the_real_file():
    rows = excerpt("llp/AVVP_test_pd.csv").read_text().splitlines()[1:]
    names = {row.split("\t")[0] for row in rows if row}
    known = PUBLISHED["igatl", "llp"]
    assert len(names) == known.clips
    assert hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest() == known.names
