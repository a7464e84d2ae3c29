"""Any bytes as a recipe: they are read, or refused with an AvalignError. By hand, for ten minutes:

    pip install atheris
    python -m tests.fuzz.recipe_reader -max_total_time=600 -timeout=20 -rss_limit_mb=2048 CORPUS

The bytes are cut at zeros: the recipe, the one that it extends, and settings of a command line. CORPUS is any
folder; what is found interesting is kept there. The shipped recipes are put into an empty one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from avalign.config.recipe_file import dump, read
from avalign.errors import AvalignError
from tests.helpers.paths import RECIPES

SEEDS = [
    b"extends: base.yaml\ntrain: {batch_size: 4}\n\0extends: mine.yaml\n\0train.batch_size=8",
    b"extends: base.yaml\nmodel: &a {fusion: none, width: 1e3}\nlosses: *a\n\0model: {<<: {width: 8}}\n",
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b]\n\0\0losses={avopt: {weight: {0: 1, 100: 0}}}\0model.llm=small",
    b"\xef\xbb\xbfname: !!python/object:os.system {}\nseed: 99999999999999999\nmodel: {width: .nan}\n",
    b"seed: 2024-01-02\nseed: 0x10\nname: ..\ntrain:\n\tstages: [{name: a, steps: -0, tasks: {a: .inf}}]\n",
    b"model: {llm: {name: 'os:path'}, fusion: ./no.py:A, width: 12_000}\nx: \"\\0\"\n",
]


def one(data: bytes, folder: Path) -> bool:
    """Whether it was a recipe. What is not raises nothing but AvalignError, which is told in short lines."""
    recipe, base, *settings = [*data.split(b"\0"), b"", b""][: max(2, data.count(b"\0") + 1)]
    (folder / "mine.yaml").write_bytes(recipe)
    (folder / "base.yaml").write_bytes(base)
    try:
        found = read(folder / "mine.yaml", [text.decode("utf-8", "replace") for text in settings[:4] if text])
    except AvalignError as error:
        if not str(error).strip():
            raise RuntimeError("refused without a word") from error
        return False
    (folder / "again.yaml").write_text(dump(found), encoding="utf-8")
    assert read(folder / "again.yaml") == found, "what is written is not what was read"
    return True


def main() -> None:
    import atheris

    corpus = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if corpus and not any(corpus[0].iterdir()):
        shipped = [file.read_bytes() for file in sorted(RECIPES.glob("*.yaml"))]
        for number, seed in enumerate([*SEEDS, *shipped]):
            (corpus[0] / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as folder:
        atheris.instrument_all()
        atheris.Setup(sys.argv, lambda data: (one(data, Path(folder)), None)[1])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
