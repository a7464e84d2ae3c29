"""LoRA on an output that is tied to the input embedding: what was trained is what is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import avalign
from avalign.config.portable import paths_of
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.export import hugging_face as exporting
from avalign.export.hugging_face import export
from avalign.llm import HuggingFaceLlm
from avalign.llm.lora import merged
from avalign.model.build import trained_parts
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers import tiny
from tests.helpers.exports import STEPS
from tests.helpers.families import FAMILIES, Family, write
from tests.helpers.paths import RECIPE
from tests.helpers.runs import SMALL

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
TIED: dict[str, Family] = {
    "llama": replace(FAMILIES["llama-3"], config={"tie_word_embeddings": True}),
    "qwen": replace(FAMILIES["qwen-3"], config={"tie_word_embeddings": True}),
    "gemma-2": FAMILIES["gemma-2"],
    "gpt2": replace(FAMILIES["llama-3"], model_type="gpt2", config={"n_embd": 16, "n_layer": 1, "n_head": 2}),
    "bloom": replace(FAMILIES["llama-3"], model_type="bloom"),
    "opt": replace(FAMILIES["llama-3"], model_type="opt", config={"ffn_dim": 16, "word_embed_proj_dim": 16}),
}
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(lm: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm.eval()(input_ids=IDS).logits
    return found


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def moved(lm: nn.Module) -> None:
    """What learns, far from where it began."""
    tiny.spread(nn.ParameterList([weight for weight in lm.parameters() if weight.requires_grad]), 7)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", TIED)
def test_what_is_merged_says_what_was_trained(name: str, dora: bool, tmp_path: Path) -> None:
    write(TIED[name], tmp_path)
    llm = HuggingFaceLlm(tiny.TEXTS, model=str(tmp_path), rank=2, targets=["lm_head"], dora=dora)
    base = llm.lm.get_base_model()
    assert base.get_output_embeddings().base_layer.weight is base.get_input_embeddings().weight
    before = logits(llm.lm)
    moved(llm.lm)
    trained = logits(llm.lm)
    assert apart(before, trained) > 0.1
    lm = merged(llm.lm)
    assert apart(trained, logits(lm)) < 1e-5
    assert not lm.config.tie_word_embeddings
    lm.save_pretrained(tmp_path / "out")
    assert apart(trained, logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))) < 1e-5


def test_what_is_tied_and_not_trained_stays_tied(tmp_path: Path) -> None:
    write(TIED["llama"], tmp_path)
    for targets in ("attention", "all-linear"):
        llm = HuggingFaceLlm(tiny.TEXTS, model=str(tmp_path), rank=2, targets=targets)  # type: ignore[arg-type]
        moved(llm.lm)
        trained = logits(llm.lm)
        lm = merged(llm.lm)
        assert lm.config.tie_word_embeddings
        assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
        assert apart(trained, logits(lm)) < 1e-5


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head", "embed_tokens"], ["wte"]])
def test_an_input_embedding_is_no_linear_map_and_is_refused(targets: list[str], tmp_path: Path) -> None:
    write(TIED["llama"], tmp_path)
    with pytest.raises(AvalignError, match=rf"no linear map of this model is called '{targets[-1]}'"):
        HuggingFaceLlm(tiny.TEXTS, model=str(tmp_path), rank=2, targets=targets)


# -- a run of it ---------------------------------------------------------------------------------------------

HEAD = "model: {model}, rank: 2, dropout: 0.0, targets: [lm_head]"
KINDS = {
    "released": f"{{name: huggingface, {HEAD}}}",
    "full": "{name: huggingface, model: {model}, tuning: full}",
    "random": f"{{name: huggingface, {HEAD}, pretrained: false, tokenizer: digits, "
    "config: {vocab_size: 1024}}",
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    world, made = tmp_path_factory.mktemp("world"), {}
    base = write(TIED["llama"], tmp_path_factory.mktemp("base"))

    def run(kind: str) -> Path:
        if kind not in made:
            llm = KINDS[kind].replace("{model}", str(base))
            settings = [*SMALL, f"data.root={world}", STEPS, f"model.llm={llm}", "name=zoo"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "score", lambda *_: {})
                made[kind] = train(read(RECIPE, settings), world / kind)
            model = avalign.load(made[kind]).cpu()
            moved(model)
            model.save(made[kind] / "model", trained_parts(read(made[kind] / "recipe.yaml")))
            again = avalign.load(made[kind]).cpu()
            assert torch.equal(logits(model.llm.lm), logits(again.llm.lm))
        return made[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_of_a_run_answers_as_the_run(
    run_of: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(kind)
    trained = logits(avalign.load(run).cpu().llm.lm)
    out = export(run, tmp_path / "merged", merge=True)
    assert apart(trained, logits(avalign.load(out).cpu().llm.lm)) < 1e-5
    assert apart(trained, logits(AutoModelForCausalLM.from_pretrained(out / "llm"))) < 1e-5
    if kind == "released":
        apart_from_it = export(run, tmp_path / "apart")
        base = paths_of(read(run / "recipe.yaml"))
        monkeypatch.setenv("AVALIGN_MODELS", str(Path(next(iter(base.values()))).parent))
        assert torch.equal(trained, logits(avalign.load(apart_from_it).cpu().llm.lm))


def test_an_export_that_answers_otherwise_is_not_kept(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tied(lm: Any) -> Any:
        with pytest.warns(UserWarning, match="tie_word_embeddings"):
            return lm.merge_and_unload()

    monkeypatch.setattr(exporting, "merged", tied)
    with pytest.raises(
        AvalignError, match=r"released: the export, read back, answers otherwise than the run"
    ):
        export(run_of("released"), tmp_path / "out", merge=True)
    assert not list(tmp_path.iterdir()), "neither an export nor half of one"
