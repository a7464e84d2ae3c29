"""A draw's number decides what is drawn; what cannot be used is skipped by name, or stops the run."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from avalign.data import sampling as draws
from avalign.data.collate import SampleError
from avalign.data.sampling import ATTEMPTS, TrainingDataset
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.system.processes import start_anew
from avalign.types import Sample
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)
from tests.helpers.strategies import quick, seeds
from tests.helpers.tiny import letters


class Numbers:
    """A source whose samples say what was asked for; `bad` says which cannot be used, and why."""

    def __init__(self, bad: Any = lambda index: None) -> None:
        self.bad = bad

    def sample(self, split: str, task: str, index: int) -> Sample:
        assert split == "train"
        why = self.bad(index)
        if why == "media":
            raise MediaError(f"{index}.wav", "is broken")
        boxes = ((0.0, 0.0, 2.0, 1.0),) if why == "box" else ()
        return Sample(str(index), task, f"{task} {index}", "yes", boxes=boxes)


def drawn(source: Any = None, tasks: dict[str, float] | None = None, **settings: Any) -> TrainingDataset:
    defaults = {"seed": (0, 0), "count": 40}
    tasks = {"arig": 1.0, "igatl": 2.0, "avqa": 1.0} if tasks is None else tasks
    return TrainingDataset(source or Numbers(), tasks, collator=letters(), **{**defaults, **settings})


ONE = {"arig": 1.0}  # its samples' numbers are the draws'


def odd_are_bad(index: int) -> str | None:
    return ("media" if index % 4 == 1 else "box") if index % 2 else None


# -- a number decides all ------------------------------------------------------------------------------------


@quick
@given(seeds, st.permutations(range(12)))
def test_a_draw_is_the_same_in_any_order(seed: int, order: list[int]) -> None:
    source = Numbers(odd_are_bad)
    in_order = drawn(source, seed=(seed, 1), on_error="skip")
    straight = [in_order[number] for number in range(12)]
    permuted = drawn(source, seed=(seed, 1), on_error="skip")
    assert {number: permuted[number] for number in order} == dict(enumerate(straight))


@pytest.mark.usefixtures("preloaded")
def test_any_number_of_loader_workers_draws_the_same_batches() -> None:
    data = drawn(Numbers(odd_are_bad), on_error="skip", count=22)

    def batches(workers: int) -> list[dict[str, Any]]:
        loader = start_anew(DataLoader(data, batch_size=4, num_workers=workers, collate_fn=data.collate))
        return list(loader)

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert one["skipped"] == other["skipped"]
        for name, values in vars(one["batch"]).items():
            assert torch.equal(values, getattr(other["batch"], name))


def test_other_seeds_and_stages_draw_other_tasks() -> None:
    tasks = {
        seed: [sample.task for sample, _ in map(drawn(seed=seed).__getitem__, range(40))]
        for seed in ((0, 0), (0, 1), (1, 0))
    }
    assert len(set(map(tuple, tasks.values()))) == 3


def test_a_stage_goes_on_where_the_one_before_ended() -> None:
    """Every task's samples by their numbers, none twice and none left out, whatever the stages' mixtures."""
    data = drawn(count=300)
    stages = [data, drawn(first=data.after(), count=70, tasks={"igatl": 1, "avcap": 2}, seed=(0, 1))]
    stages.append(drawn(first=stages[1].after(), count=130, seed=(0, 2)))
    seen: dict[str, list[int]] = {}
    for stage in stages:
        for sample, _ in map(stage.__getitem__, range(len(stage))):
            seen.setdefault(sample.task, []).append(int(sample.id))
    assert set(seen) == {"arig", "igatl", "avqa", "avcap"}
    assert all(numbers == list(range(len(numbers))) for numbers in seen.values())
    assert stages[2].after() == {task: len(numbers) for task, numbers in seen.items()}


# -- the mixture ---------------------------------------------------------------------------------------------


def test_tasks_are_drawn_in_the_shares_of_their_weights() -> None:
    data = drawn(tasks={"arig": 1, "igatl": 3, "avfc": 0, "avqa": 0.5}, count=900)
    counted = Counter(data[number][0].task for number in range(900))
    assert set(counted) == {"arig", "igatl", "avqa"}
    expected = [900 * share / 4.5 for share in (1, 3, 0.5)]
    assert chisquare([counted[task] for task in ("arig", "igatl", "avqa")], expected).pvalue > 1e-3


def test_no_process_sees_one_task_more_than_another() -> None:
    """Processes take every second draw, or runs of draws: two tasks in turn would be one for each process."""
    data = drawn(tasks={"arig": 1, "avfc": 1}, count=2000)
    tasks = [data[number][0].task for number in range(2000)]
    counted = Counter((task, number % 2) for number, task in enumerate(tasks))
    assert chisquare(list(counted.values())).pvalue > 1e-3
    same = sum(one == two for one, two in pairwise(tasks))
    assert 900 < same < 1100


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(AvalignError, match="no task of weight above 0"):
        drawn(tasks={"arig": 0.0})


# -- bad samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "error", "said"),
    [("media", MediaError, r"3\.wav: is broken"), ("box", SampleError, r"sample 3: box \[0, 0, 2, 1\]")],
)
def test_a_bad_sample_stops_the_run_unless_told_otherwise(
    why: str, error: type[Exception], said: str
) -> None:
    data = drawn(Numbers(lambda index: why if index == 3 else None), tasks=ONE)
    assert data[2][0].id == "2"
    with pytest.raises(error, match=said):
        data[3]


def test_a_skipped_sample_is_named_with_its_reason_and_another_is_drawn() -> None:
    data = drawn(Numbers({3: "media", 5: "box"}.get), on_error="skip", tasks=ONE)
    plain = drawn(tasks=ONE)
    found = [data[number] for number in range(8)]
    for number, (sample, skipped) in enumerate(found):
        if number not in (3, 5):
            assert (sample, skipped) == (plain[number][0], [])
    assert found[3][1] == ["3.wav: is broken"]
    assert found[5][1] == ["sample 5: box [0, 0, 2, 1] is empty or not within 0..1"]
    assert len({sample.id for sample, _ in found}) == 8
    batch = data.collate(found)
    assert batch["skipped"] == found[3][1] + found[5][1]
    assert len(batch["batch"]) == 8


def test_every_sample_that_was_passed_over_is_named() -> None:
    data = drawn(Numbers(odd_are_bad), on_error="skip", count=200, tasks=ONE)
    lengths = Counter(len(data[number][1]) for number in range(200))
    assert lengths[0] == 100  # the even ones
    assert max(lengths) > 2  # half of what is drawn instead is bad again
    for number in range(1, 200, 2):
        sample, skipped = data[number]
        assert int(sample.id) % 2 == 0
        assert skipped[0].startswith((f"{number}.wav", f"sample {number}:"))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_fault_of_the_program_is_no_bad_sample(on_error: str) -> None:
    def broken(index: int) -> str | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drawn(Numbers(broken), on_error=on_error)[0]


def test_when_nothing_can_be_used_it_gives_up_and_names_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def bad(index: int) -> str:
        asked.append(index)
        return "media"

    with pytest.raises(AvalignError) as caught:
        drawn(Numbers(bad), on_error="skip", tasks=ONE)[7]
    assert asked[0] == 7
    assert len(asked) == ATTEMPTS
    assert str(caught.value) == (
        f"{ATTEMPTS} samples in a row cannot be used; the last: {asked[-1]}.wav: is broken"
    )
    asked.clear()
    monkeypatch.setattr(draws, "ATTEMPTS", 3)
    with pytest.raises(AvalignError, match="3 samples in a row"):
        drawn(Numbers(bad), on_error="skip", tasks=ONE)[7]
