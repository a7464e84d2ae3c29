"""One stage of training: transformers' Trainer with avalign's objective, log, checkpoints and bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from avalign.config.recipe import Recipe, Stage
from avalign.data.sampling import TrainingDataset
from avalign.errors import AvalignError
from avalign.losses.objective import Objective, refuse_unreachable
from avalign.model.model import AudioVisualLM
from avalign.system.atomic_write import atomic_write
from avalign.system.complete import mark_complete
from avalign.system.escape import visible
from avalign.system.json_file import json_if_there
from avalign.system.processes import start_anew
from avalign.training import checkpoint
from avalign.training.checkpoint_state import StateTrainer
from avalign.training.run_folder import note_skipped
from avalign.training.stopping import Stop, StopAfterStep
from avalign.training.undisturbed import undisturbed
from avalign.types import Batch


class Learner(nn.Module):
    """A model with its objective, whose output is the loss and its log.

    Processes that train together wait for the gradient of every weight that the output depends on. So
    nothing but the loss may come out: fused tokens that only the language model reads would be waited for
    in a stage that does not run it.
    """

    def __init__(self, model: AudioVisualLM, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self._checked: set[str] = set()

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """step: of the stage, from 0: it decides the weights"""
        outputs = self.model(batch, language=self.objective.needs_logits(step))
        with torch.autocast(batch.input_ids.device.type, enabled=False):  # bf16 is for the model
            terms = self.objective.terms(outputs, batch, step)
            new = {label: value for label, value in terms.items() if label not in self._checked}
            if new:
                refuse_unreachable(new, self.model.parameters())  # a temperature that learns is not enough
                self._checked |= set(new)
            return self.objective.total(terms, step)


class StageTrainer(StateTrainer):
    """transformers' Trainer with avalign's objective, its log of named terms, and complete checkpoints."""

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
        dataset: TrainingDataset,
        stop: Stop,
    ) -> None:
        model.learn(stage.train or trained)
        if recipe.train.gradient_checkpointing:
            lm = model.llm.lm  # earlier releases of transformers 5 have the second name only
            enable = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        super().__init__(
            model=Learner(model, objective),
            args=args,
            train_dataset=dataset,
            data_collator=undisturbed(dataset.collate),
        )
        self.stage, self.run, self.trained = stage, run, trained
        self._terms: dict[str, list[float]] = {}
        self.remove_callback(PrinterCallback)
        self._progress = _Progress(stage)
        self.add_callback(self._progress)
        self.add_callback(_MarkComplete(recipe.train.keep_checkpoints))
        self.add_callback(StopAfterStep(stop))

    def train(self, *args: Any, **named: Any) -> Any:
        try:
            return super().train(*args, **named)
        finally:
            self._progress.close()  # so that what is said of an error has a line of its own

    def get_train_dataloader(self) -> Any:
        learner = self.accelerator.unwrap_model(self.model)
        if learner.model.features is not None:
            learner.train()  # as in every step: a part that does not learn keeps to evaluation mode
            with self.accelerator.autocast():
                self.train_dataset.features = learner.model.feature_reader()
        return start_anew(super().get_train_dataloader())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if "problem" in inputs:  # of a sample, told by a loader's process
            raise AvalignError(inputs["problem"])
        batch: Batch = inputs["batch"].to(self.args.device)
        note_skipped(self.run, inputs["skipped"], stage=self.stage.name, step=self.state.global_step + 1)
        total, parts = model(batch, self.state.global_step)
        for name, value in parts.items():
            number = float(value)
            if number == number:  # a part is nan where it applied to no sample
                self._terms.setdefault(name, []).append(number)
        self._terms.setdefault("loss", []).append(float(total.detach()))
        return (total, parts) if return_outputs else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line of log.jsonl: the stage, the step, every named term since the last line."""
        if "loss" in logs:
            logs = logs | self._means()
        super().log(logs, start_time)
        if self.is_world_process_zero() and "loss" in logs:
            record = {"stage": self.stage.name, "step": self.state.global_step, **logs}
            record.pop("epoch", None)  # samples are never repeated: a stage is one epoch
            with open(self.run / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def _means(self) -> dict[str, float]:
        """Mean of each term over the steps, and the processes, since the last log."""
        every: list[dict[str, list[float]]] = [self._terms]
        if self.args.world_size > 1:
            every = [{} for _ in range(self.args.world_size)]
            torch.distributed.all_gather_object(every, self._terms)
        names = dict.fromkeys(name for one in every for name in one)
        joined = {name: [v for one in every for v in one.get(name, ())] for name in names}
        self._terms = {}
        return {name: sum(values) / len(values) for name, values in joined.items()}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """With the terms that are not logged yet, of each process."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with checkpoint.writing(folder):
            super()._save_checkpoint(model, trial)
            atomic_write(folder / self._terms_file, json.dumps(self._terms) + "\n")

    @property
    def _terms_file(self) -> str:
        return f"terms-{self.args.process_index}.json"

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        learner = self.accelerator.unwrap_model(self.model)
        checkpoint.save(folder, learner.model, learner.objective, self.trained)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        learner = self.accelerator.unwrap_model(model or self.model)
        folder = Path(resume_from_checkpoint)
        checkpoint.load(folder, learner.model, learner.objective, self.trained)
        self._terms = json_if_there(folder / self._terms_file) or {}

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Not a loss's own, a temperature or a bias, which decay would draw to 1 and 0."""
        named: list[str] = super().get_decay_parameter_names(model)
        return [name for name in named if not name.startswith("objective.")]


class _MarkComplete(TrainerCallback):
    """Marks a checkpoint as complete once all of it is written; only then may an older one go."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            with checkpoint.writing(folder / f"checkpoint-{state.global_step}"):
                mark_complete(folder / f"checkpoint-{state.global_step}")
            checkpoint.forget_old(folder, self.keep)


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
                desc=visible(self.stage.name),
                mininterval=2.0,
                dynamic_ncols=True,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(
                {visible(name): f"{value:.3g}" for name, value in logs.items() if _is_loss(name)},
                refresh=False,
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _is_loss(name: str) -> bool:
    """A whole term of the objective, or their sum: not a term's part (avace/space)."""
    return "/" not in name and name not in ("grad_norm", "learning_rate", "epoch")
