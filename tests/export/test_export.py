"""An exported model answers as its run does, is read by other libraries, and is never half there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import avalign
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.export import hugging_face as exporting
from avalign.export.hugging_face import export
from avalign.model.build import trained_parts
from avalign.model.model import AudioVisualLM
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers import tiny
from tests.helpers.exports import LEARN, STEPS
from tests.helpers.families import FAMILIES, write
from tests.helpers.paths import RECIPE
from tests.helpers.runs import SMALL

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
KINDS: dict[str, str] = {  # of the language model, by how it was trained
    "small": "{name: small, hidden: 16, layers: 1, heads: 2}",
    "lora": "{name: huggingface, model: BASE, rank: 2, system: Be brief.}",
    "dora": "{name: huggingface, model: BASE, rank: 2, dora: true, targets: all-linear}",
    "full": "{name: huggingface, model: BASE, tuning: full}",
    "frozen": "{name: huggingface, model: BASE, tuning: frozen}",
    "random": "{name: huggingface, pretrained: false, model: BASE, config: {vocab_size: 1024}, "
    "tokenizer: digits, rank: 2}",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(FAMILIES["llama-3"], tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Callable[[str], Path]:
    """A finished run of each kind, its weights moved far from where they began."""
    world, made = tmp_path_factory.mktemp("world"), {}

    def run(kind: str) -> Path:
        if kind not in made:
            llm = KINDS[kind].replace("BASE", str(base))
            settings = [*SMALL, f"data.root={world}", STEPS, f"model.llm={llm}", "name=zoo"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "score", lambda *_: {})
                made[kind] = train(read(RECIPE, settings), world / kind)
            model, recipe = avalign.load(made[kind]).cpu(), read(made[kind] / "recipe.yaml")
            learnt = [weight for weight in model.parameters() if weight.requires_grad]
            tiny.spread(torch.nn.ParameterList(learnt), 7)
            model.save(made[kind] / "model", trained_parts(recipe))
        return made[kind]

    return run


def logits(lm: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm.eval()(input_ids=torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])).logits
    return found


def asked() -> list[tuple[np.ndarray, tuple[np.ndarray, int], str]]:
    rng = np.random.default_rng(0)
    return [
        (
            rng.integers(0, 255, (40, 50, 3)).astype(np.uint8),
            (rng.standard_normal(8000).astype(np.float32) * 0.1, 8000),
            question,
        )
        for question in ("Where is it?", "Is a dog heard?", "When?")
    ]


def assert_same_model(one: AudioVisualLM, other: AudioVisualLM, exactly: bool) -> None:
    answers = [one.generate(*question) for question in asked()]
    assert [other.generate(*question) for question in asked()] == answers
    assert len(set(answers)) > 1, "the same answer to everything would show nothing"
    batch = one.collator()([tiny.sample(k, audio=None, instruction="<image>Where?") for k in range(2)])
    with torch.no_grad():
        a, b = one(batch).logits, other(batch).logits
    assert torch.equal(a, b) if exactly else (a - b).abs().max() < 1e-5 * a.abs().max().clamp(1)


# -- what comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_export_answers_as_the_run_and_is_a_plain_model(
    run_of: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(kind)
    out = export(run, tmp_path / "out", merge=True)
    model = avalign.load(run).cpu()
    plain = AutoModelForCausalLM.from_pretrained(out / "llm")
    expected = logits(model.llm.lm)
    assert (logits(plain) - expected).abs().max() < 1e-5 * expected.abs().max()
    tokenizer = AutoTokenizer.from_pretrained(out / "llm")
    talk = [{"role": "user", "content": "Where is it?"}]
    if model.llm.system is not None:
        talk.insert(0, {"role": "system", "content": model.llm.system})
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert ids == model.llm.chat.prompt_ids("Where is it?", 0, 0)
    assert plain.generation_config.eos_token_id == model.llm.end_ids
    assert not (out / "adapter").exists()
    again = avalign.load(out).cpu()
    assert_same_model(model, again, exactly=kind not in ("lora", "dora", "random"))
    assert not again.training


@pytest.mark.parametrize("kind", ["small", "lora", "dora", "full", "frozen"])
def test_an_export_without_merging_leaves_out_what_can_be_had_elsewhere(
    run_of: Any, base: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(kind)
    out = export(run, tmp_path / "out")
    adapted = kind in ("lora", "dora")
    assert (out / "adapter").exists() == adapted
    assert (out / "llm").exists() == (kind in ("small", "full"))
    model = avalign.load(run).cpu()
    if adapted or kind == "frozen":
        with pytest.raises(
            AvalignError, match=rf"was exported without {base.name}, which it builds on: put it"
        ):
            avalign.load(out)
    monkeypatch.setenv("AVALIGN_MODELS", str(base.parent))
    assert_same_model(model, avalign.load(out).cpu(), exactly=True)
    assert AutoTokenizer.from_pretrained(out / "tokenizer").chat_template == model.llm.tokenizer.chat_template
    if adapted:
        from peft import PeftModel

        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "adapter")
        assert torch.equal(logits(plain), logits(model.llm.lm))


def test_the_connector_holds_all_other_parts_with_their_shapes(run_of: Any, tmp_path: Path) -> None:
    run = run_of("lora")
    out = export(run, tmp_path / "out")
    weights = load_file(out / "connector" / "weights.safetensors")
    expected = {k: v for k, v in avalign.load(run).cpu().state_dict().items() if not k.startswith("llm.")}
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    told = json.loads((out / "connector" / "config.json").read_text())
    assert {name: tuple(w["shape"]) for name, w in told["weights"].items()} == {
        name: tuple(weight.shape) for name, weight in weights.items()
    }
    assert told["model"]["fusion"]["name"] == "avace"
    assert told["model"]["llm"]["system"] == "Be brief."
    assert told["trained"] == LEARN
    assert told["stock"] == []
    assert told["versions"]["trained"] == json.loads((run / "versions.json").read_text())
    assert read(out / "recipe.yaml").data.root is None, "a place on the machine it was trained on"


def test_stock_parts_that_were_not_trained_stay_where_they_are_from(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(run_of("small"), tmp_path / "run")
    model = avalign.load(run)
    monkeypatch.setattr("avalign.encoders.small.SmallImageEncoder.pretrained", True, raising=False)
    model.save(run / "model", trained_parts(read(run / "recipe.yaml")))
    monkeypatch.setattr(exporting, "_refuse_another", lambda *_: None)  # a stand-in has no stock weights
    out = export(run, tmp_path / "out")
    told = json.loads((out / "connector" / "config.json").read_text())
    assert told["stock"] == ["image_encoder"]
    assert not [name for name in told["weights"] if name.startswith("image_encoder.")]
    card = (out / "README.md").read_text()
    assert (
        "released weights, whose licences hold for what is derived from them: `small` (image_encoder)" in card
    )


@pytest.mark.parametrize("kind", ["small", "lora", "full", "frozen"])
@pytest.mark.parametrize("merge", [False, True])
def test_an_export_says_nothing_of_the_machine(
    run_of: Any, base: Path, tmp_path: Path, kind: str, merge: bool
) -> None:
    run, out = run_of(kind), export(run_of(kind), tmp_path / "out", merge=merge)
    for file in out.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for place in (base.parent, run.parent, tmp_path, Path.home(), Path.cwd()):
                assert os.fsencode(place) not in content, f"{file.relative_to(out)}: {place}"


# -- never half there ----------------------------------------------------------------------------------------


def test_nothing_is_there_before_all_is_and_what_a_kill_left_is_cleared(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out.unfinished" / "llm").mkdir(parents=True)
    (tmp_path / ".out.unfinished" / "llm" / "model.safetensors").write_bytes(b"half")
    seen = []
    kept = exporting.write_card
    monkeypatch.setattr(exporting, "write_card", lambda *given: seen.append(out.exists()) or kept(*given))
    export(run_of("lora"), out)
    assert seen == [False]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (out / "llm").exists()
    inside = out.stat().st_ino
    monkeypatch.setattr(exporting, "write_card", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export(run_of("lora"), out, overwrite=True)
    assert out.stat().st_ino == inside, "the earlier export is as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_is_replaced_only_when_told_and_nothing_else_ever(run_of: Any, tmp_path: Path) -> None:
    run, out = run_of("lora"), tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    export(run, out)  # an empty folder is none
    with pytest.raises(AvalignError, match="holds an export already; name another folder, or --overwrite it"):
        export(run, out, merge=True)
    export(run, out, merge=True, overwrite=True)
    assert (out / "llm").exists()
    assert not (out / "adapter").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(AvalignError, match="holds files that are no export"):
        export(run, mine, overwrite=True)
    assert (mine / "thesis.tex").exists()
    for place in (run, run / "model", run.parent):
        with pytest.raises(AvalignError, match="lies in the run, or the run in it"):
            export(run, place, overwrite=True)
    with pytest.raises(AvalignError, match="is a file"):
        export(run, mine / "thesis.tex")


def test_what_cannot_be_exported_is_refused(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(AvalignError, match=r"began as random weights, which are nowhere else: --merge"):
        export(run_of("random"), out)
    monkeypatch.setattr("avalign.llm.HuggingFaceLlm.quantisation", "4bit", raising=False)
    kept = exporting.load

    def quantised(run: Path) -> AudioVisualLM:
        model = kept(run)
        model.llm.quantisation = "4bit"  # type: ignore[assignment]
        return model

    monkeypatch.setattr(exporting, "load", quantised)
    with pytest.raises(AvalignError, match=r"merged into 4bit weights would be rounded away in part"):
        export(run_of("lora"), out, merge=True)
    monkeypatch.setattr(exporting, "load", kept)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.yaml").write_bytes((run_of("lora") / "recipe.yaml").read_bytes())
    with pytest.raises(AvalignError, match="its training has not finished"):
        export(begun, out)
    with pytest.raises(AvalignError, match="not the folder of a run"):
        export(tmp_path / "nowhere", out)
    assert not out.exists()
    export(run_of("lora"), out)
    with pytest.raises(AvalignError, match="was exported from a run: export that one"):
        export(out, tmp_path / "again")
    with pytest.raises(AvalignError, match=r"is an exported model; train into another folder"):
        train(read(out / "recipe.yaml"), out, resume=True)


@pytest.mark.parametrize("spoilt", ["connector/weights.safetensors", "adapter/adapter_model.safetensors"])
def test_an_export_cut_short_is_refused_by_name(
    run_of: Any, base: Path, tmp_path: Path, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVALIGN_MODELS", str(base.parent))
    out = export(run_of("lora"), tmp_path / "out")
    file = out / spoilt
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(AvalignError, match=rf"{spoilt}: not a complete safetensors file"):
        avalign.load(out)
    file.unlink()
    with pytest.raises(AvalignError, match=rf"{spoilt}: there is no such file"):
        avalign.load(out)


def test_an_exported_language_model_of_another_shape_is_refused(run_of: Any, tmp_path: Path) -> None:
    out = export(run_of("small"), tmp_path / "out")
    recipe = out / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("hidden: 16", "hidden: 32"))
    with pytest.raises(AvalignError, match=r"llm: not the language model of .*recipe\.yaml"):
        avalign.load(out)


# -- the card ------------------------------------------------------------------------------------------------


def test_the_card_says_what_is_known_and_no_more(run_of: Any, base: Path, tmp_path: Path) -> None:
    run = run_of("lora")
    card = (export(run, tmp_path / "one") / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: avalign\n")
    assert "# zoo" in card
    assert "Not scored yet" in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card
    assert "| only | 2 |" in card
    assert "language_modelling (1), avopt (0.1), avace (0.5)" in card
    assert "source `avworld`" in card
    assert f"`{base.name}` (llm)" in card
    assert "base_model" not in card, "a folder of this machine is no name that others know"
    assert not (tmp_path / "one" / "adapter" / "README.md").exists(), "peft's has nothing filled in"
    assert "llm | huggingface |" in card
    (run / "eval").mkdir()
    number = {"value": 0.4321, "low": 0.3, "high": 0.5}
    task = {
        **{"title": "Where", "headline": "cIoU", "n": 7, "test_list": "sha256:0", "parse_failures": 0.0},
        **{"definitions": {"cIoU": "overlap"}, "metrics": {"cIoU": number}, "groups": None},
        **{"trivial": {"middle": {"metrics": {"cIoU": number}, "parse_failures": 0.0}}},
        **{"clear_of_trivial": False, "over_best_trivial": None},
    }
    scores = {
        **{"split": "test", "seed": 0, "skipped": {"count": 0, "problems": []}, "tasks": {"arig": task}},
        "bootstrap": {"resamples": 20, "level": 0.95, "method": "percentile"},
    }
    try:
        (run / "eval" / "scores.json").write_text(json.dumps(scores))
        card = (export(run, tmp_path / "two") / "README.md").read_text()
    finally:
        (run / "eval" / "scores.json").unlink()
        (run / "eval").rmdir()
    assert "\n## Scores\n" in card
    assert "| arig | cIoU | 0.432 [0.300, 0.500] |" in card
    assert "\n### Where\n" in card
