"""What the tests beside each other share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.check.check import Options
from avalign.avfit.check.report import checked_and_reported
from avalign.data.manifest.record import Record, write
from tests.helpers.avfit.checks import noise, picture, sample, sound
from tests.helpers.videos import beeps, write_video


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    picture(folder / "a.png")
    sound(folder / "a.wav", noise())
    sound(folder / "a.ogg", noise())
    sound(folder / "a.flac", noise())
    write_video(folder / "a.mp4", beeps())
    return folder


@pytest.fixture
def folder(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest's folder with sound media, each test's own."""
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(media, tmp_path / "data"))


def good() -> list[Record]:
    film = sample("avqa", id="film", image="a.mp4", frame_times=(0.0, 1.0, 3.95), audio="a.ogg")
    part = sample("igatl", id="part", audio="a.flac", audio_start=0.5, audio_end=2.0)
    return [*(sample(task) for task in ("arig", "igatl", "avfc", "avqa", "avcap")), film, part]


def checked(folder: Path, records: list[Record] | None = None, **options: Any) -> dict[str, Any]:
    if records is not None:
        write(records, folder / "m.jsonl")
    return checked_and_reported(folder, folder, folder / "check", Options(**options))


def examples(report: dict[str, Any]) -> list[dict[str, str]]:
    return [one for finding in report["findings"] for one in finding["examples"]]
