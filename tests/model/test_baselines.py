"""The baselines' recipes: on equal ground with Meerkat's, each with its own connectors."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import avalign
from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read
from avalign.model.build import build_model, build_source
from avalign.model.model import AudioVisualLM
from avalign.training import train as training
from avalign.training.train import train
from avalign.types import Sample
from tests.helpers import tiny
from tests.helpers.paths import RECIPES

SHARED = RECIPES / "baselines" / "shared.yaml"
BASELINES = {path.stem: path for path in sorted(SHARED.parent.glob("*.yaml"))}
SMALL = [
    "data.source={name: avworld, train: 40, val: 20, test: 20}",
    "model.width=16",
    "model.image_encoder={name: small, width: 16}",
    "model.audio_encoder={name: small, width: 16}",
    "model.llm={name: small, hidden: 16, layers: 1, heads: 2}",
    "train.precision=fp32",
    "train.batch_size=4",
    "train.log_every=1",
    "train.report_to=[]",
    *("train.stages.words.steps=2", "train.stages.answer.steps=1"),
    "evaluation.max_new_tokens=4",
]
CONNECTORS = ("image_connector", "audio_connector")
every = pytest.mark.parametrize("name", BASELINES)


def small(name: str, *more: str) -> Recipe:
    return read(BASELINES[name], [*SMALL, *more])


def built(name: str, *more: str) -> AudioVisualLM:
    torch.manual_seed(0)
    return build_model(small(name, *more), tiny.TEXTS).eval()


def sample(seed: int = 0, **changes: Any) -> Sample:
    """At the size that the recipes' encoders take."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 0.1, 4 * tiny.RATE).astype(np.float32)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return tiny.sample(seed, **{"image": image, "audio": sound, **changes})


def connected(model: AudioVisualLM, *samples: Sample) -> tuple[Tensor, Tensor]:
    """What the language model is handed of pictures and of sounds."""
    batch = model.collator()(samples)
    with torch.no_grad():
        image, audio = model.connect(model.encode(batch)[2], batch)
    return image.values, audio.values


def test_the_six_baselines_are_here() -> None:
    expected = {"pandagpt", "video-llama", "x-instructblip", "macaw-llm", "bubogpt", "timechat"}
    assert set(BASELINES) == expected | {"shared"}


@every
def test_only_connectors_fusion_and_alignment_differ_from_meerkat(name: str) -> None:
    recipe, meerkat = (asdict(read(path)) for path in (BASELINES[name], RECIPES / "meerkat.yaml"))
    assert recipe["model"]["fusion"] == {"name": "none", "options": {}}
    assert list(recipe["losses"]) == ["language_modelling"]
    stages, theirs = (one["train"].pop("stages") for one in (recipe, meerkat))
    assert sum(stage["steps"] for stage in stages) == sum(stage["steps"] for stage in theirs)
    for one in (recipe, meerkat):
        for part in ("fusion", *CONNECTORS):
            one["model"].pop(part)
        one["losses"] = one["losses"]["language_modelling"]
        one.pop("name")
    assert recipe == meerkat
    assert [stage["tasks"] for stage in stages] == [stage["tasks"] for stage in theirs[1:]]
    assert asdict(read(SHARED))["train"]["stages"] == stages


@every
def test_it_hands_over_no_more_tokens_than_meerkat(name: str) -> None:
    collator, meerkat = (
        build_model(read(path, SMALL[:5]), tiny.TEXTS).collator()
        for path in (BASELINES[name], RECIPES / "meerkat.yaml")
    )
    assert collator.image_tokens == meerkat.image_tokens == 16
    assert collator.audio_tokens == (10 if name == "macaw-llm" else meerkat.audio_tokens) <= 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@every
def test_it_trains_and_answers(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "score", lambda *_: {})
    film = (
        ["model.frames=2"] if name == "timechat" else []
    )  # the world has stills: one frame real, one masked
    recipe = small(name, f"data.root={world}", *film)
    run = train(recipe, tmp_path / "run")
    source = build_source(recipe)
    training.set_seed(recipe.seed)
    fresh, model = build_model(recipe, source.corpus()), avalign.load(run)
    for part in CONNECTORS:
        before = dict(getattr(fresh, part).named_parameters())
        for key, weight in getattr(model, part).named_parameters():
            if part == "image_connector" and key.startswith("time."):
                continue  # stills have no time to learn from
            moved = not torch.equal(weight.cpu(), before[key])
            assert moved == weight.requires_grad, f"{part}.{key}"
    asked = [sample(0), sample(1).without(image=True), sample(2).without(audio=True)]
    answers = model.answer(asked)
    assert answers == [model.answer([one])[0] for one in asked]
    assert model.explain(asked[0]).image_map is None  # no fusion, no maps


@every
def test_it_takes_videos_too(name: str) -> None:
    model = built(name, "model.frames=2")
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    film = sample(image=image, frame_times=(0.5, 1.5))
    batch = model.collator()([film, sample(1)])
    with torch.no_grad():
        assert model(batch).logits.isfinite().all()
    one, other = (connected(model, replace(film, image=image[[0, k]]))[0] for k in (0, 1))
    assert (one - other).abs().max() > 1e-5, "the second frame is not seen"


# -- what makes each of them what it is ----------------------------------------------------------------------


def test_only_the_instruction_aware_connector_looks_otherwise_when_asked_otherwise() -> None:
    for name in BASELINES:
        model = built(name)
        tiny.spread(model)
        one, other = (
            connected(model, sample(instruction=f"<image><audio>{text}"))
            for text in ("Where?", "When is it?")
        )
        for before, after in zip(one, other, strict=True):
            assert torch.equal(before, after) == (name != "x-instructblip")


def test_macaw_llm_hands_over_means_of_words() -> None:
    """Nothing but the vocabulary and one linear map of it: with all words 0, so is every token."""
    model = built("macaw-llm")
    assert all(tokens.abs().max() > 0 for tokens in connected(model, sample()))
    model.llm.lm.get_input_embeddings().weight.data.zero_()
    assert not any(tokens.any() for tokens in connected(model, sample()))


def test_timechat_hears_a_second_at_a_time() -> None:
    model = built("timechat")
    batch = model.collator()([sample()])
    with torch.no_grad():
        heard = model.encode(batch)[1]
        later = heard.values + torch.where(heard.times[:, :1] >= 3.0, 1.0, 0.0) * torch.randn(16)
        one, other = (
            model.audio_connector(replace(heard, values=v)).values[0] for v in (heard.values, later)
        )
    changed = (one - other).abs().amax(1).view(4, 5) > 1e-5  # seconds, queries
    assert changed[3].all()
    assert not changed[:3].any()


@pytest.mark.parametrize("name", ["timechat", "video-llama"])
def test_it_knows_when_a_frame_was_seen(name: str) -> None:
    model = built(name, "model.frames=2")
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    one, other = (
        connected(model, sample(image=image, frame_times=times))[0] for times in ((0.0, 1.0), (0.0, 3.0))
    )
    assert (one - other).abs().max() > 1e-4


def test_pandagpt_is_linear_in_what_the_encoders_give() -> None:
    model = built("pandagpt")
    batch = model.collator()([sample()])
    with torch.no_grad():
        found = []
        for scale in (0.0, 1.0, 2.0):
            tokens = model.image_encoder(batch.image)
            tokens = model.image_projector(replace(tokens, values=scale * tokens.values))
            found.append(model.image_connector(tokens).values)
    torch.testing.assert_close(found[2] - found[1], found[1] - found[0], atol=1e-5, rtol=1e-4)
