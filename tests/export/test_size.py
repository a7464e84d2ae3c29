"""What a model weighs: against published counts, and against what autograd really keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.export.size import GIB, PROMPT, QUANTISED, RESPONSE, size
from avalign.llm import AUDIO, IMAGE
from avalign.model.build import build_model, build_source
from avalign.model.model import AudioVisualLM
from avalign.types import Batch
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def published() -> Any:
    return size(read(ROOT / "recipes" / "meerkat-7b.yaml"))


def test_published_meerkat_has_the_published_sizes(published: Any) -> None:
    """CLIP ViT-B/16's trunk, HTS-AT, Llama-2-7B and LoRA of rank 32 on q, k, v, o."""
    parts = {part.name: part for part in published.parts}
    llama, lora = 6_738_415_616, 32 * 4 * 32 * 2 * 4096
    assert (parts["llm"].parameters, parts["llm"].learning) == (llama + lora, lora)
    patches, layer = 768 * 3 * 256 + 768 * 197 + 768, 12 * 768**2 + 13 * 768
    norms = 2 * 768 + 2 * 768
    assert parts["image_encoder"].parameters == patches + 12 * layer + norms
    assert (parts["image_encoder"].tokens, parts["image_encoder"].width) == (196, 768)
    assert (parts["audio_encoder"].tokens, parts["audio_encoder"].width) == (64, 768)
    assert (parts["image_connector"].tokens, parts["image_connector"].width) == (196, 4096)
    assert parts["image_encoder"].learning == parts["audio_encoder"].learning == 0
    assert published.prompt == 196 + 64 + PROMPT + RESPONSE


def test_fewer_bits_weigh_what_bitsandbytes_says(published: Any) -> None:
    """Llama's layers in 8 bits and in NF4; its embeddings and its output stay as they are."""
    held = {memory.precision: memory for memory in published.memory}
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    stated = held["as the recipe"].weights
    assert stated - held["LLM in 8 bits"].weights == layers
    assert stated - held["LLM in 4 bits"].weights == pytest.approx(layers * (2 - QUANTISED["LLM in 4 bits"]))
    assert QUANTISED["LLM in 4 bits"] == pytest.approx(4.127 / 8, abs=1e-3), "bits a weight, as QLoRA states"
    assert held["float32"].weights > 2 * 6.7e9 * 4 / 2
    learning = sum(part.learning for part in published.parts)
    assert held["float32"].learning == pytest.approx(3 * 4 * learning, rel=1e-4), "gradients and two moments"
    copies = held["as the recipe"].learning - 3 * 4 * learning
    assert copies == pytest.approx(2 * learning, rel=0.03), "what learns, rounded to bfloat16"
    assert held["as the recipe"].checkpointed < held["as the recipe"].sample / 5


def test_a_batch_fits_as_long_as_it_is_below_the_room(published: Any) -> None:
    for memory in published.memory:
        for checkpointing in (True, False):
            batch = memory.largest(80 * GIB, checkpointing)
            assert (
                memory.training(batch, checkpointing) <= 80 * GIB < memory.training(batch + 1, checkpointing)
            )
    assert published.memory[0].largest(GIB, True) == 0


def tiny(tmp_path: Path, *settings: str) -> Recipe:
    world = "data.source={name: avworld, train: 40, val: 20, test: 20}"
    return read(ROOT / "recipes" / "meerkat.yaml", [world, f"data.root={tmp_path}", *settings])


def rows_of(batch: Batch, count: int) -> Batch:
    values = {name: tensor for name, tensor in vars(batch).items() if tensor is not None}
    return Batch(**{name: tensor[:count].clone() for name, tensor in values.items()})


def kept_by(model: AudioVisualLM, batch: Batch, low: bool) -> tuple[int, Tensor]:
    """Bytes that autograd really keeps of a forward pass, beside the model's own; and the logits."""
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=low),
    ):
        logits = model(batch).logits
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), logits


@pytest.mark.parametrize(
    "settings",
    [
        ["train.precision=fp32"],
        ["train.precision=bf16"],
        ["train.precision=fp32", "model.image_connector=mlp", "model.fusion=none", "losses.avace.weight=0"],
        [
            "train.precision=fp32",
            "model.frames=3",
            "model.image_connector={name: qformer, hidden: 48, heads: 2}",
        ],
        ["train.precision=fp32", "model.image_connector={name: conv_attention, stride: 4}"],
    ],
)
def test_what_is_counted_is_what_autograd_keeps(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real forward pass on real samples, of as much text as is assumed; the logits are on top."""
    recipe = tiny(tmp_path, *settings)
    source = build_source(recipe)
    model = build_model(recipe, source.corpus())
    model.train()
    given = model.collator()([source.sample("train", "avqa", k) for k in range(4)])
    low = recipe.train.precision == "bf16"
    two, logits = kept_by(model, rows_of(given, 2), low)
    four, _ = kept_by(model, given, low)
    real = (four - two) / 2

    length = logits.shape[1]
    media = sum((given.input_ids[0] == place).sum().item() for place in (IMAGE, AUDIO))
    monkeypatch.setattr("avalign.export.size.PROMPT", length - media - 1)
    monkeypatch.setattr("avalign.export.size.RESPONSE", 1)
    found = size(recipe)
    assert found.prompt == length
    loss = 1024 * (2 * logits.element_size() * length + 2 * 4)
    assert found.memory[0].sample - loss == pytest.approx(real, rel=0.02)
    copies = found.memory[0].learning - 3 * 4 * sum(part.learning for part in found.parts)
    assert copies == pytest.approx(2 * two - four, rel=0.1, abs=50_000)


def test_the_command_prints_it(tmp_path: Path) -> None:
    recipe = str(ROOT / "recipes" / "meerkat.yaml")
    result = CliRunner().invoke(app, ["check", recipe, "--size"])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "image_encoder small 267,792 267,792 64 128" in words
    assert "LLM in 4 bits" not in words, "what learns cannot be quantised"
    assert "batch 32" in words


def test_shapes_that_nobody_knows_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = read(ROOT / "recipes" / "meerkat-7b.yaml", ["model.llm.model=nobody/nothing"])
    with pytest.raises(AvalignError, match="the shapes of 'nobody/nothing' are not known"):
        size(recipe)
