"""Loader processes are given tokenizer and preprocessing, no weights, and make the same batches."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from avalign.data.sampling import TrainingDataset
from avalign.encoders.clap import ClapAudioEncoder
from avalign.encoders.clip import ClipImageEncoder
from avalign.llm import SmallLlama
from avalign.model.model import AudioVisualLM
from avalign.projectors.linear import Linear
from avalign.types import Batch
from tests.helpers import tiny
from tests.helpers.avworld import prepared
from tests.helpers.pretrained import TINY_CLAP, TINY_TOWER


def built() -> AudioVisualLM:
    """Of released kinds of encoders, with a language model of some size."""
    image = ClipImageEncoder(pretrained=False, config=TINY_TOWER)
    audio = ClapAudioEncoder(pretrained=False, config=TINY_CLAP)
    return tiny.model(
        llm=SmallLlama(tiny.TEXTS, hidden=256, layers=2),
        **{"image_encoder": image, "image_projector": Linear(image.width, tiny.WIDTH)},
        **{"audio_encoder": audio, "audio_projector": Linear(audio.width, tiny.WIDTH)},
    )


def test_no_weight_is_in_what_a_loader_process_is_given() -> None:
    """Nor anything that holds one: the tokenizer, and a line for each preprocessing."""
    model = built()
    pickled = pickle.dumps(model.collator())
    assert len(pickled) < 3 * len(pickle.dumps(model.llm.tokenizer))
    assert len(pickled) < sum(weight.nbytes for weight in model.parameters()) / 100
    for name in (b"torch", b"avalign.model", b"LanguageModel", b"Encoder"):
        assert name not in pickled, name


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_started_anew_make_the_same_batches_to_the_byte(tmp_path: Path, method: str) -> None:
    source = prepared(tmp_path, train=40, val=2, test=2)
    tasks = dict.fromkeys(source.tasks, 1.0)
    data = TrainingDataset(source, tasks, seed=(0,), count=12, collator=built().collator())

    def made(**how: Any) -> list[Any]:
        return list(DataLoader(data, batch_size=4, collate_fn=data.collate, **how))

    here, there = made(), made(num_workers=1, multiprocessing_context=method)
    assert len(here) == len(there) == 3
    for one, other in zip(here, there, strict=True):
        assert one["skipped"] == other["skipped"] == []
        for field in fields(Batch):
            value, same = getattr(one["batch"], field.name), getattr(other["batch"], field.name)
            assert (value.dtype, value.shape) == (same.dtype, same.shape)
            assert value.numpy().tobytes() == same.numpy().tobytes(), field.name
