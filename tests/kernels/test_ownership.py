"""The kernels' cache: a library is loaded only from where no one else can write."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from avalign.kernels.cpu import engine as cpu
from avalign.kernels.cpu import ownership as own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cache" / "kernels"
    made.mkdir(parents=True, mode=0o700)
    return made


def test_a_folder_of_ones_own_will_do(folder: Path) -> None:
    assert own.who_else(folder) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_what_others_may_write_will_not(folder: Path, mode: int) -> None:
    library = folder / "x.so"
    library.write_bytes(b"")
    for place in (library, folder, folder.parent):
        before = place.stat().st_mode
        place.chmod(mode)
        assert own.who_else(library) == f"{place} can be written by others"
        with pytest.raises(OSError, match="can be written by others"):
            own.load_own(library)
        place.chmod(before)
    folder.parent.chmod(0o1777)  # as the folder for temporary files: they cannot rename what is ours
    assert own.who_else(library) is None
    folder.chmod(0o1777)
    assert own.who_else(folder) == f"{folder} can be written by others", "a new file could be theirs"


def test_what_belongs_to_another_will_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can give files away, so that here it is we who are someone else."""
    kept = Path.stat

    def theirs(path: Path, **given: bool) -> object:
        found = kept(path, **given)
        uid = os.getuid() + 1 if path == folder.parent else found.st_uid
        return SimpleNamespace(st_uid=uid, st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", theirs)
    assert own.who_else(folder) == f"{folder.parent} belongs to another user"


def test_a_link_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.so"
    real.write_bytes(b"")
    (folder / "x.so").symlink_to(real)
    with pytest.raises(OSError, match="symbolic link"):
        own.load_own(folder / "x.so")
    tmp_path.joinpath("open").mkdir()
    tmp_path.joinpath("open").chmod(0o777)
    (folder / "in").symlink_to(tmp_path / "open")
    assert own.who_else(folder / "in") == f"{tmp_path / 'open'} can be written by others"


def test_an_open_cache_is_passed_by(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder.chmod(0o777)
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setenv("AVALIGN_CACHE", str(folder))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(private))
    assert cpu._cache_folder() == private / f"avalign-{os.getuid()}"
    assert (private / f"avalign-{os.getuid()}").stat().st_mode & 0o777 == 0o700
    private.chmod(0o777)
    with pytest.raises(cpu.Unavailable, match=rf"{folder} can be written by others \(set AVALIGN_CACHE"):
        cpu._cache_folder()


def test_a_library_that_others_could_write_is_built_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cpu.shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler: without one no library is ever loaded")
    monkeypatch.setenv("AVALIGN_CACHE", str(folder))
    monkeypatch.setattr(cpu, "SOURCE", folder / "source")
    monkeypatch.setattr(cpu, "FLAGS", ["-shared", "-fPIC"])
    (folder / "source").mkdir()
    (folder / "source" / "sinkhorn.cpp").write_text('extern "C" int one() { return 1; }\n')
    monkeypatch.setenv("CXX", "c++")
    library = cpu._built()
    assert own.load_own(library).one() == 1
    good = library.read_bytes()
    library.unlink()
    library.write_bytes(b"theirs")
    library.chmod(0o777)
    assert cpu._built() == library
    assert library.read_bytes()[:4] == good[:4]
    assert library.stat().st_mode & 0o022 == 0
