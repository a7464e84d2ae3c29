"""What a Hugging Face model is told: its template, its shapes alone, what learns in it, how it is stored."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from avalign.errors import AvalignError
from avalign.llm import HuggingFaceLlm
from avalign.llm.shapes import SHAPES
from tests.helpers import tiny
from tests.helpers.families import FAMILIES, QUESTION, SIZES, make_tokenizer, write
from tests.helpers.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty_cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("llama-2", "llama-3", "gemma-2", "phi-3")
    return {name: write(FAMILIES[name], tmp_path_factory.mktemp(name)) for name in names}


def load(folder: Path | str, **options: Any) -> HuggingFaceLlm:
    return HuggingFaceLlm([], model=str(folder), **{"tuning": "frozen", **options})


def said(folder: Path | str, **options: Any) -> str:
    with pytest.raises(AvalignError) as caught:
        load(folder, **options)
    return str(caught.value)


def logits(lm: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return found


# -- template and system prompt ------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template_needs_one(folders: dict[str, Path]) -> None:
    error = said(folders["llama-2"])
    assert error.startswith("model.llm.template: the tokenizer of ")
    assert "has no chat template" in error
    assert "plain, vicuna, llama-2, a Jinja file or Jinja" in error


def test_a_template_is_a_name_a_file_or_jinja(folders: dict[str, Path], tmp_path: Path) -> None:
    jinja = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    (tmp_path / "own.jinja").write_text(jinja)
    for given in (jinja, str(tmp_path / "own.jinja")):
        assert (
            load(folders["llama-3"], template=given).chat.render(QUESTION)
            == f"user: {QUESTION}<|end_of_text|>"
        )
    assert load(folders["llama-2"], template="plain").chat.render(QUESTION) == f"<s>{QUESTION}\n"
    error = said(folders["llama-2"], template="vicuna-7b")
    assert error.startswith("model.llm.template: 'vicuna-7b' is no known template, no file, and no Jinja")
    assert "Did you mean 'vicuna'?" in error


@pytest.mark.parametrize(
    ("template", "system", "expected"),
    [
        (
            None,
            "Be brief.",
            "model.llm.system: the chat template takes no system prompt (it says: System role",
        ),
        (
            "{{ messages[-1].content }}{{ eos_token }}",
            "Be brief.",
            "model.llm.system: the chat template leaves",
        ),
        ("{{ messages[0].content | upper }}", None, "makes 0 of 1 <image> in"),
        ("{{ messages[0].content + messages[0].content }}", None, "makes 2 of 1 <image> in"),
        ("{{ messages[0].contents.text }}", None, "model.llm.template: the chat template fails: "),
        ("{% for m in messages %}", None, "model.llm.template: the chat template fails: "),
    ],
)
def test_a_template_that_loses_something_is_refused(
    folders: dict[str, Path], template: str | None, system: str | None, expected: str
) -> None:
    with pytest.raises(AvalignError) as caught:
        load(folders["gemma-2"], template=template, system=system).chat.prompt_ids("<image>?", 1, 1)
    assert expected in str(caught.value)


def test_the_template_of_a_run_is_kept_beside_its_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    """So that the file it came from may be gone when the run is loaded."""
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages[0].content }} ->")
    trained = load(folders["llama-3"], template=str(file))
    trained.tokenizer.save_pretrained(tmp_path / "tokenizer")
    file.unlink()
    again = HuggingFaceLlm(
        tmp_path / "tokenizer", model=str(folders["llama-3"]), template=str(file), tuning="frozen"
    )
    assert again.chat.prompt_ids(QUESTION, 0, 0) == trained.chat.prompt_ids(QUESTION, 0, 0)
    assert again.chat.render(QUESTION) == f"{QUESTION} ->"


def test_what_a_model_brings_along_for_sampling_is_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    """Answers are the likeliest ones; of its generation settings the ends are taken."""
    family = FAMILIES["llama-3"]
    folder = write(family, tmp_path / "sampling")
    plain = tiny.model(0, load(folder)).answer([tiny.sample(0)])
    told = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 9.0, "eos_token_id": [7, 0]}
    (folder / "generation_config.json").write_text(json.dumps(told))
    llm = load(folder)
    assert tiny.model(0, llm).answer([tiny.sample(0)]) == plain
    assert llm.end_ids == [llm.end_id, llm.tokenizer.eos_token_id, 7, 0], "0 is one, too"


# -- weights and shapes --------------------------------------------------------------------------------------


def test_weights_without_a_place_are_refused_by_name(tmp_path: Path) -> None:
    """Qwen's biases in a Llama, say, would be dropped and nothing said."""
    folder = write(FAMILIES["llama-3"], tmp_path / "more")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    error = said(folder)
    assert "holds 1 weights that its architecture (LlamaForCausalLM) has no place for" in error
    assert "model.layers.0.self_attn.q_proj.bias" in error


def test_of_a_model_with_eyes_the_language_model_is_taken(tmp_path: Path) -> None:
    text = {**SIZES, "vocab_size": 300, "sliding_window": 8, "query_pre_attn_scalar": 8}
    text["layer_types"] = ["sliding_attention", "full_attention"]
    eyes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = Gemma3Config(
        text_config=text, vision_config={**eyes, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(config).eval()
    tiny.spread(whole, 0)
    whole.save_pretrained(tmp_path)
    tokenizer = make_tokenizer(FAMILIES["gemma-3"])
    tokenizer.chat_template = FAMILIES["gemma-3"].template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(AvalignError, match=r"ids up to \d+, .* embeds 300"):
        load(tmp_path)
    llm = load(tmp_path, tokenizer="digits", tuning="full").train()
    assert llm.width == 16
    assert not [name for name, _ in llm.named_parameters() if "vision" in name]
    assert_close(logits(llm.lm.eval()), logits(whole), torch.float32)


# Published counts, in the models' own cards and safetensors indices.
COUNTS = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-3-1b-it": 999_885_952,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/phi-4": 14_659_507_200,
}


def test_every_shape_that_is_shipped_has_its_published_count() -> None:
    """On the meta device, where nothing is allocated; without a hub, and without a tokenizer."""
    assert COUNTS.keys() == SHAPES.keys()
    for name, count in COUNTS.items():
        with torch.device("meta"):
            llm = load(name, pretrained=False)
        assert sum(weight.numel() for weight in llm.parameters()) == count, name
        assert {weight.device.type for weight in llm.parameters()} == {"meta"}
        assert llm.width == SHAPES[name]["hidden_size"]


@pytest.mark.parametrize(("dora", "trained"), [(False, 33_554_432), (True, 33_554_432 + 32 * 4 * 4096)])
def test_lora_on_llama_2_trains_as_many_weights_as_it_should(dora: bool, trained: int) -> None:
    with torch.device("meta"):
        llm = load("meta-llama/Llama-2-7b-chat-hf", pretrained=False, tuning="lora", rank=32, dora=dora)
    learning = sum(weight.numel() for weight in llm.parameters() if weight.requires_grad)
    assert learning == trained
    assert sum(weight.numel() for weight in llm.parameters()) == 6_738_415_616 + trained


def test_a_model_without_a_tokenizer_says_so_when_it_is_asked() -> None:
    with torch.device("meta"):
        llm = load("meta-llama/Llama-2-7b-chat-hf", pretrained=False, tuning="frozen")
    with pytest.raises(AvalignError) as caught:
        llm.chat.prompt_ids(QUESTION, 1, 1)
    assert str(caught.value).startswith(
        "model.llm.tokenizer: 'meta-llama/Llama-2-7b-chat-hf' could not be loaded"
    )
    assert "`tokenizer: digits` needs no download" in str(caught.value)


def test_a_model_of_given_shapes_learns_with_a_tokenizer_of_its_texts(tmp_path: Path) -> None:
    """And keeps its own random weights with the run: they can be had nowhere else."""
    config = {"model_type": "qwen3", "vocab_size": 400, **SIZES}

    def built(seed: int) -> HuggingFaceLlm:
        torch.manual_seed(seed)
        return HuggingFaceLlm(
            tiny.TEXTS, pretrained=False, config=config, tokenizer="digits", tuning="lora", rank=2
        ).eval()

    trained, fresh = tiny.model(0, built(0)), tiny.model(1, built(1))
    assert type(trained.llm.lm.base_model.model).__name__ == "Qwen3ForCausalLM"
    assert not trained.llm.pretrained
    trained.save(tmp_path)
    fresh.load(tmp_path)
    assert torch.equal(logits(fresh.llm.lm), logits(trained.llm.lm))
    sample = tiny.sample(0)
    assert fresh.answer([sample]) == trained.answer([sample])


def test_shapes_of_a_folder_are_taken_and_changed(folders: dict[str, Path]) -> None:
    llm = load(folders["gemma-2"], pretrained=False, config={"num_hidden_layers": 1, "hidden_size": 24})
    assert (llm.width, llm.lm.config.num_hidden_layers) == (24, 1)
    assert llm.lm.config.num_attention_heads == SIZES["num_attention_heads"]
    assert llm.chat.render(QUESTION) == FAMILIES["gemma-2"].asked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"config": {"hidden_size": 8}}, "model.llm.config changes a model's shapes"),
        ({"pretrained": False, "config": {"hiden_size": 8}}, "Did you mean 'hidden_size'?"),
        (
            {"pretrained": False, "config": {"model_type": "llamma"}},
            "model.llm.config: no language model can be",
        ),
        (
            {"pretrained": False, "config": {"model_type": "clap"}},
            "model.llm.config: no language model can be",
        ),
        (
            {"pretrained": False, "model": "meta-llama/Llama-2-7b-chat"},
            "Did you mean 'meta-llama/Llama-2-7b-chat-hf'?",
        ),
    ],
)
def test_shapes_that_are_not_known_are_refused(
    folders: dict[str, Path], options: dict[str, Any], expected: str
) -> None:
    error = said(
        **{"folder": folders["llama-3"], **{("folder" if k == "model" else k): v for k, v in options.items()}}
    )
    assert error.startswith("model.llm.")
    assert expected in error


# -- what learns ---------------------------------------------------------------------------------------------


def updated(llm: HuggingFaceLlm) -> set[str]:
    return {name.split(".")[-4] for name, _ in llm.lm.named_parameters() if "lora_A" in name}


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("llama-3", "attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("phi-3", "attention", {"qkv_proj", "o_proj"}),
        ("phi-3", "all-linear", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("llama-3", ["up_proj", "self_attn.q_proj"], {"up_proj", "q_proj"}),
    ],
)
def test_lora_updates_the_maps_that_are_named(
    folders: dict[str, Path], name: str, targets: Any, expected: set[str]
) -> None:
    options = FAMILIES[name].options
    assert updated(load(folders[name], tuning="lora", rank=2, targets=targets, **options)) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (
            ["q_proj", "o_proj"],
            "no linear map of this model is called 'q_proj'. Did you mean 'qkv_proj'? Known: ",
        ),
        (["input_layernorm"], "no linear map of this model is called 'input_layernorm'."),
        ([], "model.llm.targets: is empty"),
    ],
)
def test_a_target_that_is_not_there_is_refused_even_beside_one_that_is(
    folders: dict[str, Path], targets: list[str], expected: str
) -> None:
    """peft would update what it finds and say nothing of the rest."""
    assert expected in said(folders["phi-3"], tuning="lora", targets=targets)


def test_dora_begins_at_the_released_weights_and_comes_back_to_the_bit(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def built(**more: Any) -> HuggingFaceLlm:
        return load(folders["llama-3"], tuning="lora", rank=2, dora=True, **more).eval()

    llm = built()
    assert_close(logits(llm.lm), logits(load(folders["llama-3"]).lm.eval()), torch.float32)
    magnitudes = [name for name, w in llm.lm.named_parameters() if "magnitude" in name and w.requires_grad]
    assert len(magnitudes) == 8
    tiny.spread(llm, 3)
    trained = tiny.model(0, built())
    for name, weight in trained.llm.named_parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    trained.save(tmp_path)
    fresh = tiny.model(0, built())
    fresh.load(tmp_path)
    assert torch.equal(logits(fresh.llm.lm), logits(trained.llm.lm))
    with pytest.raises(AvalignError, match=r"unknown .*lora_magnitude_vector"):
        tiny.model(0, load(folders["llama-3"], tuning="lora", rank=2)).load(tmp_path)
    assert "needs `tuning: lora`, not full" in said(folders["llama-3"], dora=True, tuning="full")


# -- quantisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_weights_are_near_whole_ones_or_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: Any
) -> None:
    folder = tmp_path / "wide"
    if importlib.util.find_spec("bitsandbytes") is not None:
        from peft.utils.integrations import dequantize_module_weight

        write(FAMILIES["llama-3"], folder, hidden_size=64, intermediate_size=64, head_dim=32)
        llm = load(folder, quantisation=bits, tuning="lora", rank=2, dropout=0.0).eval()
        layer = llm.lm.base_model.model.model.layers[0].mlp.up_proj
        assert layer.weight.dtype == {"8bit": torch.int8, "4bit": torch.uint8}[bits]
        whole = load(folder).lm.model.layers[0].mlp.up_proj.weight
        error = (dequantize_module_weight(layer).float() - whole).norm() / whole.norm()
        assert 0 < error < {"8bit": 0.01, "4bit": 0.12}[bits]
        assert logits(llm.lm).isfinite().all()
        assert all("lora_" in name for name, w in llm.named_parameters() if w.requires_grad)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        error = said(folder, quantisation=bits)
    assert error.startswith(
        f"model.llm.quantisation: {bits} needs the package 'bitsandbytes', which is not installed"
    )
    assert error.endswith("pip install bitsandbytes")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tuning": "full"}, "weights cannot learn: `tuning: full` needs `quantisation: none`"),
        ({"pretrained": False}, "is of released weights"),
        ({"tuning": "lora", "dora": True}, "do not go with `dora`"),
    ],
)
def test_what_quantised_weights_cannot_do_is_refused(
    folders: dict[str, Path], options: dict[str, Any], expected: str
) -> None:
    assert expected in said(folders["llama-3"], quantisation="8bit", **options)
