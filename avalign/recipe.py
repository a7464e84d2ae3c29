"""Every setting of a run, its type and its default. Read and checked by recipe_io; wired by build."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Component:
    """A registered part and its options: `fusion: avace`, or `fusion: {name: avace, heads: 4}`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LossTerm(Component):
    """A loss with its weight in the total: `avopt: {weight: 0.1, epsilon: 0.05}`; `name` defaults to the label."""

    weight: float = 1.0


@dataclass
class Model:
    """image/audio encoder -> projector (to `width`) -> fusion -> connector (to the LLM's width) -> llm."""

    width: int = 128  # of the space shared by both modalities, where AVOpT and fusion work
    image_encoder: Component = field(default_factory=lambda: Component("small"))
    audio_encoder: Component = field(default_factory=lambda: Component("small"))
    image_projector: Component = field(default_factory=lambda: Component("linear"))
    audio_projector: Component = field(default_factory=lambda: Component("linear"))
    fusion: Component = field(default_factory=lambda: Component("avace"))
    image_connector: Component = field(default_factory=lambda: Component("linear"))
    audio_connector: Component = field(default_factory=lambda: Component("linear"))
    llm: Component = field(default_factory=lambda: Component("small"))


@dataclass
class Data:
    source: Component = field(default_factory=lambda: Component("avworld"))
    root: str | None = None  # folder of a source that reads one; AVALIGN_DATA when not given
    on_error: Literal["raise", "skip"] = "raise"  # skip: counted, and listed in the run folder
    workers: int = 1  # loader processes


@dataclass
class Stage:
    """A stretch of training: which parts learn, from which tasks, by which losses."""

    name: str
    steps: int
    tasks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("arig", "igatl", "avfc", "avqa", "avcap"), 1.0))
    train: list[str] = field(default_factory=list)  # model parts that learn; empty: all that can
    weights: dict[str, float] = field(default_factory=dict)  # loss label -> weight here; 0 turns it off
    learning_rate: float | None = None  # train.learning_rate when not given


@dataclass
class Train:
    stages: list[Stage] = field(default_factory=lambda: [Stage("all", 1000)])
    batch_size: int = 32  # global: over all processes and accumulation steps
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    schedule: str = "cosine"  # any of transformers' scheduler names
    warmup: float = 0.05  # share of a stage's steps
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    log_every: int = 20  # steps
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])


@dataclass
class Evaluation:
    tasks: list[str] = field(default_factory=lambda: ["arig", "igatl", "avfc", "avqa", "avcap"])
    samples: int = 200  # of each task, from the test split
    batch_size: int = 50
    max_new_tokens: int = 48
    bootstrap: int = 1000  # resamples behind the 95 % intervals
    modality_check: bool = True  # score again without the sound, and without the picture


@dataclass
class Recipe:
    name: str
    seed: int = 0
    model: Model = field(default_factory=Model)
    losses: dict[str, LossTerm] = field(
        default_factory=lambda: {
            "language_modelling": LossTerm("language_modelling", weight=1.0),
            "avopt": LossTerm("avopt", weight=0.1),
            "avace": LossTerm("avace", weight=0.2),
        }
    )
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
