"""wav2vec 2.0, HuBERT, WavLM and data2vec-audio: each clip as if it were alone, whatever pads it.

Small models with random weights are written in transformers' format and read back by path: no download.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from avalign.encoders.wav2vec2 import WaveformAudioEncoder
from avalign.errors import AvalignError
from tests.helpers.audio_encoders import RATE, TINY_WAVEFORM, configure, noise, stirred, tokens

FAMILIES = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForCTC),
    "hubert": (transformers.HubertConfig, transformers.HubertForCTC),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMForCTC),
    "data2vec-audio": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioForCTC),
}


def save_waveform(folder: Path, family: str, do_normalize: bool = True, **changes: Any) -> tuple[Any, Any]:
    kind, with_head = FAMILIES[family]
    stacked = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5} if "data2vec" in family else {}
    model = stirred(with_head(kind(**{**TINY_WAVEFORM["config"], **stacked, "vocab_size": 8, **changes})))
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    extractor.save_pretrained(folder)
    return model.base_model, extractor


def alone(stock: Any, extractor: Any, heard: np.ndarray, count: int) -> Tensor:
    """What transformers computes for this clip by itself, completed to the end of its last token's 25 ms."""
    x = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_values
    length = (count - 1) * 320 + 400
    x = torch.nn.functional.pad(x, (0, max(0, length - x.shape[1])))[:, :length]
    with torch.no_grad():
        return stock(x).last_hidden_state[0]


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize(
    ("family", "norm"),
    [(f, n) for f in FAMILIES for n in ("group", "layer") if (f, n) != ("data2vec-audio", "group")],
)
def test_padding_changes_nothing_for_waveforms(tmp_path: Path, family: str, norm: str) -> None:
    """Clips of three lengths in a window of 1 s, each as if it were alone: group norms see the clip only."""
    options = {} if family == "data2vec-audio" else {"feat_extract_norm": norm}
    stock, extractor = save_waveform(
        tmp_path, family, do_normalize=norm == "layer", do_stable_layer_norm=norm == "layer", **options
    )
    encoder = WaveformAudioEncoder(model=str(tmp_path), seconds=1.0)
    assert encoder.pretrained
    assert encoder.loaded.share == 1
    clips = [noise(1.0), noise(0.31, 1), noise(0.07, 2)]
    found = tokens(encoder, *clips)
    assert found.mask.sum(1).tolist() == [49, 16, 4]  # they begin at 0, 22.5, 42.5, 62.5, ... ms
    for row, heard in enumerate(clips):
        count = int(found.mask[row].sum())
        expected = alone(stock, extractor, heard, count)
        torch.testing.assert_close(found.values[row, :count], expected, atol=2e-4, rtol=1e-3)
    with torch.no_grad():
        silent = encoder(torch.zeros(1, RATE), torch.zeros(1))
    assert silent.values.isfinite().all()
    assert not silent.mask.any()


def test_the_token_of_a_waveform_lies_where_it_listens() -> None:
    """Its span holds the middle of the 25 ms that its convolutions see, to the sample."""
    config = {**TINY_WAVEFORM["config"], "feat_extract_norm": "layer"}
    encoder = WaveformAudioEncoder(pretrained=False, seconds=1.0, config=config).eval()
    x = torch.from_numpy(noise(1.0))[None].requires_grad_()
    for token in (0, 1, 24, 48):
        (felt,) = torch.autograd.grad(encoder._features(x, None)[0, :, token].sum(), x)
        heard = felt[0].nonzero().flatten()
        assert (heard.min(), heard.max()) == (320 * token, 320 * token + 399)
        start, end = (encoder.times[token] * RATE).tolist()
        assert start < (heard.min() + heard.max()) / 2 < end
    assert (encoder.times[1] * RATE).tolist() == pytest.approx([360, 680], abs=0.01)


def test_samples_are_normalised_over_the_clip_where_the_model_wants_it(tmp_path: Path) -> None:
    heard = noise(0.3)
    for wanted in (True, False):
        save_waveform(tmp_path / str(wanted), "wav2vec2", do_normalize=wanted)
        x = WaveformAudioEncoder(model=str(tmp_path / str(wanted)), seconds=1.0).preprocessing(heard, RATE)
        inside = x[: len(heard)]
        assert (float(inside.mean()), float(inside.var())) == pytest.approx(
            (0, 1) if wanted else (0.02, 0.01), abs=2e-3
        )
        assert not x[len(heard) :].any()


def rename_weight_norm(folder: Path) -> None:
    """As files were written before torch.nn.utils.parametrizations."""
    file = folder / "model.safetensors"
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = load_file(file)
    for name in [*weights]:
        for new, short in old.items():
            if name.endswith(new):
                weights[name.replace(new, short)] = weights.pop(name)
    save_file(weights, file)


def to_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def to_base_model(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    inner = {n.removeprefix("wav2vec2."): w for n, w in weights.items() if n.startswith("wav2vec2.")}
    save_file(inner, folder / "model.safetensors")


def to_processor(folder: Path) -> None:
    """As transformers 5 writes a processor: one file, the extractor inside."""
    found = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": found}))
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize("change", [rename_weight_norm, to_pickle, to_base_model, to_processor])
def test_files_of_other_releases_give_the_same(tmp_path: Path, change: Callable[[Path], None]) -> None:
    save_waveform(tmp_path, "wav2vec2", do_normalize=False)
    before = tokens(WaveformAudioEncoder(model=str(tmp_path), seconds=1.0), noise(0.5))
    change(tmp_path)
    after = tokens(WaveformAudioEncoder(model=str(tmp_path), seconds=1.0), noise(0.5))
    assert torch.equal(before.values, after.values)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("facebook/wav2vec2-base", 94.37),
        ("facebook/hubert-base-ls960", 94.37),
        ("microsoft/wavlm-base", 94.38),
        ("facebook/data2vec-audio-base", 93.16),
    ],
)
def test_the_base_models_without_the_hub(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = WaveformAudioEncoder(model=name, pretrained=False)
    assert (encoder.token_count, encoder.width, encoder.sample_rate) == (499, 768, RATE)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: configure(f, "config.json", num_hidden_layers=1), "unexpected: encoder.layers.1"),
        (
            lambda f: (f / "preprocessor_config.json").unlink(),
            "holds no preprocessor_config.json or processor",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, damage: Any, said: str) -> None:
    save_waveform(tmp_path, "wav2vec2")
    damage(tmp_path)
    with pytest.raises(AvalignError, match=said):
        WaveformAudioEncoder(model=str(tmp_path))
