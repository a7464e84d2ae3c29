"""The report: whole from a whole run, still a page from half a one, and text stays text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from avalign.evaluation.evaluate import evaluate
from avalign.report import drawings
from avalign.report.page import environment
from avalign.report.report import write_report, write_scores_page
from avalign.types import Sample

HOSTILE = "<script>alert('x')</script>"


def metric_curves(log):
    return environment().get_template("drawings.html").module.metric_curves(drawings.metric_curves(log))


class OneTask:
    tasks = ("avqa",)
    skipped = (f"{HOSTILE}.jpg: is empty",)

    def sample(self, split, task, index):
        question = f"<image><audio>What is {HOSTILE}?"
        media = {"image": np.full((8, 8, 3), 99, np.uint8), "audio": np.ones(4000, np.float32)}
        return Sample(f"{split} {index}", task, question, f"dog {HOSTILE}", kind=HOSTILE, **media)


class Answers:
    def answer(self, samples):
        return ["cat & " + HOSTILE] * len(samples)

    def explain(self, sample):
        return SimpleNamespace(answer=HOSTILE, image_map=np.eye(2), audio_map=None, audio_times=None)


class Page(HTMLParser):
    """Tags that never close, or close another; and everything a page can fetch."""

    VOID = ("meta", "img", "br", "line", "circle", "rect", "polyline")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.fetched, self.wrong = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "x"
    evaluate(
        Answers(), OneTask(), tasks=["avqa"], samples=9, batch_size=4, bootstrap=50, seed=0,
        modality_check=True, out=folder / "eval", figures=2,
    )  # fmt: skip
    steps = [{"stage": "align", "step": s, "loss": 2 / s, "avopt": 0.5} for s in (1, 2, 3)]
    steps += [{"stage": "language", "step": s, "loss": 1.0, "language_modelling": 1 / s} for s in (1, 2)]
    (folder / "log.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps) + '{"stage": "langu')
    (folder / "recipe.yaml").write_text(f"name: mine\nnote: {HOSTILE}\n")
    (folder / "versions.json").write_text(json.dumps({"avalign": "0.1.0", "packages": {"torch": "2.10"}}))
    return folder


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text()


def test_the_page_is_whole(page):
    parsed = Page(page)
    assert parsed.wrong == []
    assert parsed.open == []
    assert parsed.seen.count("img") == 2
    assert "avqa: accuracy is not clear of the answer" in page
    for said in (
        "Scores",
        "Training",
        "AVQA: audio-visual question answering",
        "torch",
        "no picture",
        "test list sha256:",
    ):
        assert said in page, said
    for curve in ("loss", "avopt", "language_modelling"):
        assert f'aria-label="{curve}"' in page


def test_the_page_fetches_nothing(page):
    fetched = Page(page).fetched
    assert all(value.startswith(("#", "data:image/")) for value in fetched), fetched
    assert not re.search(r"https?://|url\(|@import", page)


def test_text_stays_text(page):
    assert "script" not in Page(page).seen
    assert page.count("&lt;script&gt;") >= 5  # skipped files, question, answer, truth, question type, recipe


@pytest.mark.parametrize(
    "missing",
    ["eval/scores.json", "log.jsonl", "recipe.yaml", "versions.json", "eval/avqa.jsonl", "eval/pictures"],
)
def test_a_part_that_is_missing_is_said_to_be(run, tmp_path, missing):
    for file in run.rglob("*"):
        name = file.relative_to(run).as_posix()
        if file.is_file() and not name.startswith(missing):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(file.read_bytes())
    text = write_report(tmp_path).read_text()
    assert Page(text).wrong == []
    said = {
        "eval/scores.json": "No scores yet",
        "log.jsonl": "No training log",
        "recipe.yaml": "No recipe.yaml",
    }
    said |= {"versions.json": "No versions.json", "eval/avqa.jsonl": "No samples: eval/avqa.jsonl"}
    assert said.get(missing, "Samples, the first of 9") in text
    assert ("<img" in text) == (missing not in ("eval/pictures", "eval/scores.json", "eval/avqa.jsonl"))


def test_an_empty_folder_has_a_page(tmp_path):
    text = write_report(tmp_path).read_text()
    assert f"<h1>{tmp_path.name}</h1>" in text
    assert "No scores yet" in text


def test_half_a_line_of_a_killed_run_is_counted(page):
    assert "1 lines of log.jsonl could not be read" in page


def lengths(svg):
    """The rightmost step that each stage's shade reaches, and the points of the curve."""
    points = re.search(r'points="([^"]*)"', svg).group(1).split()
    return [tuple(map(float, p.split(","))) for p in points]


def test_steps_are_counted_through_stages_that_begin_anew():
    anew = [{"stage": s, "step": k, "loss": 1.0 + k} for s in "ab" for k in (10, 20)]
    through = [
        {"stage": s, "step": k + o, "loss": 1.0 + k} for s, o in (("a", 0), ("b", 20)) for k in (10, 20)
    ]
    assert metric_curves(anew) == metric_curves(through)
    x = [x for x, _ in lengths(metric_curves(anew))]
    assert x == sorted(x)
    assert len(set(x)) == 4
    assert "40 steps" in metric_curves(anew)


def test_a_step_logged_again_after_a_resume_counts_once():
    log = [{"stage": "a", "step": k, "loss": v} for k, v in ((10, 3.0), (20, 9.0), (20, 2.0), (30, 1.0))]
    assert metric_curves(log) == metric_curves([log[0], log[2], log[3]])


def test_a_curve_falls_when_its_numbers_do():
    y = [
        y
        for _, y in lengths(metric_curves([{"stage": "a", "step": k, "loss": 1 / k} for k in (1, 2, 3, 100)]))
    ]
    assert y == sorted(y)  # down the page
    assert "log scale" in metric_curves([{"stage": "a", "step": k, "loss": 1 / k} for k in (1, 2, 3, 100)])


def test_what_is_not_finite_or_not_a_number_is_left_out():
    log = [
        {"stage": "a", "step": k, "loss": v, "note": "x", "ok": True}
        for k, v in ((1, 1.0), (2, float("nan")), (3, 0.5))
    ]
    assert len(lengths(metric_curves(log))) == 2
    assert "note" not in metric_curves(log)


def test_the_bar_of_a_score_without_interval_is_drawn():
    bar = drawings.interval_bar(
        {"value": 0.5, "low": None, "high": None}, [{"value": None, "low": None, "high": None}], most=1
    )
    drawn = environment().get_template("drawings.html").module.interval_bar(bar)
    assert drawn.count("<circle") == 1


# ---- several sources, the paper's table, predictions ----


class TwoSources:
    """Four samples of VGG-SS, two of a source whose name is hostile."""

    tasks = ("arig",)

    def size(self, split, task):
        return 6 if split == "test" else 0

    def sample(self, split, task, index):
        source = "vgg_ss" if index < 4 else f"mine {HOSTILE}"
        return Sample(
            f"{source}/{index}", "arig", "", "[dog, 0, 0, 0.5, 1]", boxes=((0, 0, 0.5, 1),),
            label=f"class {index}", provenance={"source": source},
        )  # fmt: skip


class HalfWithMaps:
    def answer(self, samples):
        return ["[dog, 0, 0, 0.5, 1]"] * len(samples)

    def answer_with_maps(self, samples):
        return [(text, np.array([[1, 0]])) for text in self.answer(samples)]


@pytest.fixture(scope="module")
def scores_page(tmp_path_factory):
    out = tmp_path_factory.mktemp("scores")
    evaluate(
        HalfWithMaps(), TwoSources(), tasks=["arig"], samples="all", batch_size=4, bootstrap=20, seed=0,
        modality_check=False, out=out, figures=0,
    )  # fmt: skip
    return write_scores_page(out, f"said {HOSTILE}").read_text()


def test_a_page_of_scores_alone_is_whole(scores_page):
    parsed = Page(scores_page)
    assert parsed.wrong == []
    assert parsed.open == []
    assert "script" not in parsed.seen
    assert "Training" not in scores_page
    assert "no sound" not in scores_page.lower()  # no column of checks not made
    assert "heat maps came with 6 of 6 answers" in scores_page


def test_each_source_and_the_paper_stand_on_the_page(scores_page):
    assert scores_page.count('<h3 class="source">') == 2
    paper = scores_page.split("Beside the paper")[1]
    assert "<td>38.85</td><td>39.54</td>" in paper
    assert "<td><b>this model, boxes</b></td><td><b>100.00</b></td>" in paper
    assert "<td><b>this model, heat maps</b></td><td><b>100.00</b></td>" in paper
    assert "n differs (4 clips, 4 samples; published: 5,158 clips)" in paper
    assert scores_page.count("Beside the paper") == 1


def test_a_page_of_no_scores_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no scores to show"):
        write_scores_page(tmp_path, "x")
