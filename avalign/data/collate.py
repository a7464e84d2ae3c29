"""Samples to batches: media prepared, placeholders widened, text padded, truth as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from avalign.data.features import AUDIO, IMAGE, is_cached
from avalign.errors import AvalignError
from avalign.interfaces import Chat
from avalign.types import IGNORED, Batch, Sample


class SampleError(AvalignError):
    """A sample that cannot be used, named by its id."""

    def __init__(self, sample: str, why: str) -> None:
        super().__init__(f"sample {sample}: {why}")
        self.sample, self.why = sample, why


def check(sample: Sample) -> None:
    """Refuse what would be trained on silently: media without placeholder, odd shapes, NaN, boxes outside."""
    for placeholder, media in (("<image>", sample.image), ("<audio>", sample.audio)):
        if media is not None and placeholder not in sample.instruction:
            raise SampleError(
                sample.id, f"has media for {placeholder}, but its instruction has no such placeholder"
            )
        if sample.instruction.count(placeholder) > 1:
            raise SampleError(sample.id, f"instruction has more than one {placeholder}")
    image, audio = sample.image, sample.audio
    if image is not None and (
        image.ndim not in (3, 4) or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size
    ):
        raise SampleError(
            sample.id,
            f"image is {image.dtype} {image.shape}, not uint8 (height, width, 3), frames before it",
        )
    _check_frame_times(sample)
    if audio is not None:
        if audio.ndim != 1 or not len(audio):
            raise SampleError(sample.id, f"audio has shape {audio.shape}, not (samples,) with at least one")
        if not np.issubdtype(audio.dtype, np.floating):
            raise SampleError(sample.id, f"audio is {audio.dtype}, not float32 in -1..1")
        if not np.isfinite(audio).all():
            raise SampleError(
                sample.id, f"audio holds {int((~np.isfinite(audio)).sum())} values that are not finite"
            )
        if sample.sample_rate <= 0:
            raise SampleError(sample.id, f"sample_rate is {sample.sample_rate} Hz")
    for left, top, right, bottom in sample.boxes:
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise SampleError(
                sample.id, f"box [{left:g}, {top:g}, {right:g}, {bottom:g}] is empty or not within 0..1"
            )
    for start, end in sample.intervals:
        if not 0 <= start < end < np.inf:
            raise SampleError(
                sample.id, f"interval [{start:g}, {end:g}] is empty, without end or begins before 0"
            )


def _check_frame_times(sample: Sample) -> None:
    times = sample.frame_times
    frames = len(sample.image) if sample.image is not None and sample.image.ndim == 4 else 0
    if len(times) != frames:
        raise SampleError(
            sample.id, f"frame_times holds {len(times)} times, for {frames or 'no'} frames of a video"
        )
    if not np.isfinite(times).all():
        raise SampleError(sample.id, f"frame_times are not all finite: {_shown(times)} s")
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise SampleError(sample.id, f"frame_times do not rise: {_shown(times)} s")


def _shown(times: Sequence[float], most: int = 8) -> str:
    return ", ".join(f"{time:g}" for time in times[:most]) + (", ..." if len(times) > most else "")


def frame_indices(count: int, most: int) -> list[int]:
    """Which of `count` frames are shown: all, or the middle one of each of `most` equal segments.

    Segments are of frames, not of seconds. Nothing is random: a video is always seen the same.
    """
    sampled = min(count, most)
    return [(2 * k + 1) * count // (2 * sampled) for k in range(sampled)]


@dataclass
class Collator:
    """Built by the model of what prepares its inputs: preprocessing and tokenizer without any weight, as
    loader processes are given it.

    A sample shows at most `frames` frames (frame_indices says which); a still image is one, seen at 0 s.
    Fewer than `frames` are padded with zeros, and masked.
    """

    image_preprocessing: Callable[[np.ndarray], Tensor]
    audio_preprocessing: Callable[[np.ndarray, int], Tensor]
    seconds: float  # the longest clip that the audio encoder takes
    chat: Chat
    pad_id: int
    image_tokens: int  # of all frames
    audio_tokens: int
    frames: int = 1
    positions: int | None = None  # of the language model: ids that it can read and write

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """For training: prompt and response, padded on the right."""
        return self._collate(samples, respond=True)

    def prompts(self, samples: Sequence[Sample], room: int = 0) -> Batch:
        """For generation: prompts only, padded on the left. room: ids that an answer may have"""
        return self._collate(samples, respond=False, room=room)

    def check(self, sample: Sample) -> None:
        """SampleError unless the sample is consistent, can be learnt from, and fits into the model."""
        self._check_media(sample)
        self._ids(sample, respond=True)

    def _check_media(self, sample: Sample) -> None:
        check(sample)
        if sample.audio is not None and len(sample.audio) > (self.seconds + 0.01) * sample.sample_rate:
            raise SampleError(
                sample.id,
                f"audio lasts {len(sample.audio) / sample.sample_rate:.2f} s, the audio encoder takes "
                f"{self.seconds:g} s; cut it to the part that is meant",
            )

    def _ids(self, sample: Sample, *, respond: bool, room: int = 0) -> tuple[list[int], list[int]]:
        """Of the prompt and of the response; SampleError where they do not fit into the language model."""
        if respond and not sample.response.strip():
            raise SampleError(sample.id, "its response is empty: there is nothing to learn from it")
        prompt = self.chat.prompt_ids(sample.instruction, self.image_tokens, self.audio_tokens)
        response = self.chat.response_ids(sample.response) if respond else []
        if self.positions is not None and len(prompt) + len(response) + room > self.positions:
            media = sum(i < 0 for i in prompt)
            answer = f"{len(response)} of the response" if respond else f"up to {room} of the answer"
            raise SampleError(
                sample.id,
                f"{len(prompt)} ids of the prompt ({media} of them of image and audio) and {answer}, the "
                f"language model has {self.positions} positions",
            )
        return prompt, response

    def _collate(self, samples: Sequence[Sample], *, respond: bool, room: int = 0) -> Batch:
        for sample in samples:
            self._check_media(sample)
        rows, labels = [], []
        for sample in samples:
            prompt, response = self._ids(sample, respond=respond, room=room)
            rows.append(prompt + response)
            labels.append([IGNORED] * len(prompt) + response)
        left = not respond
        return Batch(
            image=_stack(
                [None if is_cached(s, IMAGE) else self._frames(s) for s in samples],
                self._blank_image,
                shared=any(is_cached(s, IMAGE) for s in samples),
            ),
            audio=_stack(
                [None if is_cached(s, AUDIO) else self._clip(s) for s in samples],
                self._blank_audio,
                shared=any(is_cached(s, AUDIO) for s in samples),
            ),
            has_image=torch.tensor([s.image is not None for s in samples]),
            has_audio=torch.tensor([s.audio is not None for s in samples]),
            seconds=torch.tensor([0.0 if s.audio is None else len(s.audio) / s.sample_rate for s in samples]),
            input_ids=_pad(rows, self.pad_id, left),
            attention_mask=_pad([[1] * len(row) for row in rows], 0, left),
            labels=_pad(labels, IGNORED, left),
            **_truth([s.boxes for s in samples], "boxes", "box_mask", 4),
            **_truth([s.intervals for s in samples], "intervals", "interval_mask", 2),
            classes=torch.tensor([-1 if s.label is None else _number(s.label) for s in samples]),
            **self._frame_truth(samples),
        )

    def _clip(self, sample: Sample) -> Tensor | None:
        return None if sample.audio is None else self.audio_preprocessing(sample.audio, sample.sample_rate)

    def _frames(self, sample: Sample) -> Tensor | None:
        """A sample's image, prepared; (frames, ...), zeros at the end, for a model that takes several."""
        if sample.image is None:
            return None
        video = sample.image if sample.image.ndim == 4 else sample.image[None]
        shown = [self.image_preprocessing(video[k]) for k in frame_indices(len(video), self.frames)]
        if self.frames == 1:
            return shown[0]
        return torch.stack(shown + [torch.zeros_like(shown[0])] * (self.frames - len(shown)))

    def _frame_truth(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        mask = torch.zeros(len(samples), self.frames, dtype=torch.bool)
        seconds = torch.zeros(len(samples), self.frames)
        for row, sample in enumerate(samples):
            if sample.image is not None:
                times = sample.frame_times or (0.0,)  # a still image is seen at the beginning
                shown = [times[k] for k in frame_indices(len(times), self.frames)]
                mask[row, : len(shown)] = True
                seconds[row, : len(shown)] = torch.tensor(shown)
        return {"frame_mask": mask, "frame_seconds": seconds}

    def _blank_image(self) -> Tensor:
        blank = torch.zeros_like(self.image_preprocessing(np.zeros((8, 8, 3), np.uint8)))
        return blank if self.frames == 1 else blank.expand(self.frames, *blank.shape)

    def _blank_audio(self) -> Tensor:
        return torch.zeros_like(self.audio_preprocessing(np.zeros(800, np.float32), 8_000))


def _number(label: str) -> int:
    """That stands for a class in every process and every batch; two in a million classes hardly share one."""
    return int.from_bytes(blake2b(label.encode(), digest_size=7).digest())


def _stack(rows: Sequence[Tensor | None], blank: Callable[[], Tensor], *, shared: bool) -> Tensor:
    """Stack what is there, zeros for what is not (masked by has_image and has_audio).

    shared: of zeros alone, give one row's memory to all: they stand for what is not looked at
    """
    known = next((row for row in rows if row is not None), None)
    if known is None and shared:
        zeros = blank()
        return zeros.expand(len(rows), *zeros.shape)
    zeros = blank() if known is None else torch.zeros_like(known)
    return torch.stack([zeros if row is None else row for row in rows])


def _pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> Tensor:
    length = max(map(len, rows))
    padded = torch.full((len(rows), length), value)
    for k, row in enumerate(rows):
        span = slice(length - len(row), length) if left else slice(0, len(row))
        padded[k, span] = torch.tensor(row, dtype=torch.long)
    return padded


def _truth(rows: Sequence[Sequence[Sequence[float]]], name: str, mask: str, size: int) -> dict[str, Tensor]:
    count = max(1, *(len(row) for row in rows))
    values = torch.zeros(len(rows), count, size)
    real = torch.zeros(len(rows), count, dtype=torch.bool)
    for k, row in enumerate(rows):
        if row:
            values[k, : len(row)] = torch.tensor(row)
            real[k, : len(row)] = True
    return {name: values, mask: real}
