"""A stranger's run runs none of its code unless asked to; one's own is never asked for."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import avalign
from avalign.cli.app import app
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.export.hugging_face import export
from avalign.local_components import trust
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers.local_files import LOSS
from tests.helpers.paths import RECIPE
from tests.helpers.runs import ONE_STAGE, SMALL

RAN = "import pathlib; pathlib.Path({!r}).write_text('ran')\n"


def cli(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run with a loss from a file that leaves a mark when it runs, and its export."""
    home = tmp_path_factory.mktemp("theirs")
    (home / "my_loss.py").write_text(RAN.format(str(home / "mark")) + LOSS)
    (home / "mine.yaml").write_text(
        f"extends: {RECIPE}\nname: mine\nlosses:\n"
        "  nearness: {name: ./my_loss.py:Nearness, scale: 2, weight: 0.1}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "score", lambda *_: {})
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        patch.setattr(trust, "_noted", set())
        run = train(read(home / "mine.yaml", [*SMALL, f"data.root={home}", ONE_STAGE]), home / "run")
        assert (home / "mark").exists()
        return {"home": home, "run": run, "export": export(run, home / "out")}


@pytest.fixture
def strange(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The same in another user's hands: copies, and a state folder that knows nothing."""
    monkeypatch.setattr(trust, "_noted", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in [name for name in sys.modules if name.startswith("avalign.local_components.")]:
        monkeypatch.delitem(sys.modules, name)
    (made["home"] / "mark").unlink(missing_ok=True)
    copies = {
        name: Path(shutil.copytree(made[name], tmp_path / f"their_{name}")) for name in ("run", "export")
    }
    return {**copies, "mark": made["home"] / "mark"}


def test_no_command_runs_a_strangers_code_unless_asked(strange: dict[str, Path], tmp_path: Path) -> None:
    run, picture = strange["run"], tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (32, 32)).save(picture)
    predict = ["What?", "--image", str(picture), "--out", str(tmp_path / "answer.png")]
    commands = [
        ["check", str(run / "recipe.yaml")],
        ["check", "--size", str(run / "recipe.yaml")],
        ["eval", str(run), "--samples", "1", "evaluation.bootstrap=0"],
        ["predict", str(run), *predict],
        ["export", str(run), "--out", str(tmp_path / "out")],
        ["train", "--resume", "--run", str(run)],
        ["train", str(run / "recipe.yaml"), "--run", str(tmp_path / "new")],
        ["check", str(strange["export"] / "recipe.yaml")],
        ["predict", str(strange["export"]), *predict],
    ]
    for words in commands:
        code, said = cli(*words)
        file = Path(words[1] if words[1] != "--size" else words[2])
        assert code == 2, (words, said)
        assert "my_loss.py (sha256 " in said, (words, said)
        assert "--trust-code" in said, file
        assert "1 problems" not in said
        assert len(said.strip().splitlines()) == 1, said
        assert not strange["mark"].exists(), words
    copy = run / "code" / "my_loss.py"
    assert hashlib.sha256(copy.read_bytes()).hexdigest() in cli(*commands[0])[1]
    for words in [commands[0], commands[3], commands[4], commands[8]]:
        strange["mark"].unlink(missing_ok=True)
        for name in [name for name in sys.modules if name.startswith("avalign.local_components.")]:
            del sys.modules[name]
        code, said = cli(*words, "--trust-code")
        assert code == 0, (words, said)
        assert strange["mark"].exists(), words
        assert not trust.is_asked(), "only that command"


@pytest.mark.parametrize("what", ["run", "export"])
def test_python_asks_likewise(strange: dict[str, Path], what: str) -> None:
    with pytest.raises(AvalignError, match=r"my_loss\.py \(sha256 [0-9a-f]{64}\).*trust_code=True"):
        avalign.load(strange[what])
    with pytest.raises(AvalignError, match=r"my_loss\.py"):
        read(strange[what] / "recipe.yaml")
    assert not strange["mark"].exists()
    avalign.load(strange[what], trust_code=True)
    assert strange["mark"].exists()
    with pytest.raises(AvalignError, match=r"my_loss\.py"):
        avalign.load(strange[what])


def test_who_trained_with_a_file_is_not_asked_until_it_changes(
    strange: dict[str, Path], made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(made["home"] / "state"))
    avalign.load(strange["run"])
    read(strange["export"] / "recipe.yaml")
    copy = strange["run"] / "code" / "my_loss.py"
    copy.write_text(copy.read_text() + "# and more\n")
    listed = strange["run"] / "code" / "files.json"
    told = json.loads(listed.read_text())  # what the run says of itself counts for nothing
    told["my_loss.py"]["sha256"] = hashlib.sha256(copy.read_bytes()).hexdigest()
    listed.write_text(json.dumps(told))
    with pytest.raises(AvalignError, match=r"my_loss\.py"):
        avalign.load(strange["run"])
    shutil.copyfile(made["home"] / "my_loss.py", copy)
    read(strange["run"] / "recipe.yaml")
    (made["home"] / "state" / "avalign" / "code").chmod(0o666)
    try:
        with pytest.raises(AvalignError, match=r"my_loss\.py"):
            read(strange["run"] / "recipe.yaml")
    finally:
        (made["home"] / "state" / "avalign" / "code").chmod(0o600)


def test_modules_of_the_working_directory_and_installed_classes_are_asked_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(trust, "_noted", set())
    monkeypatch.delitem(sys.modules, "their_module", raising=False)
    (tmp_path / "their_module.py").write_text(RAN.format(str(tmp_path / "mark")) + LOSS)
    text = "name: theirs\nlosses: {{x: {{name: '{}', weight: 1}}}}\n"
    for name, said in (
        ("their_module:Nearness", "their_module.py"),
        ("subprocess:Popen", "subprocess.py"),
        ("nowhere:X", "the module of nowhere:X"),
    ):
        (tmp_path / "recipe.yaml").write_text(text.format(name))
        with pytest.raises(AvalignError, match=rf"would run code .*{said}"):
            read("recipe.yaml")
        assert not (tmp_path / "mark").exists()
    (tmp_path / "mine.yaml").write_text(text.format("their_module:Nearness"))
    read("mine.yaml")  # named by its user
    assert (tmp_path / "mark").exists()
    monkeypatch.delitem(sys.modules, "their_module")


def test_a_start_looks_for_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    cli("options", "loss", "avopt")
    assert str(tmp_path) not in sys.path, "a package that is not installed would be found there"


def test_a_runs_recipe_leads_to_no_other(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: 1\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: x\nextends: ../secret.yaml\n")
    with pytest.raises(AvalignError, match="extends: a run's recipe stands alone") as refused:
        read(tmp_path / "run" / "recipe.yaml")
    assert "password" not in str(refused.value)


# every door by which a file could run code, in our own calls


def _calls() -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for file in sorted(Path(avalign.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {k.arg or "**": ast.unparse(k.value) for k in node.keywords}
                found.append((file.name, ast.unparse(node.func), given))
    return found


def test_no_call_unpickles_or_runs_what_a_file_says() -> None:
    seen = set()
    for file, called, given in _calls():
        last = called.rpartition(".")[2]
        if called == "torch.load":
            assert given.get("weights_only") == "True", file
        elif last == "from_pretrained":
            assert given.get("trust_remote_code") == "False" or "**" in given, file
        elif called in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", file
        elif called.startswith("yaml."):
            assert called in ("yaml.safe_load", "yaml.safe_dump", "yaml.compose", "yaml.dump"), (file, called)
        elif last in ("extractall", "extract") or called.startswith(("pickle.load", "joblib.", "marshal.")):
            raise AssertionError(f"{file}: {called}")
        else:
            continue
        seen.add(last)
    assert {"load", "from_pretrained", "safe_load"} <= seen


def test_a_models_own_python_is_never_run(tmp_path: Path) -> None:
    from avalign.llm.huggingface import released

    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(RAN.format(str(mark)))
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "theirs", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
        )
    )
    with pytest.raises(AvalignError, match="could not be loaded as a causal language model"):
        released(str(tmp_path))
    assert not mark.exists()


def test_an_export_carries_its_files_and_no_place_of_this_machine(
    strange: dict[str, Path], made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = strange["export"]
    assert (out / "code" / "my_loss.py").read_bytes() == (made["home"] / "my_loss.py").read_bytes()
    assert "./code/my_loss.py:Nearness" in (out / "recipe.yaml").read_text()
    for file in out.rglob("*"):
        if file.is_file() and file.parent.name != "code":
            assert str(made["home"]).encode() not in file.read_bytes(), file.relative_to(out)
    assert "from" not in (out / "code" / "files.json").read_text()
    monkeypatch.setattr("pathlib.Path.home", lambda: out)
    avalign.load(out, trust_code=True)
