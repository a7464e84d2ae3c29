"""The run from recipe to report, on a world small enough for a test."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import avalign
from avalign import train as training
from avalign.data.avworld import AvWorld
from avalign.data.media import MediaError
from avalign.encoders.timm import TimmImageEncoder
from avalign.errors import AvalignError
from avalign.losses import Contrastive, LossValue
from avalign.losses.objective import NonFiniteTerm, Objective, UnreachableTerm
from avalign.recipe_io import RecipeError, read
from avalign.train import Learner, StageTrainer, train
from tests import tiny

RECIPE = Path(__file__).parent.parent / "recipes" / "meerkat.yaml"
ALIGN, ANSWER, BATCH = 3, 4, 8  # steps of the stages; the first does not run the language model
SMALL = [
    "data.source={name: avworld, train: 40, val: 20, test: 20}",
    "data.workers=0",
    "model.width=16",
    "model.image_encoder={name: small, width: 16}",
    "model.audio_encoder={name: small, width: 16}",
    "model.llm={name: small, hidden: 16, layers: 1, heads: 2}",
    "train.precision=fp32",
    f"train.batch_size={BATCH}",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.report_to=[]",
    f"train.stages=[{{name: align, steps: {ALIGN}, learning_rate: 2.0e-3, schedule: constant, "
    f"weights: {{language_modelling: 0, avace: 1.0}}}}, {{name: answer, steps: {ANSWER}}}]",
    *("losses.language_modelling.weight=1.0", "losses.avopt.weight=0.1", "losses.avace.weight=0.5"),
    "evaluation.tasks=[arig, avfc]",
    "evaluation.samples=1",
    *("evaluation.bootstrap=20", "evaluation.pictures=1"),
    "evaluation.max_new_tokens=4",
    "evaluation.modality_check=false",
]
# a loss with a weight of its own, off in the first step of each stage
CONTRASTIVE = "losses.contrastive={weight: {0: 0.0, 3: 0.3}, temperature: 0.2}"
# so that a resumed run needs the state of the random generators, a temperature, and the step of its stage
RICH = ("model.llm.dropout=0.2", CONTRASTIVE)
ONE_STAGE = "train.stages=[{name: only, steps: 2, weights: {language_modelling: 0}}]"
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(avalign.__file__).parents[1]),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes started here: sums over several threads differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # the Trainer collects garbage after every stage, from among all that is imported
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


def settings(world: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.root={world}", *more]


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    """A run that was never stopped, with its scores."""
    return train(read(RECIPE, settings(world, *RICH)), world / "whole")


@pytest.fixture
def quick(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train with these settings too; no scores."""
    monkeypatch.setattr(training, "score", lambda *_: {})

    def run(*more: str, run: Path | None = None, resume: bool = False) -> Path:
        return train(read(RECIPE, settings(world, *more)), run or tmp_path / "run", resume)

    return run


@pytest.fixture(scope="module")
def plain(world: Path) -> Path:
    """A run without dropout, to which others that should compute the same are compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "score", lambda *_: {})
        return train(read(RECIPE, settings(world)), world / "plain")


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def temperature(run: Path) -> float:
    (weight,) = load_file(run / "model" / "losses.safetensors").values()
    return math.exp(weight)


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


TERMS = ("loss", "avopt", "avace", "language_modelling", "contrastive", "grad_norm")


def assert_same_losses(run: Path, other: Path, relative: float) -> None:
    """Step by step, every term and the norm of the gradient."""
    for one, two in zip(log(run), log(other), strict=True):
        assert (one["stage"], one["step"]) == (two["stage"], two["step"])
        terms = [term for term in TERMS if term in two]
        assert [one[term] for term in terms] == pytest.approx([two[term] for term in terms], rel=relative)


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


# ---- stopping and going on -----------------------------------------------------------------------

KILLED = """
import gc, json, os, signal, sys
from pathlib import Path
from avalign import train as t
from avalign.recipe_io import read

moments, recipe, run, *settings = sys.argv[1:]
t.score = lambda *_: {}
gc.freeze()

def die_at(owner, name, count, when=lambda *a: True):
    kept, seen = getattr(owner, name), 0
    def counted(*a):
        nonlocal seen
        seen += when(*a)
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(*a)
    setattr(owner, name, counted)

for place, count in json.loads(moments):  # each in a process of its own, which need not import torch again
    child = os.fork()
    if child == 0:
        if place == "step":
            die_at(t.Learner, "forward", count)
        if place == "mark":
            die_at(t, "write_whole", count, lambda path, text: path.name == t.COMPLETE)
        t.train(read(recipe, settings), Path(run), resume=Path(run).exists())
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    print(place, count, -os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended), flush=True)
    if place == "step":
        with open(Path(run) / "log.jsonl", "a") as log:
            log.write('{"stage": "ali')  # the line that was being written
"""
MOMENTS = [
    ("step", 3),  # of align; checkpoint 2 is whole
    ("mark", 1),  # checkpoint 3 is written but not marked: cut short
    ("mark", 2),  # checkpoint 3 is whole, the stage's end is not
    ("step", 2),  # of answer, which has no checkpoint yet
    ("step", 4),  # of answer; checkpoint 2 is whole
    ("mark", 3),  # both stages are done, the model is not marked
    ("never", 0),
]


def test_killed_at_any_moment_it_resumes_to_the_same_weights(
    finished: Path, world: Path, tmp_path: Path
) -> None:
    """SIGKILL six times, then to the end: bit for bit the weights, and the log, of a run never stopped."""
    run = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, json.dumps(MOMENTS), str(RECIPE), str(run)]
    ended = subprocess.run(
        [*command, *settings(world, *RICH)], capture_output=True, text=True, timeout=1200, env=ENVIRONMENT
    )
    expected = [f"{place} {count} {0 if place == 'never' else -signal.SIGKILL}" for place, count in MOMENTS]
    told = [line for line in ended.stdout.splitlines() if line.split()[0] in ("step", "mark", "never")]
    assert told == expected, ended.stderr[-3000:]
    whole, resumed = weights(finished), weights(run)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert temperature(run) == temperature(finished)
    assert log(run) == log(finished)


def test_of_the_checkpoints_the_last_whole_one_counts(tmp_path: Path) -> None:
    for step, marked in ((2, True), (10, True), (9, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(b"some")
        if marked:
            (folder / training.COMPLETE).touch()
    assert training._last_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()
    assert training._last_whole(tmp_path / "nowhere") is None


def test_a_run_is_not_overwritten(finished: Path, world: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()}
    with pytest.raises(AvalignError, match="holds a run already"):
        train(read(RECIPE, settings(world, *RICH)), finished)
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()} == before


def test_a_run_is_not_resumed_with_another_recipe(finished: Path, world: Path, tmp_path: Path) -> None:
    other = read(RECIPE, settings(world, *RICH, "train.batch_size=16"))
    with pytest.raises(AvalignError, match=r"was: +batch_size: 8\n +now: +batch_size: 16$"):
        train(other, finished, resume=True)
    swapped = ["train.stages.align.steps=4", "train.stages.answer.steps=3"]  # the same lines, elsewhere
    with pytest.raises(AvalignError, match=r"(was|now): +steps: "):
        train(read(RECIPE, settings(world, *RICH, *swapped)), finished, resume=True)
    with pytest.raises(AvalignError, match=r"no run to resume"):
        train(other, tmp_path / "nothing", resume=True)


def test_a_finished_run_is_scored_anew_and_not_trained(
    finished: Path, world: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation and the place of the data may change; training would."""
    monkeypatch.setattr(training, "_train_stages", lambda *_: pytest.fail("trained again"))
    assert quick(*RICH, "evaluation.samples=9", "data.workers=2", run=finished, resume=True) == finished


def test_a_checkpoint_of_another_recipe_is_refused(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text.replace("hidden: 16", "hidden: 32"))
    with pytest.raises(
        AvalignError, match=r"another recipe.*image_connector\S+ is \(16, 16\), .* \(32, 16\)"
    ):
        avalign.load(copy)
    (copy / "recipe.yaml").write_text(text)
    file = copy / "model" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AvalignError, match=r"weights\.safetensors: not a whole safetensors file"):
        avalign.load(copy)
    file.unlink()
    with pytest.raises(AvalignError, match=r"weights\.safetensors: there is no such file"):
        avalign.load(copy)
    (copy / "model" / "complete").unlink()
    with pytest.raises(AvalignError, match=r"has not finished; go on with --resume"):
        avalign.load(copy)
    with pytest.raises(AvalignError, match=r"not the folder of a run"):
        avalign.load(tmp_path)


# ---- the same result by other ways ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "relative"),
    [
        ("train.gradient_accumulation=2", 1e-4),  # sums in another order: 1e-7, through Adam and 7 steps
        ("train.gradient_checkpointing=true", 1e-6),
        ("data.workers=2", 0.0),
    ],
)
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
        *settings(world, CONTRASTIVE, "evaluation.tasks=[avfc]", "evaluation.pictures=0"),
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

    def forward(self, image: Tensor) -> LossValue:
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

    def texts(self) -> list[str]:
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
