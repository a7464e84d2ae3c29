"""What is said of run folders whose scores are known by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from avalign.errors import AvalignError
from avalign.studies import ablate
from avalign.studies.grid import runs
from avalign.studies.report import page, write
from avalign.studies.results import collect
from avalign.studies.study import read_study
from avalign.studies.tables import as_markdown, clear
from tests.helpers.studies import STUDY, make_run, share, write_study

RIGHT = {"both": (5, 6, 7), "none": (6, 8, 7)}  # of 10, under seeds 0, 1 and 2
KEY = "avqa/accuracy"
HALF = 4.30265 * 0.1 / 3**0.5  # Student's, of three numbers whose standard deviation is 0.1


@pytest.fixture
def study(tmp_path: Path):
    return read_study(write_study(tmp_path))


@pytest.fixture
def finished(study, tmp_path: Path):
    """All six runs."""
    every = runs(study, tmp_path / "out")
    for run in every:
        make_run(run, share(RIGHT[run.arm][run.seed]), seconds=60.0 + run.seed)
    return every


def test_means_intervals_and_paired_differences_are_those_by_hand(study, finished):
    table = collect(study, finished, {})
    both, none = (table["arms"][arm]["scores"][KEY] for arm in ("both", "none"))
    assert both["values"] == {"0": 0.5, "1": 0.6, "2": 0.7}
    assert (both["mean"], both["low"], both["high"]) == pytest.approx((0.6, 0.6 - HALF, 0.6 + HALF), abs=1e-5)
    assert both["difference"] is None
    less = none["difference"]
    assert less["values"] == pytest.approx({"0": 0.1, "1": 0.2, "2": 0.0})
    assert (less["mean"], less["low"], less["high"]) == pytest.approx((0.1, 0.1 - HALF, 0.1 + HALF), abs=1e-5)
    assert table["arms"]["both"]["seconds"]["mean"] == 61.0
    assert table["warnings"] == []
    assert table["test_samples"] == {KEY: [10]}


def test_the_difference_over_samples_is_of_the_same_samples(study, finished):
    """Under seed 2 both get the same questions right; under 0 and 1 `none` gets one and two more right."""
    low, high = collect(study, finished, {})["arms"]["none"]["scores"][KEY]["difference"]["samples"]
    assert 0.0 <= low < 0.1 < high <= (0.4 + 0.6) / 3
    unpaired = 1.96 * (2 * 0.25 / 10 / 3) ** 0.5
    assert (high - low) / 2 < 0.6 * unpaired


def test_the_trivial_answer_stands_beside(study, finished):
    trivial = collect(study, finished, {})["trivial"][KEY]
    assert (trivial["name"], trivial["mean"], trivial["n"]) == ("majority answer", 1.0, 3)


def test_markdown_shows_every_arm_its_n_and_its_time(study, finished):
    lines = as_markdown(collect(study, finished, {})).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in reversed(lines) if line.startswith("| ")}
    assert rows["both"] == "| both | 0.600 [0.352, 0.848] | 1 min 01 s | 3 |"
    assert "| none | 0.700 [0.452, 0.948] | 1 min 01 s | 3 |" in lines
    assert "| none | +0.100 [-0.148, +0.348] |" in lines
    assert rows["best trivial answer"].startswith(
        "| best trivial answer | 1.000 [1.000, 1.000], majority answer"
    )
    head = next(line for line in lines if line.startswith("3 seeds"))
    assert "(0, 1, 2), 10 test samples a task and seed" in head
    assert "on 1 threads, 2 runs at once" in head


def test_a_difference_is_marked_only_where_its_interval_leaves_out_0(study, tmp_path):
    every = runs(study, tmp_path / "out")
    for run in every:
        make_run(run, share({"both": 2, "none": 8}[run.arm] + run.seed % 2))
    table = collect(study, every, {})
    assert clear(table["arms"]["none"]["scores"][KEY]["difference"])
    assert "| none | +0.600 [+0.600, +0.600] * |" in as_markdown(table)


def test_what_is_missing_is_left_out_counted_and_named(study, tmp_path):
    every = runs(study, tmp_path / "out")
    there = [run for run in every if (run.arm, run.seed) not in (("none", 1), ("both", 2))]
    for run in there:
        make_run(run, share(RIGHT[run.arm][run.seed]))
    table = collect(study, every, {"none seed 1": "error: no memory (terminal.log)"})
    less = table["arms"]["none"]["scores"][KEY]["difference"]
    assert less["values"] == pytest.approx({"0": 0.1}), "only seed 0 has both"
    assert less["low"] is None
    assert table["warnings"] == [
        "none seed 1: failed: error: no memory (terminal.log)",
        "both seed 2: not begun",
    ]
    text = as_markdown(table)
    assert "| both | 0.550 [-0.085, 1.185] | n/a | 2 of 3 |" in text
    assert "- none seed 1: failed: error: no memory (terminal.log)" in text


def test_nothing_finished_is_a_table_without_numbers(study, tmp_path):
    table = collect(study, runs(study, tmp_path / "out"), {})
    assert "| both | n/a | n/a | 0 of 3 |" in as_markdown(table)
    assert "nothing to show" in page(table)


def test_a_run_without_one_of_its_files_is_not_finished(finished):
    run = finished[0]
    assert run.finished
    for part in ("model/complete", "report.html", "eval/scores.json"):
        kept = (run.folder / part).read_bytes()
        (run.folder / part).unlink()
        assert not run.finished, part
        (run.folder / part).write_bytes(kept)
    scores = run.folder / "eval" / "scores.json"
    scores.write_text(scores.read_text()[:-40])
    assert not run.finished, "written to the middle"


def test_runs_scored_on_other_samples_are_not_paired(study, tmp_path):
    every = runs(study, tmp_path / "out")
    for run in every:
        make_run(run, share(5), list_seed=9 if run.arm == "none" else None)
    with pytest.raises(AvalignError, match=r"none/seed-0 and .*both/seed-0 were scored on different samples"):
        collect(study, every, {})


def test_samples_that_do_not_give_the_score_written_beside_them_are_an_error(study, finished):
    path = finished[0].folder / "eval" / "avqa.jsonl"
    path.write_text(path.read_text().replace('"right": 1.0', '"right": 0.0', 1))
    with pytest.raises(AvalignError, match=r"gives accuracy 0\.4, scores\.json 0\.5: not of one evaluation"):
        collect(study, finished, {})
    path.write_text("{}\n")
    with pytest.raises(AvalignError, match=r"avqa\.jsonl cannot be read"):
        collect(study, finished, {})


def test_runs_of_different_commits_are_said_to_be(study, tmp_path):
    every = runs(study, tmp_path / "out")
    for run in every:
        make_run(run, share(5), commit="abc" if run.seed else "def")
    assert collect(study, every, {})["warnings"] == ["the runs were made at different commits: abc, def"]


def test_an_arm_that_is_not_scored_on_a_task_has_no_number_there(tmp_path):
    text = STUDY.replace("tasks: [avqa]", "tasks: [avqa, avfc]").replace(
        "none: {", "none: {evaluation.tasks: [avqa], "
    )
    study = read_study(write_study(tmp_path, text))
    assert study.metrics == (("avfc", "accuracy"), ("avqa", "accuracy"))
    every = [run for run in runs(study, tmp_path / "out") if run.arm == "none"]
    for run in every:
        make_run(run, share(5))
    scores = collect(study, every, {})["arms"]["none"]["scores"]
    assert scores["avfc/accuracy"]["mean"] is None
    assert scores[KEY]["mean"] == 0.5


def test_the_page_holds_all_it_shows(study, finished, tmp_path):
    path = write(collect(study, finished, {}), tmp_path / "out" / "small")
    html = path.read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    for run in finished:
        target = re.search(rf'href="({run.arm}/seed-{run.seed}/report.html)"', html)
        assert target
        assert (path.parent / target[1]).exists(), "links lead to the runs' own reports"
    dots = re.findall(r"<title>seed (\d): ([\d.-]+)</title>", html)
    assert ("1", "0.8000") in dots
    assert len(dots) == 9, "six scores and three differences"
    assert html.count("stroke-dasharray") == 2, "the trivial answer, and no difference"
    assert json.loads((path.parent / "table.json").read_text())["study"] == "small"


def test_labels_are_text_and_no_markup(tmp_path):
    text = STUDY.replace("  none:", "  '<b>|':").replace("about: Is", "about: <i>Is")
    study = read_study(write_study(tmp_path, text))
    table = collect(study, [], {})
    assert "<b>|" not in page(table).replace("<b>both", "")
    assert "<i>" not in page(table)
    assert "| \\<b>\\| | n/a" in as_markdown(table)


def test_the_report_alone_runs_nothing_and_says_what_is_not_there(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    said: list[str] = []
    study = tmp_path / "study.yaml"
    assert ablate([str(study)], out=tmp_path / "out", report_only=True, say=said.append)
    assert "| both | 0.600" in said[-1]
    assert not ablate([str(study)], seeds="4", out=tmp_path / "out", report_only=True, say=said.append)
    assert "- both seed 3: not begun" in said[-1]
