"""What travels through the library: Sample (one decoded example), Batch (tensors), Tokens, Outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # torch is named in annotations only, so that `avalign --help` stays quick
    import numpy as np
    from torch import Tensor

TASKS = ("arig", "igatl", "avfc", "avqa", "avcap")
SPLITS = ("train", "val", "test")
CLIP_SECONDS = "clip_seconds"  # in a sample's provenance: how long its clip lasts, where its record says
Decoded = TypeVar("Decoded")
IGNORED = -100  # the label of every position that is not part of a response, as in transformers


@dataclass(frozen=True)
class Sample:
    """One example as it comes from a source: decoded media, text, and the truth it is scored by.

    Shapes: image (height, width, 3) uint8, or the k frames of a video (k, height, width, 3);
            audio (samples,) float32 in [-1, 1]
    Units:  boxes (x_left, y_top, x_right, y_bottom) in 0..1 of the image, of every frame of a video;
            intervals and frame_times seconds
    """

    id: str
    task: str  # one of TASKS
    instruction: str  # holds "<image>" and "<audio>" where the media belong
    response: str  # the answer to learn, and the first reference when scored
    image: np.ndarray | None = None
    frame_times: tuple[float, ...] = ()  # when each frame of a video was seen; none for a still image
    audio: np.ndarray | None = None
    sample_rate: int = 16_000  # of `audio`, in Hz
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # where the sounding object is
    consensus: int = 1  # of `boxes` that must cover a point for it to count in full: several annotators
    intervals: tuple[tuple[float, float], ...] = ()  # when it sounds
    label: str | None = None  # its class
    kind: str | None = None  # AVFC: "type1".."type4"; AVQA: question type
    references: tuple[str, ...] = ()  # further right answers (captions)
    provenance: dict[str, Any] = field(default_factory=dict)  # files or seeds it was made from

    def without(self, *, image: bool = False, audio: bool = False) -> Sample:
        """The same question with the image or the audio taken away (the modality check)."""
        sample = replace(self, image=None, frame_times=()) if image else self
        return replace(sample, audio=None) if audio else sample


@dataclass(frozen=True)
class Medium(Generic[Decoded]):
    """An image or an audio clip that is not decoded yet.

    key:    a text that is another one whenever `decode` would give something else, told without opening a
            file; None where that cannot be told. What is drawn by chance has no key
    decode: MediaError names a file that cannot be used
    """

    key: Callable[[], str | None]
    decode: Callable[[], Decoded]


@dataclass(frozen=True)
class Undecoded:
    """A sample whose media are still in their files; `sample` is without them.

    image: (height, width, 3) or (k, height, width, 3) uint8; audio: (samples,) float32 and its rate in Hz
    """

    sample: Sample
    image: Medium[np.ndarray] | None
    audio: Medium[tuple[np.ndarray, int]] | None

    def decoded(self) -> Sample:
        image = None if self.image is None else self.image.decode()
        if self.audio is None:
            return replace(self.sample, image=image)
        audio, rate = self.audio.decode()
        return replace(self.sample, image=image, audio=audio, sample_rate=rate)


@dataclass
class Tokens:
    """A set of tokens with what is known of each.

    Shapes: values (b, n, d); mask (b, n), True where real;
            boxes (n, 4), of an image's patches: left, top, right, bottom in 0..1 of the image;
            times (n, 2), of audio tokens: start and end in seconds;
            frame_times (b, n), of an image's patches: when their frame was seen, in seconds.
            Each is None where it is not known: of a still image there are no frame_times

    The tokens of a video lie frame by frame: n = frames * per_frame, and a patch's box lies within its frame,
    the same for every frame. Frames that a video does not have are masked, and their time is 0.
    """

    values: Tensor
    mask: Tensor
    _: KW_ONLY
    boxes: Tensor | None = None
    times: Tensor | None = None
    frames: int = 1
    frame_times: Tensor | None = None


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

    Shapes: image (b, ...) and audio (b, ...) as the encoders' `preprocessing` made them, zeros where absent;
            has_image, has_audio (b,) bool; seconds (b,) true length of each audio;
            input_ids (b, t), attention_mask (b, t), labels (b, t) with -100 outside the response;
            boxes (b, k, 4) in 0..1 and box_mask (b, k); intervals (b, k, 2) s and interval_mask (b, k);
            classes (b,) int64, a number for each class, the same in every batch; -1 where there is none

    For a model that takes several frames, image is (b, frames, ...). frame_mask (b, frames) tells which are
    real and frame_seconds (b, frames) when each was seen (0 where there is none); has_image: any frame is
    real. A model of one frame can do without both. A box belongs to all frames.
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
    frame_mask: Tensor | None = None
    frame_seconds: Tensor | None = None

    def to(self, device: Any) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        there = {name: value for name, value in values.items() if value is not None}
        return type(self)(**{name: value.to(device) for name, value in there.items()})

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
