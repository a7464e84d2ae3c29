"""The run from recipe to report, on a world small enough for a test."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import avalign
from avalign.config.recipe_file import RecipeError, read
from avalign.data.avworld import AvWorld
from avalign.encoders.timm import TimmImageEncoder
from avalign.errors import AvalignError
from avalign.losses import Contrastive, LossValue
from avalign.losses.objective import NonFiniteTerm, Objective, UnreachableTerm
from avalign.media.file import MediaError
from avalign.training import train as training
from avalign.training.stage_trainer import Learner, StageTrainer
from avalign.training.train import train
from tests.helpers import tiny
from tests.helpers.finished_runs import (
    finished,  # noqa: F401 (fixtures)
    temperature,
)
from tests.helpers.paths import RECIPE
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)
from tests.helpers.runs import (  # noqa: F401 (fixtures)
    ALIGN,
    ANSWER,
    BATCH,
    CONTRASTIVE,
    ENVIRONMENT,
    ONE_STAGE,
    RICH,
    _one_thread,
    assert_same_losses,
    log,
    quick,
    settings,
    weights,
    world,
)


@pytest.fixture(scope="module")
def plain(world: Path) -> Path:
    """A run without dropout, to which others that should compute the same are compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "score", lambda *_: {})
        return train(read(RECIPE, settings(world)), world / "plain")


# ---- what a run leaves ---------------------------------------------------------------------------


def test_a_run_leaves_recipe_versions_log_scores_and_report(finished: Path) -> None:
    lines = log(finished)
    assert [(line["stage"], line["step"]) for line in lines] == [
        *(("align", k + 1) for k in range(ALIGN)),
        *(("answer", k + 1) for k in range(ANSWER)),
    ]
    assert "language_modelling" not in lines[0]
    assert {"avopt", "avace", "avace/inside", "learning_rate"} <= set(lines[0])
    assert "language_modelling" in lines[-1]
    scores = json.loads((finished / "eval" / "scores.json").read_text())
    assert set(scores["tasks"]) == {"arig", "avfc"}
    assert "<html" in (finished / "report.html").read_text().lower()
    assert (
        json.loads((finished / "versions.json").read_text())["torch"] == torch.__version__.partition("+")[0]
    )
    assert read(finished / "recipe.yaml").train.batch_size == BATCH
    assert not (finished / "checkpoints").exists(), "they would fill the disk"
    assert not (finished / "skipped.jsonl").exists(), "nothing was left out"
    assert {file.name for file in (finished / "model").iterdir()} == {
        *("weights.safetensors", "tokenizer", "complete", "losses.safetensors")
    }


def test_a_stage_has_its_own_rate_and_schedule_or_those_of_the_run(finished: Path) -> None:
    rates = {
        stage: [line["learning_rate"] for line in log(finished) if line["stage"] == stage]
        for stage in ("align", "answer")
    }
    assert rates["align"] == [2e-3] * ALIGN
    cosine = [1e-3 * (1 + math.cos(math.pi * step / ANSWER)) / 2 for step in range(ANSWER)]
    assert rates["answer"] == pytest.approx(cosine)


def test_the_logged_loss_is_the_weighted_sum_of_its_terms(finished: Path) -> None:
    """In each stage by its own weights. Fault 1 of the released code: the transport term never arrived."""
    factors = {
        "align": {"avopt": 0.1, "avace": 1.0},
        "answer": {"language_modelling": 1.0, "avopt": 0.1, "avace": 0.5},
    }
    for line in log(finished):
        weights = factors[line["stage"]] | {"contrastive": line["contrastive/weight"]}
        expected = sum(weight * line[term] for term, weight in weights.items() if weight)
        assert line["loss"] == pytest.approx(expected, rel=1e-6)
        assert all(line[term] > 0 for term in factors[line["stage"]])


def test_a_weight_follows_its_schedule_anew_in_every_stage(finished: Path) -> None:
    """{0: 0.0, 3: 0.3}; a term is not computed while its weight is 0."""
    for steps, stage in ((ALIGN, "align"), (ANSWER, "answer")):
        lines = [line for line in log(finished) if line["stage"] == stage]
        assert [line["contrastive/weight"] for line in lines] == pytest.approx([0, 0.1, 0.2, 0.3][:steps])
        assert ["contrastive" in line for line in lines] == [False, *[True] * (steps - 1)]


def test_what_a_loss_learns_is_trained_and_saved(finished: Path) -> None:
    """Its temperature, from the step on that it is on."""
    seen = [line.get("contrastive/temperature") for line in log(finished)]
    assert seen[0] is seen[ALIGN] is None
    assert seen[1] == pytest.approx(0.2)
    assert seen[2] != pytest.approx(0.2, rel=1e-5)
    assert temperature(finished) == pytest.approx(seen[-1], rel=0.01)
    assert temperature(finished) != seen[-1], "the last step"


def test_what_a_loss_learns_is_not_decayed() -> None:
    """Decay would draw a temperature to 1 and a bias to 0, where nothing is to be preferred."""
    learner = Learner(tiny.model(), Objective({"contrastive": (Contrastive(), 1.0)}))
    assert any(name.startswith("objective.") for name, _ in learner.named_parameters())
    decayed = StageTrainer.get_decay_parameter_names(object.__new__(StageTrainer), learner)
    assert "model.image_projector.weight" in decayed
    assert not any(name.startswith("objective.") for name in decayed)


def test_a_loaded_model_has_the_saved_weights_and_answers_alike(finished: Path) -> None:
    """Fault 3: weights loaded and thrown away."""
    model, again, saved = avalign.load(finished), avalign.load(finished), weights(finished)
    held = {name: weight.cpu() for name, weight in model.state_dict().items()}
    assert set(held) == set(saved)
    assert all(torch.equal(held[name], weight) for name, weight in saved.items())
    assert not model.training
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    audio = (rng.standard_normal(8000).astype(np.float32) * 0.1, 8000)
    assert model.generate(image, audio, "Where is it?") == again.generate(image, audio, "Where is it?")
    assert isinstance(model.generate(image, None, "How many objects are there?"), str)


def test_the_steps_taught_every_part(finished: Path, world: Path, quick: Any) -> None:
    """Weights differ from those of a run that ended a step earlier, in all parts."""
    shorter = weights(quick(*RICH, f"train.stages.answer.steps={ANSWER - 1}", "train.schedule=constant"))
    moved = {
        name.partition(".")[0]
        for name, weight in weights(finished).items()
        if not torch.equal(weight, shorter[name])
    }
    assert moved == {
        *("image_encoder", "audio_encoder", "image_projector", "audio_projector"),
        *("fusion", "image_connector", "audio_connector", "llm"),
    }


# ---- the same result by other ways ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "relative"),
    [
        ("train.gradient_accumulation=2", 1e-4),  # sums in another order: 1e-7, through Adam and 7 steps
        ("train.gradient_checkpointing=true", 1e-6),
        ("data.workers=2", 0.0),
    ],
)
@pytest.mark.usefixtures("preloaded")
def test_another_way_to_the_same_gradient_changes_no_loss(
    plain: Path, quick: Any, setting: str, relative: float
) -> None:
    run = quick(setting)
    assert_same_losses(run, plain, relative)
    for name, weight in weights(plain).items():
        # Attention stays as it is when all keys are shifted. So while only its maps are judged, the gradient
        # of such a shift is what rounding leaves, of which Adam makes steps of the learning rate, 2e-3.
        shifts_keys = name.startswith("fusion.") and name.endswith("key.bias")
        bound = 3 * relative if shifts_keys else relative
        assert (weights(run)[name] - weight).abs().mean() <= bound, name


def test_two_processes_learn_what_one_does(quick: Any, world: Path, tmp_path: Path) -> None:
    """By torchrun and the real command, through a stage in which the language model does not run.

    A contrastive loss takes its negatives from both.
    """
    run, one = tmp_path / "two", quick(CONTRASTIVE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [
        "-m",
        "avalign",
        "train",
        str(RECIPE),
        *settings(world, CONTRASTIVE, "evaluation.tasks=[avfc]", "evaluation.figures=0"),
    ]
    ended = subprocess.run(
        [*command, "--run-dir", str(run)], capture_output=True, text=True, timeout=1200, env=ENVIRONMENT
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_same_losses(run, one, 1e-4)  # as for accumulation
    assert temperature(run) == pytest.approx(temperature(one), rel=1e-5)
    assert set(json.loads((run / "eval" / "scores.json").read_text())["tasks"]) == {"avfc"}


def test_bf16_trains_and_stays_near_fp32(plain: Path, quick: Any) -> None:
    run = quick("train.precision=bf16")
    assert log(run) != log(plain), "bf16 was not used"
    for low, full in zip(log(run), log(plain), strict=True):
        assert low["loss"] == pytest.approx(full["loss"], rel=0.05)  # 8 bits, over some steps
    assert {weight.dtype for weight in weights(run).values()} == {torch.float32}, "the master weights"


def test_a_batch_that_cannot_be_shared_out_is_refused(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(AvalignError, match="batch_size 8 is not divisible by 3 processes"):
        quick()


# ---- what learns ---------------------------------------------------------------------------------


def test_parts_that_a_stage_does_not_train_keep_every_bit(world: Path, quick: Any, plain: Path) -> None:
    only = (
        "train.stages=[{name: only, steps: 2, train: [fusion], weights: {language_modelling: 0, avopt: 0}}]"
    )
    first, second = (
        weights(quick(only)),
        weights(quick(only.replace("steps: 2", "steps: 1"), run=world / "f")),
    )
    changed = {name.partition(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"fusion"}


def test_a_term_of_weight_zero_is_neither_computed_nor_logged(quick: Any) -> None:
    (line, _) = log(quick(ONE_STAGE, "losses.avopt.weight=0"))
    assert "avopt" not in line
    assert "language_modelling" not in line
    assert line["loss"] == pytest.approx(0.5 * line["avace"], rel=1e-6)


def test_a_stage_in_which_nothing_is_weighted_says_so(quick: Any) -> None:
    with pytest.raises(RecipeError, match=r"stages\.0\.weights: every loss has weight 0 at step 0"):
        quick(ONE_STAGE, *(f"losses.{term}.weight=0" for term in ("avopt", "avace", "language_modelling")))


def test_a_term_may_come_on_later_and_is_judged_then(quick: Any, tmp_path: Path) -> None:
    """The language model runs from then on; a term that cannot teach is refused in its first step."""
    late = "train.stages=[{name: only, steps: 3, weights: {language_modelling: {1: 0, 3: 1}, avopt: 0}}]"
    lines = log(quick(late))
    assert [line.get("language_modelling") is not None for line in lines] == [False, False, True]
    assert lines[2]["loss"] == pytest.approx(0.5 * (lines[2]["language_modelling"] + lines[2]["avace"]))
    unreachable = late.replace("steps: 3", "steps: 4, train: [fusion]")
    unreachable = unreachable.replace("language_modelling: {1: 0, 3: 1}, avopt: 0", "avopt: {2: 0, 3: 1}")
    with pytest.raises(UnreachableTerm, match="'avopt' reaches no trainable parameter"):
        quick(unreachable, run=tmp_path / "refused")
    assert [line["step"] for line in log(tmp_path / "refused")] == [1, 2, 3]


def test_a_temperature_that_learns_is_not_enough(quick: Any) -> None:
    """Only the fusion learns, which the loss does not read."""
    only = (
        "train.stages=[{name: only, steps: 1, train: [fusion], weights: {language_modelling: 0, avopt: 0}}]"
    )
    with pytest.raises(UnreachableTerm, match="'contrastive' reaches no trainable parameter"):
        quick(only, "losses.contrastive={weight: 1}")


class NanAtLast(nn.Module):
    """A loss that is no number from its second time on."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def terms(self, image: Tensor) -> LossValue:
        self.times += 1
        factor = float("nan") if self.times > 1 else 1.0
        return LossValue.of(factor * image.square().mean((1, 2)), torch.ones(len(image), dtype=torch.bool))


def test_a_term_that_is_no_number_stops_the_run_by_its_name(quick: Any, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteTerm, match=r"loss 'mine' is nan in row\(s\) \[0, 1, 2, 3, 4, 5, 6, 7\]"):
        quick(ONE_STAGE, f"losses.mine={{name: '{__name__}:NanAtLast'}}")
    assert not (tmp_path / "run" / "model").exists()
    assert [line["step"] for line in log(tmp_path / "run")] == [1], "what went before is kept"


# ---- data that cannot be used --------------------------------------------------------------------


class WithBadFiles(AvWorld):
    """A source in which a picture cannot be decoded as it is prepared, nor the sounds of draws 3 and 30."""

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        super().prepare(root, seed=seed, workers=workers)
        if self.on_error == "skip":
            self.skipped.append("images/0.jpg: no such file")

    def sample(self, split: str, task: str, index: int) -> Any:
        if split == "train" and index in (3, 30):
            raise MediaError(f"clips/{index}.wav", "holds no audio samples")
        return super().sample(split, task, index)

    def corpus(self) -> list[str]:
        good = [self.sample("train", "avqa", index) for index in range(40, 60)]
        return [text for sample in good for text in (sample.instruction, sample.response)]


BAD = f"data.source={{name: '{__name__}:WithBadFiles', train: 40, val: 20, test: 20}}"

ONE_TASK = (  # a sample's number is its draw's
    f"train.stages=[{{name: align, steps: {ALIGN}, tasks: {{arig: 1.0}}, "
    f"weights: {{language_modelling: 0}}}}, {{name: answer, steps: {ANSWER}, tasks: {{arig: 1.0}}}}]"
)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_stops_the_run_by_its_name(quick: Any, workers: int) -> None:
    """In one line, whichever process read it."""
    with pytest.raises(AvalignError, match=r"^clips/3\.wav: holds no audio samples$"):
        quick(BAD, f"data.workers={workers}")


def test_bad_files_are_left_out_counted_and_listed_when_asked(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = quick(BAD, ONE_TASK, "data.on_error=skip")
    rows = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert rows == [
        {"stage": None, "step": 0, "why": "images/0.jpg: no such file"},
        {"stage": "align", "step": 3 // BATCH + 1, "why": "clips/3.wav: holds no audio samples"},
        {
            "stage": "answer",
            "step": (30 - ALIGN * BATCH) // BATCH + 1,
            "why": "clips/30.wav: holds no audio samples",
        },
    ]
    assert "3 times something was left out" in capsys.readouterr().out
    assert len(log(run)) == ALIGN + ANSWER, "every step had a full batch"


def test_a_run_notes_what_was_loaded(quick: Any, plain: Path, tmp_path: Path) -> None:
    """A frozen encoder that is random in part is kept whole by the run: it can be had nowhere else."""
    assert not (plain / "loaded.json").exists()
    weights = TimmImageEncoder(model="test_vit", pretrained=False).model.state_dict()
    file, lost = tmp_path / "w.safetensors", [n for n in weights if n.startswith("blocks.0.")]
    save_file({n: w for n, w in weights.items() if n not in lost}, file)
    options = f"{{name: timm, model: test_vit, checkpoint: {file}, min_loaded: 0.2}}"
    with pytest.warns(UserWarning, match="stays as it was drawn at random"):
        run = quick(
            f"model.image_encoder={options}",
            ONE_STAGE.replace("steps", "train: [image_projector, fusion], steps"),
        )
    report = json.loads((run / "loaded.json").read_text())["image_encoder"]
    assert (report["source"], report["missing"]) == (str(file), lost)
    kept = load_file(run / "model" / "weights.safetensors")
    assert {f"image_encoder.model.{name}" for name in weights} <= set(kept)
