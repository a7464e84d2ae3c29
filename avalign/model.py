"""The audio-visual language model: encoders -> projectors -> fusion -> connectors -> LLM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avalign.batch import Batch, Fused, Outputs, Sample, Tokens
from avalign.collate import Collator
from avalign.errors import AvalignError
from avalign.llm import LanguageModel

WEIGHTS, ADAPTER, TOKENIZER = "weights.safetensors", "adapter", "tokenizer"
PARTS = (
    "image_encoder",
    "audio_encoder",
    "image_projector",
    "audio_projector",
    "fusion",
    "image_connector",
    "audio_connector",
    "llm",
)


@dataclass(frozen=True)
class Explanation:
    """An answer with what the model attended to.

    Shapes: image_map (rows, columns), attention over the picture, averaged over the audio tokens, or None;
            audio_map (m,), attention over the sound, averaged over the patches, or None; audio_where (m, 2) s
    """

    answer: str
    image_map: np.ndarray | None
    audio_map: np.ndarray | None
    audio_where: np.ndarray | None


class AudioVisualLM(nn.Module):
    """Any registered encoders, projectors, fusion, connectors and language model, put together.

    Its parts are attributes by the names in PARTS.
    """

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        audio_encoder: nn.Module,
        image_projector: nn.Module,
        audio_projector: nn.Module,
        fusion: nn.Module,
        image_connector: nn.Module,
        audio_connector: nn.Module,
        llm: LanguageModel,
        max_new_tokens: int = 48,
    ) -> None:
        super().__init__()
        self.image_encoder, self.audio_encoder = image_encoder, audio_encoder
        self.image_projector, self.audio_projector = image_projector, audio_projector
        self.fusion = fusion
        self.image_connector, self.audio_connector = image_connector, audio_connector
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        # what the parts themselves leave trainable (LoRA, for one, freezes the weights below it)
        self._learnable = {name for name, weight in self.named_parameters() if weight.requires_grad}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def collator(self) -> Collator:
        """What turns samples into the batches that this model takes."""
        image = self.image_projector.token_count(self.image_encoder.token_count)
        audio = self.audio_projector.token_count(self.audio_encoder.token_count)
        return Collator(
            prepare_image=self.image_encoder.prepare,
            prepare_audio=self.audio_encoder.prepare,
            seconds=self.audio_encoder.seconds,
            prompt_ids=self.llm.prompt_ids,
            response_ids=self.llm.response_ids,
            pad_id=self.llm.pad_id,
            image_tokens=self.image_connector.token_count(image),
            audio_tokens=self.audio_connector.token_count(audio),
        )

    def encode(self, batch: Batch) -> tuple[Tokens, Tokens, Fused]:
        """Tokens of both modalities in the shared space, before and after fusion."""
        image = _hide(self.image_encoder(batch.image), batch.has_image)
        audio = _hide(self.audio_encoder(batch.audio, batch.seconds), batch.has_audio)
        image, audio = self.image_projector(image), self.audio_projector(audio)
        return image, audio, self.fusion(image, audio)

    def connect(self, fused: Fused) -> tuple[Tokens, Tokens]:
        """Fused tokens as the language model takes them."""
        return self.image_connector(fused.image), self.audio_connector(fused.audio)

    def forward(self, batch: Batch, *, language: bool = True) -> Outputs:
        """language: whether the LLM is run; without it only the alignment losses can be computed"""
        image, audio, fused = self.encode(batch)
        logits = None
        if language:
            logits = self.llm(batch.input_ids, batch.attention_mask, *self.connect(fused))
        return Outputs(image, audio, fused, logits, batch.labels)

    @torch.no_grad()
    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """The model's answer to each sample's instruction."""
        return self._answer(samples)[0]

    @torch.no_grad()
    def explain(self, sample: Sample) -> Explanation:
        """One answer, with both attention maps."""
        answers, fused = self._answer([sample])
        image_map = audio_map = where = None
        if fused.image_map is not None and sample.image is not None and sample.audio is not None:
            real = fused.audio.mask[0]
            mean = fused.image_map[0][real].mean(0).float().cpu().numpy()
            side = round(len(mean) ** 0.5)
            image_map = mean.reshape(side, side) if side * side == len(mean) else None
        if fused.audio_map is not None and sample.image is not None and sample.audio is not None:
            audio_map = fused.audio_map[0].mean(0).float().cpu().numpy()
        if fused.audio.where is not None:
            where = fused.audio.where.float().cpu().numpy()
        return Explanation(answers[0], image_map, audio_map, where)

    def generate(self, image: np.ndarray | None, audio: tuple[np.ndarray, int] | None, text: str) -> str:
        """Answer a question about a picture (h, w, 3) uint8 and a sound ((samples,) float32, rate in Hz)."""
        places = "".join(
            place
            for place, media in (("<image>", image), ("<audio>", audio))
            if media is not None and place not in text
        )
        wave, rate = (None, 16_000) if audio is None else audio
        sample = Sample("question", "avqa", places + text, "", image=image, audio=wave, sample_rate=rate)
        return self.answer([sample])[0]

    def _answer(self, samples: Sequence[Sample]) -> tuple[list[str], Fused]:
        training = self.training
        self.eval()
        try:
            batch = self.collator().prompts(samples).to(self.device)
            _, _, fused = self.encode(batch)
            texts = self.llm.generate(
                batch.input_ids, batch.attention_mask, *self.connect(fused), self.max_new_tokens
            )
        finally:
            self.train(training)
        return texts, fused

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
        seen: set[int] = set()  # tied weights are kept once
        for name, weight in self.state_dict().items():
            part = getattr(self, name.partition(".")[0])
            stock = part.pretrained if hasattr(part, "pretrained") else False
            if stock and (isinstance(part, LanguageModel) or name.partition(".")[0] not in trained):
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
        if hasattr(self.llm.lm, "peft_config"):
            self.save_adapter(folder / ADAPTER)
        self.llm.tokenizer.save_pretrained(folder / TOKENIZER)

    def load(self, folder: Path, trained: Collection[str] = PARTS) -> None:
        """The weights that `save` wrote. Anything missing, extra or of another shape is an error, by name."""
        read_weights(self, folder / WEIGHTS, self.own_weights(trained))
        self.load_adapter(folder / ADAPTER)

    def save_adapter(self, folder: Path) -> None:
        """LoRA in peft's format; embeddings are not in it (peft would ask a hub whether they changed)."""
        self.llm.lm.save_pretrained(folder, save_embedding_layers=False)

    def load_adapter(self, folder: Path) -> None:
        """LoRA in peft's format, if this model has it; a folder of it otherwise is an error."""
        if hasattr(self.llm.lm, "peft_config"):
            from peft import get_peft_model_state_dict, set_peft_model_state_dict

            file = folder / "adapter_model.safetensors"
            adapter = _read(file)
            expected = get_peft_model_state_dict(self.llm.lm, save_embedding_layers=False)
            _compare(file, adapter, expected)
            set_peft_model_state_dict(self.llm.lm, adapter)
        elif folder.exists():
            raise AvalignError(f"{folder}: made by another recipe: this one's llm has no adapter")


def read_weights(model: nn.Module, file: Path, expected: dict[str, Tensor]) -> None:
    found = _read(file)
    _compare(file, found, expected)
    model.load_state_dict(found, strict=False)  # compared above, name by name; stock weights are not in it


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 (no iterator)
    except FileNotFoundError:
        raise AvalignError(f"{file}: there is no such file; the run may not have finished a stage") from None
    except SafetensorError as error:
        raise AvalignError(f"{file}: not a whole safetensors file ({error})") from error


def _compare(file: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    wrong = [f"missing {name}" for name in expected if name not in found]
    wrong += [f"unknown {name}" for name in found if name not in expected]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, the recipe makes it {tuple(weight.shape)}"
        for name, weight in expected.items()
        if name in found and found[name].shape != weight.shape
    ]
    if wrong:
        shown = "; ".join(wrong[:4]) + ("; ..." if len(wrong) > 4 else "")
        raise AvalignError(f"{file}: made by another recipe: {len(wrong)} weights do not fit: {shown}")


def _hide(tokens: Tokens, present: Tensor) -> Tokens:
    """Mask all tokens of samples whose picture or sound is absent."""
    return replace(tokens, mask=tokens.mask & present[:, None])
