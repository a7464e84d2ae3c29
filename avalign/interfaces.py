"""What every kind of component offers: all that the model, a recipe or a run asks of it, with shapes.

Whoever derives from an interface (`class Mine(nn.Module, Projector)`) is held to it by mypy, and has its
defaults. Nobody has to: a component that leaves out what has a default here is given it, and refused by the
name of what else it lacks (avalign/offered.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:  # torch is named in annotations only, so that `avalign --help` stays quick
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from avalign.avfit.annotation import Reading
    from avalign.evaluation.metrics.bootstrap import Metric
    from avalign.evaluation.tasks.task import Scored, Trivial
    from avalign.losses import LossValue
    from avalign.model.model import Explanation
    from avalign.ot import Plan
    from avalign.types import Fused, Sample, Tokens, Undecoded
    from avalign.weights.pretrained import Loaded


class Component(Protocol):
    """What a recipe names. The keyword-only arguments of its class are its options."""

    not_compiled: ClassVar[str | None] = None  # why torch.compile cannot take it, in a sentence

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """ValueError for options that do not go together, before anything is built."""
        return None


# ---- parts of the model: each is a torch.nn.Module ---------------------------------------------------------


class Part(Component, Protocol):
    pretrained: bool = False  # whether its weights can be had elsewhere: a run keeps those it has trained
    loaded: Loaded | None = None  # the report of what was loaded, for a run's loaded.json
    tuning: str = "yes"  # how it learns where it does, in a word for the model card


class ImageEncoder(Part, Protocol):
    """Images to patch tokens. It gets the frames of a video one by one."""

    width: int  # d, of a token
    token_count: int  # n, of an image
    # (h, w, 3) uint8, of any size -> (...) float32, a row of what forward takes. It must not be cropped:
    # boxes are in 0..1 of the whole image. An object without weights, which loader processes are given
    preprocessing: Callable[[np.ndarray], Tensor]

    @abstractmethod
    def forward(self, x: Tensor) -> Tokens:
        """(b, ...) -> values (b, n, d), with boxes (n, 4)"""

    def __call__(self, x: Tensor) -> Tokens:  # torch's own, which calls forward
        return self.forward(x)


class AudioEncoder(Part, Protocol):
    """Audio to tokens in order of time."""

    width: int  # d, of a token
    token_count: int  # m, of the longest clip
    seconds: float  # of the longest clip
    sample_rate: int  # Hz
    # (samples,) float32 and their rate in Hz -> (seconds * sample_rate,), padded at the end. An object
    # without weights, which loader processes are given
    preprocessing: Callable[[np.ndarray, int], Tensor]

    @abstractmethod
    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        """(b, samples), true lengths (b,) in s -> values (b, m, d), with times (m, 2). Tokens that begin
        after their clip's end are masked; all are real where no length is told"""

    def __call__(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        return self.forward(x, seconds)


class Connector(Part, Protocol):
    """Fused tokens to the language model's width. Positional arguments: dim_in, dim_out.

    wants: what it is given by keyword beside its tokens:
           instruction  Tokens (b, s, dim_out) of the prompt's text
           vocabulary   (v, dim_out), the input embedding of every word
    """

    joins_frames: bool = False  # whether the tokens of several frames come out as those of one
    wants: tuple[str, ...] = ()

    @abstractmethod
    def token_count(self, n: int, frames: int = 1) -> int:
        """How many tokens come out of n, which are those of `frames` frames"""

    @abstractmethod
    def forward(self, tokens: Tokens, *args: Any, **kwargs: Any) -> Tokens:
        """values (b, n, dim_in) -> (b, token_count(n), dim_out)"""

    def __call__(self, tokens: Tokens, **wanted: Any) -> Tokens:
        return self.forward(tokens, **wanted)


class Projector(Connector, Protocol):
    """Encoder tokens to the shared space; a connector without `wants`, which may stand in either position."""


class Fusion(Part, Protocol):
    """Both modalities in the shared space, made to see each other. Positional argument: dim."""

    @abstractmethod
    def forward(self, image: Tokens, audio: Tokens) -> Fused:
        """values (b, n, dim), (b, m, dim) -> the same, with attention maps (b, m, n), (b, n, m) or None"""

    def __call__(self, image: Tokens, audio: Tokens) -> Fused:
        return self.forward(image, audio)


class Chat(Protocol):
    """How a language model is asked and answers, as ids (avalign.llm.chat.Chat)."""

    def prompt_ids(self, instruction: str, image_tokens: int, audio_tokens: int) -> list[int]:
        """Ids of a prompt, its placeholders widened to as many ids as tokens will fill them."""
        ...

    def response_ids(self, response: str) -> list[int]:
        """Ids of an answer, with the token that ends it."""
        ...


class LanguageModel(Part, Protocol):
    """A causal language model with its tokenizer (avalign.llm.LanguageModel wraps any of transformers').

    Positional argument: corpus, the texts that a tokenizer is built from, or the folder of a saved one.
    """

    lm: Any  # transformers' model, or peft's around it
    width: int  # of an input embedding
    quantisation: str = "none"  # or "8bit", "4bit"
    system: str | None = None  # prompt

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """transformers', loaded when there is text to read"""

    @property
    @abstractmethod
    def positions(self) -> int | None:
        """How many ids it can read and write; None: not known"""

    @property
    @abstractmethod
    def pad_id(self) -> int: ...

    @property
    @abstractmethod
    def end_ids(self) -> list[int]:
        """Every token that ends an answer"""

    @property
    @abstractmethod
    def adapted(self) -> bool:
        """Whether it learns by an adapter (LoRA), which is saved in peft's format"""

    @property
    @abstractmethod
    def chat(self) -> Chat:
        """How it is asked and answers, as ids: `prompt_ids` and `response_ids`, without any weight"""

    @abstractmethod
    def instruction(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tokens:
        """Ids, mask, labels (b, t) -> input embeddings (b, s, width) of the prompts' text alone"""

    @abstractmethod
    def vocabulary(self) -> Tensor:
        """(v, width), the input embedding of every word"""

    @abstractmethod
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens, max_new_tokens: int
    ) -> list[str]:
        """b answers to prompts (b, t) padded on the left"""

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens) -> Tensor:
        """Ids (b, t) with placeholders to fill, tokens (b, n, width), (b, m, width) -> logits (b, t, v)"""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, image: Tokens, audio: Tokens) -> Tensor:
        return self.forward(input_ids, attention_mask, image, audio)


# ---- losses --------------------------------------------------------------------------------------


class Loss(Component, Protocol):
    """A torch.nn.Module that, called with tensors, returns a scalar with gradient: a term of the objective.

    It is given what its arguments name out of `avalign.losses.objective.SUPPLIES`: image (b, n, d), audio
    (b, m, d), image_mask (b, n), logits (b, t, v) and so on. One that has no default must be there.
    """

    couples_samples: bool = False  # whether what a sample adds depends on the others of its batch

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Tensor: ...


@runtime_checkable
class LossWithTerms(Protocol):
    """A loss that says more: what each sample adds, so that a row of no number is named; parts for the log.

    Where there is a `terms`, its arguments are the supplied ones, and it is called in place of forward.
    """

    def terms(self, *args: Any, **kwargs: Any) -> LossValue: ...


class OTBackend(Protocol):
    """A solver of transport problems with its settings bound, as AVOpT asks it."""

    def __call__(
        self,
        cost: Tensor,
        source: Tensor | None = None,
        target: Tensor | None = None,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
    ) -> Plan:
        """cost (b, n, m); marginals (b, n), (b, m), uniform where not given; masks True where real"""
        ...


# ---- data ----------------------------------------------------------------------------------------


class Samples(Protocol):
    """A source, as far as scoring needs it. split: "train", "val" or "test"; index: from 0."""

    tasks: Sequence[str] = ()  # those it has samples of; of a class, () where only its data tell
    skipped: Sequence[str] = ()  # what it left out of its data, a problem each

    @abstractmethod
    def sample(self, split: str, task: str, index: int) -> Sample:
        """The same whenever it is asked for. MediaError names a file that cannot be used"""

    def undecoded(self, split: str, task: str, index: int) -> Undecoded | None:
        """The same sample, its media not decoded yet: where tokens of them are kept on disk (data.features),
        no file is opened. None: this source always decodes, as one has to that changes media by chance"""
        return None

    def size(self, split: str, task: str) -> int | None:
        """How many samples a split has of a task; None: without end"""
        return None

    def truth(self, split: str, task: str, index: int) -> Sample:
        """A sample without its media, where that is to be had"""
        return self.sample(split, task, index)

    def where(self, split: str, task: str, index: int) -> str | None:
        """File and line that a sample stands at, for what is said of it; None: not known"""
        return None


class Source(Samples, Component, Protocol):
    """Where a run's samples come from."""

    on_error: str = "raise"  # or "skip", and note in `skipped`; set before `prepare`

    @abstractmethod
    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Find the data under `root`, or make them"""

    @abstractmethod
    def corpus(self) -> list[str]:
        """Instructions and answers that a tokenizer is built from: every word is in them"""


class Dataset(Component, Protocol):
    """A public data set on disk. Its docstring says which files it reads, where they lie, and the source."""

    gives: ClassVar[str]  # "records", or "images" or "recordings" to be paired

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Reading[Any]]:
        """Each item of its files, used or refused with the reason"""


# ---- scoring -------------------------------------------------------------------------------------


class Task(Protocol):
    """One task of the benchmark, one file. Adding one is such a class and a line in evaluate.py."""

    name: ClassVar[str]  # as in types.TASKS
    title: ClassVar[str]
    headline: ClassVar[str]  # the metric that decides
    group_name: ClassVar[str]  # what `group` tells apart: class, type, question
    definitions: ClassVar[dict[str, str]]  # metric -> its definition and variant, printed as the protocol

    @abstractmethod
    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        """Score each answer against its sample's truth."""

    @abstractmethod
    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        """The scores over all samples, the headline first."""

    @abstractmethod
    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        """By name, answers that a model must beat, learnt from training samples; where there is none, those
        that need none."""

    @abstractmethod
    def group(self, sample: Sample) -> str | None:
        """The row of the per-group table that a sample belongs to; None: no table."""


@runtime_checkable
class Mapped(Task, Protocol):
    """A task whose answers may come with a heat map over the image."""

    @abstractmethod
    def map_values(self, sample: Sample, heat: np.ndarray | None) -> dict[str, float]:
        """This sample's share in the map's metrics; heat (rows, columns), None where none was given."""

    @abstractmethod
    def trivial_maps(self) -> dict[str, np.ndarray]:
        """Maps that go with the trivial answers of these names."""


class Answerer(Protocol):
    """Whatever is scored: a model, a file of predictions."""

    def answer(self, samples: Sequence[Sample]) -> list[str]: ...


@runtime_checkable
class Explainer(Protocol):
    """An answerer that can be asked for what it attended to, to be drawn."""

    def explain(self, sample: Sample) -> Explanation: ...


@runtime_checkable
class Mapper(Protocol):
    """An answerer that gives a heat map over the image with each answer, (rows, columns), or None."""

    def answer_with_maps(self, samples: Sequence[Sample]) -> list[tuple[str, np.ndarray | None]]: ...


# registry kind -> what is offered by a component of it
INTERFACES: dict[str, type] = {
    "image_encoder": ImageEncoder,
    "audio_encoder": AudioEncoder,
    "projector": Projector,
    "fusion": Fusion,
    "loss": Loss,
    "llm": LanguageModel,
    "source": Source,
    "dataset": Dataset,
}
