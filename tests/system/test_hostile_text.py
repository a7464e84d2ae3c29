"""Names, questions, answers and errors of strangers, as every command shows and writes them."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

import avalign
from avalign.cli.app import app
from avalign.config.recipe_file import read
from avalign.config.yaml import parse, to_text
from avalign.export.hugging_face import export
from avalign.studies import report
from avalign.studies.grid import runs
from avalign.studies.results import collect
from avalign.studies.study import read_study
from avalign.system.terminal import plain_warnings, survive_closed_output, tell, tell_table
from avalign.training.train import train
from tests.helpers.pages import Page
from tests.helpers.paths import RECIPE
from tests.helpers.runs import SMALL
from tests.helpers.studies import make_run, write_study

CLEAR, TITLE, TURN = "\x1b[2J", "\x1b]0;owned\x07", "\u202e"
HOSTILE = f"<b onclick=x>&lt;{CLEAR}{TITLE}\r{TURN}| `a` [b](javascript:c) ![d](e) \"f' $g$ \u2066"
ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def assert_plain(text: str, where: object) -> None:
    found = ACTIVE.search(text)
    assert found is None, f"{where}: {text[max(0, found.start() - 60) : found.end() + 20]!r}"


def run(*words: object) -> Any:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert_plain(without_bars(result.output), words[0])
    return result


def without_bars(text: str) -> str:
    """A bar goes back to the start of its line."""
    return re.sub(r"\r(?=[^\n]*\d%\|)", "", text)


# ---- every place at once -------------------------------------------------------------------------


def test_nothing_is_printed_but_through_one_door() -> None:
    """print, typer.echo and the streams themselves stand in system/terminal.py alone."""
    package = Path(avalign.__file__).parent
    for file in package.rglob("*.py"):
        name = file.relative_to(package).as_posix()
        if name == "system/terminal.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            said = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            into_a_pipe = said == "print" and "file=asked" in ast.unparse(node)  # METEOR's program
            assert into_a_pipe or said not in ("print", "typer.echo", "typer.secho"), f"{name}:{node.lineno}"
            assert not said.startswith(("sys.stdout.", "sys.stderr.")), f"{name}:{node.lineno}"
            if isinstance(node, ast.arguments):
                assert "print" not in map(ast.unparse, [*node.defaults, *filter(None, node.kw_defaults)]), (
                    name
                )


# ---- the terminal --------------------------------------------------------------------------------


def test_lines_tables_and_warnings_are_read_and_do_nothing(capsys: Any) -> None:
    tell(HOSTILE + "\nsecond line")
    tell(HOSTILE, err=True)
    tell_table(("a",), [(HOSTILE,)], full_width=True)
    with plain_warnings():
        assert_plain(warnings.formatwarning(HOSTILE, UserWarning, HOSTILE, 1, HOSTILE), "a warning")
    said = capsys.readouterr()
    for stream in (said.out, said.err):
        assert_plain(stream, "told")
        assert "\\x1b[2J" in stream
    assert "\nsecond line\n" in said.out


def test_a_terminal_that_lacks_letters_is_told_them_by_number(monkeypatch: Any) -> None:
    for encoding in ("ascii", "iso8859-9"):  # LANG=C, and tr_TR of old
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        tell("Käse 猫")
        with survive_closed_output():
            print("\u732b")
            print("after", flush=True)
        assert stream.buffer.getvalue().decode(encoding).endswith(" \\u732b\n\\u732b\nafter\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        [f"--{HOSTILE}"],
        ["train", HOSTILE],
        ["train", f"--{HOSTILE}"],
        ["train", "r.yaml", f"{HOSTILE}=1"],
        ["check", RECIPE, f"name={json.dumps('/' + HOSTILE)}"],
        ["check", RECIPE, f"model.fusion={json.dumps(HOSTILE)}"],
        ["check", RECIPE, f"losses.avopt={{name: avopt, {json.dumps(HOSTILE)}: 1}}"],
        ["eval", HOSTILE],
        ["eval", "runs/x", "--samples", HOSTILE],
        ["eval", "runs/x", "--tasks", HOSTILE],
        ["eval", "runs/x", "--split", HOSTILE],
        ["score", HOSTILE, HOSTILE, "--out", "o"],
        ["predict", HOSTILE, "Where?"],
        ["predict", "runs/x", "Where?", "--image", HOSTILE],
        ["export", HOSTILE, "--out", "o"],
        ["ablate", HOSTILE],
        ["ablate"],
        ["options", HOSTILE, "a"],
        ["options", "loss", HOSTILE],
        ["list", HOSTILE],
        ["data", HOSTILE],
        ["data", "check", HOSTILE],
        ["data", "show", HOSTILE, "--out", "o.html"],
        ["data", "build", HOSTILE],
        ["data", "stats", HOSTILE],
        ["data", "shard", HOSTILE, "--out", "o", "--size", HOSTILE],
        ["data", "instructions", "--out", "o", "--task", HOSTILE],
    ],
)
def test_an_error_is_one_line_that_does_nothing(words: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


# ---- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def made(world: Path) -> tuple[Path, str]:
    """A run whose name, stage, loss and folder are hostile, and all that was said while it was made."""
    named = json.dumps(HOSTILE)
    label = HOSTILE.replace(".", "")
    words = [
        *SMALL,
        f"data.root={world}",
        f"name={named}",
        f"train.stages=[{{name: {named}, steps: 1, weights: {{}}}}]",
        f"losses={{{json.dumps(label)}: {{name: avopt}}, language_modelling: {{}}}}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        for stream in ("stdout", "stderr"):
            patch.setattr(sys, stream, io.StringIO())
        run_folder = train(read(RECIPE, words), world / f"run {HOSTILE}")
        said = f"{sys.stdout.getvalue()}{sys.stderr.getvalue()}"  # type: ignore[attr-defined]
    return run_folder, said


def test_training_tells_and_writes_plain_text(made: tuple[Path, str], world: Path) -> None:
    run_folder, said = made
    assert "\\x1b[2J" in said
    assert_plain(without_bars(said), "training")
    exported = export(run_folder, world / "exported")
    checked = 0
    for file in (*run_folder.rglob("*"), *exported.rglob("*")):
        if file.suffix in (".html", ".md", ".yaml", ".json", ".jsonl"):
            assert_plain(file.read_text(encoding="utf-8"), file.name)
            checked += 1
    assert checked > 8
    page = Page((run_folder / "report.html").read_text(encoding="utf-8"))
    assert ("b", ("onclick",)) not in page.tags
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "<b" not in card.replace("\\<", "")
    assert "](javascript" not in card.replace("\\]", "")
    assert run("eval", run_folder).exit_code == 0


def test_what_a_model_answers_does_nothing(made: tuple[Path, str], tmp_path: Path, monkeypatch: Any) -> None:
    from avalign.llm import LanguageModel

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LanguageModel, "generate", lambda *_: [HOSTILE])
    picture, out = tmp_path / f"picture {HOSTILE}.png", tmp_path / f"answer {HOSTILE}.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture)
    result = run("predict", made[0], f"Where is {HOSTILE}?", "--image", picture, "--out", out)
    assert result.exit_code == 0
    assert "\\x1b[2J" in result.stdout
    assert out.is_file()


def test_a_recipe_s_text_is_escaped_and_read_back() -> None:
    text = to_text({HOSTILE: [HOSTILE, "Käse 猫"]})
    assert_plain(text, "YAML")
    assert "Käse 猫" in text
    assert parse(text, str, lambda *_: pytest.fail("a problem")).plain() == {HOSTILE: [HOSTILE, "Käse 猫"]}


def hostile(plain: Any, of_people: bool = False) -> Any:
    """Every text, and every key that is a name of somebody's, made hostile."""
    if isinstance(plain, dict):
        named = ("arms", "metrics", "trivial", "scores", "values", "test_samples")
        return {
            key + HOSTILE * of_people: hostile(value, key in named and not of_people)
            for key, value in plain.items()
        }
    if isinstance(plain, list):
        return [hostile(value) for value in plain]
    return plain + HOSTILE if isinstance(plain, str) else plain


def test_the_tables_of_a_study_do_nothing(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path))
    every = runs(study, tmp_path / "out")
    for one in every[1:]:
        make_run(one, [1.0, 0.0])
    table = hostile(collect(study, every, {every[0].label: "failed"}))
    report.write(table, tmp_path / "shown")
    page = (tmp_path / "shown" / "report.html").read_text(encoding="utf-8")
    assert_plain(page, "report.html")
    assert ("b", ("onclick",)) not in Page(page).tags
    text = (tmp_path / "shown" / "table.md").read_text(encoding="utf-8")
    assert_plain(text, "table.md")
    assert "<b" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\](", "")


# ---- data ----------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Records whose every text is hostile, over a sound and a picture of hostile names."""
    folder = tmp_path / f"data {HOSTILE}"
    folder.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / f"{HOSTILE}.png")
    soundfile.write(folder / f"{HOSTILE}.wav", np.zeros(16_000, np.float32), 16_000)
    line = {
        **{"task": "avqa", "source": HOSTILE, "version": 1, "kind": HOSTILE, "label": HOSTILE},
        **{"instruction": f"<image><audio>{HOSTILE}", "response": HOSTILE, "references": [HOSTILE]},
        **{
            "image": f"{HOSTILE}.png",
            "audio": f"{HOSTILE}.wav",
            "provenance": json.dumps({HOSTILE: HOSTILE}),
        },
    }
    lines = [line | {"id": f"{k} {HOSTILE}", "split": split} for k, split in enumerate(("train", "test"))]
    lines.append(line | {"id": f"2 {HOSTILE}", "split": "test", "image": f"{HOSTILE}.jpg"})
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / f"records {HOSTILE}.jsonl").write_text(text)
    return folder


def test_reports_on_data_do_nothing(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("data", "check", manifest, "--out", out, "--workers", 1).exit_code == 1
    text = (out / "report.md").read_text(encoding="utf-8")
    assert_plain(text, "report.md")
    assert "<b" not in re.sub(r"`[^`]*`", "", text).replace("\\<", "")
    assert_plain((out / "findings.txt").read_text(encoding="utf-8"), "findings.txt")
    assert run("data", "stats", manifest).exit_code == 0
    assert run("data", "stats", manifest, "--json").exit_code == 0
    shown = run("data", "show", manifest, "--out", tmp_path / "page.html", "--split", "train")
    assert shown.exit_code == 0, shown.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert_plain(page, "page.html")
    assert "<b onclick" not in page
    assert run("data", "shard", manifest, "--out", tmp_path / "shards").exit_code == 2


def test_scores_of_predictions_do_nothing(manifest: Path, tmp_path: Path) -> None:
    answers = tmp_path / f"answers {HOSTILE}.jsonl"
    lines = [{"id": f"1 {HOSTILE}", "answer": HOSTILE}, {"id": HOSTILE, "answer": HOSTILE}]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines) + f"{HOSTILE}\n")
    out = tmp_path / "scores"
    result = run("score", manifest, answers, "--out", out, "--bootstrap", "10")
    assert result.exit_code == 0, result.output
    for file in (*out.glob("*.html"), *out.glob("*.md")):
        assert_plain(file.read_text(encoding="utf-8"), file.name)
    assert ("b", ("onclick",)) not in Page((out / "report.html").read_text(encoding="utf-8")).tags
