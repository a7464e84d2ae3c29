"""With data.features faults of media, of the cache and of processes are met as without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from avalign.data import features
from avalign.data.collate import SampleError
from avalign.interfaces import Source
from avalign.media.file import MediaError
from avalign.types import Sample
from tests.helpers.cached_media import (
    BATCH,
    COUNT,
    assert_alike,
    corpus,  # noqa: F401  (a fixture)
    decoded,  # noqa: F401  (a fixture)
    draws_of,
    entries,
    epoch,
    kept,  # noqa: F401  (a fixture)
    model_with,
    opened,
    readings,
    watch,
)
from tests.helpers.paths import ROOT
from tests.helpers.runs import ENVIRONMENT

# -- what cannot be used -------------------------------------------------------------------------------------


def spoil(corpus: Path) -> None:
    (corpus / "1.bmp").write_bytes(b"BM" + bytes(2000))
    (corpus / "2.wav").unlink()
    (corpus / "4.bmp").unlink()


@pytest.mark.parametrize("before", [True, False])
def test_media_that_cannot_be_used_are_skipped_and_told_as_without(
    corpus: Path, kept: Path, before: bool
) -> None:
    """Also those that were read once: a file that is gone is an error, though its features are there."""
    if before:
        epoch(opened(corpus), model_with(kept))
    spoil(corpus)
    how = {"on_error": "skip", "count": 2 * COUNT}
    plain = epoch(opened(corpus), model_with(None), draws=how)
    assert sum(len(step.skipped) for step in plain) >= 6
    for _ in range(2):
        found = epoch(opened(corpus), model_with(kept), draws=how)
        assert [step.skipped for step in found] == [step.skipped for step in plain]
        assert all(one.same_truth(other) for one, other in zip(found, plain, strict=True))


def test_media_that_cannot_be_used_stop_a_run_with_the_same_words(corpus: Path, kept: Path) -> None:
    epoch(opened(corpus), model_with(kept))
    spoil(corpus)

    def said(folder: Path | None) -> list[str]:
        data = draws_of(opened(corpus), model_with(folder))
        found = []
        for number in range(COUNT):
            try:
                data[number]
            except MediaError as error:
                found.append(str(error))
        return found

    plain = said(None)
    assert len(plain) == 3
    assert all(f"{corpus}/made.jsonl:" in each for each in plain)
    assert said(kept) == plain


def test_a_clip_that_is_too_long_for_another_encoder_is_refused(corpus: Path, kept: Path) -> None:
    """What only decoding would tell is kept: shape, and rate."""
    epoch(opened(corpus), model_with(kept))
    data = draws_of(opened(corpus), model_with(kept))
    data.collator.seconds = 0.2
    with pytest.raises(SampleError, match=r"audio lasts 0\.3\d s, the audio encoder takes 0\.2 s"):
        data[0]


# -- what lies on disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: [file.unlink() for file in entries(kept)[::2]],
        lambda kept: [file.write_bytes(file.read_bytes()[:30]) for file in entries(kept)[::2]],
        lambda kept: [file.write_bytes(b"") for file in entries(kept, "json")],
        lambda kept: [file.write_bytes(file.read_bytes()[:-9]) for file in entries(kept, "json")],
        lambda kept: [file.write_text("[1]") for file in entries(kept, "json")],
        lambda kept: [
            file.write_text(json.dumps(json.loads(file.read_text()) | {"entries": ["../../a"]}))
            for file in entries(kept, "json")
        ],
        lambda kept: [
            file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [-1]}))
            for file in entries(kept, "json")
        ],
    ],
)
def test_what_is_damaged_or_gone_is_made_anew(
    corpus: Path, kept: Path, decoded: list[str], damage: Any
) -> None:
    plain = epoch(opened(corpus), model_with(kept))
    damage(kept)
    decoded.clear()
    for again in (True, False):
        found = epoch(opened(corpus), model_with(kept))
        assert bool(decoded) == again
        decoded.clear()
        for one, other in zip(found, plain, strict=True):
            assert one.same_truth(other)
            torch.testing.assert_close(one.tokens["image"], other.tokens["image"], rtol=1e-5, atol=1e-6)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.helpers.cached_media import epoch, model_with, opened
corpus, kept, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
real = Path.replace
def replace(self, target):
    if str(target).endswith(at):  # written, not yet named
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
epoch(opened(corpus), model_with(kept))
"""


@pytest.mark.parametrize("at", ["safetensors", "json"])
def test_a_writer_that_is_killed_leaves_no_half_entry(corpus: Path, kept: Path, at: str) -> None:
    command = [sys.executable, "-c", KILLED, str(corpus), str(kept), at]
    ended = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert entries(kept, "json") == []
    assert len(entries(kept)) == (0 if at == "safetensors" else BATCH)
    assert_alike(epoch(opened(corpus), model_with(kept)), epoch(opened(corpus), model_with(None)))


def test_a_full_folder_has_no_notes_of_what_it_does_not_hold(corpus: Path, kept: Path) -> None:
    epoch(opened(corpus), model_with(kept, most=1))  # an entry brings it above
    assert len(entries(kept)) == 1
    assert entries(kept, "json") == []


# -- processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_loader_processes_decode_and_read(
    corpus: Path, kept: Path, tmp_path: Path, decoded: list[str], method: str
) -> None:
    """Each medium once, by a loader process; then none by anyone."""
    log = tmp_path / "log"
    how = {
        "num_workers": 2,
        "multiprocessing_context": method,
        "worker_init_fn": partial(watch, str(log)),
    }
    plain = epoch(opened(corpus), model_with(None), **how)
    expected = readings(log)
    log.unlink()
    decoded.clear()
    first = epoch(opened(corpus), model_with(kept), **how)
    assert sorted(file for _, file in readings(log)) == sorted(file for _, file in expected)
    assert len(readings(log)) == 2 * COUNT
    assert os.getpid() not in {process for process, _ in readings(log)}
    log.unlink()
    second = epoch(opened(corpus), model_with(kept), **how)
    assert readings(log) == []
    assert decoded == []
    assert_alike(first, plain, media=True)
    assert_alike(second, plain)


TOGETHER = """
import sys
from pathlib import Path
from tests.helpers.cached_media import epoch, model_with, opened
for _ in range(5):
    epoch(opened(Path(sys.argv[1])), model_with(Path(sys.argv[2])))
"""


def test_several_processes_may_write_at_once(corpus: Path, kept: Path) -> None:
    command = [sys.executable, "-c", TOGETHER, str(corpus), str(kept)]
    running = [subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    model = model_with(kept)
    assert_alike(epoch(opened(corpus), model), epoch(opened(corpus), model_with(None)))
    assert model.features is not None
    assert (model.features.counts.saved, model.features.counts.not_decoded) == (0, 2 * COUNT)
    assert len(entries(kept)) == len(entries(kept, "json")) == 2 * COUNT


# -- which sources are asked ---------------------------------------------------------------------------------


def test_only_a_source_that_says_itself_what_it_has_is_asked_for_it(corpus: Path) -> None:
    class Delegating:
        def __init__(self, source: Source) -> None:
            self.source = source

        def sample(self, split: str, task: str, index: int) -> Sample:
            return self.source.sample(split, task, index)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["source"], name)

    source = opened(corpus)
    assert features.undecoded(source, "train", "avqa", 0) is not None
    assert features.undecoded(Delegating(source), "train", "avqa", 0) is None  # type: ignore[arg-type]
    source.sample = source.sample  # type: ignore[method-assign]
    assert features.undecoded(source, "train", "avqa", 0) is None
