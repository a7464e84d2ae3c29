"""Language models as they are released."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from avalign.errors import AvalignError
from avalign.llm import HuggingFaceLlm, digit_tokenizer
from tests.helpers import tiny
from tests.helpers.llms import (  # noqa: F401 (fixtures)
    _offline,
    llm,
    tokenizer,
)
from tests.helpers.strategies import generator

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


# -- released models -----------------------------------------------------------------------------------------

WRITTEN = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def released(tokenizer: Any, tmp_path: Path) -> Path:
    """A folder as Hugging Face writes one, its weights far from any initial value."""
    folder = tmp_path / "tiny-llama"
    config = LlamaConfig(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **WRITTEN
    )
    lm = LlamaForCausalLM(config)
    tiny.spread(lm, 3)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path | str, **options: Any) -> HuggingFaceLlm:
    return HuggingFaceLlm([], model=str(folder), **options)


def rewrite(folder: Path) -> Iterator[dict[str, Tensor]]:
    weights = load_file(folder / "model.safetensors")
    yield weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_weights_are_those_of_the_folder_and_learn_as_told(released: Path, tuning: str) -> None:
    """Fault 3 of the released code: pretrained weights were asked for, and random ones used."""
    llm = load(released, tuning=tuning, rank=2)
    stored = load_file(released / "model.safetensors")
    used = {
        name.removeprefix("base_model.model.").replace("base_layer.", ""): weight
        for name, weight in llm.lm.state_dict().items()
    }
    assert set(stored) <= set(used)
    assert all(torch.equal(weight, used[name]) for name, weight in stored.items())
    learning = {name for name, weight in llm.lm.named_parameters() if weight.requires_grad}
    adapters = {
        f"base_model.model.model.layers.0.self_attn.{target}.lora_{side}.default.weight"
        for target in ("q_proj", "k_proj", "v_proj", "o_proj")
        for side in "AB"
    }
    every = {name for name, _ in llm.lm.named_parameters()}
    assert learning == {"frozen": set(), "lora": adapters, "full": every}[tuning]
    assert llm.pretrained == (tuning != "full")
    assert llm.width == 16


def test_lora_options_arrive(released: Path) -> None:
    llm = load(released, tuning="lora", rank=3, alpha=12, dropout=0.25, targets=["up_proj"])
    (weight,) = [w for name, w in llm.lm.named_parameters() if "lora_A" in name]
    assert weight.shape == (3, 16)
    settings = llm.lm.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (3, 12, 0.25)


def test_a_released_model_reads_text_with_its_own_tokenizer(released: Path, tokenizer: Any) -> None:
    llm = load(released, tuning="frozen")
    for text in ("[dog, 0.12, 0.34] ", "  two  spaces,\n ünï 犬"):
        assert llm.tokenizer.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert llm.tokenizer.decode(llm.chat.response_ids(text)[:-1]) == text


def test_a_saved_tokenizer_goes_before_that_of_the_model(released: Path, tmp_path: Path) -> None:
    other = digit_tokenizer(["kennel kennel"])
    other.save_pretrained(tmp_path / "own")
    llm = HuggingFaceLlm(tmp_path / "own", model=str(released), tuning="frozen")
    assert llm.tokenizer.encode("kennel") == other.encode("kennel")


def test_missing_weights_are_refused_by_name(released: Path) -> None:
    for weights in rewrite(released):
        del weights["model.layers.0.self_attn.k_proj.weight"]
    with pytest.raises(AvalignError, match=r"lacks 1 weights .*model\.layers\.0\.self_attn\.k_proj\.weight"):
        load(released)


def test_weights_of_another_size_are_refused_by_name(released: Path) -> None:
    for weights in rewrite(released):
        weights["model.norm.weight"] = torch.ones(7)
    said = r"model\.llm\.model: .*tiny-llama.*model\.norm\.weight, which is \(7,\) and not \(16,\)"
    with pytest.raises(AvalignError, match=said):
        load(released)


def test_a_file_cut_short_is_refused(released: Path) -> None:
    file = released / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AvalignError, match=r"model\.llm\.model: .*tiny-llama.*could not be loaded"):
        load(released)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no/such/folder"])
def test_a_model_that_is_nowhere_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(AvalignError) as caught:
        load(name)
    assert str(caught.value).startswith(f"model.llm.model: {name!r} could not be loaded")
    assert f"hf download {name}" in str(caught.value)


def test_a_folder_that_is_no_language_model_is_refused(released: Path) -> None:
    (released / "config.json").write_text(json.dumps({"model_type": "clap"}))
    with pytest.raises(AvalignError, match="could not be loaded as a causal language model"):
        load(released)


def test_targets_that_the_model_has_not_are_refused(released: Path) -> None:
    with pytest.raises(AvalignError, match=r"^model\.llm\.targets: .*no_such_proj"):
        load(released, targets=["no_such_proj"])


def test_an_adapter_is_saved_as_peft_does_and_read_back_to_the_bit(released: Path, tmp_path: Path) -> None:
    def whole(seed: int) -> Any:
        torch.manual_seed(seed)
        return tiny.model(seed, load(released, rank=2))

    trained, fresh = whole(0), whole(1)
    tiny.spread(trained.image_connector, 5)
    for name, weight in trained.llm.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, generator=generator(len(name)))
    trained.save(tmp_path / "saved")
    adapter = load_file(tmp_path / "saved" / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 8
    assert not [name for name in load_file(tmp_path / "saved" / "weights.safetensors") if "llm" in name]
    samples = [tiny.sample(k) for k in range(2)]
    batch = trained.collator()(samples)
    with torch.no_grad():
        before = trained(batch).logits
        assert not torch.equal(fresh(batch).logits, before)
        fresh.load(tmp_path / "saved")
        assert torch.equal(fresh(batch).logits, before)
    for name, weight in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], weight), name

    from peft import PeftModel

    plain = LlamaForCausalLM.from_pretrained(released)
    read = PeftModel.from_pretrained(plain, tmp_path / "saved" / "adapter").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(read(input_ids=ids).logits, trained.llm.lm(input_ids=ids).logits)


def test_an_adapter_of_another_rank_is_refused_by_name(released: Path, tmp_path: Path) -> None:
    tiny.model(0, load(released, rank=2)).save(tmp_path / "saved")
    with pytest.raises(
        AvalignError, match=r"adapter_model\.safetensors: .*lora_A.* is \(2, 16\).* \(4, 16\)"
    ):
        tiny.model(0, load(released, rank=4)).load(tmp_path / "saved")
    with pytest.raises(AvalignError, match="adapter"):
        tiny.model(0, load(released, tuning="frozen")).load(tmp_path / "saved")
    (tmp_path / "saved" / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(AvalignError, match=r"adapter_model\.safetensors: there is no such file"):
        tiny.model(0, load(released, rank=2)).load(tmp_path / "saved")


def test_a_fully_tuned_model_keeps_its_own_weights(released: Path, tmp_path: Path) -> None:
    trained = tiny.model(0, load(released, tuning="full"))
    tiny.spread(trained.llm, 9)
    trained.save(tmp_path / "saved")
    fresh = tiny.model(1, load(released, tuning="full"))
    fresh.load(tmp_path / "saved")
    for name, weight in trained.llm.state_dict().items():
        assert torch.equal(fresh.llm.state_dict()[name], weight), name


def test_half_precision_weights_take_full_precision_tokens(released: Path) -> None:
    answers = tiny.model(0, load(released, tuning="frozen", dtype="bfloat16")).answer([tiny.sample()])
    assert len(answers) == 1
    whole = tiny.model(0, load(released, tuning="frozen", dtype="bfloat16"))
    assert whole(whole.collator()([tiny.sample()])).logits.dtype == torch.bfloat16
    assert np.isfinite(whole(whole.collator()([tiny.sample()])).logits.float().detach().numpy()).all()
