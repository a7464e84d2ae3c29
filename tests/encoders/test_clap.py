"""CLAP's audio tower, with released weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel

from avalign.encoders.clap import ClapAudioEncoder
from avalign.errors import AvalignError
from tests.helpers.pretrained import (
    TINY_CLAP,
    _offline,  # noqa: F401 (fixtures)
    noise,
    spread,
)

TINY_TEXT = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


# -- CLAP ----------------------------------------------------------------------------------------------------


def save_clap(folder: Path, *, fused: bool) -> tuple[ClapModel, ClapFeatureExtractor]:
    audio = ClapAudioConfig(**TINY_CLAP, enable_fusion=fused)
    model = ClapModel(
        ClapConfig(audio_config=audio.to_dict(), text_config=TINY_TEXT, projection_dim=8)
    ).eval()
    spread(model)
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=16, hop_length=1920, fft_window_size=4096, truncation="fusion" if fused else "rand_trunc"
    )
    extractor.save_pretrained(folder)
    return model, extractor


def stock_tokens(model: ClapModel, features: torch.Tensor) -> torch.Tensor:
    """(64, width), by time, then band, from the whole stock model for clips of 10 s or less."""
    longer = torch.zeros(1, 1, dtype=torch.bool)
    hidden = model.audio_model(input_features=features, is_longer=longer).last_hidden_state[0]
    return torch.stack([hidden[:, band, step] for step in range(32) for band in range(2)])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize(("padding", "stock_padding"), [("zeros", "pad"), ("repeatpad", "repeatpad")])
def test_clap_computes_what_transformers_does(
    tmp_path: Path, fused: bool, padding, stock_padding: str
) -> None:
    """From a whole CLAP folder: same features and same tokens (fault 3: loaded and thrown away)."""
    model, extractor = save_clap(tmp_path, fused=fused)
    encoder = ClapAudioEncoder(model=str(tmp_path), padding=padding).eval()
    assert encoder.pretrained
    clip = noise(3.0, 48_000)
    stock = extractor(clip, sampling_rate=48_000, padding=stock_padding, return_tensors="pt").input_features
    assert stock.shape[1] == (4 if fused else 1)
    x = encoder.preprocessing(clip, 48_000)[None]
    torch.testing.assert_close(encoder.spectrogram(x)[0, 0], stock[0, 0], atol=1e-3, rtol=0)  # dB, float32
    with torch.no_grad():
        torch.testing.assert_close(encoder(x).values[0], stock_tokens(model, stock), atol=1e-3, rtol=1e-3)


def test_clap_loads_a_folder_of_the_audio_tower_alone(tmp_path: Path) -> None:
    model, extractor = save_clap(tmp_path / "whole", fused=True)
    model.audio_model.save_pretrained(tmp_path / "tower")
    extractor.save_pretrained(tmp_path / "tower")
    whole = ClapAudioEncoder(model=str(tmp_path / "whole")).state_dict()
    tower = ClapAudioEncoder(model=str(tmp_path / "tower")).state_dict()
    assert whole.keys() == tower.keys()
    for key, value in model.audio_model.state_dict().items():
        if "fusion_model" not in key and "mel_conv2d" not in key:  # for clips of more than 10 s
            torch.testing.assert_close(whole[f"model.{key}"], value, msg=key)
            torch.testing.assert_close(tower[f"model.{key}"], value, msg=key)


def tiny_clap(**options) -> ClapAudioEncoder:
    torch.manual_seed(0)
    return ClapAudioEncoder(pretrained=False, config=TINY_CLAP, **options).eval()


@pytest.mark.parametrize(
    "at", [0.1, 2.0, 2.4, 2.6, 4.9, 5.1, 7.4, 7.6, 9.9]
)  # HTS-AT cuts at 2.5, 5 and 7.5 s
def test_a_click_changes_most_the_tokens_of_its_time(at: float) -> None:
    encoder = tiny_clap()
    quiet = 0.01 * noise(10, 48_000)
    click = quiet.copy()
    click[int(at * 48_000) : int(at * 48_000) + 2400] += noise(0.05, 48_000, seed=1)
    with torch.no_grad():
        before, after = encoder(torch.from_numpy(np.stack([quiet, click]))).values
    change = (after - before).norm(dim=-1)
    start, end = encoder.times[change.argmax()].tolist()
    assert start - 0.04 <= at + 0.025 <= end + 0.04  # frames are 0.04 s apart


def test_each_step_has_its_low_band_first() -> None:
    encoder = tiny_clap()
    time_axis = np.arange(480_000) / 48_000
    quiet = 0.01 * noise(10, 48_000)
    tones = [
        quiet + (0.3 * np.sin(2 * np.pi * hertz * time_axis)).astype(np.float32) for hertz in (300, 11_000)
    ]
    with torch.no_grad():
        silence, low, high = encoder(torch.from_numpy(np.stack([quiet, *tones]))).values.unflatten(1, (32, 2))
    low_change, high_change = (low - silence).norm(dim=-1).sum(0), (high - silence).norm(dim=-1).sum(0)
    assert low_change[0] > 1.5 * low_change[1]
    assert high_change[1] > 1.5 * high_change[0]


def test_the_stock_shapes_are_64_tokens_of_768() -> None:
    encoder = ClapAudioEncoder(
        pretrained=False, config={"depths": [1, 1, 1, 1]}
    )  # stock widths, fewer layers
    assert (encoder.token_count, encoder.width, encoder.sample_rate, encoder.seconds) == (
        64,
        768,
        48_000,
        10.0,
    )
    tokens = encoder(encoder.preprocessing(noise(1, 48_000), 48_000)[None])
    assert tokens.values.shape == (1, 64, 768)
    assert tokens.times[:3].tolist() == [[0, 0.3125], [0, 0.3125], [0.3125, 0.625]]
    assert tokens.times[-1].tolist() == [9.6875, 10]


def test_the_stock_models_hear_from_50_hz_on() -> None:
    """As their preprocessor_config.json says; transformers' extractor would begin at 0 by itself."""
    for model in ("laion/clap-htsat-fused", "laion/clap-htsat-unfused"):
        encoder = ClapAudioEncoder(model=model, pretrained=False, config={"depths": [1, 1, 1, 1]})
        hertz = torch.arange(513) * 48_000 / 1024
        assert not encoder.filters[(hertz <= 50) | (hertz >= 14_000)].any()
        assert encoder.filters[(hertz > 60) & (hertz < 13_900)].any(dim=1).all()


def test_audio_at_16_khz_is_resampled_not_sped_up() -> None:
    """Fault 5. The same second of sound at both rates gives the same input, and ends where it ended."""
    encoder = tiny_clap()
    seconds = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 440 * seconds).astype(np.float32) * np.sin(np.pi * seconds).astype(np.float32)
    at_48, at_16 = encoder.preprocessing(tone, 48_000), encoder.preprocessing(tone[::3].copy(), 16_000)
    assert at_48.shape == at_16.shape == (480_000,)
    torch.testing.assert_close(at_16, at_48, atol=2e-3, rtol=0)
    assert at_16[48_100:].abs().max() == 0


def test_the_mask_is_the_true_length() -> None:
    encoder = tiny_clap()
    x = torch.zeros(4, 480_000)
    mask = encoder(x, torch.tensor([0.0, 0.3, 5.0, 10.0])).mask
    assert mask.sum(dim=1).tolist() == [0, 2, 32, 64]
    assert encoder.times[mask[2]].max().item() == 5.0
    assert encoder(x).mask.all()
    repeated = tiny_clap(padding="repeatpad")
    assert repeated(x, torch.tensor([0.0, 0.3, 5.0, 10.0])).mask.sum(dim=1).tolist() == [0, 64, 64, 64]


def test_repeatpad_repeats_whole_clips() -> None:
    clip = noise(4, 48_000)
    x = tiny_clap(padding="repeatpad").preprocessing(clip, 48_000).numpy()
    np.testing.assert_array_equal(x, np.concatenate([clip, clip, np.zeros(96_000, np.float32)]))


def test_a_clip_that_is_too_long_is_refused() -> None:
    encoder = tiny_clap()
    stray = noise(10.005, 16_000)  # a few samples more are no matter
    assert encoder.preprocessing(stray, 16_000).shape == (480_000,)
    with pytest.raises(AvalignError, match=r"lasts 12\.00 s, CLAP takes 10 s"):
        encoder.preprocessing(noise(12, 16_000), 16_000)


def test_every_parameter_of_clap_reaches_the_tokens() -> None:
    encoder = tiny_clap().train()
    encoder(torch.from_numpy(noise(10, 48_000))[None]).values.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_a_frozen_tower_learns_nothing_from_batches() -> None:
    encoder = tiny_clap().requires_grad_(False).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    x = torch.from_numpy(noise(10, 48_000))[None]
    first, second = encoder(x).values, encoder(x).values
    torch.testing.assert_close(first, second)  # no dropout either
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(value, before[key], msg=key)


def test_clap_in_bf16_still_hears_in_float32() -> None:
    encoder = tiny_clap()
    x = torch.from_numpy(noise(10, 48_000))[None]
    expected = encoder.spectrogram(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(encoder.spectrogram(x), expected)
        assert encoder(x).values.isfinite().all()
    assert encoder.to(torch.bfloat16)(x).values.dtype == torch.bfloat16


def drop_a_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["audio_model.audio_encoder.norm.weight"]
    save_file(weights, file)


def change_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["audio_config"].update(changes)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_a_weight, "1 missing: audio_encoder.norm.weight"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "holds no preprocessor_config.json"),
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            "not the configuration of a model that this",
        ),
        (lambda folder: change_config(folder, mlp_ratio=2.0), "of another shape"),
        (lambda folder: change_config(folder, enable_fusion=False), "unexpected: .*fusion_model"),
        (lambda folder: change_config(folder, fusion_type="channel_map"), "channel_map"),
    ],
)
def test_a_clap_folder_that_does_not_fit_is_refused(tmp_path: Path, damage, said: str) -> None:
    save_clap(tmp_path, fused=True)
    damage(tmp_path)
    with pytest.raises(AvalignError, match=said):
        ClapAudioEncoder(model=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "./nowhere"}, "no such folder"),
        ({"config": TINY_CLAP}, "needs `pretrained: false`"),
        ({"pretrained": False, "config": {"spec_siez": 64}}, "no field 'spec_siez'"),
        ({"pretrained": False, "padding": "mirror"}, "Known: zeros, repeatpad"),
    ],
)
def test_wrong_options_of_clap_are_named(options: dict, said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        ClapAudioEncoder(**options)
