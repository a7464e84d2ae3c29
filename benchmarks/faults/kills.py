"""Kill a run at random moments, fill its disk, and hold what it ends with against a run never stopped.

    python -m benchmarks.faults.kills OUT [--kills 100] [--terms 20] [--sizes 10] [--seed 0]

The recipe is the tests' smallest, with dropout, a loss that learns, and loader processes. What is compared is
every byte of model/ and log.jsonl. Scoring is left out: it takes nothing from an earlier attempt. Sizes take
root, for a file system in memory that is made smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import torch

from avalign.config.recipe_file import read
from avalign.errors import AvalignError, Stopped
from avalign.system.complete import is_complete
from avalign.training import train as training
from tests.helpers.paths import RECIPE
from tests.helpers.runs import RICH, settings

STEPS = (12, 18)
STAGES = (
    f"train.stages=[{{name: align, steps: {STEPS[0]}, weights: {{language_modelling: 0, avace: 1.0}}}}, "
    f"{{name: answer, steps: {STEPS[1]}}}]"
)
OFTEN = ("train.checkpoint_every=2", "train.log_every=5", "data.workers=1")


def begin(out: Path, run: Path, said: Path) -> int:
    """Train, or go on, in a process of its own. Returns its id."""
    child = os.fork()
    if child:
        return child
    log = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        recipe = read(RECIPE, settings(out / "world", *RICH, STAGES, *OFTEN))
        training.train(recipe, run, resume=(run / "recipe.yaml").exists())
        status = 0
    except AvalignError as error:
        os.write(2, f"error: {error}\n".encode())
        status = 2
    except OSError as error:
        os.write(2, f"error: {error}\n".encode())
        status = 2
    except Stopped as stopped:
        os.write(2, f"{stopped}\n".encode())
        status = stopped.status
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def ended(child: int, wait: bool = True) -> int | None:
    pid, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def digests(folder: Path, *names: str) -> dict[str, str]:
    files = [
        f
        for name in names
        for f in ([folder / name] if name.endswith(".jsonl") else (folder / name).rglob("*"))
    ]
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def result(run: Path) -> dict[str, str]:
    return digests(run, "model", "log.jsonl")


def interrupted(
    out: Path, number: int, count: int, whole: dict[str, str], takes: float, dice: random.Random
) -> None:
    """Runs that get a signal at random moments, until `count` were ended by it, each then ended."""
    name, hits, runs, equal, ends = signal.Signals(number).name, 0, 0, 0, Counter[str]()
    while hits < count:
        run, runs = out / f"{name}-{runs}", runs + 1
        said = run.with_suffix(".txt")
        while True:
            child, hit = begin(out, run, said), False
            if hits < count:
                until = time.monotonic() + dice.uniform(0, takes)
                while time.monotonic() < until and (code := ended(child, wait=False)) is None:
                    time.sleep(0.002)
                else:
                    if time.monotonic() >= until:
                        os.kill(child, number)
                        code, hit = ended(child), True
            else:
                code = ended(child)
            if hit and code != 0:
                hits += 1
                ends[str(code)] += 1
            elif code != 0:
                raise SystemExit(f"{run}: ended by itself with {code}: {said}")
            if code == 0:
                break
        same = result(run) == whole
        equal += same
        print(f"{name}: {hits} of {count}, run {runs} {'equal' if same else 'DIFFERS'}", flush=True)
        if same:
            shutil.rmtree(run)
    print(f"RESULT {name}: {hits} hits, ends {dict(ends)}, {runs} runs, {equal} equal to the bit", flush=True)


def full(out: Path, count: int, whole: dict[str, str]) -> None:
    """A disk that has room for a part of what is to come."""
    first = out / "first"
    child = begin(out, first, out / "first.txt")
    while not any(is_complete(c) for c in (first / "checkpoints").glob("*/checkpoint-*")):
        time.sleep(0.002)
    os.kill(child, signal.SIGTERM)
    ended(child)
    last_one = max(c for c in (first / "checkpoints").glob("*/checkpoint-*") if is_complete(c))
    one = sum(f.stat().st_size for f in last_one.rglob("*") if f.is_file())
    told = whole_after = equal = 0
    for k in range(count):
        disk = out / f"disk-{k}"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)], check=True)
        try:
            run = disk / "run"
            shutil.copytree(first, run)
            before = max(
                (c for c in (run / "checkpoints").glob("*/checkpoint-*") if is_complete(c)),
                key=lambda c: c.name,
            )
            held = digests(before, ".")
            used = shutil.disk_usage(disk).used
            room = one * (2 * k + 1) // (2 * count)
            subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)
            said = out / f"disk-{k}.txt"
            code = ended(begin(out, run, said))
            last = next((one for one in said.read_text().splitlines() if "error: " in one), "")
            told += code == 2 and "error: " in last
            left = [c for c in (run / "checkpoints").glob("*/checkpoint-*") if is_complete(c)]
            kept = bool(left) and (not before.exists() or digests(before, ".") == held)
            whole_after += kept
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            done = ended(begin(out, run, said))
            same = done == 0 and result(run) == whole
            equal += same
            print(
                f"room for {room} bytes: ended {code}, whole {kept}, then equal {same}: {last[:150]}",
                flush=True,
            )
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    print(
        f"RESULT disk full: {count} sizes, {told} told in a line, {whole_after} left whole, "
        f"{equal} equal to the bit",
        flush=True,
    )


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("out", type=Path)
    for name, number in (("kills", 100), ("terms", 20), ("sizes", 10), ("seed", 0)):
        words.add_argument(f"--{name}", type=int, default=number)
    given = words.parse_args()
    torch.set_num_threads(1)
    training.score = lambda *_: {}  # type: ignore[assignment]
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ended(begin(out, out / "warm", out / "warm.txt"))  # the world is made
    began = time.monotonic()
    if ended(begin(out, out / "whole", out / "whole.txt")) != 0:
        raise SystemExit((out / "whole.txt").read_text())
    takes, whole = time.monotonic() - began, result(out / "whole")
    print(json.dumps({"seconds of a run": round(takes, 1), "files": len(whole)}), flush=True)
    if result(out / "warm") != whole:
        raise SystemExit("two runs that were never stopped differ")
    dice = random.Random(given.seed)
    if given.sizes:
        full(out, given.sizes, whole)
    if given.terms:
        interrupted(out, signal.SIGTERM, given.terms, whole, takes, dice)
    if given.kills:
        interrupted(out, signal.SIGKILL, given.kills, whole, takes, dice)


if __name__ == "__main__":
    sys.exit(main())
