"""What data check finds in the media, and how it goes about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalign.avfit.check.media import Limits
from tests.helpers.avfit.check_manifests import checked, examples, folder, good, media  # noqa: F401 (fixtures)
from tests.helpers.avfit.checks import RATE, counts, noise, picture, sample, sound, soundfile

# ---- media ----


def broken(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def cut(share: float, name: str) -> Callable[[Path], None]:
    return lambda folder: broken(folder, name, int(share * (folder / name).stat().st_size))


def without_last_ogg_page(folder: Path) -> None:
    """Cut where a page ends: only the mark of the last one is lacking."""
    broken(folder, "a.ogg", (folder / "a.ogg").read_bytes().rindex(b"OggS"))


def stereo_of_opposite_phase(folder: Path) -> None:
    sound(folder / "a.wav", np.stack([noise(), -noise()], axis=1))


def silent_in_the_middle(folder: Path) -> None:
    samples = noise(3.0)
    samples[RATE : 2 * RATE] = 0
    sound(folder / "a.wav", samples)


ONE_FILE: list[tuple[str, Callable[[Path], None]]] = [
    ("media breaks off", cut(0.7, "a.png")),
    ("media breaks off", cut(0.98, "a.wav")),
    ("media breaks off", cut(0.98, "a.ogg")),
    ("media breaks off", without_last_ogg_page),
    ("media breaks off", cut(0.9, "a.mp4")),
    ("media cannot be decoded", lambda folder: (folder / "a.wav").write_bytes(b"RIFF" + bytes(60))),
    (
        "media cannot be decoded",
        lambda folder: (folder / "a.wav").write_bytes(b"ffconcat version 1.0\nfile a.ogg\n"),
    ),
    (
        "media cannot be decoded",
        lambda folder: (folder / "a.mp4").write_bytes(b"ffconcat version 1.0\nfile a.mp4\n"),
    ),
    (
        "media cannot be decoded",
        lambda f: soundfile.write(f / "a.wav", noise() * np.nan, RATE, subtype="FLOAT"),
    ),
    ("media file is missing", lambda folder: (folder / "a.wav").write_bytes(b"")),
    ("media file is missing", lambda folder: (folder / "a.ogg").unlink()),
    ("small picture", lambda folder: picture(folder / "a.png", 31, 300)),
    ("low sample rate", lambda folder: sound(folder / "a.wav", noise(), 15_999)),
    ("clipped sound", lambda folder: sound(folder / "a.wav", np.clip(20 * noise(), -1, 1))),
    ("upsampled sound", lambda folder: sound(folder / "a.wav", upsampled())),
]


def upsampled() -> np.ndarray:
    """What an 8 kHz recording gives at 16 kHz."""
    soxr = pytest.importorskip("soxr")
    return np.asarray(soxr.resample(noise(4.0)[:16_000], 8_000, RATE))


@pytest.mark.parametrize(("code", "change"), ONE_FILE)
def test_a_wrong_file_is_found_once_for_all_its_users(
    folder: Path, code: str, change: Callable[[Path], None]
) -> None:
    change(folder)
    assert counts(checked(folder, [replace(r, intervals=()) if r.task == "avqa" else r for r in good()])) == {
        code: 1
    }


def test_silence_is_told_of_each_span(folder: Path) -> None:
    silent_in_the_middle(folder)
    spans = {"before": (0.0, 1.0), "in": (1.0, 2.0), "within": (1.25, 1.5), "across": (1.5, 2.2)}
    records = [sample("avqa", id=k, audio_start=a, audio_end=b) for k, (a, b) in spans.items()]
    report = checked(folder, [*good(), *records])
    assert counts(report) == {"silent sound": 2}
    assert {one["record"] for one in examples(report)} == {"in", "within"}


def test_channels_that_cancel_are_silence(folder: Path) -> None:
    stereo_of_opposite_phase(folder)
    assert counts(checked(folder, [sample("avqa")])) == {"silent sound": 1, "channels cancel": 1}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(min_side=49), "small picture"),
        (Limits(min_rate=16_001), "low sample rate"),
        (Limits(silence=-19.0), "silent sound"),
        (Limits(clipped=-1.0), "clipped sound"),
    ],
)
def test_limits_are_those_stated(folder: Path, limits: Limits, code: str) -> None:
    assert counts(checked(folder, [sample("avqa")], limits=limits)) == {code: 1}


def test_a_link_out_of_the_root_is_not_opened(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "in.png").symlink_to(folder / "a.png")
    names = ("out.png", "up/secret.png", "in.png")
    report = checked(folder, [sample("avqa", id=name, image=name) for name in names])
    assert counts(report) == {"media leads out of the root": 2}
    assert {one["record"] for one in examples(report)} == set(names[:2])
    assert counts(checked(folder, follow_links=True)) == {}


# ---- how it is done ----


def test_media_are_measured_once_and_again_when_they_change(folder: Path) -> None:
    first = checked(folder, good())
    second = checked(folder)
    counted = [{kind: m["measured now"] for kind, m in report["media"].items()} for report in (first, second)]
    assert counted == [{"picture": 1, "video": 1, "sound": 3}, {"picture": 0, "video": 0, "sound": 0}]
    picture(folder / "a.png", 8, 8)
    third = checked(folder)
    assert counts(third) == {"small picture": 1}
    assert third["media"]["picture"]["measured now"] == 1


def test_an_interrupted_check_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avalign.avfit.check import check

    names = [f"{k}.png" for k in range(40)]
    for k, name in enumerate(names):
        picture(folder / name, seed=k)
    records = [sample("avqa", id=name, image=name, audio=None, instruction="<image>x") for name in names]
    measured, done = check.measured, []

    def interrupted(file: Path, kind: int) -> Any:
        if len(done) == 35:
            raise KeyboardInterrupt
        done.append(file)
        return measured(file, kind)

    monkeypatch.setattr(check, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checked(folder, records)
    monkeypatch.setattr(check, "measured", measured)
    report = checked(folder)
    assert report["media"]["picture"] == {
        "files": 40,
        "checked": 40,
        "measured now": 8,  # 16 at once are kept
        "known from the cache": 32,
    }


def test_a_sample_of_media_is_chosen_by_the_seed(folder: Path) -> None:
    def missing(seed: int) -> set[str]:
        records = [sample("avqa", id=f"{k}", image=f"{k}.png") for k in range(30)]
        report = checked(folder, records, sample=10, seed=seed)
        assert sum(m["checked"] for m in report["media"].values()) == 10
        assert sum(m["files"] for m in report["media"].values()) == 31
        return {one["record"] for one in examples(report)}

    assert missing(1) == missing(1) != missing(2)


def test_processes_find_what_one_finds(folder: Path) -> None:
    broken(folder, "a.ogg", 3000)
    records = [*good(), sample("avcap", id="x", response="")]
    alone = checked(folder, records)
    shutil.rmtree(folder.parent / "cache")
    together = checked(folder, processes=2)
    assert together["findings"] == alone["findings"]
    assert counts(alone) == {"media breaks off": 1, "response is empty": 1}
