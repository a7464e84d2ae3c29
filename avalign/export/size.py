"""What a recipe's model weighs, in memory, before a byte of it is fetched: `avalign check RECIPE --size`.

The model is built in its shapes alone and run on tensors that have shapes alone; what autograd would keep is
counted tensor by tensor. Left out: what AVOpT and AVACE keep (some megabytes), workspaces of kernels, the
gaps that an allocator leaves, and what CUDA takes for itself.
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from avalign import registry
from avalign.config.recipe import Component, Recipe
from avalign.model.build import build_model, trained_parts
from avalign.model.model import PARTS, AudioVisualLM
from avalign.types import Batch, Tokens

PROMPT, RESPONSE = 64, 32  # text tokens of a sample, beside those of image and audio
GIB = 2**30
CARDS = (24, 48, 80, 141)  # GiB
BATCHES = (1, 8, 32)
# bytes a weight takes: int8; NF4 with a scale for 64 weights, itself of 8 bits (arXiv:2305.14314)
QUANTISED = {"LLM in 8 bits": 1.0, "LLM in 4 bits": 0.5 + 1 / 64 + 4 / (64 * 256)}


@dataclass(frozen=True)
class Part:
    name: str
    component: str
    parameters: int
    learning: int
    tokens: int | None  # that it gives, a sample
    width: int


@dataclass(frozen=True)
class Memory:
    """One precision. Bytes; those of a sample are added for each sample of a batch."""

    precision: str
    weights: float
    learning: float  # gradients, AdamW's two moments, and copies of weights in another precision
    sample: float  # saved for the backward pass
    checkpointed: float  # the same with gradient checkpointing of the language model
    cache: float  # of a sample that is answered: keys and values of prompt and answer, the last logits

    def training(self, batch: int, checkpointing: bool) -> float:
        return self.weights + self.learning + batch * (self.checkpointed if checkpointing else self.sample)

    def inference(self, batch: int) -> float:
        return self.weights + batch * self.cache

    def largest(self, room: float, checkpointing: bool) -> int:
        """Samples that can be trained on at once in `room` bytes; 0: not even one."""
        left = room - self.weights - self.learning
        return max(0, int(left // (self.checkpointed if checkpointing else self.sample)))


@dataclass(frozen=True)
class Size:
    parts: tuple[Part, ...]
    prompt: int  # tokens of a sample that the language model reads: image, audio and text
    memory: tuple[Memory, ...]


def size(recipe: Recipe) -> Size:
    """Parameters, tokens and memory of a recipe's model, at the stage that trains most of it."""
    model = sketch(recipe)
    most = max(recipe.train.stages, key=lambda stage: len(stage.train or PARTS))
    model.learn(most.train or trained_parts(recipe))
    model.train()
    low = recipe.train.precision == "bf16"
    stated, shown = _memory(model, "as the recipe", low)
    parts = tuple(_part(recipe, model, name, shown.tokens.get(name)) for name in PARTS)
    fewer = [_quantised(model, stated, name) for name in QUANTISED]
    for weight in model.parameters():
        weight.data = weight.data.float()
    full, _ = _memory(model, "float32", False)
    return Size(parts, shown.length, (stated, *(f for f in fewer if f), full))


def sketch(recipe: Recipe) -> AudioVisualLM:
    """The recipe's model in its shapes alone: nothing is fetched, and nothing is held."""
    parts: dict[str, Any] = {
        name: _unfetched(name, getattr(recipe.model, name))
        for name in ("image_encoder", "audio_encoder", "llm")
    }
    with torch.device("meta"):
        model = build_model(replace(recipe, model=replace(recipe.model, **parts)), _every_word())
    _faked(model)

    def text(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tokens:
        shape = (len(input_ids), PROMPT)
        return Tokens(torch.zeros(*shape, model.llm.width), torch.ones(shape, dtype=torch.bool))

    # how much text there is would have to be read off a tensor
    model.llm.instruction = text  # type: ignore[method-assign]
    return model


def _unfetched(kind: str, component: Component) -> Component:
    """The component with random weights in the released shapes, if it would fetch its own."""
    if "pretrained" not in registry.options(registry.load(kind, component.name)):
        return component
    return replace(component, options={**component.options, "pretrained": False})


def _every_word() -> list[str]:
    """Text of so many words that a tokenizer built from it has as many tokens as it may."""
    letters = np.random.default_rng(0).integers(26, size=(4000, 6))
    return [" ".join("".join(string.ascii_lowercase[k] for k in word) for word in letters)]


def _faked(model: AudioVisualLM) -> None:
    """Every weight as a tensor on a CPU, so it says, that holds nothing (autocast does not know "meta")."""
    mode = FakeTensorMode()
    made: dict[int, Tensor] = {}  # tied weights stay tied

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            shape: Tensor = FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))
            learns = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if learns else shape
        return made[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = fake(tensor)  # type: ignore[assignment]
        for name, value in vars(module).items():  # what is no buffer, so that it stays on the CPU
            if isinstance(value, Tensor):
                setattr(module, name, fake(value))


@dataclass(frozen=True)
class _Shown:
    """What a forward pass showed. Bytes saved for the backward pass: `inside` the language model, and not."""

    tokens: dict[str, int]
    length: int
    inside: int
    outside: int


def _run(model: AudioVisualLM, batch: int, low: bool) -> _Shown:
    weights = [*model.parameters(), *model.buffers()]
    own = {weight.untyped_storage()._cdata for weight in weights}
    with weights[0].fake_mode, torch.autocast("cpu", torch.bfloat16, enabled=low):  # type: ignore[union-attr]
        image_shape = model.image_encoder.preprocessing(np.zeros((8, 8, 3), np.uint8)).shape
        audio_shape = model.audio_encoder.preprocessing(np.zeros(800, np.float32), 8_000).shape
        inputs = _blank(batch, (*(() if model.frames == 1 else (model.frames,)), *image_shape), audio_shape)
        with _saved(own) as outside:
            image, audio, fused = model.encode(inputs)
            image_tokens, audio_tokens = model.connect(fused, inputs)
            words = model.llm.lm.get_input_embeddings()(inputs.input_ids)
            read = torch.cat(
                [image_tokens.values.to(words.dtype), audio_tokens.values.to(words.dtype), words], 1
            )
        with _saved(own | set(outside)) as inside:
            position_ids = torch.arange(read.shape[1]).expand(batch, -1)
            mask = torch.ones(read.shape[:2], dtype=torch.long)
            model.llm.lm(inputs_embeds=read, attention_mask=mask, position_ids=position_ids, use_cache=False)
    token_counts = {
        "image_encoder": model.image_encoder.token_count * model.frames,
        "audio_encoder": model.audio_encoder.token_count,
        "image_projector": image.values.shape[1],
        "audio_projector": audio.values.shape[1],
        "fusion": fused.image.values.shape[1] + fused.audio.values.shape[1],
        "image_connector": image_tokens.values.shape[1],
        "audio_connector": audio_tokens.values.shape[1],
    }
    return _Shown(token_counts, read.shape[1], _held(inside), _held(outside))


def _blank(batch: int, image_shape: tuple[int, ...], audio_shape: tuple[int, ...]) -> Batch:
    """A batch of samples with images and audio clips of these shapes, and text as long as is assumed."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(batch, *shape, dtype=dtype)

    frames, text = image_shape[:-3], PROMPT + RESPONSE
    return Batch(
        image=zeros(*image_shape),
        audio=zeros(*audio_shape),
        has_image=zeros(dtype=torch.bool),
        has_audio=zeros(dtype=torch.bool),
        seconds=zeros(),
        input_ids=zeros(text, dtype=torch.long),
        attention_mask=zeros(text, dtype=torch.long),
        labels=zeros(text, dtype=torch.long),
        boxes=zeros(1, 4),
        box_mask=zeros(1, dtype=torch.bool),
        intervals=zeros(1, 2),
        interval_mask=zeros(1, dtype=torch.bool),
        classes=zeros(dtype=torch.long),
        frame_mask=zeros(*frames, dtype=torch.bool) if frames else None,
        frame_seconds=zeros(*frames) if frames else None,
    )


@contextlib.contextmanager
def _saved(known: set[int]) -> Iterator[dict[int, Tensor]]:
    """What autograd keeps meanwhile, by storage: each once, those that are `known` not at all.

    Hold on to it: the number of a storage that is freed may be given to another.
    """
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in known:
            found[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _held(saved: dict[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


# ---- what it comes to -----------------------------------------------------------------------------


def _part(recipe: Recipe, model: AudioVisualLM, name: str, tokens: int | None) -> Part:
    module = getattr(model, name)
    weights = list(module.parameters())
    if name in ("image_projector", "audio_projector", "fusion"):
        width = recipe.model.width
    else:
        width = model.llm.width if name.endswith("_connector") else module.width
    return Part(
        name,
        getattr(recipe.model, name).name,
        sum(weight.numel() for weight in weights),
        sum(weight.numel() for weight in weights if weight.requires_grad),
        tokens,
        width,
    )


def _memory(model: AudioVisualLM, precision: str, low: bool) -> tuple[Memory, _Shown]:
    """What each sample of a batch keeps, and what is kept whatever the batch; and what one sample showed."""
    one, two = (_run(model, batch, low) for batch in (1, 2))
    copies = 2 * (one.inside + one.outside) - (two.inside + two.outside)  # kept whatever the batch
    inside, outside = two.inside - one.inside, two.outside - one.outside
    config = model.llm.lm.config
    element = 2 if low else 4
    # The loss holds the logits and their gradient, and those of the response in float32 twice.
    logits = config.vocab_size * (2 * element * one.length + 2 * 4 * RESPONSE)
    # What each layer begins with is kept, and one layer at a time is computed again.
    layers = config.num_hidden_layers
    again = layers * one.length * config.hidden_size * element + inside / layers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    answered = one.length - RESPONSE + model.max_new_tokens
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    memory = Memory(
        precision,
        weights=_bytes(list(model.parameters())),
        learning=3 * _bytes(learning) + copies,
        sample=outside + inside + logits,
        checkpointed=outside + again + logits,
        cache=2 * layers * heads * size * answered * element + config.vocab_size * 4,
    )
    return memory, one


def _quantised(model: AudioVisualLM, stated: Memory, precision: str) -> Memory | None:
    """As `stated`, the linear maps of the language model's layers in fewer bits, as bitsandbytes has them.

    None where all of them learn: what learns cannot be quantised.
    """
    lm = model.llm.lm
    output = lm.get_output_embeddings()
    maps = [m.weight for m in lm.modules() if isinstance(m, nn.Linear) and m is not output]
    frozen = [weight for weight in maps if not weight.requires_grad]
    if not frozen:
        return None
    saved = _bytes(frozen) - QUANTISED[precision] * sum(weight.numel() for weight in frozen)
    return replace(stated, precision=precision, weights=stated.weights - saved)


def _bytes(weights: Sequence[Tensor]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


# ---- as tables ------------------------------------------------------------------------------------

Rows = list[tuple[str, ...]]


def tables(recipe: Recipe, found: Size) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Title, header and rows of what `size` found, for people."""
    checkpointing = recipe.train.gradient_checkpointing
    held = f"with{'' if checkpointing else 'out'} gradient checkpointing"
    total = sum(part.parameters for part in found.parts)
    learning = sum(part.learning for part in found.parts)
    parts: Rows = [
        (p.name, p.component, f"{p.parameters:,}", f"{p.learning:,}", str(p.tokens or ""), str(p.width))
        for p in found.parts
    ]
    parts.append(("all", "", f"{total:,}", f"{learning:,}", str(found.prompt), ""))
    text = f"{PROMPT} tokens of question and {RESPONSE} of answer"
    training: Rows = [
        (
            memory.precision,
            _gib(memory.weights),
            _gib(memory.learning),
            _gib(memory.sample),
            _gib(memory.checkpointed),
            *(_gib(memory.training(batch, checkpointing)) for batch in BATCHES),
            *(str(memory.largest(room * GIB, checkpointing)) for room in CARDS),
        )
        for memory in found.memory
    ]
    answering: Rows = [
        (m.precision, _gib(m.weights), _gib(m.cache), *(_gib(m.inference(batch)) for batch in BATCHES))
        for m in found.memory
    ]
    batches = tuple(f"batch {batch}" for batch in BATCHES)
    return [
        (f"Parameters, and tokens of a sample that has {text}", _PARTS, parts),
        (
            f"Training, GiB ({held}), and the largest batch on a card",
            (*_TRAINING, *batches, *(f"{room} GiB" for room in CARDS)),
            training,
        ),
        (
            f"Answering, GiB, {recipe.evaluation.max_new_tokens} new tokens",
            ("precision", "weights", "a sample", *batches),
            answering,
        ),
    ]


_PARTS = ("part", "component", "parameters", "that learn", "tokens", "width")
_TRAINING = ("precision", "weights", "gradients, AdamW", "a sample", "checkpointed")


def _gib(number: float) -> str:
    return f"{number / GIB:.3g}"
