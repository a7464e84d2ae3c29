"""What goes wrong in use is told in one message that names the file or the field, and never by a traceback.

All through the real commands and components, on a tiny run and a tiny folder of data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.data.avworld import AvWorld
from tests.helpers.paired_folder import LOOKS, RATE, write_folder
from tests.helpers.paths import RECIPES

RECIPE = str(RECIPES / "meerkat.yaml")
TINY = [
    *("model.width=16", "data.workers=0", "train.precision=fp32", "train.report_to=[]"),
    "model.image_encoder={name: small, width: 16}",
    "model.audio_encoder={name: small, width: 16}",
    "model.llm={name: small, hidden: 16, layers: 1, heads: 2}",
    *("train.batch_size=1", "train.log_every=1"),
    "train.stages=[{name: align, steps: 1, weights: {language_modelling: 0}}, {name: answer, steps: 1}]",
    *("evaluation.tasks=[avfc]", "evaluation.samples=1", "evaluation.bootstrap=0", "evaluation.figures=0"),
    *("evaluation.max_new_tokens=2", "evaluation.modality_check=false"),
]
WORLD = "{name: avworld, train: 40, val: 20, test: 20}"
ZOO = f"{{name: paired_folder, classes: {list(LOOKS)}, seconds: 2.0, canvas: 64, sample_rate: {RATE}}}"


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "300", "HF_HUB_OFFLINE": "1"})


def train(run: Path, *settings: str) -> Any:
    return command("train", RECIPE, *TINY, *settings, "--run", str(run))


def complaint(result: Any) -> str:
    """What a command that failed as it should printed: no traceback, and an exit code of 2."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with batches of one sample, the least there is."""
    folder = tmp_path_factory.mktemp("world")
    result = train(folder / "run", f"data.source={WORLD}", f"data.root={folder}")
    assert result.exit_code == 0, result.output
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 2
    return folder / "run"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "zoo")


# ---- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.batch_sise=4", "train.batch_sise: unknown key 'batch_sise'. Did you mean 'batch_size'?"),
        ("model.fusion.hiden=4", "model.fusion.hiden: fusion 'avace' has no option 'hiden'. Did you mean"),
        ("model.fusion=avcae", "model.fusion: no fusion is named 'avcae'. Did you mean 'avace'?"),
        ("train.batch_size=0", "train.batch_size: should be greater than 0, got 0."),
        ("losses.avopt.epsilon=-1", "losses.avopt.epsilon: should be greater than 0, got -1."),
        ("train.stages.align.weights={avotp: 1}", "no loss of this recipe is named 'avotp'. Did you mean"),
        ("data.on_error=ignore", "data.on_error: should be 'raise' or 'skip', got \"ignore\"."),
        ("model.audio_encoder.sample_rate=0", "sample_rate: should be greater than or equal to 1000, got 0."),
        ("model.audio_encoder.width=12", "model.audio_encoder: audio_encoder 'small': width is 12"),
        ("model.image_encoder.size=60", "model.image_encoder: image_encoder 'small': size is 60"),
        ("model.image_connector={name: pool, factor: 3}", "factor 3 needs a square grid"),
        (
            "model.llm={name: huggingface, model: ./nowhere}",
            "model.llm.model: ./nowhere: no such file or folder",
        ),
        (
            "model.audio_encoder={name: clap, model: ./nowhere}",
            "model.audio_encoder.model: ./nowhere: no such file or folder",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(finished: Path, tmp_path: Path, setting: str, said: str) -> None:
    result = train(tmp_path / "run", f"data.source={WORLD}", f"data.root={finished.parent}", setting)
    assert said in complaint(result)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = complaint(command("train", str(tmp_path / "meerkt.yaml")))
    assert "meerkt.yaml: no such file." in said


# ---- data ----------------------------------------------------------------------------------------


def annotate(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def move_box(content: dict[str, Any]) -> None:
    content["images"][0]["boxes"][0]["xyxy"] = [6, 10, 60, 34]


PHOTO, SOUND = "images/ant_train_0.png", "audio/ant_train_0.wav"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing picture": (lambda d: (d / PHOTO).unlink(), f"{PHOTO}: no such file"),
    "no picture": (lambda d: (d / PHOTO).write_bytes(b"hello there"), f"{PHOTO}: is not an image"),
    "cut picture": (
        lambda d: (d / PHOTO).write_bytes((d / PHOTO).read_bytes()[:90]),
        f"{PHOTO}: cannot be decoded as an image",
    ),
    "missing sound": (lambda d: (d / SOUND).unlink(), f"{SOUND}: no such file"),
    "empty file": (lambda d: (d / SOUND).write_bytes(b""), f"{SOUND}: the file is empty"),
    "no samples": (
        lambda d: soundfile.write(d / SOUND, np.zeros(0), RATE),
        f"{SOUND}: holds no audio samples",
    ),
    "silence": (lambda d: soundfile.write(d / SOUND, np.zeros(RATE), RATE), f"{SOUND}: is silent"),
    "nan sound": (
        lambda d: soundfile.write(d / SOUND, np.full(RATE, np.nan), RATE, subtype="FLOAT"),
        f"{SOUND}: {RATE} of {RATE} audio samples are NaN or infinite",
    ),
    "no sound": (lambda d: (d / SOUND).write_text("hello there"), f"{SOUND}: cannot be decoded as audio"),
    "box outside": (
        lambda d: annotate(d, move_box),
        f"{PHOTO}: box [6, 10, 60, 34] is empty or outside the 48 x 40 px",
    ),
    "another size": (
        lambda d: Image.new("RGB", (40, 48)).save(d / PHOTO),
        f"{PHOTO}: is 40 x 48 px, annotations.json says 48 x 40",
    ),
    "no audio at all": (lambda d: annotate(d, lambda c: c.update(audio=[])), "class 'ant' has no sounds"),
    "no split": (
        lambda d: annotate(d, lambda c: c["images"][0].update(split="trian")),
        f"images[0] ({PHOTO}) is of split 'trian'. Known: train, val, test.",
    ),
    "no json": (
        lambda d: (d / "annotations.json").write_text("{"),
        "annotations.json: cannot be read as JSON",
    ),
    "no folder": (lambda d: shutil.rmtree(d), "zoo: no such file or folder"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_data_that_cannot_be_used_is_named(zoo: Path, tmp_path: Path, damage: str) -> None:
    spoil, said = DAMAGE[damage]
    spoil(zoo)
    result = train(tmp_path / "run", f"data.source={ZOO}", f"data.root={zoo}")
    assert said in complaint(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sample_rate: 10", "sample_rate 10 Hz: at least 32 px, 0.5 s and 1000 Hz are needed"),
        ("seconds: 5.0", "audio lasts 5.00 s, the audio encoder takes 4 s; cut it to the part that is meant"),
        ("classes: [ant, yak]", "class 'yak' has no photographs. With both: ant, bee, cub, doe, elk."),
    ],
)
def test_clips_that_do_not_fit_are_refused(zoo: Path, tmp_path: Path, options: str, said: str) -> None:
    key = options.partition(":")[0]
    source = {
        "name": "name: paired_folder",
        "classes": f"classes: {list(LOOKS)}",
        "sample_rate": f"sample_rate: {RATE}",
    }
    chosen = ", ".join((source | {key: options}).values())
    result = train(tmp_path / "run", f"data.source={{{chosen}}}", f"data.root={zoo}")
    assert said in complaint(result)


class Soundless(AvWorld):
    """The built-in world, heard by nobody."""

    def sample(self, split: str, task: str, index: int) -> Any:
        return super().sample(split, task, index).without(audio=True)


def test_no_sound_at_all_trains_what_needs_none(finished: Path, tmp_path: Path) -> None:
    """Each term counts the samples it applies to: here none for transport, which is no NaN."""
    source = f"data.source={{name: '{__name__}:Soundless', train: 40, val: 20, test: 20}}"
    result = train(tmp_path / "run", source, f"data.root={finished.parent}")
    assert result.exit_code == 0, (result.output, result.exception)
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["avopt"] == 0
    assert last["loss"] == pytest.approx(last["language_modelling"])


# ---- runs ----------------------------------------------------------------------------------------


def test_a_run_is_neither_overwritten_nor_resumed_with_another_recipe(finished: Path) -> None:
    world = [f"data.source={WORLD}", f"data.root={finished.parent}"]
    assert f"{finished} holds a run already" in complaint(train(finished, *world))
    said = complaint(
        command("train", RECIPE, *TINY, *world, "model.width=32", "--run", str(finished), "--resume")
    )
    assert "begun with another recipe" in said
    assert "was:   width: 16\n  now:   width: 32" in said


def test_eval_does_not_pretend_to_score_another_model(finished: Path) -> None:
    said = complaint(command("eval", str(finished), "model.fusion=none"))
    assert f"{finished} was trained with another `model`" in said


def test_a_checkpoint_of_another_recipe_is_refused(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text.replace("hidden: 16, layers: 1", "hidden: 16, layers: 2"))
    picture = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(picture)
    for words in (("eval", str(copy)), ("predict", str(copy), "What?", "--image", str(picture))):
        said = complaint(command(*words))
        assert "weights.safetensors: made by another recipe" in said
        assert "missing llm.lm.model.layers.1." in said


def test_a_folder_that_is_no_run_and_a_run_that_is_not_finished_say_so(
    finished: Path, tmp_path: Path
) -> None:
    assert f"{tmp_path} is not the folder of a run" in complaint(command("eval", str(tmp_path)))
    assert "is not the folder of a run" in complaint(command("eval", str(tmp_path / "none")))
    shutil.copytree(finished, tmp_path / "begun", ignore=shutil.ignore_patterns("complete"))
    said = complaint(command("eval", str(tmp_path / "begun")))
    assert f"its training has not finished; go on with --resume --run {tmp_path / 'begun'}" in said


# ---- questions -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).save(folder / "a.png")
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:100])
    soundfile.write(folder / "b.wav", 0.1 * np.ones(44_100), 44_100)
    (folder / "bad.wav").write_bytes((folder / "b.wav").read_bytes()[:20])
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), 8000, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), 8000)
    soundfile.write(folder / "long.wav", 0.1 * np.ones(12 * 8000), 8000)
    return folder


@pytest.mark.parametrize(
    ("image", "audio", "said"),
    [
        ("no.png", "b.wav", "no.png' does not exist"),
        ("a.png", "no.wav", "no.wav' does not exist"),
        ("bad.png", "b.wav", "bad.png: cannot be decoded as an image"),
        ("b.wav", "b.wav", "b.wav: is not an image that Pillow can read"),
        ("a.png", "bad.wav", "bad.wav: cannot be decoded as audio"),
        ("a.png", "a.png", "a.png: cannot be decoded as audio"),
        ("a.png", "nan.wav", "nan.wav: 100 of 100 audio samples are NaN"),
        ("a.png", "none.wav", "none.wav: holds no audio samples"),
        ("a.png", "long.wav", "long.wav: audio lasts 12.00 s, the audio encoder takes 4 s"),
    ],
)
def test_predict_names_the_file_that_it_cannot_use(
    finished: Path, media: Path, tmp_path: Path, image: str, audio: str, said: str
) -> None:
    out = tmp_path / "answer.png"
    words = ["--image", str(media / image), "--audio", str(media / audio), "--out", str(out)]
    assert said in complaint(command("predict", str(finished), "Where is it?", *words))
    assert not out.exists()


@pytest.mark.parametrize("given", [("--image", "a.png"), ("--audio", "b.wav")])
def test_predict_answers_with_one_of_both(
    finished: Path, media: Path, tmp_path: Path, given: tuple[str, str]
) -> None:
    """A recording at another rate than the encoder's, too."""
    option, file = given
    out = tmp_path / "answer.png"
    result = command("predict", str(finished), "What is it?", option, str(media / file), "--out", str(out))
    assert result.exit_code == 0, (result.output, result.exception)
    assert out.is_file()


def test_predict_without_either_says_what_it_needs(finished: Path) -> None:
    assert "needs --image or --audio" in complaint(command("predict", str(finished), "What?"))
