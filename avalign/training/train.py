"""The run: stages of training on transformers' Trainer, then scores, images and a report.

runs/meerkat/
    recipe.yaml, versions.json      what was run, every default filled in, and by what
    code/                           the files that the recipe takes components from, as they were
    loaded.json                     which stock weights went into which part, and what they left as it was
    log.jsonl, tensorboard/         each loss term as training went
    skipped.jsonl                   samples left out, and why (data.on_error: skip)
    checkpoints/1-align/...         to resume from; gone once the run is done
    model/                          what `avalign.load` reads, and losses.safetensors if a loss has weights
    eval/, report.html              scores, answers, images
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from avalign.config.recipe import Recipe
from avalign.data.sampling import TrainingDataset
from avalign.errors import AvalignError
from avalign.losses.objective import Objective
from avalign.model.build import build_model, build_objective, build_source, trained_parts
from avalign.model.model import PARTS, AudioVisualLM
from avalign.system.atomic_write import atomic_write
from avalign.system.complete import COMPLETE, damage, is_complete, mark_complete
from avalign.system.terminal import tell
from avalign.training import checkpoint
from avalign.training.run_folder import begin, forget_after, held, is_first_process, make, note_skipped
from avalign.training.score import score
from avalign.training.stage_trainer import StageTrainer
from avalign.training.stopping import Stop


def train(recipe: Recipe, run: Path | None = None, resume: bool = False) -> Path:
    """Train, score and report. Returns the run folder.

    resume: go on from the last complete checkpoint; ends with the weights of a run that was never stopped
    """
    run = Path("runs") / recipe.name if run is None else run
    if resume and not (run / "recipe.yaml").exists():
        raise AvalignError(f"{run} holds no run to resume: it has no recipe.yaml")
    make(run)
    stop = Stop(_go_on(run))
    with held(run), stop.listening():
        recipe = begin(run, recipe, resume)
        model = run / "model"
        if (model / COMPLETE).exists() and (what := damage(model)) is not None:
            raise AvalignError(f"{what}: put it back, or remove {model} to train anew")
        if not (model / COMPLETE).exists():
            _train_stages(recipe, run, stop)
        elif is_first_process():
            tell(f"{run} is trained to its end: nothing is left to train; it is scored again", err=True)
        if is_first_process():
            skipped = run / "skipped.jsonl"
            if skipped.exists():
                with open(skipped, encoding="utf-8") as lines:
                    tell(f"{sum(1 for _ in lines)} times something was left out; {skipped} says what and why")
            tell(f"trained; now scoring. Everything is in {run}")
            score(run, recipe)
            tell(f"report: {run / 'report.html'}")
    return run


def _train_stages(recipe: Recipe, run: Path, stop: Stop) -> None:
    arguments = [_arguments(recipe, run, number) for number in range(len(recipe.train.stages))]
    with arguments[0].main_process_first(desc="preparing the data"):
        source = build_source(recipe)
    if is_first_process() and not (run / "skipped.jsonl").exists():
        note_skipped(run, source.skipped, stage=None, step=0)
    set_seed(recipe.seed)
    model = build_model(recipe, source.corpus())
    if is_first_process():
        _note_loaded(run, model)
    objective = build_objective(recipe)
    trained = trained_parts(recipe)
    first: dict[str, int] = {}
    for number, (stage, args) in enumerate(zip(recipe.train.stages, arguments, strict=True)):
        folder = Path(args.output_dir)
        done = folder / "done"
        dataset = TrainingDataset(
            source,
            stage.tasks,
            seed=(recipe.seed, number),
            first=first,
            count=stage.steps * recipe.train.batch_size,
            collator=model.collator(),
            on_error=recipe.data.on_error,
        )
        if is_complete(done):
            checkpoint.load(done, model, objective, trained)
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
                dataset=dataset,
                stop=stop,
            )
            resume = checkpoint.last_complete(folder)
            if is_first_process():
                for log in ("log.jsonl", "skipped.jsonl"):
                    forget_after(run / log, stage.name, checkpoint.step_of(resume))
            try:
                trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                stop.end()
                what = str(error).partition("\n")[0]
                raise AvalignError(
                    f"a process that loads data has died, of memory that ran out perhaps: {what} Go on, with "
                    f"fewer of them if need be: {stop.go_on} data.workers=0"
                ) from error
            stop.end()
            if model.features is not None and is_first_process():
                model.features.tell()
            if is_first_process():
                _keep(done, model, objective, trained)
                for one in folder.glob("checkpoint-*"):
                    shutil.rmtree(one)
            trainer.accelerator.wait_for_everyone()
        first = dataset.after()
    if is_first_process():
        _keep(run / "model", model, objective, trained)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        stop.end()


def _go_on(run: Path) -> str:
    """The command that resumes it, by as many processes: each has a random state of its own."""
    processes, folder = os.environ.get("WORLD_SIZE", "1"), shlex.quote(str(run))
    if processes == "1":
        return f"avalign train --resume --run {folder}"
    return f"torchrun --nproc-per-node {processes} -m avalign train --resume --run-dir {folder}"


def _keep(folder: Path, model: AudioVisualLM, objective: Objective, trained: set[str]) -> None:
    with checkpoint.writing(folder):
        checkpoint.save(folder, model, objective, trained)
        mark_complete(folder)


def _note_loaded(run: Path, model: AudioVisualLM) -> None:
    """The report of every part that holds stock weights (`part.loaded`), if there is one."""
    reports = {part: getattr(model, part).loaded for part in PARTS}
    found = {part: report.as_dict() for part, report in reports.items() if report is not None}
    if found:
        atomic_write(run / "loaded.json", json.dumps(found, indent=1) + "\n")


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
        seed=recipe.seed + 1 + number,
        report_to=train.report_to,
        dataloader_num_workers=recipe.data.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=True,  # the LLM is not run in a stage without language modelling
        train_sampling_strategy="sequential",  # a sample's number decides what it is
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # several take torchrun: torch's DataParallel cannot split a Batch
    return args
