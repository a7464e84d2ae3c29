"""Plans: read as recipes are, every problem at its place, and written so that they read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.avfit.plan import PlanError, dump_plan, read_plan

PLAN = """\
name: mine
about: two data sets
seed: 3
datasets:
  vgg_ss: {folder: VGG-SS, frame_time: 4}
  again: {name: vgg_ss, most: {test: 7}}
"""


def plan(folder: Path, text: str = PLAN) -> Path:
    (folder / "plan.yaml").write_text(text)
    return folder / "plan.yaml"


def problems(folder: Path, text: str = PLAN, *overrides: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        read_plan(plan(folder, text), overrides)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_plan_has_every_default_filled_in_and_reads_back(tmp_path: Path) -> None:
    read = read_plan(plan(tmp_path))
    assert (read.name, read.seed, list(read.datasets)) == ("mine", 3, ["vgg_ss", "again"])
    one, two = read.datasets.values()
    assert (one.name, one.folder, one.most) == ("vgg_ss", "VGG-SS", {})
    assert (two.name, two.folder, two.most) == ("vgg_ss", "again", {"test": 7})
    assert one.options == {"image": "frames/{clip}.jpg", "audio": "audio/{clip}.wav", "frame_time": 4.0}
    assert read_plan(plan(tmp_path, dump_plan(read))) == read


def test_overrides_win_and_null_leaves_a_data_set_out(tmp_path: Path) -> None:
    read = read_plan(plan(tmp_path), ["seed=5", "datasets.again.most.test=9", "datasets.vgg_ss=null"])
    assert (read.seed, list(read.datasets)) == (5, ["again"])
    assert read.datasets["again"].most == {"test": 9}


def test_a_plan_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(PLAN)
    read = read_plan(plan(tmp_path, "extends: base.yaml\nname: other\ndatasets: {again: {folder: Y}}"))
    assert (read.name, read.seed, read.datasets["again"].folder) == ("other", 3, "Y")


def test_every_problem_is_told_at_its_place(tmp_path: Path) -> None:
    text = PLAN.replace("frame_time", "frame_tim").replace("vgg_ss, most", "vgg_s, most") + "sed: 1\n"
    one, two, three = sorted(problems(tmp_path, text))
    assert one == (
        "plan.yaml:5  datasets.vgg_ss.frame_tim: dataset 'vgg_ss' has no option 'frame_tim'. Did you mean "
        "'frame_time'? Known: audio, folder, frame_time, image, most, share_origins."
    )
    assert two.startswith("plan.yaml:6  datasets.again: no dataset is named 'vgg_s'. Did you mean 'vgg_ss'?")
    assert three.startswith("plan.yaml:7  sed: unknown key 'sed'. Did you mean 'seed'? Known: about, ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("datasets.again.folder=../up", "command line  datasets.again.folder: '../up' is not a path below"),
        ("datasets.again.folder=/etc", "command line  datasets.again.folder: '/etc' is not a path below"),
        (
            "datasets.again.most.tes=1",
            "datasets.again.most.tes: no split is named 'tes'. Did you mean 'test'",
        ),
        ("datasets.again.most.test=-1", "datasets.again.most.test: "),
        ("datasets.again.most.test=many", "datasets.again.most.test: "),
        ("datasets.VGG_ss={name: vgg_ss}", "datasets.VGG_ss: its files would be those of datasets.vgg_ss"),
        ("datasets.a b={name: vgg_ss}", "datasets.a b: a label is made of letters"),
        ("name=a/b", "command line  name: 'a/b' cannot name a folder."),
        ("seed=-1", "command line  seed: "),
        ("pairs.x={images: vgg_ss, audio: again}", "data set 'vgg_ss' gives records, and images are"),
        ("pairs.x={images: vg_ss, audio: again}", "no data set of this plan is named 'vg_ss'. Did you mean"),
        ("pairs.again={images: vgg_ss, audio: again}", "pairs.again: its files would be those of"),
        ("seed", "'seed' should be key=value, as in seed=1."),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, override: str, said: str) -> None:
    assert any(said in problem for problem in problems(tmp_path, PLAN, override))


def test_a_plan_without_data_sets_is_none(tmp_path: Path) -> None:
    assert problems(tmp_path, "name: x\n") == ["plan.yaml  datasets: a plan needs at least one data set."]


def test_a_key_given_twice_and_a_file_that_is_none(tmp_path: Path) -> None:
    assert "seed: given twice, first at plan.yaml:3." in problems(tmp_path, PLAN + "seed: 4\n")[0]
    with pytest.raises(PlanError, match=r"plans\.yaml: no such file\. Did you mean 'plan\.yaml'\?"):
        read_plan(tmp_path / "plans.yaml")
    with pytest.raises(PlanError, match="a folder, not a plan"):
        read_plan(tmp_path)
