"""The whole model: what is absent changes nothing, what is saved comes back, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avalign.data.collate import SampleError
from avalign.errors import AvalignError
from avalign.fusion.none import NoFusion
from avalign.model.model import PARTS, WEIGHTS, AudioVisualLM
from avalign.projectors.pool import Pool
from avalign.types import IGNORED, Batch, Outputs, Sample
from tests.helpers import tiny
from tests.helpers.tolerances import assert_close

PATCHES, SOUNDS = (tiny.SIZE // 8) ** 2, round(5 * tiny.SECONDS)


@pytest.fixture(scope="module")
def shared() -> AudioVisualLM:
    """For tests that leave it as it is."""
    return tiny.model()


@pytest.fixture
def model() -> AudioVisualLM:
    return tiny.model()


def run(model: AudioVisualLM, samples: list[Sample]) -> tuple[Batch, Outputs]:
    batch = model.collator()(samples)
    with torch.no_grad():
        return batch, model(batch)


def learnt(batch: Batch, outputs: Outputs, row: int) -> Tensor:
    """(k, vocabulary) logits that the response's tokens are learnt from."""
    return outputs.logits[row, :-1][batch.labels[row, 1:] != IGNORED]


# -- forward -------------------------------------------------------------------------------------------------


def test_every_output_has_the_shape_it_is_said_to_have(shared: AudioVisualLM) -> None:
    batch, outputs = run(shared, [tiny.sample(k, response="True" * (k + 1)) for k in range(3)])
    b, t = batch.input_ids.shape
    assert outputs.logits.shape == (b, t, shared.llm.lm.config.vocab_size)
    assert outputs.labels is batch.labels
    assert outputs.image.boxes.shape == (PATCHES, 4)
    assert outputs.audio.times.shape == (SOUNDS, 2)
    for before, after, count in (
        (outputs.image, outputs.fused.image, PATCHES),
        (outputs.audio, outputs.fused.audio, SOUNDS),
    ):
        assert before.values.shape == after.values.shape == (b, count, tiny.WIDTH)
        assert before.mask.all()
    assert outputs.fused.image_map.shape == (b, SOUNDS, PATCHES)
    assert outputs.fused.audio_map.shape == (b, PATCHES, SOUNDS)


def test_without_language_the_rest_is_the_same_and_the_llm_is_not_run(shared: AudioVisualLM) -> None:
    batch, whole = run(shared, [tiny.sample()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared.llm, "forward", lambda *_: pytest.fail("the language model was run"))
        silent = shared(batch, language=False)
    assert silent.logits is None
    assert torch.equal(silent.image.values, whole.image.values)
    assert torch.equal(silent.fused.image_map, whole.fused.image_map)


def test_connectors_may_leave_fewer_tokens(shared: AudioVisualLM) -> None:
    pooled = tiny.model(image_connector=Pool(tiny.WIDTH, 16, factor=3))
    assert pooled.collator().image_tokens == 1
    batch, outputs = run(pooled, [tiny.sample()])
    assert batch.input_ids.shape[1] == shared.collator()([tiny.sample()]).input_ids.shape[1] - PATCHES + 1
    assert outputs.logits.isfinite().all()


def test_gradient_reaches_every_part(model: AudioVisualLM) -> None:
    outputs = model(model.collator()([tiny.sample(0), tiny.sample(1)]))
    (outputs.logits * torch.randn(outputs.logits.shape)).sum().backward()
    for part in PARTS:
        for name, weight in getattr(model, part).named_parameters():
            assert weight.grad is not None, f"{part}.{name}"
            assert weight.grad.isfinite().all(), f"{part}.{name}"
        assert any(weight.grad.abs().max() > 0 for weight in getattr(model, part).parameters()), part


# -- what is absent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", ["image", "audio"])
def test_media_that_are_not_there_change_nothing_and_those_that_are_do(
    shared: AudioVisualLM, media: str
) -> None:
    batch = shared.collator()([tiny.sample(0), tiny.sample(1).without(**{media: True})])
    has = getattr(batch, f"has_{media}")
    assert has.tolist() == [True, False]
    values = getattr(batch, media)
    changed = replace(batch, **{media: values + torch.randn(values.shape)})
    with torch.no_grad():
        one, other = shared(batch), shared(changed)
    assert_close(learnt(batch, one, 1), learnt(batch, other, 1), torch.float32)
    assert (learnt(batch, one, 0) - learnt(batch, other, 0)).abs().max() > 1e-2
    assert not getattr(one, media).mask[1].any()
    assert not getattr(one.fused, f"{media}_map")[1].any()
    assert one.logits.isfinite().all()


def test_silence_after_a_short_clip_is_no_sound(shared: AudioVisualLM) -> None:
    short = tiny.sample(1, audio=tiny.sample(1).audio[: round(0.3 * tiny.RATE)], intervals=((0.1, 0.2),))
    _, outputs = run(shared, [short])
    assert outputs.audio.mask[0].tolist() == [True, True, False, False]
    assert (outputs.fused.audio_map[0, :, 2:] == 0).all()


def test_a_question_without_media_is_answered_too(shared: AudioVisualLM) -> None:
    plain = tiny.sample(1, image=None, audio=None, instruction="Where is the dog?")
    together = shared.answer([plain, tiny.sample(2)])
    assert together == shared.answer([plain]) + shared.answer([tiny.sample(2)])


def test_batch_mates_change_nothing(shared: AudioVisualLM) -> None:
    samples = [
        tiny.sample(0),
        tiny.sample(1, response="False").without(image=True),
        tiny.sample(2, instruction="<audio>When is it heard?").without(image=True),
        tiny.sample(3, audio=tiny.sample(3).audio[:3000]),
    ]
    batch, together = run(shared, samples)
    for row, sample in enumerate(samples):
        alone_batch, alone = run(shared, [sample])
        assert_close(learnt(batch, together, row), learnt(alone_batch, alone, 0), torch.float32)
        assert_close(together.fused.audio.values[row], alone.fused.audio.values[0], torch.float32)


def test_answers_are_the_same_alone_and_in_a_batch(shared: AudioVisualLM) -> None:
    samples = [
        tiny.sample(0),
        tiny.sample(1, instruction="When? <audio><image>"),
        tiny.sample(2).without(audio=True),
    ]
    together = shared.answer(samples)
    assert together == [shared.answer([sample])[0] for sample in samples]


# -- what learns ---------------------------------------------------------------------------------------------


def learning(model: AudioVisualLM) -> set[str]:
    return {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("parts", [("fusion",), ("image_encoder", "llm"), PARTS, ()])
def test_only_the_parts_that_are_named_learn(model: AudioVisualLM, parts: tuple[str, ...]) -> None:
    model.train()
    model.learn(parts)
    assert learning(model) == set(parts)
    outputs = model(model.collator()([tiny.sample()]))
    if parts:
        outputs.logits.sum().backward()
    for part in PARTS:
        got = any(weight.grad is not None for weight in getattr(model, part).parameters())
        assert got == (part in parts), part
        assert getattr(model, part).training == (part in parts), part


def test_frozen_parts_keep_to_evaluation_and_wake_when_they_learn_again(model: AudioVisualLM) -> None:
    model.learn(["fusion"])
    model.train()
    assert model.fusion.training
    assert not model.llm.training
    assert not model.image_encoder.body[1].training
    model.learn(PARTS)
    assert learning(model) == set(PARTS)
    assert model.llm.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_what_a_part_froze_itself_never_learns(model: AudioVisualLM) -> None:
    llm = tiny.small_llama()
    llm.lm.model.layers[0].requires_grad_(False)
    model = tiny.model(llm=llm)
    for parts in (["fusion"], PARTS):
        model.learn(parts)
        assert not any(weight.requires_grad for weight in llm.lm.model.layers[0].parameters())
    assert all(weight.requires_grad for weight in llm.lm.model.layers[1].parameters())


# -- saving and loading --------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_to_the_bit(model: AudioVisualLM, tmp_path: Path) -> None:
    tiny.spread(model, 4)
    model.save(tmp_path / "deep" / "model")
    other = tiny.model(1)
    other.load(tmp_path / "deep" / "model")
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name
    samples = [tiny.sample(k) for k in range(2)]
    assert torch.equal(run(other, samples)[1].logits, run(model, samples)[1].logits)


def test_tied_weights_are_saved_once_and_come_back_tied(tmp_path: Path) -> None:
    """As many released language models have them: the embedding of a word is its row of the output."""
    model, other = tiny.model(0), tiny.model(1)
    for one in (model, other):
        one.llm.lm.lm_head.weight = one.llm.lm.get_input_embeddings().weight
    tiny.spread(model, 4)
    model.save(tmp_path)
    ends = {"llm.lm.lm_head.weight", "llm.lm.model.embed_tokens.weight"}
    assert len(ends & set(load_file(tmp_path / WEIGHTS))) == 1
    other.load(tmp_path)
    assert torch.equal(other.llm.lm.lm_head.weight, model.llm.lm.lm_head.weight)
    assert other.llm.lm.lm_head.weight is other.llm.lm.get_input_embeddings().weight


def test_stock_weights_are_saved_only_once_they_were_trained(model: AudioVisualLM, tmp_path: Path) -> None:
    model.image_encoder.pretrained = True
    model.save(tmp_path / "as_released", trained={"fusion"})
    model.save(tmp_path / "trained", trained={"image_encoder"})
    saved = {name: set(load_file(tmp_path / name / WEIGHTS)) for name in ("as_released", "trained")}
    assert {name.split(".")[0] for name in saved["as_released"]} == set(PARTS) - {"image_encoder"}
    assert {name.split(".")[0] for name in saved["trained"]} == set(PARTS)
    model.load(tmp_path / "as_released", trained={"fusion"})
    with pytest.raises(AvalignError, match=r"missing image_encoder"):
        model.load(tmp_path / "as_released", trained={"image_encoder"})


def rewrite(file: Path) -> Iterator[dict[str, Tensor]]:
    weights = load_file(file)
    yield weights
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("wrong", ["missing", "unknown", "misshaped", "cut short", "empty", "absent"])
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(
    model: AudioVisualLM, tmp_path: Path, wrong: str
) -> None:
    model.save(tmp_path)
    file, name = tmp_path / WEIGHTS, "fusion.over_image.query.weight"
    if wrong in ("missing", "unknown", "misshaped"):
        for weights in rewrite(file):
            found = weights.pop(name)
            if wrong == "unknown":
                weights.update({name: found, "fusion.gate": torch.ones(1)})
            if wrong == "misshaped":
                weights[name] = torch.ones(3, 5)
    elif wrong == "absent":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: -10 if wrong == "cut short" else 0])
    said = {
        "missing": f"1 weights do not fit: missing {name}",
        "unknown": "1 weights do not fit: unknown fusion.gate",
        "misshaped": f"1 weights do not fit: {name} is (3, 5), the recipe makes it (8, 8)",
        "cut short": "not a complete safetensors file",
        "empty": "not a complete safetensors file",
        "absent": "there is no such file",
    }[wrong]
    other = tiny.model(1)
    before = {key: weight.clone() for key, weight in other.state_dict().items()}
    with pytest.raises(AvalignError) as caught:
        other.load(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    for key, weight in other.state_dict().items():
        assert torch.equal(weight, before[key]), key


# -- answering -----------------------------------------------------------------------------------------------


def test_an_explanation_is_the_answer_with_maps_that_sum_to_one(shared: AudioVisualLM) -> None:
    asked = tiny.sample(1, audio=tiny.sample(1).audio[: round(0.5 * tiny.RATE)])
    told = shared.explain(asked)
    _, outputs = run(shared, [asked])
    assert told.answer == shared.answer([asked])[0]
    assert told.image_map.shape == (3, 3)
    assert told.audio_map.shape == (SOUNDS,)
    assert told.image_map.sum() == pytest.approx(1, abs=1e-5)
    assert told.audio_map.sum() == pytest.approx(1, abs=1e-5)
    assert told.audio_map[3] == 0, "after the end of the clip"
    heard = outputs.fused.image_map[0, :3].mean(0).reshape(3, 3)  # rows of real sound only
    assert_close(told.image_map, heard, torch.float32)
    assert_close(told.audio_times, [[0, 0.2], [0.2, 0.4], [0.4, 0.6], [0.6, 0.8]], torch.float32)


def test_answers_come_with_the_maps_that_explain_them(shared: AudioVisualLM) -> None:
    """Of a batch: a short sound, padded beside a long one, and one sample without a picture."""
    short = tiny.sample(1, audio=tiny.sample(1).audio[: round(0.5 * tiny.RATE)])
    asked = [short, tiny.sample(2), tiny.sample(3).without(image=True)]
    answers = shared.answer_with_maps(asked)
    assert [text for text, _ in answers] == shared.answer(asked)
    assert answers[2][1] is None
    for sample, (_, heat) in zip(asked[:2], answers[:2], strict=True):
        assert_close(heat, shared.explain(sample).image_map, torch.float32)
    assert not np.allclose(answers[0][1], answers[1][1], atol=1e-3)


@pytest.mark.parametrize("missing", ["image", "audio", "fusion"])
def test_without_two_things_to_compare_there_are_no_maps(shared: AudioVisualLM, missing: str) -> None:
    asked = tiny.sample(1)
    if missing == "fusion":
        told = tiny.model(fusion=NoFusion(tiny.WIDTH)).explain(asked)
    else:
        told = shared.explain(asked.without(**{missing: True}))
    assert isinstance(told.answer, str)
    assert told.image_map is None
    assert told.audio_map is None


def test_generate_adds_the_places_that_the_question_lacks(
    shared: AudioVisualLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.sample(1)
    sound = (whole.audio, whole.sample_rate)
    question = "Where is the dog?"
    assert shared.generate(whole.image, sound, question) == shared.answer([whole])[0]
    asked: list[Sample] = []
    monkeypatch.setattr(AudioVisualLM, "answer", lambda _, samples: asked.extend(samples) or [""])
    for image, audio, text in (
        (whole.image, sound, question),
        (whole.image, sound, "Look: <image> and <audio>?"),
        (whole.image, sound, "Look: <image>?"),
        (None, sound, question),
        (whole.image, None, question),
        (None, None, question),
    ):
        shared.generate(image, audio, text)
    assert [sample.instruction for sample in asked] == [
        "<image><audio>Where is the dog?",
        "Look: <image> and <audio>?",
        "<audio>Look: <image>?",
        "<audio>Where is the dog?",
        "<image>Where is the dog?",
        "Where is the dog?",
    ]
    assert asked[3].sample_rate == tiny.RATE


def test_generate_refuses_what_a_batch_would(shared: AudioVisualLM) -> None:
    with pytest.raises(SampleError, match="audio lasts 2"):
        shared.generate(None, (np.zeros(2 * tiny.RATE, np.float32), tiny.RATE), "When?")


def test_training_goes_on_after_an_answer_even_a_failed_one(model: AudioVisualLM) -> None:
    def modes() -> dict[str, bool]:
        return {name: module.training for name, module in model.named_modules()}

    model.train()
    model.learn(["fusion", "llm"])
    before = modes()
    assert set(before.values()) == {True, False}
    model.answer([tiny.sample()])
    assert modes() == before
    with pytest.raises(SampleError):
        model.answer([tiny.sample(boxes=((0, 0, 2, 1),))])
    assert modes() == before
    model.eval()
    model.explain(tiny.sample())
    assert not any(modes().values())


def test_answers_are_made_in_evaluation_mode() -> None:
    model = tiny.model()
    model.train()
    seen: list[Any] = []
    model.fusion.register_forward_hook(
        lambda module, *_: seen.append((module.training, torch.is_grad_enabled()))
    )
    model.answer([tiny.sample()])
    assert seen == [(False, False)]
