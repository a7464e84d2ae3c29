"""Manifests to train from: sources by weight, every record before any again, and a resume like no stop."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from avalign.config.recipe_file import read
from avalign.data.manifest.record import Record, write
from avalign.data.sampling import TrainingDataset
from avalign.errors import AvalignError
from avalign.system.processes import start_anew
from avalign.training import stage_trainer
from avalign.training import train as training
from tests.helpers.manifests import cache, opened, records, write_manifest  # noqa: F401 (a fixture)
from tests.helpers.paths import RECIPE
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)
from tests.helpers.runs import SMALL, _one_thread, log, weights  # noqa: F401 (a fixture)
from tests.helpers.strategies import quick, seeds
from tests.helpers.tiny import letters

COUNTS = {"small": 5, "middle": 12, "large": 40}
WEIGHTS = {"small": 2.0, "middle": 1.0, "large": 1.0}


def made(counts: dict[str, int] = COUNTS, tasks: tuple[str, ...] = ("avqa", "avcap")) -> list[Record]:
    """`counts` records of each source, for each task; without media. A few of another split."""
    return [
        Record(
            f"{task}-{source}-{k}", task, "val" if k < 2 and task == "avqa" else "train", source, "yes", "?"
        )
        for task in tasks
        for source, count in counts.items()
        for k in range(count + 2 * (task == "avqa"))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write(made(), folder / "made.jsonl")
    return folder


def source_of(record: Any) -> str:
    return str(record.id.split("-")[1])


# -- sources by weight ---------------------------------------------------------------------------------------


@quick
@given(seeds, st.sampled_from(("avqa", "avcap")))
def test_each_source_is_gone_through_before_any_of_it_comes_again(folder: Path, seed: int, task: str) -> None:
    source = opened(folder, seed, sources=WEIGHTS)
    names = [source_of(record) for record in made()]
    seen: dict[str, list[int]] = {name: [] for name in COUNTS}
    for index in range(400):
        number, epoch = source.sampler.at("train", task, index)
        assert epoch == len(seen[names[number]]) // COUNTS[names[number]]
        seen[names[number]].append(number)
    for name, count in COUNTS.items():
        rounds = [seen[name][k : k + count] for k in range(0, len(seen[name]), count)]
        assert all(len(set(each)) == count for each in rounds[:-1])
        assert len(set(map(tuple, rounds[:-1]))) > 1, "each time in another order"


def test_sources_are_drawn_by_their_weights_and_by_their_records_without_any(folder: Path) -> None:
    weighted, plain = opened(folder, sources=WEIGHTS), opened(folder)
    counted = Counter(source_of(weighted.record("train", "avcap", k)) for k in range(1024))
    assert counted == {"small": 512, "middle": 256, "large": 256}
    counted = Counter(source_of(plain.record("train", "avcap", k)) for k in range(57 * 4))
    assert counted == {name: 4 * count for name, count in COUNTS.items()}


def test_a_source_of_weight_0_is_left_out_of_training_alone(folder: Path) -> None:
    source = opened(folder, sources={"small": 1, "middle": 3, "large": 0})
    drawn = {source_of(source.record("train", "avqa", k)) for k in range(300)}
    assert drawn == {"small", "middle"}
    val = [source.record("val", "avqa", k).id for k in range(source.size("val", "avqa"))]
    assert val == [r.id for r in made() if r.split == "val"]


def test_tasks_and_seeds_have_orders_of_their_own(folder: Path) -> None:
    def order(seed: int, task: str) -> list[str]:
        source = opened(folder, seed, sources=WEIGHTS)
        return [source.record("train", task, k).id.partition("-")[2] for k in range(60)]

    orders = [order(0, "avqa"), order(0, "avcap"), order(1, "avqa")]
    assert len({tuple(one) for one in orders}) == 3
    assert len({tuple(name.split("-")[0] for name in one) for one in orders}) == 3


def test_sources_of_one_size_have_orders_of_their_own(tmp_path: Path) -> None:
    """Else records at one place of two sources, which may go together, would always come together."""
    write(made({"a": 30, "b": 30}, ("avcap",)), tmp_path / "made.jsonl")
    source = opened(tmp_path, sources={"a": 1.0, "b": 1.0})
    seen: dict[str, list[str]] = {"a": [], "b": []}
    for index in range(64):
        record = source.record("train", "avcap", index)
        seen[source_of(record)].append(record.id.rpartition("-")[2])
    assert seen["a"][:25] != seen["b"][:25]


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"smal": 1.0}, "no record is of 'smal'. Did you mean 'small'"),
        ({"small": 1.0, "large": 2.0}, "middle: no weight, but training records of avqa"),
        ({**WEIGHTS, "small": -1.0}, "the weight of 'small' is -1.0"),
    ],
)
def test_weights_that_do_not_fit_the_sources_are_refused(
    folder: Path, weights: dict[str, float], why: str
) -> None:
    with pytest.raises(AvalignError, match=why):
        opened(folder, sources=weights)


def test_a_task_none_of_whose_sources_weighs_anything_says_so_when_it_is_drawn(tmp_path: Path) -> None:
    write([*made({"a": 3}, ("avcap",)), *made({"b": 3}, ("arig",))], tmp_path / "made.jsonl")
    source = opened(tmp_path, sources={"a": 1.0, "b": 0.0})
    assert source.record("train", "avcap", 0).source == "a"
    with pytest.raises(AvalignError, match="no records of task 'arig' in split 'train'"):
        source.record("train", "arig", 0)


# -- the order after a resume --------------------------------------------------------------------------------


def dataset_of(folder: Path, count: int = 240) -> TrainingDataset:
    source = opened(folder, sources=WEIGHTS)
    return TrainingDataset(source, {"avqa": 1.0, "avcap": 2.0}, seed=(0, 0), count=count, collator=letters())


def ids(batches: Any) -> list[list[str]]:
    return [[sample.id for sample, _ in batch] for batch in batches]


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize(("workers", "done"), [(0, 1), (0, 7), (0, 59), (1, 7)])
def test_the_samples_after_a_resume_are_those_of_the_run_that_was_not_stopped(
    folder: Path, workers: int, done: int
) -> None:
    """As the Trainer resumes: the batches that were done are skipped by number, by any number of workers."""
    from accelerate.data_loader import skip_first_batches

    data = dataset_of(folder)
    straight = ids(DataLoader(data, batch_size=4, collate_fn=list))
    assert len({name for batch in straight for name in batch}) > 80
    loader = start_anew(DataLoader(dataset_of(folder), batch_size=4, num_workers=workers, collate_fn=list))
    assert ids(skip_first_batches(loader, done)) == straight[done:]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_draws_out_and_resume_alike(folder: Path, processes: int) -> None:
    """Every rank takes its part of the same batches, as accelerate gives it; together all, each once."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    def of_rank(rank: int, skip: int = 0) -> list[list[str]]:
        data = dataset_of(folder)
        batches = BatchSampler(SequentialSampler(data), 4, drop_last=False)
        shard = list(BatchSamplerShard(batches, processes, rank))[skip:]
        return ids(DataLoader(data, batch_sampler=shard, collate_fn=list))

    straight = ids(DataLoader(dataset_of(folder), batch_size=4, collate_fn=list))
    assert [of_rank(rank) for rank in range(processes)] == [
        straight[rank::processes] for rank in range(processes)
    ]
    assert of_rank(1, skip=3) == of_rank(1)[3:]


@pytest.mark.usefixtures("preloaded")
def test_a_training_that_was_stopped_goes_on_with_the_samples_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a manifest of two sources: bit for bit the weights and the log."""
    made = [replace(record, source=("one", "two")[k % 2]) for k, record in enumerate(records())]
    folder = write_manifest(tmp_path / "media", made)
    source = "data.source={name: manifest, sources: {one: 1.0, two: 3.0}}"
    steps = "train.stages=[{name: align, steps: 5, tasks: {arig: 1.0, avcap: 2.0}}]"
    settings = [*SMALL, f"data.root={folder}", source, steps, "data.workers=1"]

    monkeypatch.setattr(training, "score", lambda *_: {})
    importlib.import_module("av")  # in this process too, as after a decoded video
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked: it may never return"))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    training.train(read(RECIPE, settings), whole)
    forward, steps_done = stage_trainer.Learner.forward, 0

    def stop(learner: Any, batch: Any, step: int) -> Any:
        nonlocal steps_done
        steps_done += 1
        if steps_done == 4:  # two after the last checkpoint
            raise KeyboardInterrupt
        return forward(learner, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(stage_trainer.Learner, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(read(RECIPE, settings), stopped)
    training.train(read(RECIPE, settings), stopped, resume=True)
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert log(stopped) == log(whole)
