"""AST and Whisper: the file's weights, the libraries' features, times; what all stock audio encoders refuse.

Small models with random weights are written in transformers' format and read back by path: no download.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from avalign import registry
from avalign.encoders.ast import AstAudioEncoder
from avalign.encoders.whisper import WhisperAudioEncoder
from avalign.errors import AvalignError
from tests.helpers.audio_encoders import (
    RATE,
    TINY_AST,
    TINY_WAVEFORM,
    TINY_WHISPER,
    configure,
    noise,
    stirred,
    tokens,
)
from tests.helpers.tolerances import assert_close

DECODER = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 20}
DECODER |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty_cache"))


def changes_most(encoder: Any, seconds: float, at: float) -> int:
    """The token that a click of 10 ms, `at` seconds into the clip, changes most."""
    quiet = 0.01 * noise(seconds)
    click = quiet.copy()
    click[round(at * RATE) : round((at + 0.01) * RATE)] += noise(0.01, seed=1)
    before, after = tokens(encoder, quiet, click).values
    return int((after - before).norm(dim=-1).argmax())


# -- AST -----------------------------------------------------------------------------------------------------

mel_warning = pytest.mark.filterwarnings("ignore:At least one mel filter")  # of transformers' own extractor


def save_ast(folder: Path) -> tuple[Any, Any]:
    model = stirred(transformers.ASTForAudioClassification(transformers.ASTConfig(**TINY_AST, num_labels=3)))
    model.save_pretrained(folder)  # under the names that the hub's have
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=128)
    extractor.save_pretrained(folder)
    return model.audio_spectrogram_transformer, extractor


@mel_warning
@pytest.mark.parametrize("seconds", [1.28, 0.5, 0.02])
def test_ast_computes_what_transformers_does(tmp_path: Path, seconds: float) -> None:
    """From the classifier's folder: same features, same tokens (fault 3: loaded and thrown away)."""
    stock, extractor = save_ast(tmp_path)
    encoder = AstAudioEncoder(model=str(tmp_path))
    assert encoder.pretrained
    assert encoder.loaded.share == 1
    heard = noise(seconds)
    if seconds > 0.025:  # the library's extractor fails where there is no whole frame
        features = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_values
    else:
        features = torch.full((1, 128, 32), (0 - extractor.mean) / (2 * extractor.std))
    x = encoder.preprocessing(heard, RATE)[None]
    torch.testing.assert_close(
        encoder.spectrogram(x, torch.tensor([seconds])), features, atol=2e-4, rtol=1e-4
    )
    with torch.no_grad():
        hidden = stock(features).last_hidden_state[0, 2:].unflatten(0, (2, 12))
    found = tokens(encoder, heard)
    torch.testing.assert_close(found.values[0], hidden.transpose(0, 1).flatten(0, 1), atol=1e-3, rtol=1e-3)
    assert found.mask.sum() == 2 * {1.28: 12, 0.5: 5, 0.02: 1}[seconds]  # from 0, 0.1375, ..., 0.4375, ...


def test_the_stock_ast_has_101_steps_of_12_bands() -> None:
    with torch.device("meta"):
        shape = AstAudioEncoder(pretrained=False)
    assert (shape.token_count, shape.width, shape.seconds) == (1212, 768, 10.24)
    times = AstAudioEncoder(pretrained=False, config={"num_hidden_layers": 1}).times
    assert times[:12].unique(dim=0).tolist() == [[0, pytest.approx(0.1375)]]
    assert times[12].tolist() == pytest.approx([0.1375, 0.2375])
    assert times[-1].tolist() == pytest.approx([10.0375, 10.24])


@pytest.mark.parametrize("at", [0.02, 0.18, 0.4, 0.88, 1.1])
def test_a_click_changes_most_the_token_of_ast_at_its_time(at: float) -> None:
    torch.manual_seed(0)
    encoder = AstAudioEncoder(pretrained=False, config=TINY_AST)
    start, end = encoder.times[changes_most(encoder, 1.28, at)].tolist()
    assert start - 0.05 <= at + 0.005 <= end + 0.05  # patches overlap by 0.06 s


# -- Whisper -------------------------------------------------------------------------------------------------


def save_whisper(folder: Path) -> tuple[Any, Any]:
    config = transformers.WhisperConfig(**TINY_WHISPER, **DECODER)
    model = stirred(transformers.WhisperForConditionalGeneration(config))
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    extractor.save_pretrained(folder)
    return model.model.encoder, extractor


@pytest.mark.parametrize("seconds", [1.0, 0.31])
def test_whisper_computes_what_transformers_does(tmp_path: Path, seconds: float) -> None:
    stock, extractor = save_whisper(tmp_path)
    encoder = WhisperAudioEncoder(model=str(tmp_path))
    assert encoder.pretrained
    assert encoder.loaded.share == 1
    heard = noise(seconds)
    features = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_features
    x = encoder.preprocessing(heard, RATE)[None]
    torch.testing.assert_close(encoder.spectrogram(x), features, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        expected = stock(features).last_hidden_state
    found = tokens(encoder, heard)
    torch.testing.assert_close(found.values, expected, atol=1e-3, rtol=1e-3)
    assert found.mask.sum() == {1.0: 50, 0.31: 16}[seconds]
    assert found.times[1].tolist() == pytest.approx([0.02, 0.04])


def test_whisper_hears_each_clip_down_to_80_db_below_its_own_loudest() -> None:
    """A quiet one beside a loud one is not flattened: the floor is of the clip, not of the batch."""
    encoder = WhisperAudioEncoder(pretrained=False, config=TINY_WHISPER)
    loud, quiet = (encoder.preprocessing(gain * noise(1.0), RATE) for gain in (5.0, 1e-4))
    both = encoder.spectrogram(torch.stack([loud, quiet]))
    assert_close(both[1], encoder.spectrogram(quiet[None])[0], torch.float32)
    assert both[1].std() > 0.01


def test_a_shorter_window_of_whisper_keeps_the_first_positions(tmp_path: Path) -> None:
    stock, extractor = save_whisper(tmp_path)
    encoder = WhisperAudioEncoder(model=str(tmp_path), seconds=0.4)
    assert (encoder.token_count, encoder.seconds) == (20, 0.4)
    positions = encoder.model.embed_positions.weight
    torch.testing.assert_close(positions, stock.embed_positions.weight[:20], rtol=0, atol=0)
    heard = noise(0.4)
    features = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_features[..., :40]
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.spectrogram(encoder.preprocessing(heard, RATE)[None])[..., :38], features[..., :38],
            atol=1e-4, rtol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("encoder", ["whisper", "wav2vec2"])
def test_pooled_tokens_are_means_over_the_clip(encoder: str) -> None:
    """Of three each; the last of the clip over the one or two that are left, the last of all likewise."""

    def build(pool: int) -> Any:
        torch.manual_seed(0)
        options = TINY_WAVEFORM if encoder == "wav2vec2" else {"config": TINY_WHISPER}
        return registry.load("audio_encoder", encoder)(pretrained=False, pool=pool, **options)

    each, third = tokens(build(1), noise(1), noise(0.25)), tokens(build(3), noise(1), noise(0.25))
    assert third.values.shape[1] == -(-each.values.shape[1] // 3)
    for row in range(2):
        count = int(each.mask[row].sum())
        groups = each.values[row, :count].split(3)
        assert third.mask[row].sum() == len(groups)
        means = torch.stack([group.mean(0) for group in groups])
        assert_close(third.values[row, : len(groups)], means, torch.float32)
    assert third.times[0].tolist() == [0, each.times[2, 1]]
    assert third.times[-1, 1] == each.times[-1, 1]


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("tiny", 384, 8.21), ("small.en", 768, 88.15), ("large-v3", 1280, 636.97)]
)
def test_whisper_in_its_sizes_without_the_hub(name: str, width: int, millions: float) -> None:
    with torch.device("meta"):
        encoder = WhisperAudioEncoder(model=f"openai/whisper-{name}", pretrained=False)
    assert (encoder.token_count, encoder.width, encoder.seconds) == (1500, width, 30)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


# -- what all refuse -----------------------------------------------------------------------------------------

TINY: dict[str, dict[str, Any]] = {
    "ast": {"config": TINY_AST},
    "whisper": {"config": TINY_WHISPER},
    "wav2vec2": TINY_WAVEFORM,
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\).*one channel.*mix the channels down"),
        (np.zeros(2 * RATE, np.float32), r"lasts 2\.00 s, .* takes 1(\.28)? s: cut it"),
        (np.array([0, np.nan, 0], np.float32), "1 of 3 audio samples are NaN"),
        (np.zeros(0, np.float32), "no audio samples"),
    ],
)
def test_audio_that_cannot_be_heard_is_refused(name: str, audio: np.ndarray, said: str) -> None:
    encoder = registry.load("audio_encoder", name)(pretrained=False, **TINY[name])
    with pytest.raises(AvalignError, match=said):
        encoder.preprocessing(audio, RATE)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ast", {}, r"MIT/ast.*config\.json is not in the local cache.*hf download"),
        ("whisper", {"model": "./nowhere"}, "no such folder"),
        ("wav2vec2", {"config": {"hidden_size": 8}}, "needs `pretrained: false`"),
        (
            "ast",
            {"pretrained": False, "config": {"hiden_size": 8}},
            "ASTConfig has no field 'hiden_size'. Did you",
        ),
        ("ast", {"pretrained": False, "config": {"hidden_size": "wide"}}, "ASTConfig: .*hidden_size"),
        ("wav2vec2", {"pretrained": False, "config": {"model_type": "wavln"}}, "Did you mean 'wavlm'"),
        ("wav2vec2", {"pretrained": False, "config": {"add_adapter": True}}, "add_adapter are not supported"),
        ("wav2vec2", {"pretrained": False, "seconds": 0.01}, r"a token needs 0\.025 s"),
        ("whisper", {"pretrained": False, "seconds": 31.0}, r"up to 30 is needed"),
        ("whisper", {"pretrained": False, "seconds": 0.03}, r"a multiple of 0\.02"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        registry.load("audio_encoder", name)(**options)


def drop(folder: Path, ending: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if not n.endswith(ending)}, folder / "model.safetensors")


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


DAMAGED: dict[str, list[tuple[Callable[[Path], Any], str]]] = {
    "ast": [
        (lambda f: drop(f, "layer.0.attention.output.dense.weight"), r"1 missing: layers\.0"),
        (cut_short, "not a safetensors file"),
        (lambda f: configure(f, "config.json", model_type="vit"), "model_type is 'vit'"),
        (lambda f: configure(f, "config.json", max_length=64), "max_length is 128 in preprocessor"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a list, not a dict"),
    ],
    "whisper": [
        (lambda f: drop(f, "model.encoder.conv1.bias"), r"1 missing: conv1\.bias"),
        (lambda f: configure(f, "preprocessor_config.json", feature_size=80), "feature_size is 80"),
    ],
}


@mel_warning
@pytest.mark.parametrize(
    ("name", "case"), [(n, k) for n, cases in DAMAGED.items() for k in range(len(cases))]
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, name: str, case: int) -> None:
    {"ast": save_ast, "whisper": save_whisper}[name](tmp_path)
    damage, said = DAMAGED[name][case]
    damage(tmp_path)
    with pytest.raises(AvalignError, match=said):
        registry.load("audio_encoder", name)(model=str(tmp_path))


@mel_warning
def test_a_share_of_the_weights_can_be_asked_for(tmp_path: Path) -> None:
    save_ast(tmp_path)
    drop(tmp_path, "embeddings.cls_token")
    with pytest.warns(UserWarning, match="1 missing: embeddings.cls_token"):
        encoder = AstAudioEncoder(model=str(tmp_path), min_loaded=0.9)
    assert encoder.loaded is not None
    assert 0.9 < encoder.loaded.share < 1
    assert not encoder.pretrained, "what is random has to be saved with a run"


@pytest.mark.parametrize("name", TINY)
def test_a_frozen_tower_computes_the_same_while_the_rest_trains(name: str) -> None:
    encoder = registry.load("audio_encoder", name)(pretrained=False, **TINY[name])
    encoder.requires_grad_(False).train()
    assert not encoder.training
    encoder.requires_grad_(True).train()
    assert encoder.model.training


@pytest.mark.parametrize("name", TINY)
def test_times_and_spectrograms_stay_exact_in_a_model_of_bf16(name: str) -> None:
    encoder = registry.load("audio_encoder", name)(pretrained=False, **TINY[name])
    heard = noise(0.47)
    before = tokens(encoder, heard)
    times = encoder.times.clone()
    spectrogram = getattr(encoder, "spectrogram", lambda waves: waves)
    waves = encoder.preprocessing(heard, RATE)[None]
    features = spectrogram(waves)
    after = tokens(encoder.to(torch.bfloat16), heard)
    assert after.values.dtype == torch.bfloat16
    assert torch.equal(after.times, times)
    assert torch.equal(after.mask, before.mask)
    assert torch.equal(spectrogram(waves), features)
