"""The eight faults of Meerkat's released code, one after the other, looked for in this one from end to end.

Each test builds a whole model and its objective from a recipe. Finer tests of the same stand with the parts.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import avalign
from avalign.answers import read_boxes, write_box
from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read
from avalign.evaluation.evaluate import evaluate
from avalign.losses.objective import UnreachableTerm, refuse_unreachable
from avalign.media.file import MediaError
from avalign.model.build import build_model, build_objective, build_source
from avalign.model.model import AudioVisualLM
from avalign.types import TASKS, Batch, Sample
from tests.helpers.contract.components import tiny_llama
from tests.helpers.paired_folder import LOOKS, write_folder
from tests.helpers.paths import RECIPES
from tests.helpers.pretrained import TINY_CLAP, save_vit
from tests.helpers.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
TINY = [
    "model.width=16",
    "model.image_encoder={name: small, width: 16}",
    "model.audio_encoder={name: small, width: 16}",
    "model.llm={name: small, hidden: 16, layers: 1, heads: 2}",
    *("losses.language_modelling.weight=1.0", "losses.avopt.weight=0.1", "losses.avace.weight=0.5"),
]
RATE = 8_000
TEXTS = ["Where is the dog? [dog, 0.12, 0.34, 0.56, 0.78]", "True", "False", "a dog on the left, and a cat"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def recipe(*more: str) -> Recipe:
    return read(RECIPES / "meerkat.yaml", [*TINY, *more])


PARTS_INSIDE = ("avace/inside", "avace/inside_time")


def model_of(made: Recipe, seed: int = 0) -> AudioVisualLM:
    torch.manual_seed(seed)
    return build_model(made, TEXTS)


def sample(number: int = 0, **changes: Any) -> Sample:
    """A picture with one bright object, a sound with one tone, and the truth about both."""
    image = np.random.default_rng(number).integers(0, 40, (64, 64, 3), np.uint8)
    image[8:24, 32:56] = 250
    audio = 0.01 * np.random.default_rng(number).standard_normal(4 * RATE)
    audio[RATE : 2 * RATE] += 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    box = (0.5, 0.125, 0.875, 0.375)
    given: dict[str, Any] = {
        "id": f"sample/{number}",
        "task": "arig",
        "instruction": "<image><audio>Where is the dog?",
        "response": write_box(box, "dog"),
        "image": image,
        "audio": audio.astype(np.float32),
        "sample_rate": RATE,
        "boxes": (box,),
        "intervals": ((1.0, 2.0),),
    }
    return Sample(**given | changes)


def gradient_of(model: AudioVisualLM, loss: torch.Tensor, part: str) -> torch.Tensor:
    """Of all trainable weights of a part, in one row."""
    trained = [weight for weight in getattr(model, part).parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None] or [torch.zeros(1)])


def test_fault_1_transport_is_in_the_loss_and_teaches_what_lies_below_it() -> None:
    """There: the sum that held the transport term was overwritten, and what it compared was frozen."""
    made = recipe()
    model, objective = model_of(made), build_objective(made)
    batch = model.collator()([sample(0), sample(1)])
    total, log = objective(model(batch), batch)
    weights = {"language_modelling": 1.0, "avopt": 0.1, "avace": 0.5}
    assert_close(total, sum(weight * log[term] for term, weight in weights.items()), torch.float32)
    assert log["avopt"] > 0.1
    for part in ("image_encoder", "audio_encoder", "image_projector", "audio_projector"):
        with_transport = gradient_of(model, total, part)
        without, _ = objective.with_weights({"avopt": 0.0})(model(batch), batch)
        change = with_transport - gradient_of(model, without, part)
        alone, _ = objective.with_weights({"language_modelling": 0, "avace": 0})(model(batch), batch)
        assert change.abs().max() > 1e-6
        assert_close(change, gradient_of(model, alone, part), torch.float32)
    model.learn(["fusion", "image_connector", "audio_connector", "llm"])  # frozen is all that it reads
    with pytest.raises(UnreachableTerm, match="'avopt' reaches no trainable parameter"):
        refuse_unreachable(objective.terms(model(batch), batch), model.parameters())


def test_fault_2_the_attention_can_be_wrong_and_learns_to_be_right() -> None:
    """There: attention was averaged over the keys it sums to 1 over, so its loss was 0.5 for ever."""
    made = recipe("losses={language_modelling: {weight: 0}, avopt: {weight: 0}, avace: {weight: 1}}")
    model, objective = model_of(made), build_objective(made)
    collate = model.collator()
    here = collate([sample(0), sample(1)])
    elsewhere = collate([sample(k, boxes=((0.0, 0.5, 0.25, 1.0),)) for k in (0, 1)])
    with torch.no_grad():
        outputs = model(here, language=False)
        assert objective(outputs, here)[0] != objective(outputs, elsewhere)[0]
    model.learn(["fusion"])
    optimiser = torch.optim.Adam(model.fusion.parameters(), 1e-2)
    inside = []
    for _ in range(25):
        loss, log = objective(model(here, language=False), here)
        inside.append([float(log[part]) for part in PARTS_INSIDE])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    area, share = 0.375 * 0.25, 0.25  # what attention that knows nothing has inside, on the whole
    with torch.no_grad():
        logs = [objective(model_of(made, seed)(here, language=False), here)[1] for seed in range(8)]
    begun = [float(torch.stack([log[part] for log in logs]).mean()) for part in PARTS_INSIDE]
    assert begun == pytest.approx([area, share], abs=0.1)
    assert inside[-1][0] > 3 * area
    assert inside[-1][1] > 2 * share


def test_fault_3_the_weights_of_the_files_are_the_weights_of_the_model(tmp_path: Path) -> None:
    """There: pretrained weights were read and dropped, and LoRA could not be turned on."""
    llama, vit = Path(tiny_llama(tmp_path)), tmp_path / "vit.safetensors"
    save_vit(vit)
    made = recipe(
        f"model.image_encoder={{name: timm, model: test_vit, checkpoint: '{vit}'}}",
        "model.image_connector=linear",
        f"model.llm={{name: huggingface, model: '{llama}', rank: 2}}",
    )
    for seed in (0, 1):  # whatever the seed
        model = model_of(made, seed)
        held = dict(model.named_parameters())
        for name, value in load_file(llama / "model.safetensors").items():
            inside, _, last = name.rpartition(".")
            keys = [f"llm.lm.base_model.model.{name}", f"llm.lm.base_model.model.{inside}.base_layer.{last}"]
            (key,) = [key for key in keys if key in held]
            assert torch.equal(held[key], value), name
            assert not held[key].requires_grad, name
        stored = load_file(vit)
        seen = {
            k.removeprefix("image_encoder.model."): v for k, v in held.items() if k.startswith("image_enc")
        }
        assert len(seen) > 10
        assert all(torch.equal(value, stored[name]) for name, value in seen.items())
        learning = {name for name, weight in held.items() if name.startswith("llm.") and weight.requires_grad}
        assert learning == {name for name in held if "lora_" in name}
        assert len(learning) == 8, "A and B of q, k, v, o"
    before = model(model.collator()([sample()])).logits
    weights = load_file(llama / "model.safetensors")
    weights["model.norm.weight"] = 2 * weights["model.norm.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    changed = model_of(made, 1)
    assert_close(changed(changed.collator()([sample()])).logits, 2 * before, torch.float32)


def test_fault_4_every_answer_is_learnt_whole_with_or_without_a_box() -> None:
    """There: what counted began at the last "[" of the flattened batch; answers without one did not count."""
    made = recipe("losses={language_modelling: {}}")
    model, objective = model_of(made), build_objective(made)
    answers = ["[dog, 0.12, 0.34, 0.56, 0.78]", "True", "a dog on the left, and a cat", "[1.20, 2.64]"]
    samples = [
        sample(k, response=answer, instruction=f"<image><audio>Is it in [0.1, 0.2, 0.3, 0.4{k}]?", boxes=())
        for k, answer in enumerate(answers)
    ]
    batch = model.collator()(samples)
    for row, answer in zip(batch.labels, answers, strict=True):
        learnt = row[row != -100].tolist()
        assert model.llm.tokenizer.decode(learnt[:-1]) == answer
        assert learnt[-1] == model.llm.end_id
    outputs = model(batch)
    value = objective.terms(outputs, batch)["language_modelling"]
    assert (value.samples > 0).all()
    assert_close(value.total, value.samples.mean(), torch.float32)
    for k in range(len(samples)):  # each answer's logits are taught, and those before it are not
        taught = torch.autograd.grad(value.total, outputs.logits, retain_graph=True)[0][k].abs().sum(1) > 0
        assert (
            taught.nonzero().flatten().tolist()
            == ((batch.labels[k] != -100).nonzero() - 1).flatten().tolist()
        )


def test_fault_5_a_recording_keeps_its_pitch_and_length_in_an_encoder_of_another_rate() -> None:
    """There: 16 kHz samples were fed to an encoder of 48 kHz: three times too high and too short."""
    made = recipe(f"model.audio_encoder={{name: clap, pretrained: false, config: {json.dumps(TINY_CLAP)}}}")
    model = model_of(made)
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * 16_000) / 16_000).astype(np.float32)
    batch = model.collator()([sample(audio=tone, sample_rate=16_000, intervals=((0.5, 1.5),))])
    wave = batch.audio[0].numpy()
    assert wave.shape == (480_000,), "10 s at 48 kHz"
    assert np.abs(wave[: 2 * 48_000 - 500]).max() > 0.9
    assert np.abs(wave[2 * 48_000 + 500 :]).max() == 0, "it lasts 2 s there, too"
    peak = np.abs(np.fft.rfft(wave[: 2 * 48_000])).argmax() / 2
    assert peak == pytest.approx(440, abs=1)
    audio = model.encode(batch)[1]
    real = audio.times[audio.mask[0]]
    assert (real[:, 0].min(), real[:, 1].max()) == (0, pytest.approx(2.0, abs=0.32))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("faults") / "zoo")


ZOO = (
    f"{{name: paired_folder, classes: {list(LOOKS)}, photos: [2], seconds: 2.0, canvas: 64, "
    f"sample_rate: {RATE}}}"
)


def test_fault_6_boxes_of_all_sources_are_written_read_and_learnt_in_one_order(
    zoo: Path, tmp_path: Path
) -> None:
    """There: the order of a box's numbers, and their unit, changed with the data set."""
    sources = {
        "avworld": recipe(
            "data.source={name: avworld, train: 40, val: 20, test: 20}", f"data.root={tmp_path}"
        ),
        "zoo": recipe(f"data.source={ZOO}", f"data.root={zoo}"),
    }
    for name, made in sources.items():
        source, model, objective = build_source(made), model_of(made), build_objective(made)
        for index in range(10):
            asked = source.sample("test", "arig", index)
            read_back = read_boxes(asked.response)
            assert [found.box for found in read_back] == [
                pytest.approx(box, abs=0.0051) for box in asked.boxes
            ]
            left, top, right, bottom = asked.boxes[0]
            assert left < right
            assert top < bottom
            batch: Batch = model.collator()([asked])
            target = objective_target(model, batch).view(8, 8)  # rows from the top, columns from the left
            rows, columns = target.sum(1), target.sum(0)
            assert rows.nonzero()[0].item() == int(8 * min(b[1] for b in asked.boxes)), name
            assert columns.nonzero()[0].item() == int(8 * min(b[0] for b in asked.boxes)), name
            if name == "zoo":  # the object itself, in its class's colour, is what the box holds
                colour = np.array(LOOKS[asked.label][0])
                shown = np.abs(asked.image.astype(int) - colour).max(axis=2) < 60
                y, x = shown.nonzero()
                union = [min(b[0] for b in asked.boxes), min(b[1] for b in asked.boxes)]
                assert [x.min() / 64, y.min() / 64] == pytest.approx(union, abs=0.05)
        assert objective.weights["avace"] > 0


def objective_target(model: AudioVisualLM, batch: Batch) -> torch.Tensor:
    """The share of each patch that AVACE is taught to look at."""
    from avalign.losses.objective import SUPPLIES

    with torch.no_grad():
        return SUPPLIES["patch_target"](model(batch, language=False), batch)[0]


def test_fault_7_nothing_stands_in_for_a_file_that_is_missing(tmp_path: Path) -> None:
    """There: another clip was taken for a missing one, and a black picture for a missing picture."""
    folder = write_folder(tmp_path / "zoo")
    for file in ("audio/bee_train_0.wav", "images/doe_train_1.png"):
        kept = (folder / file).read_bytes()
        (folder / file).unlink()
        made = recipe(f"data.source={ZOO}", f"data.root={folder}")
        with pytest.raises(MediaError, match=f"{file}: no such file"):
            build_source(made)
        made.data.on_error = "skip"
        source = build_source(made)
        assert [file in problem for problem in source.skipped] == [True]
        used = [source.sample("train", task, k).provenance for task in TASKS for k in range(4)]
        assert not any(file in str(one) for one in used)
        (folder / file).write_bytes(kept)


def test_fault_7_what_a_sample_does_not_have_is_hidden_and_not_made_up() -> None:
    """A question about a sound alone is asked about the sound alone: blank pictures are not looked at."""
    made = recipe()
    model, objective = model_of(made).eval(), build_objective(made)
    batch = model.collator()([sample(0).without(image=True), sample(1)])
    assert batch.has_image.tolist() == [False, True]
    with torch.no_grad():
        outputs = model(batch)
        batch.image[0] = torch.randn_like(batch.image[0])  # whatever stands in its place
        other = model(batch)
    assert not outputs.image.mask[0].any()
    assert objective.terms(outputs, batch)["avopt"].applies.tolist() == [False, True]
    learnt = outputs.labels[0] != -100
    assert_close(outputs.logits[0][learnt], other.logits[0][learnt], torch.float32)


def test_fault_8_what_comes_with_avalign_runs_scores_and_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There: no configuration that runs, no evaluation, errors passed over, a tokenizer loaded a forward."""
    published = RECIPES / "meerkat-7b.yaml"  # its weights have to be fetched; test_size.py runs its shapes
    for path in sorted(set(RECIPES.glob("*.yaml")) - {published}):
        made = read(path)
        model = model_of(made)
        size = made.model.image_encoder.options.get("size", 64)
        asked = sample(image=np.zeros((size, size, 3), np.uint8))
        batch = model.collator()([asked])
        total, _ = build_objective(made)(model(batch), batch)
        assert total.isfinite(), path
    for file in Path(avalign.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(one, ast.Pass) for one in node.body)
                assert node.type is not None, f"{file}:{node.lineno} catches everything"
                assert not silent, f"{file}:{node.lineno} passes over an error"
    made = recipe("data.source={name: avworld, train: 40, val: 20, test: 20}", f"data.root={tmp_path}")
    model, source = model_of(made), build_source(made)
    for loader in ("AutoTokenizer.from_pretrained", "AutoModelForCausalLM.from_pretrained"):
        monkeypatch.setattr(f"transformers.{loader}", lambda *_, **__: pytest.fail("loaded in a forward"))
    model.max_new_tokens = 2
    batch = model.collator()([sample()])
    model(batch)
    scores = evaluate(
        model,
        source,
        tasks=["avfc"],
        samples=2,
        batch_size=2,
        bootstrap=0,
        seed=0,
        modality_check=False,
        out=tmp_path / "eval",
        figures=0,
    )
    assert json.loads((tmp_path / "eval" / "scores.json").read_text())["tasks"] == scores["tasks"]
    assert scores["tasks"]["avfc"]["n"] == 2
