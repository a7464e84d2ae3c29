"""Times, memory, floor and features of avalign.bench are what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from avalign.bench import floor, measure
from avalign.bench.bench_loss import competitors, read_settings
from avalign.bench.floor import Rate, floor_seconds
from avalign.bench.inputs import Shape, generate, load
from avalign.cli.app import app
from avalign.errors import AvalignError
from avalign.ot import cosine_sinkhorn
from tests.helpers.paths import ROOT
from tests.helpers.strategies import quick, seeds

CPU = torch.device("cpu")
SMALL = generate("structured", Shape(3, 20, 13, 16), seed=0)


class TestMeasuring:
    def test_the_floor_is_three_products_and_the_traffic_of_features_and_gradients(self) -> None:
        """By hand: 6 * 2*3*4*5 = 720 operations; 2 * 2*(3+4)*5 = 140 numbers of 4 bytes."""
        assert floor_seconds(Shape(2, 3, 4, 5), 4, product=1000, copy=100) == pytest.approx(0.72 + 5.6)
        assert floor_seconds(Shape(2, 3, 4, 5), 2, product=1000, copy=100) == pytest.approx(0.72 + 2.8)

    def test_rates_are_the_best_of_what_was_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(floor, "PRODUCT_SIZES", {"cpu": (64,)})
        monkeypatch.setattr(floor, "COPY_BYTES", {"cpu": 2**20})
        monkeypatch.setattr(floor, "_own_product", lambda name: [Rate(1e18, "own")])
        rates = floor.measure_rates(CPU)
        assert {name: rate.source for name, rate in rates.product.items()} == {
            "float32": "own",
            "bfloat16": "own",
        }
        monkeypatch.setattr(floor, "_own_product", lambda name: [Rate(1.0, "own")])
        assert floor.measure_rates(CPU).product["float32"].source == "torch.mm of 64 x 64"
        assert rates.copy.value > 0

    @quick
    @given(st.integers(1, 4), st.integers(1, 5), seeds)
    def test_each_repeat_does_every_run_once(self, runs: int, repeats: int, seed: int) -> None:
        done: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measure, "SETTLE", 0.0)
            times = measure.interleaved(
                {k: lambda k=k: measure.timed(lambda: done.append(k), CPU) for k in range(runs)},
                repeats,
                seed,
            )
        for r in range(repeats):
            assert sorted(done[r * runs : (r + 1) * runs]) == list(range(runs))
        assert all(len(times[k].wall) == len(times[k].processor) == repeats for k in range(runs))

    def test_who_has_spent_its_time_is_done_no_more(self) -> None:
        times = measure.interleaved({"slow": lambda: (1.0, 1.0)}, 9, budget=0.0)
        assert len(times["slow"].wall) == measure.LEAST

    def test_who_gives_no_time_is_asked_no_more(self) -> None:
        asked: list[str] = []

        def give(name: str, most: int) -> tuple[float, float] | None:
            asked.append(name)
            return (1.0, 2.0) if asked.count(name) <= most else None

        runs = {
            "good": lambda: give("good", 9),
            "two": lambda: give("two", 2),
            "none": lambda: give("none", 0),
        }
        times = measure.interleaved(runs, 5)
        assert [asked.count(name) for name in runs] == [5, 3, 1]
        assert {name: len(each.wall) for name, each in times.items()} == {"good": 5, "two": 2}

    def test_median_and_quartiles(self) -> None:
        times = measure.Times((4.0, 1.0, 2.0, 3.0, 10.0), (8.0, 2.0, 4.0, 6.0, 20.0))
        assert (times.median, times.quartiles, times.busy) == (3.0, (2.0, 4.0), 2.0)
        assert measure.Times((2.0,), (1.0,)).quartiles == (2.0, 2.0)

    def test_memory_is_counted_whoever_allocates_it_and_also_what_was_given_back(self) -> None:
        size = 64 * 2**20

        def allocate() -> None:
            for _ in range(2):  # one after the other: the peak is one of them
                np.ones(size, dtype=np.uint8).sum()

        needed = measure.peak_memory(allocate, CPU)
        if needed is None:
            pytest.skip("the kernel does not count here")
        assert 0.95 * size < needed < 1.5 * size
        assert measure.peak_memory(lambda: None, CPU) < size / 10


class TestInputs:
    def test_structured_features_are_drawn_alike_and_are_hard(self) -> None:
        shape = Shape(4, 40, 20, 512)
        assert torch.equal(generate("structured", shape, 3).audio, generate("structured", shape, 3).audio)
        assert not torch.equal(generate("structured", shape, 3).audio, generate("structured", shape, 4).audio)
        error = {}
        for kind in ("structured", "gaussian"):
            features = generate(kind, shape, 0)
            assert features.shape == shape
            plan = cosine_sinkhorn(features.image, features.audio, iterations=3, tolerance=None)
            error[kind] = float(plan.marginal_error.min())
        assert error["structured"] > 0.02, "three iterations of Sinkhorn are far from enough"
        assert error["gaussian"] < 1e-3, "and between independent Gaussians they are"

    def test_a_file_is_read_with_its_own_shape(self, tmp_path: Path) -> None:
        save_file({"image": SMALL.image, "audio": SMALL.audio.bfloat16()}, tmp_path / "f.safetensors")
        features = load(tmp_path / "f.safetensors")
        assert features.shape == SMALL.shape
        assert torch.equal(features.image, SMALL.image)
        assert features.audio.dtype == torch.float32

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"image": torch.ones(2, 3, 4)}, 'holds no tensor "audio"'),
            ({"image": torch.ones(2, 3), "audio": torch.ones(2, 3, 4)}, "of shape (2, 3)"),
            ({"image": torch.ones(2, 3, 4).int(), "audio": torch.ones(2, 3, 4)}, "torch.int32"),
            ({"image": torch.ones(2, 3, 4), "audio": torch.ones(2, 3, 5)}, "first and last size"),
            ({"image": torch.ones(2, 3, 4), "audio": torch.full((2, 3, 4), torch.nan)}, "NaN"),
        ],
    )
    def test_a_file_with_other_tensors_is_an_error(self, tensors, message: str, tmp_path: Path) -> None:
        save_file(tensors, tmp_path / "f.safetensors")
        with pytest.raises(AvalignError) as told:
            load(tmp_path / "f.safetensors")
        assert message in str(told.value)
        assert "\n" not in str(told.value)


def test_the_gpu_s_script_asks_for_what_there_is(tmp_path: Path) -> None:
    """By the words that it would give to the command and to pytest, which here only note them."""
    for name in ("avalign", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/said"\n')
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    words = ["bash", str(ROOT / "benchmarks" / "gpu" / "run.sh"), str(tmp_path / "out")]
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    tests, *tables = (tmp_path / "said").read_text().splitlines()
    assert tests == "python -m pytest -q tests/gpu"
    command = typer.main.get_command(app).commands["bench-loss"]
    for table in tables:
        given = command.make_context("bench-loss", table.split()[2:]).params
        assert given["device"] == "cuda"
        assert [Shape.read(each) for each in given["shape"]]
        assert competitors(given["backend"])
        assert read_settings(given["epsilon"], given["tolerance"], given["iterations"])
    assert len(tables) == 4
