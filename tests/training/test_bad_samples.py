"""A sample that cannot be used is named in one line with the file and line that lists it, or is skipped."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from avalign.config.recipe_file import read
from avalign.data.collate import SampleError
from avalign.data.manifest import Manifest
from avalign.data.manifest.lines import LONGEST
from avalign.data.manifest.record import MOST, Record, from_json, to_json, write
from avalign.data.paired_folder import PairedFolder
from avalign.data.shards import Shards
from avalign.data.shards.pack import pack
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import evaluate
from avalign.llm import HuggingFaceLlm
from avalign.model.build import build_model
from avalign.training.train import train
from tests.helpers import tiny
from tests.helpers.families import FAMILIES
from tests.helpers.families import write as write_family
from tests.helpers.paired_folder import LOOKS, write_folder
from tests.helpers.paths import RECIPE
from tests.helpers.preloaded import preloaded  # noqa: F401 (a fixture)
from tests.helpers.runs import SMALL

RATE = 16_000
WRONG = 3  # the line of the record that cannot be used
SECRET = "elsewhere"


def good(number: int, split: str = "train") -> Record:
    return Record(
        id=f"zoo/{split}-{number}",
        task="avqa",
        split=split,
        source="zoo",
        response="a dog",
        instruction="<image><audio>What is heard?",
        image="a.png",
        audio="a.wav",
    )


def write_zoo(root: Path, change: Callable[[Path], dict[str, Any]], split: str = "train") -> Path:
    """A manifest whose third record of a split is changed, with its media. Returns its folder."""
    import soundfile

    folder = root / "zoo"
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "a.png")
    soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    made = [good(k, split) for k in range(6)]
    made[WRONG - 1] = replace(made[WRONG - 1], **change(folder))
    write(
        [*made, *(good(k, s) for s in {"train", "val", "test"} - {split} for k in range(2))],
        folder / "m.jsonl",
    )
    return folder


def cut_wave(folder: Path) -> dict[str, Any]:
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes()[:30])
    return {"audio": "b.wav"}


def cut_picture(folder: Path) -> dict[str, Any]:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:2000])
    return {"image": "b.png"}


def link_out(folder: Path) -> dict[str, Any]:
    (folder.parent / SECRET).mkdir(exist_ok=True)
    (folder.parent / SECRET / "s.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "in").symlink_to(folder.parent / SECRET)
    return {"image": "in/s.png"}


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "no picture": (lambda folder: {"image": "none.png"}, "none.png: no such file"),
    "cut picture": (cut_picture, "b.png: cannot be decoded as an image"),
    "cut sound": (cut_wave, "b.wav: cannot be decoded as audio"),
    "shorter": (lambda folder: {"audio_start": 0.5, "audio_end": 3.0}, "a.wav: lasts 1.00 s, its part from"),
    "empty response": (lambda folder: {"response": ""}, "its response is empty: there is nothing to learn"),
    "blank response": (lambda folder: {"response": " \n\t\u00a0"}, "its response is empty"),
    "long question": (
        lambda folder: {"instruction": "<image><audio>" + "why? " * 2000},
        "the language model has 1024 positions",
    ),
    "long response": (lambda folder: {"response": "1 2 3 " * 400}, "the language model has 1024 positions"),
    "link": (link_out, "in/s.png: is a link that leads out of the media root"),
    "box": (lambda folder: {"boxes": ((0.5, 0.5, 0.4, 0.6),)}, "box [0.5, 0.5, 0.4, 0.6] is empty"),
}


def settings(folder: Path, *more: str) -> list[str]:
    return [
        *(line for line in SMALL if not line.startswith(("data.source", "train.stages", "losses", "evalu"))),
        *("data.source=manifest", f"data.root={folder}", "losses={language_modelling: {}}", "name=zoo"),
        *("train.batch_size=6", "train.stages=[{name: only, steps: 1, tasks: {avqa: 1.0}}]"),
        *(
            "evaluation.tasks=[avqa]",
            "evaluation.samples=1",
            "evaluation.bootstrap=0",
            "evaluation.figures=0",
        ),
        *("evaluation.max_new_tokens=2", "evaluation.modality_check=false"),
        *more,
    ]


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", BAD)
def test_training_names_the_file_and_line(tmp_path: Path, kind: str, workers: int) -> None:
    change, said = BAD[kind]
    folder = write_zoo(tmp_path, change)
    with pytest.raises(AvalignError) as refused:
        train(read(RECIPE, settings(folder, f"data.workers={workers}")), tmp_path / "run")
    told = str(refused.value)
    assert told.startswith(f"{folder / 'm.jsonl'}:{WRONG}: ")
    assert said in told
    assert "\n" not in told


def test_training_that_skips_counts_each_with_its_line(tmp_path: Path) -> None:
    folder = write_zoo(tmp_path, BAD["empty response"][0])
    run = train(read(RECIPE, settings(folder, "data.on_error=skip")), tmp_path / "run")
    skipped = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert skipped
    assert {one["why"].partition(": ")[0] for one in skipped} == {f"{folder / 'm.jsonl'}:{WRONG}"}


@pytest.mark.parametrize("kind", ["no picture", "cut sound", "long question", "link"])
def test_scoring_names_the_file_and_line(tmp_path: Path, kind: str) -> None:
    change, said = BAD[kind]
    folder = write_zoo(tmp_path, change, split="test")
    source = Manifest()
    source.prepare(str(folder), seed=0)
    model = build_model(read(RECIPE, settings(folder)), source.corpus())
    arguments: dict[str, Any] = {"tasks": ["avqa"], "samples": 6, "batch_size": 4, "bootstrap": 0, "seed": 0}
    with pytest.raises(AvalignError) as refused:
        evaluate(model, source, modality_check=False, figures=0, out=tmp_path / "eval", **arguments)
    told = str(refused.value)
    assert told.startswith(f"{folder / 'm.jsonl'}:{WRONG}: ")
    assert said in told
    assert "\n" not in told


def test_a_response_is_never_cut_though_a_tokenizer_says_so(tmp_path: Path) -> None:
    folder = write_family(FAMILIES["llama-3"], tmp_path)
    file = json.loads((folder / "tokenizer.json").read_text())
    file["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(file))
    llm = HuggingFaceLlm(tiny.TEXTS, model=str(folder), tuning="frozen")
    long = "a dog, " * 40
    assert llm.tokenizer.decode(llm.chat.response_ids(long)[:-1]) == long


# -- more ids than the language model has positions ----------------------------------------------------------


def learned(folder: Path, positions: int) -> HuggingFaceLlm:
    """A language model that learns each of its positions: one more would be an index outside a table."""
    family = replace(
        FAMILIES["llama-3"],
        model_type="gpt2",
        config={"n_embd": 16, "n_layer": 1, "n_head": 2, "max_position_embeddings": positions},
    )
    return HuggingFaceLlm(tiny.TEXTS, model=str(write_family(family, folder)), tuning="frozen")


def test_as_many_ids_as_positions_are_read_and_not_one_more(tmp_path: Path) -> None:
    asked = tiny.sample(0)
    probe = tiny.model(0, learned(tmp_path / "probe", 512))
    row = probe.collator()([asked]).input_ids.shape[1]
    prompt = probe.collator().prompts([asked]).input_ids.shape[1]
    fits = tiny.model(0, learned(tmp_path / "fits", row))
    assert fits.llm.positions == row
    assert torch.isfinite(fits(fits.collator()([asked])).logits).all()
    short = tiny.model(0, learned(tmp_path / "short", row - 1))
    with pytest.raises(SampleError, match=rf"sample zoo/0: {prompt} ids .* language model has {row - 1} pos"):
        short.collator()([asked])
    short = tiny.model(0, learned(tmp_path / "ask", prompt + 6))
    assert short.max_new_tokens == 6
    assert isinstance(short.answer([asked])[0], str)
    short.max_new_tokens = 7
    with pytest.raises(SampleError, match=r"up to 7 of the answer, the language model has"):
        short.answer([asked])
    with pytest.raises(SampleError, match=r"sample question: .* positions"):
        short.generate(asked.image, (asked.audio, tiny.RATE), "Where is it? " * 9)  # type: ignore[arg-type]


def test_media_that_leave_no_room_for_text_are_refused_before_training(tmp_path: Path) -> None:
    folder = write_zoo(tmp_path, lambda folder: {})
    llm = "{{name: small, hidden: 16, layers: 1, heads: 2, positions: {}}}"
    given = sum(build_model(read(RECIPE, settings(folder)), tiny.TEXTS).media_tokens())
    build_model(read(RECIPE, settings(folder, f"model.llm={llm.format(given + 1)}")), tiny.TEXTS)
    with pytest.raises(AvalignError, match=rf"^model\.llm: .* no room for text: .* has {given} positions"):
        build_model(read(RECIPE, settings(folder, f"model.llm={llm.format(given)}")), tiny.TEXTS)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 512),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, 2048),
        (
            {
                "rope_parameters": {
                    **{"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4},
                    "original_max_position_embeddings": 256,
                }
            },
            1024,
        ),
    ],
)
def test_rotary_positions_that_are_stretched_count_in_full(
    tmp_path: Path, config: dict[str, Any], expected: int
) -> None:
    write_family(replace(FAMILIES["llama-3"], config=config), tmp_path)
    assert HuggingFaceLlm(tiny.TEXTS, model=str(tmp_path), tuning="frozen").positions == expected


def test_a_model_without_positions_reads_any_length(tmp_path: Path) -> None:
    write_family(replace(FAMILIES["llama-3"], model_type="bloom"), tmp_path, max_position_embeddings=0)
    assert HuggingFaceLlm(tiny.TEXTS, model=str(tmp_path), tuning="frozen").positions is None


# -- records that are too large ------------------------------------------------------------------------------


def open_it(folder: Path) -> Manifest:
    source = Manifest()
    source.prepare(str(folder), seed=0)
    return source


def test_a_record_of_50_mb_is_named_and_never_held(tmp_path: Path) -> None:
    with open(tmp_path / "m.jsonl", "w") as lines:
        lines.write(to_json(good(0)) + "\n\n")
        lines.write('{"id": "' + "x" * 50_000_000 + '"}\n' + to_json(good(1)) + "\n")
    tracemalloc.start()
    try:
        with pytest.raises(AvalignError, match=rf"^{tmp_path / 'm.jsonl'}:3: is longer than 4 MiB$"):
            open_it(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["boxes", "intervals", "frame_times", "references"])
def test_a_record_of_very_many_entries_is_named(tmp_path: Path, name: str) -> None:
    entry: Any = {"boxes": [0, 0, 1, 1], "intervals": [0, 1], "frame_times": 1, "references": "x"}[name]
    line = json.loads(to_json(good(0)))
    (tmp_path / "m.jsonl").write_text(json.dumps(line | {name: [entry] * (MOST + 1)}) + "\n")
    with pytest.raises(AvalignError, match=rf"m\.jsonl:1: .*{name} has 10,001 entries, at most 10,000 are"):
        open_it(tmp_path)
    if name != "frame_times":  # which rise
        assert len(getattr(from_json(json.dumps(line | {name: [entry] * MOST})), name)) == MOST


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(AvalignError, match=r"m\.jsonl: is no file that can be read"):
        open_it(tmp_path)


# -- links ---------------------------------------------------------------------------------------------------


def test_a_link_out_of_the_root_is_read_only_when_told(tmp_path: Path) -> None:
    folder = write_zoo(tmp_path, link_out)
    source = Manifest(follow_links=True)
    source.prepare(str(folder), seed=0)
    for index in range(6):
        assert source.sample("train", "avqa", index).image is not None
    with pytest.raises(AvalignError, match=r"in/s\.png: is a link that leads out of the media root"):
        pack(folder, tmp_path / "shards")
    pack(folder, tmp_path / "all", follow_links=True)
    assert (tmp_path / "all" / "shards.json").exists()


def test_a_link_within_the_root_and_a_root_that_is_a_link_are_read(tmp_path: Path) -> None:
    def link_in(folder: Path) -> dict[str, Any]:
        (folder / "b.png").symlink_to("a.png")
        return {"image": "b.png"}

    folder = write_zoo(tmp_path / "deep", link_in)
    (tmp_path / "here").symlink_to(folder)
    source = open_it(tmp_path / "here")
    assert all(source.sample("train", "avqa", index).image is not None for index in range(6))


@pytest.mark.parametrize("how", ["link", "absolute", "up"])
def test_a_paired_folder_reads_nothing_outside_it(tmp_path: Path, how: str) -> None:
    folder = write_folder(tmp_path / "zoo")
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    photo = folder / content["images"][0]["file"]
    outside = photo.rename(tmp_path / "outside.png")
    if how == "link":
        photo.symlink_to(outside)
    else:
        content["images"][0]["file"] = {"absolute": str(outside), "up": "../outside.png"}[how]
        file.write_text(json.dumps(content))
    options: dict[str, Any] = {"classes": list(LOOKS), "seconds": 2.0, "canvas": 64, "sample_rate": 8000}
    with pytest.raises(AvalignError, match=r"is a link that leads out of the media root"):
        PairedFolder(**options).prepare(str(folder), seed=0)
    if how == "link":
        PairedFolder(**options, follow_links=True).prepare(str(folder), seed=0)


# -- where a sample is listed --------------------------------------------------------------------------------


def test_places_are_those_of_the_files_that_a_user_has(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "lines").mkdir()
    with open(tmp_path / "lines" / "m.jsonl", "w") as lines:
        lines.write("\n" + to_json(good(0)) + "\n\n\n" + to_json(good(1)) + "\n")
    write([good(2)], tmp_path / "lines" / "n.jsonl")
    source = open_it(tmp_path / "lines")
    assert [source.table.location(k) for k in range(3)] == [
        str(tmp_path / "lines" / name) for name in ("m.jsonl:2", "m.jsonl:5", "n.jsonl:1")
    ]
    rows = [json.loads(to_json(good(k))) for k in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert open_it(tmp_path / "m.parquet").table.location(2) == f"{tmp_path / 'm.parquet'}:3"
    folder = write_zoo(tmp_path / "packed", lambda folder: {"response": ""})
    pack(folder, tmp_path / "shards")
    shards = Shards()
    shards.prepare(str(tmp_path / "shards"), seed=0)
    order = [shards.where("train", "avqa", index) for index in range(6)]
    assert f"{tmp_path / 'shards' / 'train-000000.tar'}: 000000002.json" in order
