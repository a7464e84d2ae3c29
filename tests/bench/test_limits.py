"""bench-loss ends with a table, whatever its competitors do; and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from avalign.bench import show, truth
from avalign.bench.bench_loss import bench, competitors
from avalign.bench.competitor import Competitor, Settings
from avalign.bench.floor import Rate, Rates
from avalign.bench.inputs import Shape, generate
from avalign.bench.limits import Limits, bounded, is_out_of_memory, read_limits
from avalign.bench.trial import Lost
from avalign.bench.workers import Workers
from avalign.errors import AvalignError
from tests.helpers import bench_fakes as fakes
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)

CPU = torch.device("cpu")
RATES = Rates({"float32": Rate(1e9, "given"), "bfloat16": Rate(2e9, "given")}, Rate(1e9, "given"))
SMALL = generate("structured", Shape(3, 20, 13, 16), seed=0)
SETTINGS = Settings(0.1, 1e-3)
LIMITS = Limits(30.0, fakes.LARGE // 4)
bounds_memory = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")


def rows_of(
    chosen: list[Competitor], repeats: int = 2, limits: Limits = LIMITS
) -> dict[str, tuple[str, str]]:
    report = bench(chosen, [SMALL], SETTINGS, device=CPU, repeats=repeats, rates=RATES, limits=limits)
    (table,) = show.tables(report)
    assert sorted(row[0] for row in table[1]) == sorted(each.name for each in chosen), "a row for each"
    return {row["name"]: (row["status"], row["note"]) for row in report["problems"][0]["rows"]}


@bounds_memory
@pytest.mark.usefixtures("preloaded")
def test_who_fails_while_it_is_made_ready_is_a_row_and_the_others_are_measured() -> None:
    does = (fakes.numpy_memory, fakes.torch_memory, fakes.wordless, fakes.lines, fakes.cannot, fakes.chatter)
    gone = Competitor("gone", "", fakes.exact, modules=("no_such_module",), install="no-such")
    more = [Competitor(each.__name__, "", each) for each in (fakes.garbage, fakes.strange, fakes.nan)]
    ends = (fakes.die, fakes.abort, fakes.leave, fakes.unwound)
    deadly = [fakes.doing(each, process=each.__name__) for each in ends]
    rows = rows_of([gone, *map(fakes.doing, does), *more, *deadly, *competitors(["exact"])])
    memory = ("stopped", "over the memory limit of 0.25 GiB")
    assert rows.pop("garbage")[0] == rows.pop("strange")[0] == "failed"
    exact = "the unsmoothed problem; errors are against its float64 solution"
    assert rows == {
        "gone": ("absent", "pip install no-such"),
        "numpy_memory": memory,
        "torch_memory": memory,
        "wordless": ("failed", "Wordless: no text"),
        "lines": ("failed", "RuntimeError: first line"),
        "cannot": ("unavailable", "no such processor"),
        "chatter": ("measured", exact),
        "nan": ("measured", exact),
        "die": ("failed", "ended by signal 11 (Segmentation fault)"),
        "abort": ("failed", "ended by signal 6 (Aborted): terminate called: \\x1b[31mno way"),
        "unwound": (
            memory[0],
            f"{memory[1]}; ended by signal 6 (Aborted): terminate called after throwing an instance of "
            "'std::bad_alloc'",
        ),
        "leave": ("failed", "ended by itself with exit status 0"),
        "exact": ("measured", exact),
    }


@bounds_memory
@pytest.mark.usefixtures("preloaded")
def test_who_fails_while_it_is_timed_is_a_row_and_the_others_are_made_ready_anew(tmp_path: Path) -> None:
    does = (fakes.die, fakes.torch_memory, fakes.lines)
    chosen = [Competitor(each.__name__, "", partial(fakes.when_timed, does=each)) for each in does]
    once = Competitor("only_once", "", partial(fakes.only_once, marks=str(tmp_path / "mark")))
    rows = rows_of([*chosen, once, *competitors(["exact"])], repeats=4)
    assert rows["exact"][0] == "measured"
    assert {name: row for name, row in rows.items() if name != "exact"} == {
        "die": ("failed", "ended by signal 11 (Segmentation fault)"),
        "torch_memory": ("stopped", "over the memory limit of 0.25 GiB"),
        "lines": ("failed", "RuntimeError: first line"),
        "only_once": ("failed", "RuntimeError: not a second time"),
    }


@pytest.mark.usefixtures("preloaded")
def test_who_takes_too_long_is_stopped() -> None:
    """In its own process, so that the others need no second start; and when it is timed."""
    early = fakes.doing(fakes.sleep, process="early")
    late = Competitor("late", "", partial(fakes.when_timed, does=fakes.sleep), process="late")
    start = time.monotonic()
    rows = rows_of([early, late, *competitors(["exact"])], limits=Limits(8.0))
    assert rows["sleep"] == rows["late"] == ("stopped", "over the time limit of 8 s")
    assert rows["exact"][0] == "measured"
    assert time.monotonic() - start < 500, "it sleeps for 600"


@pytest.mark.usefixtures("preloaded")
def test_where_nothing_is_measured_there_is_still_a_table_and_no_image(tmp_path: Path) -> None:
    chosen = [fakes.doing(fakes.cannot)]
    report = bench(chosen, [SMALL, SMALL], SETTINGS, device=CPU, repeats=1, rates=RATES, limits=LIMITS)
    (_, rows, notes), *_ = show.tables(report)
    assert rows[0][:2] == ("cannot", "unavailable")
    assert "cannot: unavailable: no such processor" in notes
    assert not show.plot(report, tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("preloaded")
def test_a_process_that_had_one_problem_is_given_the_next() -> None:
    problems = [SMALL, generate("structured", Shape(2, 9, 7, 8), seed=0)]
    chosen = [Competitor("shape", "", fakes.shape)]
    report = bench(chosen, problems, SETTINGS, device=CPU, repeats=1, rates=RATES, limits=LIMITS)
    rows = [problem["rows"][0] for problem in report["problems"]]
    assert [row["note"] for row in rows] == ["RuntimeError: (3, 20, 16)", "RuntimeError: (2, 9, 8)"]


def test_no_process_is_left_when_the_command_is_stopped(tmp_path: Path) -> None:
    """By Ctrl-C, to all in the foreground; and killed outright, when it can end nothing itself."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from tests.helpers import bench_fakes as fakes\n"
        "from tests.bench.test_limits import RATES, SETTINGS, SMALL\n"
        "from avalign.bench.bench_loss import bench\n"
        "chosen = [fakes.doing(fakes.tell_and_sleep)]\n"
        "bench(chosen, [SMALL], SETTINGS, device=torch.device('cpu'), rates=RATES)\n"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        told = tmp_path / f"pid-{number}"
        environment = {**os.environ, "BENCH_FAKES_TELL": str(told), "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, str(script)], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            while not told.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert told.exists(), "the competitor was never asked"
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                process.kill()
            process.wait(60)
        worker = int(told.read_text())
        while _is_running(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_running(worker)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestWorkers:
    def test_a_process_that_cannot_start_is_told(self) -> None:
        found = truth.work_out(SMALL, SETTINGS)
        with Workers(CPU, LIMITS, threads=1) as workers:
            workers.begin(SMALL, SETTINGS, found)
            workers._problem = ("no", "problem", "at all")
            with pytest.raises(Lost, match=r"ended by itself with exit status 1: .*Error"):
                workers.time(fakes.doing(fakes.chatter), "step")


class TestLimits:
    @bounds_memory
    def test_memory_that_is_held_already_does_not_count(self) -> None:
        held = bytearray(2**28)
        with bounded(Limits(bytes=2**27), CPU):
            bytearray(2**26)
            with pytest.raises(MemoryError):
                bytearray(2**28)
        assert len(bytearray(2**28)) == len(held), "and afterwards there is no limit"

    def test_out_of_memory_is_known_in_every_library_s_words(self) -> None:
        with pytest.raises(RuntimeError) as told:
            torch.empty(2**60)
        assert is_out_of_memory(told.value)
        assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."))
        assert is_out_of_memory(torch.OutOfMemoryError("CUDA"))
        assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    @bounds_memory
    def test_without_a_word_it_is_a_share_of_what_is_free(self) -> None:
        limits = read_limits(60.0, None, CPU)
        assert limits.seconds == 60.0
        assert limits.bytes is not None
        assert 2**20 < limits.bytes < 2**50
        assert read_limits(1.0, 0.5, CPU) == Limits(1.0, 2**29)

    @pytest.mark.parametrize(
        ("seconds", "gib"), [(0.0, None), (float("inf"), None), (1.0, 0.0), (1.0, float("nan"))]
    )
    def test_a_limit_is_above_nothing(self, seconds: float, gib: float | None) -> None:
        with pytest.raises(AvalignError, match="must be above 0"):
            read_limits(seconds, gib, CPU)
