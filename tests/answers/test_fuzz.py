"""Whatever a recipe's or a manifest's file holds: it is read, or one AvalignError says what is wrong.

The fuzzer's targets (tests/fuzz) on inputs made to be nasty; the fuzzer itself is run by hand.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign.config.recipe_file import read
from avalign.data.manifest.record import FIELDS
from avalign.errors import AvalignError
from tests.fuzz import manifest_reader, recipe_reader

often = settings(max_examples=120)
# fmt: off
WORDS = [
    "", "~", "null", "true", "no", "0x10", "1_000", "1e400", "-.inf", ".nan", "2024-01-02", "12:30:45",
    "9" * 99, "9" * 5000, "!!python/object:os.system {}", "!!binary aGk=", "!x y", "<<: {a: 1}",
    "&a [*a]", "*a", "[" * 500, "{" * 500, "\"\\ud800\"", "'", "\"", "|", ">", "%", "@", "`", "? [a]",
    "- - -", "---", "...", "\ufeff", "\t", "./no.py:A", "os:path", "no_such_module:A", "../x",
    "a\u2028b", "x" * 5000, "{name: small, name: small}", "{0: 1, 00: 2}", "{name: [mlp]}",
    "{name: {}}", "[null]", "{.nan: 1}", "{? {a: b}: c}", "=", "a=b", "#", ": :",
]
KEYS = [
    "name", "seed", "extends", "model", "model.width", "model.llm", "model.llm.tuning", "model.fusion",
    "model.frames", "losses", "losses.avopt", "losses.avopt.weight", "losses.no", "data", "data.root",
    "data.source", "data.source.sources", "train", "train.stages", "train.stages.0",
    "train.stages.align.tasks", "train.stages.99", "train.batch_size", "train.learning_rate",
    "evaluation.tasks", "evaluation.samples", "", ".", "a..b", "train.stages.-1",
    "model.llm.config.a.b",
]
# fmt: on
SHIPPED = sorted(recipe_reader.RECIPES.glob("*.yaml"))
changes = st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(WORDS))


@st.composite
def recipes(draw: Any) -> bytes:
    """A shipped recipe or a small one, some of its lines changed, doubled, gone or indented otherwise."""
    text = draw(st.sampled_from([b"extends: base.yaml\n", *(f.read_bytes() for f in SHIPPED)]))
    lines = text.decode().splitlines()
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines)))
        key, word = draw(st.sampled_from(KEYS)).rpartition(".")[2], draw(st.sampled_from(WORDS))
        made = " " * draw(st.integers(0, 6)) + f"{key}: {word}"
        lines[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([[made], [made, made], [word], []]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@often
@given(st.one_of(recipes(), st.binary(max_size=60)), recipes(), st.lists(changes, max_size=3))
def test_any_recipe_is_read_or_refused(recipe: bytes, base: bytes, more: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = [text.encode("utf-8", "replace") for text in more]
        recipe_reader.one(b"\0".join([recipe, base, *said]), Path(folder))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_target_reads_what_is_shipped(file: Path, tmp_path: Path) -> None:
    assert recipe_reader.one(file.read_bytes() + b"\0\0", tmp_path) or b"extends" in file.read_bytes()


def test_files_that_extend_each_other_without_end_are_refused(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (tmp_path / "1200.yaml").write_text("name: x\n")
    with pytest.raises(AvalignError):
        read(tmp_path / "0.yaml")


# fmt: off
NASTY: list[Any] = [
    None, True, 0, -1, 2**70, 10**400, 1e308, 0.5, "", " ", "\0", "../x", "/x", "a\\b", "x" * 5000, [],
    [[]], {}, [None], [[1, 2]], [[0, 0, 1, 1]], [["0", 0, 1, 1]], [[True, 0, 1, 1]], {"a": 1},
    {"class": {}}, "{}", "[1]", "{\"a\": NaN}", "[" * 2000, "train", "arig", "avfc", "<image><image>",
    "<class><box>", "\ufeff", "\ud800",
]
# fmt: on


@st.composite
def lines(draw: Any) -> bytes:
    """A record, some of whose fields are something else, as a line; or a line that is cut or no JSON."""
    row = dict(manifest_reader.RECORD)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([*FIELDS, "no_such"]))
        row[name] = draw(st.sampled_from(NASTY))
        if draw(st.integers(0, 4)) == 0:
            del row[name]
    line = json.dumps(row).encode()
    cut = draw(st.integers(0, len(line)))
    return draw(
        st.sampled_from([line, line, line, line[:cut], line + line, b"\xff" + line, b"", b"[" * 3000])
    )


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@often
@given(st.lists(lines(), max_size=3), st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n", b"\x0c"]))
def test_any_manifest_is_read_or_refused(made: list[bytes], end: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest_reader.one(end.join(made), Path(folder))


@often
@given(
    st.lists(st.sampled_from([*FIELDS, "no_such"]), max_size=4, unique=True),
    st.sampled_from(
        [
            None,
            True,
            2**60,
            0.5,
            float("nan"),
            "x",
            b"\xff",
            [1, 2],
            [[0.0, 0.0, 1.0, 1.0]],
            {"class": "dog"},
            [],
        ]
    ),
    st.integers(0, 3),
    st.integers(0, 400),
)
def test_any_parquet_file_is_read_or_refused(names: list[str], value: Any, without: int, cut: int) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = manifest_reader.RECORD | dict.fromkeys(names, value)
    for name in list(row)[:without]:
        del row[name]
    with tempfile.TemporaryDirectory() as folder:
        parquet.write_table(pa.Table.from_pylist([row, row]), Path(folder) / "m.parquet")
        manifest_reader.opened(Path(folder) / "m.parquet")
        content = (Path(folder) / "m.parquet").read_bytes()
        manifest_reader.one(content[: len(content) - cut], Path(folder))


def test_the_target_reads_records(tmp_path: Path) -> None:
    assert manifest_reader.one(manifest_reader.SEEDS[0], tmp_path) == 1
    assert manifest_reader.one(manifest_reader.as_parquet(manifest_reader.SEEDS[0]), tmp_path) == 1
