"""Every setting of a run, its type and its default. Read and checked by recipe_io; wired by build."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from avalign.types import TASKS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # of every random generator: NumPy's takes no larger ones
# A number, or a schedule {step: weight}: straight between the points, constant before and after them. Steps
# are counted from 0, anew in every stage: {0: 0.0, 500: 0.1} begins at 0 and is 0.1 from the 501st step on.
Weight = NonNegative | dict[NonNegativeInt, NonNegative]
Schedule = Literal[  # transformers' schedulers that need no further numbers
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_with_restarts",
    "inverse_sqrt",
    "linear",
    "polynomial",
]


@dataclass
class Component:
    """A registered part and its options: `fusion: avace`, or `fusion: {name: avace, heads: 4}`."""

    usual: ClassVar[str] = (
        ""  # taken for the name that is not given; "" where the field, or its label, says it
    )
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LossTerm(Component):
    """A loss and its weight in the total: `avopt: {weight: 0.1, epsilon: 0.05}`. No `name`: its label."""

    weight: Weight = 1.0


def weight_at(weight: float | dict[int, float], step: int) -> float:
    """What a weight is at a step of its stage, the first of which is 0."""
    if not isinstance(weight, dict):
        return weight
    points = sorted(weight.items())
    for (before, low), (after, high) in pairwise(points):
        if before <= step < after:
            return low + (high - low) * (step - before) / (after - before)
    return points[0][1] if step < points[0][0] else points[-1][1]


def component(kind: str, name: str) -> Any:
    """A field that holds a component of a kind the registry knows, and the one taken when none is given."""
    return field(default_factory=lambda: Component(name), metadata={"kind": kind})


def default_losses() -> dict[str, LossTerm]:
    weights = {"language_modelling": 1.0, "avopt": 0.1, "avace": 0.2}  # as in Meerkat's released code
    return {name: LossTerm(name, weight=weight) for name, weight in weights.items()}


@dataclass
class Model:
    """image/audio encoder -> projector (to `width`) -> fusion -> connector (to the LLM's width) -> llm."""

    frames: Count = 1  # of a video, given to the image encoder: more are thinned evenly, fewer padded
    width: Count = 128  # of the space shared by both modalities, where AVOpT and fusion work
    image_encoder: Component = component("image_encoder", "small")
    audio_encoder: Component = component("audio_encoder", "small")
    image_projector: Component = component("projector", "linear")
    audio_projector: Component = component("projector", "linear")
    fusion: Component = component("fusion", "avace")
    image_connector: Component = component("projector", "linear")
    audio_connector: Component = component("projector", "linear")
    llm: Component = component("llm", "small")


@dataclass
class Data:
    source: Component = component("source", "avworld")
    root: str | None = None  # folder of a source that reads one; AVALIGN_DATA when not given
    on_error: Literal["raise", "skip"] = "raise"  # skip: counted, and listed in the run folder
    workers: NonNegativeInt = 1  # loader processes
    features: Literal["no", "float16", "float32"] = "no"  # of frozen encoders: computed once, saved on disk
    features_gib: Positive = 50.0  # GiB that may be saved; more is computed again


@dataclass
class Stage:
    """A part of training: which parts learn, from which tasks, by which losses."""

    name: str
    steps: Count
    tasks: dict[str, NonNegative] = field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))  # shares
    train: list[str] = field(default_factory=list)  # model parts that learn; empty: all that can
    weights: dict[str, Weight] = field(default_factory=dict)  # loss label -> weight here; 0: off
    learning_rate: Positive | None = None  # train.learning_rate when not given
    schedule: Schedule | None = None  # train.schedule when not given


@dataclass
class Train:
    stages: list[Stage] = field(default_factory=lambda: [Stage("all", 1000)])
    batch_size: Count = 32  # global: over all processes and accumulation steps
    gradient_accumulation: Count = 1
    learning_rate: Positive = 1e-3
    schedule: Schedule = "cosine"
    warmup: Share = 0.05  # of a stage's steps
    weight_decay: NonNegative = 0.01
    beta2: Share = 0.999  # of AdamW: how long it remembers squared gradients
    max_gradient_norm: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    log_every: Count = 20  # steps
    checkpoint_every: Count = 500  # steps
    keep_checkpoints: Count = 2
    report_to: list[str] = field(default_factory=list)  # trackers beside log.jsonl: tensorboard, wandb, ...


@dataclass
class Evaluation:
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    samples: Count | Literal["all"] = 200  # of each task and split; all, or more than there are: all
    batch_size: Count = 50
    max_new_tokens: Count = 48
    bootstrap: NonNegativeInt = 1000  # resamples behind the 95 % intervals; 0: none
    modality_check: bool = True  # score again without the audio, and without the image
    # of each task, drawn with answer and attention for the report
    figures: NonNegativeInt = field(default=4, metadata={"formerly": "pictures"})


@dataclass
class Recipe:
    name: str
    seed: Seed = 0
    model: Model = field(default_factory=Model)
    losses: dict[str, LossTerm] = field(default_factory=default_losses, metadata={"kind": "loss"})
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
