"""What travels through the library: Sample (one decoded example), Batch (tensors), Tokens, Outputs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is named in annotations only, so that `avalign --help` stays quick
    import numpy as np
    from torch import Tensor

TASKS = ("arig", "igatl", "avfc", "avqa", "avcap")
IGNORED = -100  # the label of every position that is not part of a response, as in transformers


@dataclass(frozen=True)
class Sample:
    """One example as it comes from a source: decoded media, text, and the truth it is scored by.

    Shapes: image (height, width, 3) uint8, audio (samples,) float32 in [-1, 1]
    Units:  boxes (x_left, y_top, x_right, y_bottom) in 0..1 of the image; intervals seconds
    """

    id: str
    task: str  # one of TASKS
    instruction: str  # holds "<image>" and "<audio>" where the media belong
    response: str  # the answer to learn, and the first reference when scored
    image: np.ndarray | None = None
    audio: np.ndarray | None = None
    sample_rate: int = 16_000  # of `audio`, in Hz
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # where the sounding object is
    intervals: tuple[tuple[float, float], ...] = ()  # when it sounds
    label: str | None = None  # its class
    kind: str | None = None  # AVFC: "type1".."type4"; AVQA: question type
    references: tuple[str, ...] = ()  # further right answers (captions)
    provenance: dict[str, Any] = field(default_factory=dict)  # files or seeds it was made from

    def without(self, *, image: bool = False, audio: bool = False) -> Sample:
        """The same question with the picture or the sound taken away (the modality check)."""
        return replace(self, image=None if image else self.image, audio=None if audio else self.audio)


@dataclass
class Tokens:
    """A set of tokens with what is known of each.

    Shapes: values (b, n, d); mask (b, n), True where real; where (n, 4) boxes of patches in 0..1 of
            the image, (n, 2) spans of audio tokens in seconds, or None when tokens have no place
    """

    values: Tensor
    mask: Tensor
    where: Tensor | None = None


@dataclass
class Fused:
    """What a fusion module returns: both token sets, and what attended to what.

    Shapes: image_map (b, m, n), each audio query's attention over image patches;
            audio_map (b, n, m), each image query's attention over audio tokens. Rows sum to 1 over
            the real keys and are 0 where there is none. None for a fusion without attention.
    """

    image: Tokens
    audio: Tokens
    image_map: Tensor | None = None
    audio_map: Tensor | None = None


@dataclass
class Batch:
    """b samples as tensors. The only thing the model's forward takes.

    Shapes: image (b, ...) and audio (b, ...) as the encoders' `prepare` made them, zeros where absent;
            has_image, has_audio (b,) bool; seconds (b,) true length of each audio;
            input_ids (b, t), attention_mask (b, t), labels (b, t) with -100 outside the response;
            boxes (b, k, 4) in 0..1 and box_mask (b, k); intervals (b, k, 2) s and interval_mask (b, k);
            classes (b,) int64, a number for each class, the same in every batch; -1 where there is none
    """

    image: Tensor
    audio: Tensor
    has_image: Tensor
    has_audio: Tensor
    seconds: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    boxes: Tensor
    box_mask: Tensor
    intervals: Tensor
    interval_mask: Tensor
    classes: Tensor

    def to(self, device: Any) -> Batch:
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass
class Outputs:
    """What the model's forward returns; losses are given what they name out of it.

    Shapes: image, audio: projected tokens, before fusion; logits (b, t, vocabulary), None when the
            language model was not run; labels (b, t)
    """

    image: Tokens
    audio: Tokens
    fused: Fused
    logits: Tensor | None
    labels: Tensor
