"""Archives of strangers: what leads out of them is never followed, what is too much is never unpacked."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avalign.data.shards import Shards
from avalign.data.shards.tars import LIST, index_beside
from avalign.errors import AvalignError
from avalign.evaluation.predictions import _map_file
from avalign.training.checkpoint_state import _unreadable
from avalign.weights.pretrained import read_weights
from tests.helpers.shards import cache, contents, folder, opened  # noqa: F401 (fixtures)

OUTSIDE = Path(tempfile.gettempdir()) / "avalign-owned"  # an absolute name in an archive
BOMB = 50_000_000  # bytes of zeros, which pack to less than a thousandth


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "shards", tmp_path / "deep" / "shards")
    return tmp_path / "deep" / "shards"


def first_tar(shards: Path) -> Path:
    return shards / json.loads((shards / LIST).read_text())["shards"][0]["file"]


def with_index(shards: Path, change: Callable[[np.ndarray], None]) -> None:
    """The first tar's index, changed."""
    file = index_beside(first_tar(shards))
    with np.load(file) as found:
        rows, size = found["rows"].copy(), found["bytes"]
    change(rows)
    np.savez(file, rows=rows, bytes=size)


@pytest.mark.parametrize("name", ["../../owned", str(OUTSIDE), "a/../../../owned"])
@pytest.mark.parametrize("kind", ["file", "symlink", "hardlink", "sparse"])
def test_a_tar_s_own_names_lead_nowhere(name: str, kind: str, shards: Path) -> None:
    """Of a tar only the bytes are read that its index names; its headers say what they like."""
    tar = first_tar(shards)
    before = {path: path.read_bytes() for path in shards.parent.rglob("*") if path.is_file()}
    whole = bytearray(tar.read_bytes())
    header = tarfile.TarInfo(name)
    header.type = {"file": b"0", "symlink": b"2", "hardlink": b"1", "sparse": b"S"}[kind]
    header.linkname = "/etc/passwd" if "link" in kind else ""
    with tarfile.open(tar) as archive:
        places = [member.offset for member in archive]
        header.size = next(iter(archive.getmembers())).size
    for place in places:
        whole[place : place + tarfile.BLOCKSIZE] = header.tobuf(tarfile.USTAR_FORMAT)[: tarfile.BLOCKSIZE]
    tar.write_bytes(whole)
    source = opened(Shards, shards)
    assert source.sample("train", "arig", 0).image is not None
    assert {path for path in shards.parent.rglob("*") if path.is_file()} == set(before)
    assert not OUTSIDE.exists()


@pytest.mark.parametrize("name", ["../other.tar", "/etc/passwd", "a/b.tar", "..", ""])
def test_a_list_names_tars_beside_it_alone(name: str, shards: Path) -> None:
    listed = json.loads((shards / LIST).read_text())
    listed["shards"][0]["file"] = name
    (shards / LIST).write_text(json.dumps(listed))
    with pytest.raises(AvalignError, match=r"shards\.json") as told:
        opened(Shards, shards)
    assert "\n" not in str(told.value)


def _far(rows: np.ndarray) -> None:
    rows["image"]["begin"][0] = 2**62


def _wrapping(rows: np.ndarray) -> None:
    rows["image"]["begin"][0], rows["image"]["size"][0] = 2**64 - 10, 20


def _large(rows: np.ndarray) -> None:
    rows["json"]["size"][0] = 2**63 + 5


def _no_source(rows: np.ndarray) -> None:
    rows["source"][0] = 999


def _no_task(rows: np.ndarray) -> None:
    rows["task"][0] = 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_far, "beyond the end"),
        (_wrapping, "beyond the end"),
        (_large, "beyond the end"),
        (_no_source, "number of a source"),
        (_no_task, "number of a task"),
    ],
)
def test_an_index_that_leads_out_of_its_tar_is_refused(change: Any, said: str, shards: Path) -> None:
    with_index(shards, change)
    with pytest.raises(AvalignError, match=rf"\.index\.npz: .*{said}"):
        opened(Shards, shards)


def _bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("rows.npy", "w") as rows:
        np.lib.format.write_array(rows, np.zeros(BOMB, np.uint8))


def _boasting(file: Path) -> None:
    """A header that promises more than there is."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**50,)}
    with zipfile.ZipFile(file, "w") as packed, packed.open("rows.npy", "w") as rows:
        np.lib.format.write_array_header_1_0(rows, header)


def _pickled(file: Path) -> None:
    np.savez(file, rows=np.array([print], object), bytes=1)


def _named_up(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("../rows.npy", b"x")


@pytest.mark.parametrize("make", [_bomb, _boasting, _pickled, _named_up])
def test_an_index_that_is_a_trap_is_refused_before_it_takes_room(
    make: Callable[[Path], None], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = index_beside(first_tar(shards))
    make(file)
    assert file.stat().st_size < 200_000
    if make is _bomb:
        monkeypatch.setattr(np, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(AvalignError, match=r"\.index\.npz: is not a complete index") as told:
        opened(Shards, shards)
    assert "\n" not in str(told.value)


def _tar(file: Path) -> None:
    """As PyTorch wrote files once, with names that lead out."""
    with tarfile.open(file, "w") as packed:
        for name in ("../owned", str(OUTSIDE), "storages"):
            told = tarfile.TarInfo(name)
            told.size = 4
            packed.addfile(told, io.BytesIO(b"abcd"))
        link = tarfile.TarInfo("tensors")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)


def _zip_up(file: Path) -> None:
    torch.save({"a": torch.zeros(2)}, file)
    with zipfile.ZipFile(file, "a") as packed:
        packed.writestr("../owned", b"x")
    content = file.read_bytes().replace(b"data.pkl", b"../a.pkl")
    file.write_bytes(content)


def _zip_bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x/data.pkl", b"\0" * BOMB)
        packed.writestr("x/version", b"3\n")


def _code(file: Path) -> None:
    class Run:
        def __reduce__(self) -> Any:
            return Path.touch, (file.with_name("owned"),)

    torch.save({"a": Run()}, file)


def _plain_code(file: Path) -> None:
    class Run:
        def __reduce__(self) -> Any:
            return Path.touch, (file.with_name("owned"),)

    file.write_bytes(pickle.dumps(Run()))


@pytest.mark.parametrize("make", [_tar, _zip_up, _zip_bomb, _code, _plain_code])
def test_a_checkpoint_that_is_a_trap_is_refused_by_name(make: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "deep" / "w.pt"
    file.parent.mkdir()
    make(file)
    before = contents(file.parent)
    with pytest.raises(AvalignError, match=r"w\.pt: ") as told:
        read_weights(file)
    assert "\n" not in str(told.value)
    assert "\n" not in (_unreadable(file) or "\n"), "of an optimizer's state, too"
    assert contents(file.parent) == before
    assert sorted(tmp_path.iterdir()) == [file.parent]
    assert not OUTSIDE.exists()


@pytest.mark.parametrize("make", [_bomb, _pickled, _named_up, _boasting])
def test_a_heat_map_is_no_archive(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "m.npz")
    (tmp_path / "m.npz").rename(tmp_path / "m.npy")
    with pytest.raises(ValueError, match=r"m\.npy"):
        _map_file(tmp_path, "m.npy")
