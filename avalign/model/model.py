"""The audio-visual language model: encoders -> projectors -> fusion -> connectors -> LLM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from avalign.data.collate import Collator
from avalign.data.features import CachedBatch, CachedTokens, FeatureReader
from avalign.errors import AvalignError, suggest
from avalign.interfaces import (
    AudioEncoder,
    Connector,
    Fusion,
    ImageEncoder,
    LanguageModel,
    Projector,
)
from avalign.model.feature_cache import FeatureCache
from avalign.offered import completed
from avalign.types import Batch, Fused, Outputs, Sample, Tokens
from avalign.weights.strict import load_exactly, must_fit
from avalign.weights.tensors import read_tensors

WEIGHTS, ADAPTER, TOKENIZER = "weights.safetensors", "adapter", "tokenizer"
_OFFER: dict[str, type] = {
    "image_encoder": ImageEncoder,
    "audio_encoder": AudioEncoder,
    "image_projector": Projector,
    "audio_projector": Projector,
    "fusion": Fusion,
    "image_connector": Connector,
    "audio_connector": Connector,
    "llm": LanguageModel,
}
PARTS = tuple(_OFFER)
# What a connector may ask for, beside its tokens, by the names in its `wants`:
#   instruction  Tokens (b, s, llm width) of the prompt's text, as LanguageModel.instruction gives them
#   vocabulary   (v, llm width), the input embedding of every word
CONNECTOR_WANTS = ("instruction", "vocabulary")


@dataclass(frozen=True)
class Explanation:
    """An answer with what the model attended to.

    Shapes: image_map (rows, columns), attention over the image, averaged over the audio tokens, or None;
            audio_map (m,), attention over the audio, averaged over the patches, or None; audio_times (m, 2) s

    The image_map of a video is summed over its frames: like an image's, it sums to 1.
    """

    answer: str
    image_map: np.ndarray | None
    audio_map: np.ndarray | None
    audio_times: np.ndarray | None


class AudioVisualLM(nn.Module):
    """Any registered encoders, projectors, fusion, connectors and language model, put together.

    Its parts are attributes by the names in PARTS.

    frames: of a video, how many a sample gives the image encoder, one by one (Collator says which)

    A connector that has `wants`, names of CONNECTOR_WANTS, is given them by keyword beside its tokens.
    """

    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        audio_encoder: AudioEncoder,
        image_projector: Projector,
        audio_projector: Projector,
        fusion: Fusion,
        image_connector: Connector,
        audio_connector: Connector,
        llm: LanguageModel,
        max_new_tokens: int = 48,
        frames: int = 1,
    ) -> None:
        super().__init__()
        self.image_encoder, self.audio_encoder = image_encoder, audio_encoder
        self.image_projector, self.audio_projector = image_projector, audio_projector
        self.fusion = fusion
        self.image_connector, self.audio_connector = image_connector, audio_connector
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        self.frames = frames
        self.features: FeatureCache | None = None  # where tokens of frozen encoders are saved, if they are
        for part, interface in _OFFER.items():
            try:
                completed(getattr(self, part), interface)
            except AvalignError as error:
                raise AvalignError(f"model.{part}: {error}") from error
        _check_wants(self)
        # what the parts themselves leave trainable (LoRA, for one, freezes the weights below it)
        self._learnable = {name for name, weight in self.named_parameters() if weight.requires_grad}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def media_tokens(self) -> tuple[int, int]:
        """How many of an image, with all of its frames, and of an audio clip the language model is given."""
        image, frames = self.image_encoder.token_count * self.frames, self.frames
        connectors: tuple[Connector, ...] = (self.image_projector, self.image_connector)
        for connector in connectors:
            image = connector.token_count(image, frames)
            frames = 1 if connector.joins_frames else frames
        audio = self.audio_projector.token_count(self.audio_encoder.token_count)
        return image, self.audio_connector.token_count(audio)

    def collator(self) -> Collator:
        """What turns samples into the batches that this model takes."""
        image, audio = self.media_tokens()
        return Collator(
            image_preprocessing=self.image_encoder.preprocessing,
            audio_preprocessing=self.audio_encoder.preprocessing,
            seconds=self.audio_encoder.seconds,
            chat=self.llm.chat,
            pad_id=self.llm.pad_id,
            image_tokens=image,
            audio_tokens=audio,
            frames=self.frames,
            positions=self.llm.positions,
        )

    def feature_reader(self) -> FeatureReader | None:
        """What loaders read in the place of media, as long as the encoders stay as they are."""
        if self.features is None:
            return None
        encoders = {part: getattr(self, part) for part in ("image_encoder", "audio_encoder")}
        return self.features.reader(encoders, frames=self.frames, device=self.device)

    def encode(self, batch: Batch) -> tuple[Tokens, Tokens, Fused]:
        """Tokens of both modalities in the shared space, before and after fusion."""
        image_tokens, audio_tokens = _cached(batch)
        image = _hide(self._look(batch, image_tokens), batch.has_image)
        heard = self._encoded("audio_encoder", batch.audio, batch.seconds, cached=audio_tokens)
        audio = _hide(heard, batch.has_audio)
        image, audio = self.image_projector(image), self.audio_projector(audio)
        return image, audio, self.fusion(image, audio)

    def _encoded(self, part: str, *inputs: Tensor, cached: CachedTokens | None) -> Tokens:
        encoder = getattr(self, part)
        if self.features is not None:
            return self.features.tokens(part, encoder, *inputs, cached=cached)
        if cached is not None and cached.rows:
            raise AvalignError(f"the batch has features in the place of media, {part} no cache of them")
        tokens: Tokens = encoder(*inputs)
        return tokens

    def _look(self, batch: Batch, cached: CachedTokens | None) -> Tokens:
        """The image encoder's tokens: of the image, or of all frames, frame by frame."""
        if self.frames == 1:
            return self._encoded("image_encoder", batch.image, cached=cached)
        if batch.frame_mask is None or batch.frame_seconds is None:
            raise AvalignError(f"a model of {self.frames} frames was given a batch without frame_mask")
        if batch.frame_mask.shape[1] != self.frames:
            raise AvalignError(
                f"a model of {self.frames} frames was given a batch of "
                f"{batch.frame_mask.shape[1]}: use its collator"
            )
        frames = batch.image.flatten(0, 1)  # encoders know of no time
        each = self._encoded("image_encoder", frames, cached=cached)
        count = each.values.shape[1]
        real = rearrange(each.mask, "(b frames) n -> b frames n", frames=self.frames)
        return Tokens(
            rearrange(each.values, "(b frames) n d -> b (frames n) d", frames=self.frames),
            (batch.frame_mask[:, :, None] & real).flatten(1),
            boxes=None if each.boxes is None else each.boxes.repeat(self.frames, 1),
            frames=self.frames,
            frame_times=batch.frame_seconds.repeat_interleave(count, 1),
        )

    def connect(self, fused: Fused, batch: Batch) -> tuple[Tokens, Tokens]:
        """Fused tokens as the language model takes them."""
        connectors = (self.image_connector, self.audio_connector)
        wanted = {name for connector in connectors for name in connector.wants}
        inputs: dict[str, Tokens | Tensor] = {}
        if "instruction" in wanted:
            inputs["instruction"] = self.llm.instruction(batch.input_ids, batch.attention_mask, batch.labels)
        if "vocabulary" in wanted:
            inputs["vocabulary"] = self.llm.vocabulary()
        image, audio = (
            connector(tokens, **{name: inputs[name] for name in connector.wants})
            for connector, tokens in zip(connectors, (fused.image, fused.audio), strict=True)
        )
        return image, audio

    def forward(self, batch: Batch, *, language: bool = True) -> Outputs:
        """language: whether the LLM is run; without it only the alignment losses can be computed"""
        image, audio, fused = self.encode(batch)
        logits = None
        if language:
            logits = self.llm(batch.input_ids, batch.attention_mask, *self.connect(fused, batch))
        return Outputs(image, audio, fused, logits, batch.labels)

    @torch.no_grad()
    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """The model's answer to each sample's instruction."""
        return self._answer(samples)[0]

    @torch.no_grad()
    def explain(self, sample: Sample) -> Explanation:
        """One answer, with both attention maps."""
        answers, fused = self._answer([sample])
        audio_map = times = None
        both = sample.image is not None and sample.audio is not None
        image_map = _image_map(fused, 0) if both else None
        if fused.audio_map is not None and both:
            audio_map = fused.audio_map[0][fused.image.mask[0]].mean(0).float().cpu().numpy()
        if fused.audio.times is not None:
            times = fused.audio.times.float().cpu().numpy()
        return Explanation(answers[0], image_map, audio_map, times)

    @torch.no_grad()
    def answer_with_maps(self, samples: Sequence[Sample]) -> list[tuple[str, np.ndarray | None]]:
        """Each answer with its `Explanation.image_map`."""
        answers, fused = self._answer(samples)
        both = [sample.image is not None and sample.audio is not None for sample in samples]
        return [(text, _image_map(fused, i) if both[i] else None) for i, text in enumerate(answers)]

    def generate(
        self,
        image: np.ndarray | None,
        audio: tuple[np.ndarray, int] | None,
        text: str,
        *,
        frame_times: Sequence[float] = (),
    ) -> str:
        """Answer a question about an image (h, w, 3) uint8 and audio ((samples,) float32, rate in Hz).

        image: or the frames of a video (k, h, w, 3), seen at frame_times (k,) in seconds
        """
        placeholders = "".join(
            placeholder
            for placeholder, media in (("<image>", image), ("<audio>", audio))
            if media is not None and placeholder not in text
        )
        wave, rate = (None, 16_000) if audio is None else audio
        sample = Sample(
            "question",
            "avqa",
            placeholders + text,
            "",
            image=image,
            frame_times=tuple(frame_times),
            audio=wave,
            sample_rate=rate,
        )
        return self.answer([sample])[0]

    def _answer(self, samples: Sequence[Sample]) -> tuple[list[str], Fused]:
        training = self.training
        self.eval()
        try:
            batch = self.collator().prompts(samples, self.max_new_tokens).to(self.device)
            _, _, fused = self.encode(batch)
            answers = self.llm.generate(
                batch.input_ids, batch.attention_mask, *self.connect(fused, batch), self.max_new_tokens
            )
        finally:
            self.train(training)
        return answers, fused

    # what learns

    def learn(self, parts: Collection[str]) -> None:
        """Let only these parts learn; the others are frozen, and keep to evaluation mode."""
        for name, weight in self.named_parameters():
            weight.requires_grad_(name in self._learnable and name.partition(".")[0] in parts)
        self.train(self.training)

    def train(self, mode: bool = True) -> AudioVisualLM:
        super().train(mode)
        for part in PARTS:
            module = getattr(self, part)
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    # saving and loading

    def own_weights(self, trained: Collection[str]) -> dict[str, Tensor]:
        """All that cannot be had elsewhere: not the stock weights of parts that no stage trained."""
        own: dict[str, Tensor] = {}
        seen: set[int] = set()  # tied weights are saved once
        for name, weight in self.state_dict().items():
            part = getattr(self, name.partition(".")[0])
            if part.pretrained and (part is self.llm or name.partition(".")[0] not in trained):
                continue
            if weight.data_ptr() not in seen:
                own[name] = weight
            seen.add(weight.data_ptr())
        return own

    def save(self, folder: Path, trained: Collection[str] = PARTS) -> None:
        """Weights (safetensors), LoRA in peft's format, tokenizer. Stock weights stay where they came from.

        trained: the parts that were trained, which are saved even of a pretrained encoder
        """
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: weight.detach().cpu().contiguous() for name, weight in self.own_weights(trained).items()}
        save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
        if self.llm.adapted:
            self.save_adapter(folder / ADAPTER)
        self.llm.tokenizer.save_pretrained(folder / TOKENIZER)

    def load(self, folder: Path, trained: Collection[str] = PARTS) -> None:
        """The weights that `save` wrote. Anything missing, extra or of another shape is an error, by name."""
        load_exactly(self, folder / WEIGHTS, self.own_weights(trained))
        self.load_adapter(folder / ADAPTER)

    def save_adapter(self, folder: Path) -> None:
        """LoRA in peft's format; embeddings are not in it (peft would ask a hub whether they changed)."""
        self.llm.lm.save_pretrained(folder, save_embedding_layers=False)

    def load_adapter(self, folder: Path) -> None:
        """LoRA in peft's format, if this model has it; a folder of it otherwise is an error."""
        if self.llm.adapted:
            from peft import get_peft_model_state_dict, set_peft_model_state_dict

            file = folder / "adapter_model.safetensors"
            adapter = read_tensors(file)
            expected = get_peft_model_state_dict(self.llm.lm, save_embedding_layers=False)
            must_fit(file, adapter, expected)
            set_peft_model_state_dict(self.llm.lm, adapter)
        elif folder.exists():
            raise AvalignError(f"{folder}: made by another recipe: this one's llm has no adapter")


def _cached(batch: Batch) -> tuple[CachedTokens | None, CachedTokens | None]:
    """What a loader found of image and audio in the feature cache."""
    return (batch.image_tokens, batch.audio_tokens) if isinstance(batch, CachedBatch) else (None, None)


def _hide(tokens: Tokens, present: Tensor) -> Tokens:
    """Mask all tokens of samples whose image or audio is absent."""
    return replace(tokens, mask=tokens.mask & present[:, None])


def _check_wants(model: AudioVisualLM) -> None:
    """Refuse wants that nobody can meet: only a connector gives tokens of the language model's width."""
    for part in ("image_projector", "audio_projector", "image_connector", "audio_connector"):
        module = getattr(model, part)
        for want in module.wants:
            wants = f"model.{part}: {type(module).__name__} wants {want!r}"
            if part.endswith("_projector"):
                raise AvalignError(
                    f"{wants}, which is of the language model's width: it can only be an image_connector or "
                    "an audio_connector"
                )
            if want not in CONNECTOR_WANTS:
                raise AvalignError(f"{wants}.{suggest(want, CONNECTOR_WANTS)}")


def _image_map(fused: Fused, index: int) -> np.ndarray | None:
    """Attention over sample `index`'s image, (rows, columns); None where its patches are no square."""
    if fused.image_map is None or fused.image.boxes is None:
        return None
    real = fused.audio.mask[index]
    frames = fused.image_map[index][real].mean(0).view(fused.image.frames, -1)
    mean: np.ndarray = frames.sum(0).float().cpu().numpy()
    side = round(len(mean) ** 0.5)
    return mean.reshape(side, side) if side * side == len(mean) else None
