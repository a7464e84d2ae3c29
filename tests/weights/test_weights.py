"""Weights: all of them or a stated share, a report of it, and no code of a file is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from avalign.errors import AvalignError
from avalign.weights.pretrained import load_all, model_file, read_weights
from tests.helpers.strategies import quick, seeds


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- loading ---------------------------------------------------------------------------------------


def test_all_weights_are_loaded_and_counted() -> None:
    module, weights = network(0), state(network(1))
    report = load_all(module, weights, "a.safetensors", dropped={"is a head": ["head.weight"], "nothing": []})
    assert same(state(module), weights)
    assert report.complete
    assert (report.keys, report.keys_wanted, report.share) == (9, 9, 1)
    assert report.parameters == report.parameters_wanted == 16 + 8 + 8 + 1 + 10
    assert report.as_dict() == {
        "share": 1.0,
        **{"source": "a.safetensors", "module": "Sequential", "keys": 9, "keys_wanted": 9},
        **{"parameters": 43, "parameters_wanted": 43, "missing": (), "unexpected": (), "misshapen": ()},
        "dropped": {"is a head": ("head.weight",)},
    }


@quick
@given(seed=seeds, least=st.floats(0.01, 1), data=st.data())
def test_a_share_is_loaded_or_nothing(seed: int, least: float, data: st.DataObject) -> None:
    """Some weights lost, some misshapen, one too many: what fits is loaded if it is the share asked for."""
    module, weights = network(0), state(network(seed))
    names = data.draw(st.permutations(list(weights)))
    lost, bent = names[: data.draw(st.integers(0, 4))], names[5 : 5 + data.draw(st.integers(0, 3))]
    given_ = {name: weight for name, weight in weights.items() if name not in lost}
    given_ |= {name: torch.zeros(5, 5) for name in bent}
    if data.draw(st.booleans()):
        given_["more"] = torch.zeros(7)
    fits = [name for name in weights if name not in (*lost, *bent)]
    share = sum(weights[name].numel() for name in fits) / 43
    before = state(module)
    if share < least or (least == 1 and len(given_) > len(weights)):
        with pytest.raises(AvalignError, match="are not those of Sequential"):
            load_all(module, given_, "file", min_loaded=least)
        assert same(state(module), before)
        return
    if share == 1 and "more" not in given_:
        report = load_all(module, given_, "file", min_loaded=least)
    else:
        with pytest.warns(UserWarning, match="stays as it was drawn at random") as warned:
            report = load_all(module, given_, "file", min_loaded=least)
        assert all(name in str(warned[0].message) for name in (*lost, *bent))
    assert same(state(module), before | {name: weights[name] for name in fits})
    assert report.share == pytest.approx(share)
    assert set(report.missing) == set(lost)
    assert {line.split()[0] for line in report.misshapen} == set(bent)
    assert report.unexpected == (("more",) if "more" in given_ else ())
    assert report.complete == (not lost and not bent and "more" not in given_)


def drop(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda weights: weights.pop(name)


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda weights: weights.update({name: tensor})


def another(weights: dict[str, Tensor]) -> None:
    found = nn.GRU(3, 4).state_dict()
    weights.clear()
    weights.update(found)


@pytest.mark.parametrize("least", [1.0, 0.1])
@pytest.mark.parametrize(
    ("damage", "said", "in_any_case"),
    [
        (drop("0.weight"), r"are not those of Sequential\. 1 missing: 0\.weight", False),
        (put("3.weight", torch.zeros(2)), r"1 unexpected: 3\.weight", False),
        (put("2.bias", torch.zeros(3)), r"1 of another shape: 2\.bias \(3,\) for \(2,\)", False),
        (put("2.bias", torch.zeros(2, dtype=torch.int8)), r"2\.bias torch.int8 for torch.float32", False),
        (put("2.bias", torch.tensor([0, torch.nan])), r"1 tensor holds nan or infinity: 2\.bias", True),
        (put("1.running_var", torch.full((4,), torch.inf)), r"nan or infinity: 1\.running_var", True),
        (another, r"9 missing: .*, \.\.\.; 4 unexpected: weight_ih_l0", True),
        (lambda weights: weights.clear(), r"9 missing", True),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    damage: Callable[[dict[str, Tensor]], Any], said: str, in_any_case: bool, least: float
) -> None:
    module, weights = network(0), state(network(1))
    damage(weights)
    before = state(module)
    if least < 1 and not in_any_case:
        with pytest.warns(UserWarning, match=said.partition(r"\. ")[2] or said):
            assert not load_all(module, weights, "file", min_loaded=least).complete
        return
    with pytest.raises(AvalignError, match=said) as error:
        load_all(module, weights, "file", min_loaded=least)
    assert str(error.value).startswith("file: ")
    assert "\n" not in str(error.value)
    assert same(state(module), before)


@pytest.mark.parametrize("least", [0, -1, 1.5, float("nan")])
def test_a_share_is_above_0_and_up_to_1(least: float) -> None:
    with pytest.raises(AvalignError, match="a share above 0 and up to 1"):
        load_all(network(), {}, "file", min_loaded=least)


def test_a_model_without_memory_takes_no_weights() -> None:
    with pytest.raises(AvalignError, match="meta device holds no weights: set `pretrained: false`"):
        load_all(network().to("meta"), state(network()), "file")


# ---- files -----------------------------------------------------------------------------------------


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_a_checkpoint_of_pytorch_s_is_read(
    tmp_path: Path, suffix: str, zipped: bool, inside: str | None
) -> None:
    """Bare, or in one entry beside what else a training loop keeps, NumPy's scalars among it."""
    weights = state(network())
    whole: Any = weights
    if inside is not None:
        numbers = {
            "loss": np.float64(0.3),
            "lr": np.float32(1e-4),
            "steps": np.int64(5),
            "on": np.bool_(True),
        }
        slots = {0: {"exp_avg": torch.zeros(2)}}
        whole = {inside: weights, "epoch": 3, "optimizer": {"state": slots, "param_groups": []}, **numbers}
    file = tmp_path / f"model{suffix}"
    torch.save(whole, file, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(file), weights)


def test_of_several_sets_one_is_named(tmp_path: Path) -> None:
    one, other = state(network(1)), state(network(2))
    torch.save({"model": one, "model_ema": other}, tmp_path / "two.pt")
    with pytest.raises(AvalignError, match=r"several sets of weights \(model, model_ema\)"):
        read_weights(tmp_path / "two.pt")
    assert same(read_weights(tmp_path / "two.pt", inside="model_ema"), other)
    with pytest.raises(AvalignError, match=r"no set of weights 'ema'.*'model_ema'"):
        read_weights(tmp_path / "two.pt", inside="ema")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path: Path, zipped: bool) -> None:
    file, mark = tmp_path / "model.pt", tmp_path / "ran"
    torch.save({**state(network()), "x": Code(mark)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(AvalignError, match=r"model\.pt: is refused: .* would run (posix|nt)\.mkdir,"):
        read_weights(file)
    torch.save(network(), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(AvalignError, match=r"would run torch\.nn\.modules\.container\.Sequential"):
        read_weights(file)
    file.write_bytes(pickle.dumps(Code(mark), protocol=4))
    with pytest.raises(AvalignError, match="they can run code"):
        read_weights(file)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
@quick
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_is_refused(tmp_path_factory: Any, kind: str, share: float) -> None:
    file = tmp_path_factory.mktemp("cut") / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state(network()), file)
    else:
        torch.save(state(network()), file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(AvalignError, match=r"w\.\w+: (is|not) .*complete") as error:
        read_weights(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.pt", b"hello there, this is text", "is not a checkpoint of PyTorch"),
        ("w.safetensors", b"hello there, this is text", "is not a safetensors file"),
        ("w.npz", b"PK", r"read from \.safetensors, \.bin, \.pt, \.pth, \.ckpt files only"),
        ("w.pt", None, "no such file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AvalignError, match=said):
        read_weights(tmp_path / name)
    with pytest.raises(AvalignError, match="no such file"):
        read_weights(tmp_path)


def test_a_file_of_a_model_is_in_its_folder_or_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.txt").write_text("b")
    assert model_file(str(tmp_path), "a.txt", "b.txt") == tmp_path / "b.txt"
    with pytest.raises(AvalignError, match=r"this folder holds no a\.txt or c\.txt"):
        model_file(str(tmp_path), "a.txt", "c.txt")
    with pytest.raises(AvalignError, match="no such folder, and no hub id"):
        model_file("nowhere", "a.txt")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision, text in (("main", "new"), ("v1", "old")):
        home = tmp_path / "models--owner--name"
        (home / "snapshots" / text).mkdir(parents=True)
        (home / "snapshots" / text / "a.txt").write_text(text)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / revision).write_text(text)
    assert model_file("owner/name", "a.txt").read_text() == "new"
    assert model_file("owner/name@v1", "a.txt").read_text() == "old"
