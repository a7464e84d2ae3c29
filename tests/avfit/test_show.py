"""The page of samples: what a record holds is on it, in its place, and nothing is asked of the network."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from avalign.avfit.show import show
from avalign.cli.app import app
from avalign.data.manifest.record import Record, write
from avalign.errors import AvalignError
from tests.helpers.avfit.checks import SPAN, noise, picture, sample, sound
from tests.helpers.videos import beeps, write_video

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "data"
    made.mkdir()
    picture(made / "a.png")
    sound(made / "a.wav", noise(3.0))
    write_video(made / "a.mp4", beeps())
    return made


def page_of(folder: Path, records: list[Record], **options: Any) -> str:
    write(records, folder / "m.jsonl")
    show(folder, folder, folder / "page.html", **options)
    return (folder / "page.html").read_text(encoding="utf-8")


def embedded(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(rf"data:{kind};base64,([^\"]+)", page)]


def test_a_record_is_shown_with_all_it_holds(folder: Path) -> None:
    slots = {"class": "dog", "box": [0.5, 0.2, 0.9, 0.4], "time": [0.25, 0.75]}
    truth: dict[str, Any] = {"boxes": ((0.0, 0.25, 1.0, 0.75),), "intervals": ((1.0, 1.5),)}
    record = sample("avfc", slots=slots, references=("so it is",), **truth)
    page = page_of(folder, [record])
    assert re.findall(r'<rect class="(\w+)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', page) == [
        ("halo", "0.5", "0.2", "0.4", "0.2"),
        ("halo", "0", "0.25", "1", "0.5"),
        ("question", "0.5", "0.2", "0.4", "0.2"),
        ("truth", "0", "0.25", "1", "0.5"),
    ]
    assert re.findall(r'<i class="(truth|question)" style="left:(\S+)%;width:(\S+)%"', page) == [
        ("truth", "33.333", "16.667"),
        ("question", "8.333", "16.667"),
    ]
    for text in ("<mark>dog</mark>", "<mark>[0.50, 0.20, 0.90, 0.40]</mark>", "<mark>[0.25, 0.75]</mark>"):
        assert text in page
    for text in ("<b>True</b>", "type3", "so it is", "video-1", "a.png", "named in the question"):
        assert text in page
    assert Image.open(io.BytesIO(embedded(page, "image/jpeg")[0])).size == (64, 48)


def test_the_sound_embedded_is_that_of_the_span(folder: Path) -> None:
    page = page_of(folder, [sample("avqa", audio_start=0.5, audio_end=2.0)])
    heard, rate = soundfile.read(io.BytesIO(embedded(page, "audio/flac")[0]), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(heard, noise(3.0)[8000:32000], atol=1e-4)
    assert "1.50 s of [0.5, 2] s" in page


@pytest.mark.parametrize("end", [None, 3.0])
def test_a_long_sound_is_cut_and_the_card_says_so(folder: Path, end: float | None) -> None:
    record = sample("igatl", audio_start=0.5, audio_end=end, intervals=(SPAN, (2.0, 2.4)))
    page = page_of(folder, [record], seconds=1.0)
    heard, _ = soundfile.read(io.BytesIO(embedded(page, "audio/flac")[0]), dtype="float32")
    np.testing.assert_allclose(heard, noise(3.0)[8000:24000], atol=1e-4)
    assert f"the first 1 s of [0.5, {'end' if end is None else '3'}] s" in page
    assert re.findall(r'<i class="truth" style="left:(\S+)%;width:(\S+)%"', page) == [("25.000", "50.000")]


def test_the_frames_of_a_video_stand_side_by_side(folder: Path) -> None:
    page = page_of(folder, [sample("arig", image="a.mp4", frame_times=(0.0, 1.0, 3.0))])
    pixels = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in embedded(page, "image/jpeg")[:3]]
    assert [round(p[36:, 40:].mean() / 10) for p in pixels] == [2, 7, 17]  # 10 k + 20 of frame k
    assert page.count('<rect class="truth"') == 3
    many = page_of(folder, [sample("arig", image="a.mp4", frame_times=tuple(0.2 * k for k in range(15)))])
    assert "6 of 15 frames" in many
    assert many.count('<rect class="truth"') == 6


def test_what_is_in_a_record_never_becomes_part_of_the_page(folder: Path) -> None:
    evil = "<script>alert(1)</script>"
    record = sample(
        "avfc",
        id=evil,
        source=evil,
        label=evil,
        kind=evil,
        response=evil,
        references=(evil,),
        instruction=f"<image><audio>{evil}<class><open>",
        slots={"class": evil, "box": evil, "time": [2, 1]},
        provenance={evil: [evil]},
    )
    page = page_of(folder, [record])
    assert evil not in page
    assert page.count("<script>") == 1
    assert '<mark class="open">&lt;open&gt;</mark>' in page
    links = re.findall(r"(?:src|href)=[\"']?([^\s\"'>]*)", page.partition("<script>")[0])
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)


def test_media_that_cannot_be_read_are_told_in_their_place(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "bad.wav").write_bytes(b"x")
    page = page_of(folder, [sample("avqa", image="link.png", audio="bad.wav")])
    assert "link.png: is a link that leads out of the media root" in page
    assert "bad.wav: cannot be decoded as audio" in page
    assert str(folder) not in page
    assert not embedded(page, "image/jpeg")
    show(folder, folder, folder / "page.html", follow_links=True)
    assert len(embedded((folder / "page.html").read_text(), "image/jpeg")) == 1


def test_tasks_take_turns_and_the_seed_decides(folder: Path) -> None:
    records = [
        sample(
            task, id=f"{task}{k}", split=("train", "test")[k % 2], source=f"s{k % 3}", image=None, audio=None
        )
        for task, count in (("arig", 40), ("avqa", 3), ("avcap", 40))
        for k in range(count)
    ]

    def ids(page: str) -> list[str]:
        return re.findall(r"<header><b>([^<]+)</b>", page)

    drawn = ids(page_of(folder, records, count=20, seed=1))
    assert Counter(name.rstrip("0123456789") for name in drawn) == {"arig": 9, "avqa": 3, "avcap": 8}
    assert drawn == ids(page_of(folder, records, count=20, seed=1))
    assert drawn != ids(page_of(folder, records, count=20, seed=2))
    fits = {f"arig{k}" for k in range(40) if k % 2 and k % 3 == 2}
    assert set(ids(page_of(folder, records, task="arig", split="test", source="s2", count=99))) == fits
    page = page_of(folder, records, task="arig", split="test", source="s2", count=99)
    assert page.count('<article data-task="arig" data-source="s2" data-split="test">') == len(fits)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "arog"}, "no task 'arog'. Did you mean 'arig'?"),
        ({"split": "tests"}, "no split 'tests'. Did you mean 'test'?"),
        ({"label": "dgo"}, "no record has label 'dgo'. Did you mean 'dog'?"),
        ({"source": "mode"}, "no record has source 'mode'. Did you mean 'made'?"),
    ],
)
def test_what_no_record_has_is_one_error(folder: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(AvalignError) as error:
        page_of(folder, [sample("arig")], **options)
    assert said in str(error.value)
    assert not (folder / "page.html").exists()


# ---- the commands ----


def command(*words: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_check_exits_by_what_it_finds(folder: Path, tmp_path: Path) -> None:
    check = ("check", folder, "--workers", 1, "--out", tmp_path / "out")
    assert command(*check)[0] == 2  # no manifest
    write([sample("arig")], folder / "m.jsonl")
    assert command(*check) == (
        0,
        f"1 record: 0 errors, 0 warnings; 2 of 2 media files checked\n"
        f"The whole report: {tmp_path / 'out' / 'report.md'}\n",
    )
    write([sample("arig", split="train")], folder / "m.jsonl")
    code, said = command(*check)
    assert (code, "1 record: 0 errors, 1 warning;" in said) == (0, True)
    assert command(*check, "--strict")[0] == 1
    write([sample("arig", boxes=((0.0, 0.0, 0.5, 0.5),))], folder / "m.jsonl")
    code, said = command(*check)
    assert code == 1
    assert "m.jsonl:1: response reads back differently: record 'arig': response '[dog, 0.10" in said
    assert command(*check, "--no-media", "--media", folder / "nowhere")[0] == 1
    assert command(*check, "--media", folder / "nowhere")[0] == 2
    assert "response reads back differently" in (tmp_path / "out" / "report.md").read_text()
    assert sorted(file.name for file in folder.iterdir()) == ["a.mp4", "a.png", "a.wav", "m.jsonl"]


def test_the_commands_pass_their_options_on(folder: Path, tmp_path: Path) -> None:
    write([sample("arig", id=f"{k}") for k in range(3)], folder / "m.jsonl")
    limits = ("--min-rate", 48_000, "--min-side", 300, "--silence", 0, "--clipped", -1)
    code, said = command("check", folder, "--out", tmp_path / "out", "--workers", 1, *limits)
    assert code == 0
    for finding in ("low sample rate", "small picture", "silent sound", "clipped sound"):
        assert finding in said
    assert "2 of 2 media files" in said
    code, said = command("check", folder, "--sample", 1, "--seed", 7, "--workers", 1)
    assert "1 of 2 media files checked (a sample, seed 7)" in said
    assert (folder / "check" / "report.json").is_file()
    shown = command("show", folder, "--out", tmp_path / "page.html", "--count", 2, "--label", "dog")
    assert shown == (0, f"{tmp_path / 'page.html'}: 2 samples\n")
    assert command("show", folder, "--out", tmp_path / "no.html", "--label", "cat")[0] == 2
