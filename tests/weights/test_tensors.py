"""Weights that were damaged are named by file and tensor, whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avalign.errors import AvalignError
from avalign.llm import HuggingFaceLlm, SmallLlama
from avalign.losses.objective import Objective
from avalign.model.model import ADAPTER, WEIGHTS, AudioVisualLM
from avalign.training.checkpoint import LOSSES, load, save
from avalign.weights.tensors import is_finite, read_tensors, refuse_not_finite
from tests.helpers import tiny
from tests.helpers.contract.components import tiny_llama

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_seen_in_every_dtype(dtype: torch.dtype) -> None:
    sound = torch.linspace(-3, 3, 1000).to(dtype)
    assert is_finite(sound)
    assert is_finite(sound[:0])
    for wrong in (torch.nan, torch.inf, -torch.inf):
        for place in (0, 499, 999):
            spoilt = sound.float()
            spoilt[place] = wrong
            assert not is_finite(spoilt.to(dtype))
    largest = torch.tensor(torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(largest.expand(9)), "large is not infinite, though the sum is"


def test_numbers_that_are_whole_are_finite_and_ten_broken_tensors_are_counted() -> None:
    assert is_finite(torch.arange(5))
    assert is_finite(torch.tensor([True]))
    broken = {f"layer.{k}": torch.tensor([torch.nan]) for k in range(10)}
    with pytest.raises(AvalignError, match=r"^w: 10 tensors hold nan .*: layer\.0, .*layer\.4, \.\.\.\.$"):
        refuse_not_finite("w", broken | {"sound": torch.ones(1)})


@pytest.mark.parametrize("content", [b"", b"no", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      ", None])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    if content is not None and content.endswith(b"{}      "):
        assert read_tensors(file) == {}
        return
    said = "there is no such file" if content is None else "not a complete safetensors file"
    with pytest.raises(AvalignError, match=rf"^{file}: .*{said}"):
        read_tensors(file)


# -- everything that a run keeps -----------------------------------------------------------------------------


class Temperature(torch.nn.Module):
    """A loss that learns a number."""

    wants = ()

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """What a checkpoint holds of a model with LoRA and a loss that learns, and how it is read."""
    model = tiny.model(0, HuggingFaceLlm(tiny.TEXTS, model=tiny_llama(tmp_path), rank=2))
    objective = Objective({"contrast": (Temperature(), 1.0)})
    trained = {"llm", "image_encoder"}
    save(tmp_path / "run", model, objective, trained)
    return tmp_path / "run", lambda: load(tmp_path / "run", model, objective, trained)


FILES = [WEIGHTS, f"{ADAPTER}/adapter_model.safetensors", LOSSES]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["nan", "inf", "dtype", "integers", "shape", "cut", "gone", "text"])
def test_a_damaged_file_of_a_run_is_named_with_its_tensor(saved: tuple, name: str, how: str) -> None:
    folder, load = saved
    load()
    file = folder / name
    tensors = load_file(file)
    label = sorted(tensors)[0]
    if how in ("nan", "inf"):
        tensors[label].view(-1)[-1] = float(how)
        said = f"1 tensor holds nan or infinity: {label}"
    elif how in ("dtype", "integers"):
        tensors[label] = tensors[label].to(torch.float16 if how == "dtype" else torch.int32)
        kind = "float16" if how == "dtype" else "int32"
        said = f"{label} is {kind}, the recipe makes it float32"
    elif how == "shape":
        tensors[label] = torch.zeros(3, 1, 2)
        said = f"{label} is (3, 1, 2), the recipe makes it"
    else:
        said = {"cut": "not a complete safetensors", "gone": "no such file", "text": "not a complete safe"}[
            how
        ]
    save_file(tensors, file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "text":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    elif how == "gone":
        file.unlink()
    with pytest.raises(AvalignError) as refused:
        load()
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shards", [False, True])
def test_a_released_model_that_holds_nan_is_named_with_its_file(tmp_path: Path, shards: bool) -> None:
    folder = Path(tiny_llama(tmp_path))
    llm = HuggingFaceLlm(tiny.TEXTS, model=str(folder), tuning="frozen")
    weight = llm.lm.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[3, 4] = torch.nan
    if shards:
        (folder / "model.safetensors").unlink()
    llm.lm.save_pretrained(folder, **({"max_shard_size": "8KB"} if shards else {}))
    with pytest.raises(AvalignError) as refused:
        HuggingFaceLlm(tiny.TEXTS, model=str(folder))
    where, _, said = str(refused.value).partition(": ")
    assert "model.layers.0.mlp.up_proj.weight" in load_file(where)
    assert said == "1 tensor holds nan or infinity: model.layers.0.mlp.up_proj.weight."


def test_a_model_that_was_saved_is_read_as_it_was(tmp_path: Path) -> None:
    model: AudioVisualLM = tiny.model(3)
    model.save(tmp_path)
    other = tiny.model(4)
    other.load(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


CONFIGS: dict[str, object] = {
    "hidden_size": "abc",
    "num_attention_heads": 0,
    "num_hidden_layers": -1,
    "vocab_size": None,
    "model_type": "no_such",
    "rope_parameters": [1],
}


@pytest.mark.parametrize("field", CONFIGS)
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_configuration_that_cannot_be_is_refused_in_a_line(
    tmp_path: Path, field: str, pretrained: bool
) -> None:
    folder = Path(tiny_llama(tmp_path))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: CONFIGS[field]}))
    with pytest.raises(AvalignError, match=r"^model\.llm\.") as refused:
        HuggingFaceLlm(tiny.TEXTS, model=str(folder), pretrained=pretrained)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not JSON"),
        ("{}", "is not of a tokenizer: it holds no `model`"),
        ('{"model": {"type": "BPE"}}', "could not be loaded as a tokenizer"),
        (None, "no such file|neither a folder with tokenizer.json nor"),
    ],
)
def test_a_tokenizer_that_is_none_is_named(tmp_path: Path, content: str | None, why: str) -> None:
    folder = Path(tiny_llama(tmp_path))
    file = folder / "tokenizer.json"
    file.unlink() if content is None else file.write_text(content)
    for made in (
        lambda: SmallLlama(folder, hidden=16, layers=1, heads=2),
        lambda: HuggingFaceLlm(tiny.TEXTS, model=str(folder), tuning="frozen"),
    ):
        with pytest.raises(AvalignError, match=why) as refused:
            made()
        assert str(folder) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_sizes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden 7 is not 2 heads of an even width each"):
        SmallLlama(tiny.TEXTS, hidden=7, heads=2)
