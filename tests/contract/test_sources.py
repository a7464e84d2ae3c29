"""What every source keeps to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from avalign import registry
from avalign.answers import write_box
from avalign.data.collate import check
from avalign.evaluation.evaluate import TASKS as SCORERS
from tests.helpers.contract.components import every

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def sources(options: Any) -> Callable[..., Any]:
    @cache
    def of(name: str, seed: int = 0, copy: int = 0) -> Any:
        chosen = dict(options("source", name))
        root = chosen.pop("root", None)
        try:
            source = registry.load("source", name)(**chosen)
            source.on_error = "raise"
            source.prepare(root, seed=seed, workers=1)
        except Exception as error:
            pytest.fail(
                f"source {name!r} cannot be prepared with {chosen or 'its defaults'} from {root}: {error!r}. "
                f"If it needs options or a folder, put them into TINY: tests/helpers/contract/components.py."
            )
        return source

    return of


def told(sample: Any) -> str:
    """All of a sample as text that two equal samples share."""
    shown = {key: value for key, value in vars(sample).items() if key not in ("image", "audio", "provenance")}
    return json.dumps(shown, default=list, sort_keys=True)


@every("source")
class TestSource:
    def test_every_sample_is_sound_and_its_answer_can_be_read(self, sources: Any, name: str) -> None:
        source = sources(name)
        assert set(source.tasks) <= set(SCORERS)
        assert source.skipped == []
        for split in SPLITS:
            for task in source.tasks:
                for index in range(8):
                    sample = source.sample(split, task, index)
                    check(sample)
                    assert sample.task == task
                    assert sample.instruction.count("<image>") == sample.instruction.count("<audio>") == 1
                    assert sample.provenance, "it does not say what it was made from"
                    for answer in (sample.response, *sample.references):
                        (judged,) = SCORERS[task].score([sample], [answer])
                        assert judged.parsed is not None, (sample.id, answer)
                    for box in sample.boxes if task == "arig" else ():
                        assert write_box(box)[1:-1] in sample.response, "fault 6: one box format for all"

    def test_a_sample_is_decided_by_its_split_task_and_number(self, sources: Any, name: str) -> None:
        """Asked for again, in another order, of another instance: the same. Other numbers: others."""
        source, again = sources(name), sources(name, copy=1)
        assert again is not source
        places = [(split, task, index) for split in SPLITS for task in source.tasks for index in (0, 5)]
        expected = {place: source.sample(*place) for place in places}
        for place in reversed(places):
            one, two = expected[place], again.sample(*place)
            assert told(one) == told(two)
            assert np.array_equal(one.image, two.image)
            assert np.array_equal(one.audio, two.audio)
        ids = [sample.id for sample in expected.values()]
        assert len(set(ids)) == len(ids)
        sounds_ = {sample.audio.tobytes() for sample in expected.values()}
        assert len(sounds_) > len(ids) / 2, "most samples differ"

    def test_another_seed_makes_other_samples(self, sources: Any, name: str) -> None:
        one, two = (sources(name, seed) for seed in (0, 1))
        task = one.tasks[0]
        pairs = [(one.sample("train", task, k), two.sample("train", task, k)) for k in range(4)]
        assert any(told(a) != told(b) for a, b in pairs)

    def test_its_texts_cover_what_it_asks_and_answers(self, sources: Any, name: str) -> None:
        """A tokenizer is built from them: a word it never saw costs many tokens."""
        source = sources(name)
        words = set(re.findall(r"[A-Za-z]+", " ".join(source.corpus())))
        for task in source.tasks:
            for index in range(8):
                sample = source.sample("train", task, index)
                assert set(re.findall(r"[A-Za-z]+", f"{sample.instruction} {sample.response}")) <= words
