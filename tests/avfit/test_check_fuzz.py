"""Whatever lies in a manifest or in its media: findings with names, no crash, nothing opened elsewhere."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from avalign.avfit.check import check
from avalign.avfit.check.check import Options
from avalign.avfit.check.report import checked_and_reported
from avalign.avfit.processes import in_processes
from avalign.avfit.show import show
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import FIELDS, from_json, to_json, write
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames, read_image
from tests.helpers.avfit.checks import counts, noise, sample
from tests.helpers.videos import beeps, write_video

soundfile = pytest.importorskip("soundfile")
fuzz = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LINE = to_json(sample("arig")).encode()
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**30), 10**30), st.just(10**4000)
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line that is none, or a record with something else in one of its fields, or a piece of one."""
    kind = draw(st.sampled_from(["bytes", "field", "cut", "nested", "numbers"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200)).replace(b"\n", b" ")
    if kind == "cut":
        return LINE[: draw(st.integers(0, len(LINE)))]
    if kind == "nested":
        name = draw(st.sampled_from(["slots", "boxes", "id", "provenance"]))
        return f'{{"{name}": {"[" * draw(st.integers(1, 5000))}'.encode()
    found: dict[str, Any] = json.loads(LINE)
    if kind == "numbers":
        found["boxes"] = draw(st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=3))
        found["intervals"] = draw(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=3))
        found["frame_times"] = draw(st.lists(NUMBERS, max_size=3))
        found["audio_start"], found["audio_end"] = draw(NUMBERS), draw(NUMBERS)
        found["task"] = draw(st.sampled_from(["igatl", "arig", "avfc"]))
    else:
        name = draw(st.sampled_from([*FIELDS, "unknown"]))
        found[name] = draw(VALUES)
        if name == "provenance" and draw(st.booleans()):
            found[name] = json.dumps(draw(VALUES))
        if name == "slots" and draw(st.booleans()):
            found[name] = {slot: draw(VALUES) for slot in ("class", "box", "time")}
    return json.dumps(found, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


NAMES = st.one_of(
    st.sampled_from(
        ["../a.png", "/etc/passwd", "a/../../b", "..", ".", "a\0b", "x" * 300, "C:\\a", "a//b", " "]
    ),
    st.text(max_size=12),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "data"
    made.mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(made / "a.png")
    soundfile.write(made / "a.wav", noise(), 16_000)
    return made


@fuzz
@given(written=st.lists(lines(), min_size=1, max_size=6))
def test_any_line_is_a_record_or_a_finding(folder: Path, written: list[bytes]) -> None:
    (folder / "m.jsonl").write_bytes(b"\n".join([*written, LINE.replace(b'"arig"', b'"avqa"', 1)]))
    report = checked_and_reported(folder, folder, folder / "check", Options())
    bad = counts(report).get("line is no record", 0)
    blank = sum(not line or line.isspace() for line in written)
    assert report["records"] + bad + blank == len(written) + 1 == report["lines"]
    for finding in report["findings"]:
        assert all(one["where"].startswith(("m.jsonl:", "task ")) for one in finding["examples"])
    json.loads((folder / "check" / "report.json").read_text())
    with suppress(AvalignError):
        Manifest().prepare(str(folder), seed=0)
        show(folder, folder, folder / "page.html", count=3)
    for line in written:
        try:
            record = from_json(line)
        except AvalignError:
            continue
        assert from_json(to_json(record)) == record


@fuzz
@given(image=NAMES, audio=NAMES)
def test_any_media_name_is_read_inside_or_refused(folder: Path, image: str, audio: str) -> None:
    found = json.loads(LINE) | {"image": image, "audio": audio}
    (folder / "m.jsonl").write_bytes(json.dumps(found).encode())
    report = checked_and_reported(folder, folder, folder / "check", Options())
    assert counts(report).keys() <= {"line is no record", "media file is missing", "media cannot be decoded"}
    assert report["errors"] > 0
    if report["records"]:
        show(folder, folder, folder / "page.html", count=1)
    source = Manifest()
    if report["records"]:
        source.prepare(str(folder), seed=0)
        with pytest.raises(MediaError):
            source.sample("test", "arig", 0)
    else:
        with pytest.raises(AvalignError, match=r"m\.jsonl:1"):
            source.prepare(str(folder), seed=0)


def real_media(folder: Path) -> dict[str, bytes]:
    made = {}
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        opened = io.BytesIO()
        Image.fromarray(picture).save(opened, form)
        made[f"a.{form.lower()}"] = opened.getvalue()
    for form in ("WAV", "OGG", "FLAC", "AIFF"):
        opened = io.BytesIO()
        soundfile.write(opened, noise(0.5), 16_000, format=form)
        made[f"a.{form.lower()}"] = opened.getvalue()
    made["a.mp4"] = write_video(folder / "v.mp4", beeps()).read_bytes()
    made["a.mkv"] = write_video(folder / "v.mkv", beeps()).read_bytes()
    return made


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return real_media(tmp_path_factory.mktemp("real"))


@settings(fuzz, max_examples=150)
@given(data=st.data())
def test_broken_media_raise_media_errors_only(
    folder: Path, real: dict[str, bytes], data: st.DataObject
) -> None:
    """Random bytes, cut files, and real files with some bytes changed, read by every reader."""
    name = data.draw(st.sampled_from(sorted(real)))
    content = bytearray(real[name])
    how = data.draw(st.sampled_from(["random", "cut", "changed", "head kept"]))
    if how == "cut":
        del content[data.draw(st.integers(0, len(content))) :]
    elif how == "changed":
        rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
        for at in rng.integers(0, min(len(content), data.draw(st.sampled_from([60, 600, 10**9]))), 12):
            content[at] = int(rng.integers(256))
    else:
        kept = data.draw(st.integers(0, 40)) if how == "head kept" else 0
        content[kept:] = data.draw(st.binary(max_size=300))
    file = folder / name
    file.write_bytes(content)
    for read in (read_image, read_audio, lambda f: read_frames(f, [0.0, 1.0])):
        with suppress(MediaError):
            read(file)
    records = [
        sample("avqa", id="picture", image=name, audio=None, instruction="<image>x"),
        sample("avqa", id="film", image=name, frame_times=(0.0, 1.0), audio=name),
    ]
    (folder / "m.jsonl").write_text("\n".join(map(to_json, records)))
    report = checked_and_reported(folder, folder, folder / "check", Options())
    assert report["records"] == 2
    show(folder, folder, folder / "page.html")


@fuzz
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"PAR1"]))
def test_any_bytes_as_parquet(folder: Path, content: bytes, head: bytes) -> None:
    (folder / "m.parquet").write_bytes(head + content + head)
    report = checked_and_reported(folder, folder, folder / "check", Options())
    assert counts(report) == {"manifest file cannot be read": 1}
    with pytest.raises(AvalignError, match=r"m\.parquet"):
        Manifest().prepare(str(folder), seed=0)


AUDITED = """
import json, os, sys
opened = []
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        mode, flags = arguments[1], arguments[2]
        wrote = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        opened.append([os.path.realpath(os.fsdecode(arguments[0])), wrote])
    if event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "sqlite3.connect"):
        opened.append([os.path.realpath(os.fsdecode(arguments[0])) if arguments[0] else event, True])
from pathlib import Path
import av, numpy, soundfile, PIL.Image, tqdm, matplotlib
from avalign.avfit.check.check import Options
from avalign.avfit.check.report import checked_and_reported
from avalign.avfit.show import show
from avalign.avfit import show_card
root, out = map(Path, sys.argv[1:])
PIL.Image.init()
sys.addaudithook(note)
report = checked_and_reported(root, root, out, Options())
print(json.dumps([opened, [f["code"] for f in report["findings"]]]))
"""


def test_nothing_outside_is_opened_or_written(folder: Path, tmp_path: Path) -> None:
    """Links, playlists and paths that lead out. (What libraries open in C is not seen here.)"""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("a.png", "a.wav"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    write_video(elsewhere / "v.mp4", beeps())
    (folder / "link.png").symlink_to(elsewhere / "a.png")
    (folder / "up").symlink_to(elsewhere)
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {elsewhere / 'v.mp4'}\n")
    wrong = [
        sample("avqa", id="link", image="link.png"),
        sample("avqa", id="folder", image="up/a.png", audio="up/a.wav"),
        sample("avqa", id="playlist", image="list.mp4", frame_times=(0.5,), audio="list.mp4"),
    ]
    lines = [*map(to_json, wrong), LINE.decode().replace('"a.png"', '"../elsewhere/a.png"')]
    (folder / "m.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-c", AUDITED, str(folder), str(out)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    opened, codes = json.loads(ran.stdout.splitlines()[-1])
    assert codes == ["line is no record", "media leads out of the root", "media cannot be decoded"]
    assert any(path.startswith(str(folder)) for path, _ in opened)
    assert not [path for path, _ in opened if path.startswith(str(elsewhere))]
    allowed = (str(out), str(tmp_path / "cache"))
    written = [path for path, wrote in opened if wrote]
    assert written
    assert not [path for path in written if not path.startswith(allowed)]


def test_a_playlist_in_the_place_of_a_video_opens_no_other_file(folder: Path) -> None:
    """PyAV would play it, and read files from anywhere."""
    import av

    write_video(folder / "secret.mp4", beeps())
    (folder / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with av.open(str(folder / "a.mp4")) as played:
        assert played.streams.video
    with pytest.raises(MediaError):
        read_frames(folder / "a.mp4", [0.0])
    with pytest.raises(MediaError):
        read_audio(folder / "a.mp4")


def test_what_kills_a_process_is_told_from_what_was_beside_it() -> None:
    tasks = ["1", "__import__('os')._exit(11)", "2", "3"]
    results = list(in_processes(eval, tasks, 2))
    assert results == [("1", 1), (tasks[1], None), ("2", 2), ("3", 3)]


def test_a_file_that_kills_its_decoder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any task of several that holds it comes to nothing; alone, each other file gets its verdict."""

    def dying(work: Any, tasks: Iterable[Any], processes: int) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            dies = isinstance(task, list) and any(wanted.name == "b.png" for wanted in task)
            yield task, None if dies else work(task)

    (folder / "b.png").write_bytes(b"x")
    records = [sample("avqa"), sample("avqa", id="b", image="b.png"), sample("avqa", id="c", audio="c.wav")]
    write(records, folder / "m.jsonl")
    monkeypatch.setattr(check, "in_processes", dying)
    report = checked_and_reported(folder, folder, folder / "check", Options())
    assert counts(report) == {"media file is missing": 1, "media kills its decoder": 1}
