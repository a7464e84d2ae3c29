"""Checkpoints of laion-clap: their weights are the weights used, and compute what that package computes.

Small checkpoints are written here under the package's names, with what lies beside the weights in real ones.
The test against the package itself needs it installed (`pip install "avalign[laion-clap]"`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor

from avalign.encoders.clap import ClapAudioEncoder
from avalign.encoders.laion_clap import AMODELS, LaionClapAudioEncoder
from avalign.errors import AvalignError
from tests.helpers.pretrained import noise, spread

SMALL = {"patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1, 2, 1, 1], "aff_block_r": 1}
SMALL |= {"num_attention_heads": [2, 2, 4, 4]}
# transformers' names -> the package's, read off a checkpoint of its HTSAT_Swin_Transformer
BACK = [
    ("audio_encoder.batch_norm.", "bn0."),
    ("audio_encoder.", ""),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.self.relative_position", ".attn.relative_position"),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty_cache"))


def small_tower(fused: bool) -> ClapAudioModel:
    model = ClapAudioModel(ClapAudioConfig(**SMALL, enable_fusion=fused)).eval()
    spread(model)
    return model


def as_laion(model: ClapAudioModel, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """The tower's weights under the package's names, among a text branch and the classes of AudioSet."""
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        for new, old in BACK:
            name = name.replace(new, old)
        if ".attention.self.query." in name:
            parts = [name.replace("query", part) for part in ("query", "key", "value")]
            stock = {old: w for old, w in zip(parts, _three(model, name), strict=True)}
            weights[name.replace(".attention.self.query.", ".attn.qkv.")] = torch.cat([*stock.values()])
        elif ".attention.self.key." not in name and ".attention.self.value." not in name:
            weights[name] = weight
    bands = ClapFeatureExtractor(frequency_min=50).mel_filters_slaney
    weights |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 64, 64),
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.from_numpy(bands).float(),
        "tscam_conv.weight": torch.zeros(527, 128, 2, 3),
        "head.weight": torch.zeros(527, 527),
    }
    weights = {f"{prefix}audio_branch.{name}": weight for name, weight in weights.items()}
    text = {
        "text_branch.embeddings.word_embeddings.weight": torch.zeros(5, 4),
        "logit_scale_a": torch.ones(()),
    }
    return weights | {prefix + name: weight for name, weight in text.items()}


def _three(model: ClapAudioModel, name: str) -> list[torch.Tensor]:
    weights = model.state_dict()
    stock = f"audio_encoder.{name}".replace(".norm1.", ".layernorm_before.")
    return [weights[stock.replace("query", part)] for part in ("query", "key", "value")]


def save(file: Path, weights: dict[str, torch.Tensor]) -> Path:
    """As the package's training writes them: NumPy scalars and an optimizer's state beside the weights."""
    beside = {
        "epoch": np.int64(45),
        "name": "a run",
        "optimizer": {
            "state": {0: {"step": torch.ones(()), "exp_avg": torch.zeros(3)}},
            "lr": np.float64(1e-4),
        },
    }
    torch.save({**beside, "state_dict": weights}, file)
    return file


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_checkpoint_gives_the_tokens_of_clap_on_the_same_weights(
    tmp_path: Path, fused: bool, prefix: str
) -> None:
    """To the bit: both compute them by the same code, from the weights of the file (fault 3)."""
    model = small_tower(fused)
    encoder = LaionClapAudioEncoder(
        checkpoint=str(save(tmp_path / "small.pt", as_laion(model, prefix)))
    ).eval()
    for name, weight in encoder.model.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=0, atol=0, msg=name)
    assert encoder.pretrained
    assert encoder.loaded is not None
    assert encoder.loaded.share == 1

    model.save_pretrained(tmp_path / "folder")
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation).save_pretrained(tmp_path / "folder")
    clap = ClapAudioEncoder(model=str(tmp_path / "folder")).eval()
    heard = noise(3, 48_000)
    with torch.no_grad():
        one, other = (e(e.preprocessing(heard, 48_000)[None], torch.tensor([3.0])) for e in (encoder, clap))
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-6)
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.times, other.times)


def test_an_unfused_checkpoint_hears_through_the_bands_it_carries(tmp_path: Path) -> None:
    weights = as_laion(small_tower(False))
    weights["module.audio_branch.logmel_extractor.melW"] *= 2  # + 3.01 dB
    loud = LaionClapAudioEncoder(checkpoint=str(save(tmp_path / "loud.pt", weights)))
    usual = LaionClapAudioEncoder(checkpoint=str(save(tmp_path / "it.pt", as_laion(small_tower(False)))))
    wave = torch.from_numpy(noise(10, 48_000))[None]
    more = loud.spectrogram(wave) - usual.spectrogram(wave)
    torch.testing.assert_close(more, torch.full_like(more, 3.0103), atol=1e-3, rtol=0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda w: w.pop("module.audio_branch.norm.weight"), "1 missing: audio_encoder.norm.weight"),
            (lambda w: w.pop("module.audio_branch.layers.1.blocks.0.attn.qkv.bias"), "3 missing"),
            (
                lambda w: w.update({"module.audio_branch.new": torch.ones(1)}),
                "1 unexpected: audio_encoder.new",
            ),
            (lambda w: w.pop("module.audio_branch.patch_embed.proj.weight"), "is no HTS-AT"),
            (
                lambda w: [w.pop(k) for k in [*w] if ".layers.1." in k],
                r"no whole HTS-AT: stages \[0, 2, 3\]",
            ),
            (
                lambda w: w.update({"module.audio_branch.patch_embed.proj.weight": torch.ones(16, 4, 4, 4)}),
                "channel_map",
            ),
            (lambda w: [w.pop(k) for k in [*w] if "audio_branch" in k], "not a checkpoint of laion-clap"),
        ],
    )
    def test_a_checkpoint_that_does_not_fit(self, tmp_path: Path, damage: Any, said: str) -> None:
        weights = as_laion(small_tower(True))
        damage(weights)
        with pytest.raises(AvalignError, match=said):
            LaionClapAudioEncoder(checkpoint=str(save(tmp_path / "small.pt", weights)))

    def test_code_in_a_checkpoint_is_not_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "run",)

        torch.save({"state_dict": as_laion(small_tower(True)), "args": Evil()}, tmp_path / "evil.pt")
        with pytest.raises(AvalignError, match=r"evil\.pt: "):
            LaionClapAudioEncoder(checkpoint=str(tmp_path / "evil.pt"))
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"checkpoint": "nowhere/here.pt"}, "no such file"),
            ({"checkpoint": "630k-best.safetensors"}, r"are \.pt files"),
            ({}, r"lukewys/laion_clap: 630k-audioset-fusion-best\.pt is not in the local cache"),
            ({"config": SMALL}, "needs `pretrained: false`"),
            ({"pretrained": False, "amodel": "HTSAT-huge"}, "Known: HTSAT-tiny, HTSAT-base, HTSAT-large"),
            ({"pretrained": False, "config": {"dephts": [1]}}, "Did you mean 'depths'"),
        ],
    )
    def test_wrong_options(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(AvalignError, match=said):
            LaionClapAudioEncoder(**options)

    def test_a_checkpoint_of_another_size_than_named(self, tmp_path: Path) -> None:
        file = save(tmp_path / "small.pt", as_laion(small_tower(True)))
        with pytest.raises(AvalignError, match=r"is of other sizes, not HTSAT-base \(16 wide at first"):
            LaionClapAudioEncoder(checkpoint=str(file), amodel="HTSAT-base")


@pytest.mark.parametrize(
    ("amodel", "width"), [("HTSAT-tiny", 768), ("HTSAT-base", 1024), ("HTSAT-large", 2048)]
)
def test_random_weights_in_the_shapes_of_each_size(amodel: Any, width: int) -> None:
    with torch.device("meta"):
        encoder = LaionClapAudioEncoder(pretrained=False, amodel=amodel)
    assert (encoder.token_count, encoder.width, encoder.sample_rate) == (64, width, 48_000)
    assert not encoder.pretrained


# -- the package itself --------------------------------------------------------------------------------------

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("laion_clap") is None,
    reason='laion-clap is not installed: pip install "avalign[laion-clap]"',
)


def htsat_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's HTS-AT. Its packages' own __init__ files are passed by: they fetch text tokenizers."""
    spec = importlib.util.find_spec("laion_clap")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    for name, path in (("laion_clap", folder), ("laion_clap.clap_module", f"{folder}/clap_module")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        monkeypatch.setitem(sys.modules, name, package)
    return importlib.import_module("laion_clap.clap_module.htsat")


@needs_package
@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("amodel", ["HTSAT-tiny", "HTSAT-base"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_it_computes_what_the_package_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amodel: Any, fused: bool
) -> None:
    """From the samples on where the package begins there too (unfused), else from the spectrogram on."""
    module = htsat_module(monkeypatch)
    settings = {"mel_bins": 64, "sample_rate": 48_000, "window_size": 1024, "hop_size": 480, "fmin": 50}
    settings |= {"fmax": 14_000, "class_num": 527, "model_name": amodel.removeprefix("HTSAT-")}
    torch.manual_seed(0)
    stock = module.create_htsat_model(
        types.SimpleNamespace(**settings), enable_fusion=fused, fusion_type="aff_2d" if fused else "None"
    ).eval()
    with torch.no_grad():
        for (
            name,
            weight,
        ) in stock.named_parameters():  # norms and biases too, about where training leaves them
            if "extractor" not in name:
                weight += 0.02 * torch.randn_like(weight)
        stock.bn0.running_mean.normal_(-30, 5)
        stock.bn0.running_var.uniform_(100, 400)
    weights = {f"module.audio_branch.{name}": weight for name, weight in stock.state_dict().items()}
    encoder = LaionClapAudioEncoder(checkpoint=str(save(tmp_path / "it.pt", weights)), amodel=amodel).eval()
    assert encoder.loaded is not None
    assert encoder.loaded.share == 1
    assert encoder.width == 8 * AMODELS[amodel][0]

    kept: list[torch.Tensor] = []
    stock.norm.register_forward_hook(lambda _, __, out: kept.append(out))
    wave = encoder.preprocessing(noise(7, 48_000), 48_000)[None]
    given = {"waveform": wave, "longer": torch.tensor([[False]])}
    given["mel_fusion"] = encoder.spectrogram(wave).expand(-1, 4, -1, -1)
    with torch.no_grad():
        stock(given, device="cpu")
        tokens = encoder(wave).values[0]
    rows = kept[0][0].unflatten(0, (4, 2, 8))  # pieces of time, bands, steps of a piece
    expected = rows.transpose(1, 2).reshape(64, -1)
    torch.testing.assert_close(tokens, expected, atol=2e-4, rtol=1e-4)


@needs_package
@pytest.mark.filterwarnings("ignore")
def test_fused_models_hear_as_the_package_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training.data.get_mel is this call of torchaudio."""
    torchaudio = pytest.importorskip(
        "torchaudio", reason="laion-clap makes its fused spectrograms by torchaudio"
    )
    mel = torchaudio.transforms.MelSpectrogram(
        48_000, 1024, 1024, 480, 50, 14_000, n_mels=64, power=2.0, norm=None, pad_mode="reflect"
    )
    wave = torch.from_numpy(noise(10, 48_000))[None]
    expected = torchaudio.transforms.AmplitudeToDB(top_db=None)(mel(wave)).transpose(1, 2)
    encoder = LaionClapAudioEncoder(pretrained=False, config=SMALL)
    torch.testing.assert_close(encoder.spectrogram(wave)[:, 0], expected, atol=1e-2, rtol=0)  # dB
