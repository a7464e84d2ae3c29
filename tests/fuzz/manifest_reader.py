"""Any bytes as a manifest: records are read, or refused with an AvalignError. By hand, for ten minutes:

    pip install atheris
    python -m tests.fuzz.manifest_reader -max_total_time=600 -timeout=20 -rss_limit_mb=2048 CORPUS

What begins as a Parquet file does is read as one, all else as JSON lines. CORPUS is any folder; what is found
interesting is kept there. An empty one is begun with SEEDS.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from avalign.data.manifest import Manifest
from avalign.data.manifest.record import from_json, to_json
from avalign.errors import AvalignError
from avalign.types import TASKS

PARQUET = b"PAR1"
RECORD: dict[str, Any] = {
    "id": "zoo/1",
    "task": "arig",
    "split": "train",
    "source": "zoo",
    "response": "[dog, 0.1, 0.2, 0.5, 0.9]",
    "instruction": "<image><audio>Where is the <class>?",
    "slots": {"class": "dog", "box": [0.1, 0.2, 0.5, 0.9], "time": [1, 2], "question": "Why?"},
    "image": "a/b.jpg",
    "frame_times": [0.5, 1],
    "audio": "a/b.wav",
    "audio_start": 0,
    "audio_end": 1.5,
    "references": ["a dog", "a cat"],
    "boxes": [[0.1, 0.2, 0.5, 0.9]],
    "consensus": 1,
    "intervals": [[0, 1]],
    "label": "dog",
    "kind": "type1",
    "provenance": '{"a": [1, 2]}',
    "version": 1,
}


def line(**changes: Any) -> bytes:
    return json.dumps({**RECORD, **changes}).encode() + b"\n"


SEEDS = [
    line(),
    line(id="zoo/2", instruction="", task="avfc", response="True") + line(id="zoo/3", split="test") + b"\n\n",
    line(id="\ud800") + line(boxes=[[1e308, -0.0, 10**400, 0]]) + b'{"id": NaN}\n[]\n"\n',
    line(provenance="[" * 2000) + line(slots={"class": {"a": 1}, "box": "x", "": None}) + b"[" * 3000,
    line(audio_start=None, consensus=2**70, image="../x", references=[None], version=True),
]


def one(data: bytes, folder: Path) -> int:
    """How many records were read. What is none raises nothing but AvalignError."""
    file = folder / ("m.parquet" if data.startswith(PARQUET) else "m.jsonl")
    for other in folder.glob("m.*"):
        other.unlink()
    file.write_bytes(data)
    for each in data.split(b"\n")[:4]:
        try:
            record = from_json(each)
            assert from_json(to_json(record)) == record, "what is written is not what was read"
        except AvalignError as error:
            if not str(error).strip():
                raise RuntimeError("refused without a word") from error
    return opened(file)


def opened(file: Path) -> int:
    """How many records a source finds in the file, each asked for as scoring does; 0 if it is refused."""
    source = Manifest()
    read = 0
    try:
        source.prepare(str(file), seed=0)
        source.corpus()
        for split in ("train", "val", "test"):
            for task in TASKS:
                for index in range(source.size(split, task)):
                    source.truth(split, task, index)
                    read += 1
    except AvalignError as error:
        if not str(error).strip():
            raise RuntimeError("refused without a word") from error
        return 0
    return read


def main() -> None:
    import atheris

    corpus = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if corpus and not any(corpus[0].iterdir()):
        for number, seed in enumerate([*SEEDS, as_parquet(SEEDS[0])]):
            (corpus[0] / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AVALIGN_CACHE"] = folder + "/cache"
        (Path(folder) / "data").mkdir()

        def run(data: bytes) -> None:
            one(data, Path(folder) / "data")
            shutil.rmtree(folder + "/cache", ignore_errors=True)  # an index of every file that ever was

        atheris.instrument_all()
        atheris.Setup(sys.argv, run)
        atheris.Fuzz()


def as_parquet(lines: bytes) -> bytes:
    """JSON lines as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    written = io.BytesIO()
    rows = [json.loads(row) for row in lines.splitlines()]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


if __name__ == "__main__":
    main()
