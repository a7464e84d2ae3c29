"""The run: stages of training on transformers' Trainer, then scores, pictures and a report.

runs/meerkat/
    recipe.yaml, versions.json      what was run, every default filled in, and by what
    code/                           the files that the recipe takes components from, as they were
    loaded.json                     which stock weights went into which part, and what they left as it was
    log.jsonl, tensorboard/         each loss term as training went
    skipped.jsonl                   samples left out, and why (data.on_error: skip)
    checkpoints/1-align/...         to resume from; gone once the run is done
    model/                          what `avalign.load` reads, and losses.safetensors if a loss has weights
    eval/, report.html              scores, answers, pictures
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from avalign.batch import Batch
from avalign.build import build_model, build_objective, build_source, trained_parts
from avalign.data.draws import Draws
from avalign.errors import AvalignError
from avalign.exported import is_exported, load_exported
from avalign.losses.objective import Objective, refuse_unreachable
from avalign.model import PARTS, TOKENIZER, AudioVisualLM, read_weights
from avalign.recipe import Recipe, Stage
from avalign.recipe_io import read, write
from avalign.recipe_kept import changed_files, differing, keep, refuse_changed_copies
from avalign.versions import versions
from avalign.whole import write_whole

COMPLETE = "complete"  # the file that a checkpoint gets last; without it, a checkpoint was cut short
LOSSES = "losses.safetensors"  # what the losses themselves have learnt: a temperature


def train(recipe: Recipe, run: Path | None = None, resume: bool = False) -> Path:
    """Train, score and report. Returns the run folder.

    resume: go on from the last whole checkpoint; ends with the weights of a run that was never stopped
    """
    run = Path("runs") / recipe.name if run is None else run
    recipe = _open(run, recipe, resume)
    if not (run / "model" / COMPLETE).exists():
        _train_stages(recipe, run)
    if _is_first_process():
        skipped = run / "skipped.jsonl"
        if skipped.exists():
            with open(skipped, encoding="utf-8") as lines:
                print(f"{sum(1 for _ in lines)} times something was left out; {skipped} says what and why")
        print(f"trained; now scoring. Everything is in {run}", flush=True)
        score(run, recipe)
        print(f"report: {run / 'report.html'}", flush=True)
    return run


def load(run: str | os.PathLike[str]) -> AudioVisualLM:
    """The model of a run, ready to answer: `avalign.load("runs/meerkat").generate(image, audio, text)`.

    run: its folder, or one that `avalign export` wrote
    """
    folder = Path(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if is_exported(folder):
        return load_exported(folder).to(device).eval()
    if not (folder / "recipe.yaml").is_file():
        raise AvalignError(f"{folder} is not the folder of a run: it holds no recipe.yaml.")
    for what in changed_files(folder).values():
        print(f"warning: {what}", file=sys.stderr)
    recipe = read(folder / "recipe.yaml")
    if not (folder / "model" / COMPLETE).exists():
        raise AvalignError(f"{folder}: its training has not finished; go on with --resume --run {folder}")
    model = build_model(recipe, folder / "model" / TOKENIZER)
    model.load(folder / "model", trained_parts(recipe))
    return model.to(device).eval()


def score(run: Path, recipe: Recipe | None = None, split: str = "test") -> dict[str, Any]:
    """Score a run on MeerkatBench's tasks; writes eval/ and report.html.

    recipe: with other evaluation settings or another source than the run's own
    """
    from avalign.meerkatbench.evaluate import count, evaluate
    from avalign.meerkatbench.report import write_report

    own = read(run / "recipe.yaml")
    recipe = own if recipe is None else recipe
    for part in ("model", "losses", "train"):
        if getattr(recipe, part) != getattr(own, part):
            raise AvalignError(f"{run} was trained with another `{part}`: that cannot be changed any more")
    model, source = load(run), build_source(recipe)
    settings = recipe.evaluation
    model.max_new_tokens = settings.max_new_tokens
    total = sum(count(source, split, task, settings.samples) for task in settings.tasks)
    with _scoring_bar(total) as progress:
        scores = evaluate(
            model,
            source,
            tasks=settings.tasks,
            samples=settings.samples,
            batch_size=settings.batch_size,
            bootstrap=settings.bootstrap,
            seed=recipe.seed,
            modality_check=settings.modality_check,
            out=run / "eval",
            split=split,
            pictures=settings.pictures,
            progress=progress,
        )
    write_report(run)
    return scores


@contextmanager
def _scoring_bar(total: int) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the samples of all tasks, moved by what it yields."""
    from tqdm import tqdm

    with tqdm(total=total, desc="score", mininterval=2.0, dynamic_ncols=True) as bar:
        before = 0

        def progress(task: str, done: int, of: int) -> None:
            nonlocal before
            bar.set_postfix(task=task, refresh=False)
            bar.update(done - before)
            before = 0 if done == of else done

        yield progress


# ---- the run folder ------------------------------------------------------------------------------


def _is_first_process() -> bool:
    """Of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def _open(run: Path, recipe: Recipe, resume: bool) -> Recipe:
    """Make the run folder, or check that it is this recipe's. Nothing of an earlier run is lost.

    Returns the recipe, the files that it names taken from the run's own copies.
    """
    written = run / "recipe.yaml"
    if not _is_first_process():
        return recipe
    if is_exported(run):
        raise AvalignError(f"{run} is an exported model; train into another folder (--run {run}-2)")
    if written.exists() and not resume:
        raise AvalignError(
            f"{run} holds a run already. Go on with it (--resume), or write another (--run {run}-2)"
        )
    if resume and not written.exists():
        raise AvalignError(f"{run} holds no run to resume: it has no recipe.yaml")
    if written.exists():
        refuse_changed_copies(run)
        changed = differing(read(written), recipe)
        if changed:
            raise AvalignError(
                f"{run} was begun with another recipe; resuming would not repeat it. Lines that differ:\n"
                + "\n".join(f"  {line}" for line in changed)
            )
        return keep(recipe, run)
    run.mkdir(parents=True, exist_ok=True)
    recipe = keep(recipe, run)
    write(recipe, written)
    (run / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n", encoding="utf-8")
    return recipe


def _last_whole(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; those cut short are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


# ---- training ------------------------------------------------------------------------------------


def _train_stages(recipe: Recipe, run: Path) -> None:
    arguments = [_arguments(recipe, run, number) for number in range(len(recipe.train.stages))]
    with arguments[0].main_process_first(desc="preparing the data"):
        source = build_source(recipe)
    if _is_first_process() and not (run / "skipped.jsonl").exists():
        _note_skipped(run, source.skipped, stage=None, step=0)
    set_seed(recipe.seed)
    model = build_model(recipe, source.texts())
    if _is_first_process():
        _note_loaded(run, model)
    objective = build_objective(recipe)
    trained = trained_parts(recipe)
    first: dict[str, int] = {}
    for number, (stage, args) in enumerate(zip(recipe.train.stages, arguments, strict=True)):
        folder = Path(args.output_dir)
        done = folder / "done"
        draws = Draws(
            source,
            stage.tasks,
            seed=(recipe.seed, number),
            first=first,
            count=stage.steps * recipe.train.batch_size,
            collator=model.collator(),
            on_error=recipe.data.on_error,
        )
        if (done / COMPLETE).exists():
            _load(done, model, objective, trained)
        else:
            set_seed(recipe.seed + 1 + number)  # a stage depends on its seed and the weights it starts from
            trainer = StageTrainer(
                recipe=recipe,
                stage=stage,
                run=run,
                trained=trained,
                objective=objective.with_weights(stage.weights),
                model=model,
                args=args,
                draws=draws,
            )
            resume = _last_whole(folder)
            if _is_first_process():
                step = 0 if resume is None else int(resume.name.rpartition("-")[2])
                for log in ("log.jsonl", "skipped.jsonl"):
                    _forget_after(run / log, stage.name, step)
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
            if model.features is not None and _is_first_process():
                model.features.tell()
            if _is_first_process():
                _save(done, model, objective, trained)
                write_whole(done / COMPLETE, "")
                for checkpoint in folder.glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
            trainer.accelerator.wait_for_everyone()
        first = draws.after()
    if _is_first_process():
        _save(run / "model", model, objective, trained)
        write_whole(run / "model" / COMPLETE, "")
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _save(folder: Path, model: AudioVisualLM, objective: Objective, trained: set[str]) -> None:
    model.save(folder, trained)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in objective.state_dict().items()}
    if weights:
        save_file(weights, folder / LOSSES, metadata={"format": "pt"})


def _load(folder: Path, model: AudioVisualLM, objective: Objective, trained: set[str]) -> None:
    model.load(folder, trained)
    expected = objective.state_dict()
    if expected or (folder / LOSSES).exists():
        read_weights(objective, folder / LOSSES, expected)


def _note_loaded(run: Path, model: AudioVisualLM) -> None:
    """The report of every part that holds stock weights (`part.loaded`), if there is one."""
    reports = {part: getattr(getattr(model, part), "loaded", None) for part in PARTS}
    found = {part: report.as_dict() for part, report in reports.items() if report is not None}
    if found:
        write_whole(run / "loaded.json", json.dumps(found, indent=1) + "\n")


def _arguments(recipe: Recipe, run: Path, number: int) -> TrainingArguments:
    train, stage = recipe.train, recipe.train.stages[number]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share = processes * train.gradient_accumulation
    if train.batch_size % share:
        raise AvalignError(
            f"train.batch_size {train.batch_size} is not divisible by {processes} processes times "
            f"train.gradient_accumulation {train.gradient_accumulation}"
        )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / "tensorboard" / stage.name)
    args = TrainingArguments(
        output_dir=str(run / "checkpoints" / f"{number + 1}-{stage.name}"),
        per_device_train_batch_size=train.batch_size // share,
        gradient_accumulation_steps=train.gradient_accumulation,
        max_steps=stage.steps,
        learning_rate=train.learning_rate if stage.learning_rate is None else stage.learning_rate,
        lr_scheduler_type=train.schedule if stage.schedule is None else stage.schedule,
        warmup_steps=round(train.warmup * stage.steps),
        weight_decay=train.weight_decay,
        adam_beta2=train.beta2,
        max_grad_norm=train.max_gradient_norm,
        bf16=train.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        save_steps=train.checkpoint_every,
        save_total_limit=train.keep_checkpoints,
        seed=recipe.seed + 1 + number,
        report_to=train.report_to,
        dataloader_num_workers=recipe.data.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=True,  # the LLM is not run in a stage without language modelling
        train_sampling_strategy="sequential",  # a draw's number decides what it is
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # several take torchrun: torch's DataParallel cannot split a Batch
    return args


class Learner(nn.Module):
    """A model with its objective, whose output is the loss and its log.

    Processes that train together wait for the gradient of every weight that the output depends on. So
    nothing but the loss may come out: fused tokens that only the language model reads would be waited for
    in a stage that does not run it.
    """

    def __init__(self, model: AudioVisualLM, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self._judged: set[str] = set()

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """step: of the stage, from 0: it decides the weights"""
        outputs = self.model(batch, language=self.objective.needs_logits(step))
        with torch.autocast(batch.input_ids.device.type, enabled=False):  # bf16 is for the model
            terms = self.objective.terms(outputs, batch, step)
            new = {label: value for label, value in terms.items() if label not in self._judged}
            if new:
                refuse_unreachable(new, self.model.parameters())  # a temperature that learns is not enough
                self._judged |= set(new)
            return self.objective.total(terms, step)


class StageTrainer(Trainer):
    """transformers' Trainer with avalign's objective, its log of named terms, and whole checkpoints."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        stage: Stage,
        run: Path,
        trained: set[str],
        objective: Objective,
        model: AudioVisualLM,
        args: TrainingArguments,
        draws: Draws,
    ) -> None:
        model.learn(stage.train or trained)
        if recipe.train.gradient_checkpointing:
            lm = model.llm.lm  # earlier releases of transformers 5 have the second name only
            enable = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        super().__init__(
            model=Learner(model, objective), args=args, train_dataset=draws, data_collator=draws.collate
        )
        self.stage, self.run, self.trained = stage, run, trained
        self._sums: dict[str, list[float]] = {}
        self.remove_callback(PrinterCallback)
        self.add_callback(_Progress(stage))
        self.add_callback(_MarkWhole())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if "problem" in inputs:  # of a sample, told by a loader's process
            raise AvalignError(inputs["problem"])
        batch: Batch = inputs["batch"].to(self.args.device)
        _note_skipped(self.run, inputs["skipped"], stage=self.stage.name, step=self.state.global_step + 1)
        total, parts = model(batch, self.state.global_step)
        for name, value in parts.items():
            number = float(value)
            if number == number:  # a part is nan where it applied to no sample
                self._sums.setdefault(name, []).append(number)
        return (total, parts) if return_outputs else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line of log.jsonl: the stage, the step, every named term since the last line."""
        if "loss" in logs:
            logs = logs | self._means()
        super().log(logs, start_time)
        if self.is_world_process_zero() and "loss" in logs:
            record = {"stage": self.stage.name, "step": self.state.global_step, **logs}
            record.pop("epoch", None)  # draws are never repeated: a stage is one epoch
            with open(self.run / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def _means(self) -> dict[str, float]:
        """Mean of each term over the steps, and the processes, since the last log."""
        every: list[dict[str, list[float]]] = [self._sums]
        if self.args.world_size > 1:
            every = [{} for _ in range(self.args.world_size)]
            torch.distributed.all_gather_object(every, self._sums)
        names = dict.fromkeys(name for one in every for name in one)
        joined = {name: [v for one in every for v in one.get(name, ())] for name in names}
        self._sums = {}
        return {name: sum(values) / len(values) for name, values in joined.items()}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        learner = self.accelerator.unwrap_model(self.model)
        _save(folder, learner.model, learner.objective, self.trained)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        learner = self.accelerator.unwrap_model(model or self.model)
        _load(Path(resume_from_checkpoint), learner.model, learner.objective, self.trained)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Not a loss's own, a temperature or a bias, which decay would draw to 1 and 0."""
        named: list[str] = super().get_decay_parameter_names(model)
        return [name for name in named if not name.startswith("objective.")]


class _MarkWhole(TrainerCallback):
    """Marks a checkpoint as whole once all of it is written."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            write_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, "")


class _Progress(TrainerCallback):
    """A bar a stage, with the named losses beside it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from tqdm import tqdm

        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.stage.name,
                mininterval=2.0,
                dynamic_ncols=True,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(
                {name: f"{value:.3g}" for name, value in logs.items() if _is_loss(name)}, refresh=False
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def _is_loss(name: str) -> bool:
    """A whole term of the objective, or their sum: not a term's part (avace/space)."""
    return "/" not in name and name not in ("grad_norm", "learning_rate", "epoch")


def _note_skipped(run: Path, problems: Sequence[str], *, stage: str | None, step: int) -> None:
    """Add to skipped.jsonl what was left out: by the source as it was prepared (no stage), or in a step."""
    if problems:
        with open(run / "skipped.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"stage": stage, "step": step, "why": why}) + "\n" for why in problems)


def _forget_after(log: Path, stage: str, step: int) -> None:
    """Drop what was logged after the checkpoint that is resumed from: it will be logged again."""
    if not log.exists():
        return
    kept, passed = [], False
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the run was killed
        passed = passed or (record["stage"] == stage and record["step"] > step)
        if not passed:
            kept.append(line + "\n")
    write_whole(log, "".join(kept))
