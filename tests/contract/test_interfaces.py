"""Every component offers what avalign/interfaces.py says of its kind; left-out defaults are given to it."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from avalign import interfaces, registry
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import TASKS
from avalign.model.model import PARTS, AudioVisualLM
from avalign.offered import attribute, completed, members
from tests.helpers import tiny
from tests.helpers.contract import shipped
from tests.helpers.contract.components import EVERYTHING, WIRED

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

KINDS = [(kind, name) for kind, name in EVERYTHING if kind in interfaces.INTERFACES]
MODULES = ("image_encoder", "audio_encoder", "projector", "fusion", "loss", "llm")


def test_every_kind_but_the_one_that_is_wired_to_pools_has_an_interface() -> None:
    assert interfaces.INTERFACES.keys() == registry.SHIPPED.keys() - {"pairing"}


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_it_offers_all_of_its_kind(kind: str, name: str, options: Any) -> None:
    """Itself, or from the interface that it derives from: it lacks nothing before it is completed."""
    chosen = {key: value for key, value in options(kind, name).items() if key != "root"}
    component = registry.load(kind, name)(*WIRED[kind], **chosen)
    for member, default in members(interfaces.INTERFACES[kind]).items():
        assert hasattr(component, member), member
        if isinstance(default, bool | str):
            assert type(getattr(component, member)) is type(default), member
    assert isinstance(component, nn.Module) == (kind in MODULES)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_offers_what_tasks_do(name: str) -> None:
    for member in members(interfaces.Task):
        assert hasattr(TASKS[name], member), member
    assert TASKS[name].name == name


def test_mypy_holds_every_shipped_component_to_its_interface() -> None:
    """By shipped.py, which names the very classes of the registry, and all tasks."""
    tree = ast.parse(Path(shipped.__file__).read_text())
    imported, tables = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {one.asname or one.name: f"{node.module}:{one.name}" for one in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            tables[node.target.id] = [imported[one.id] for one in node.value.elts]
    tasks = tables.pop("task")
    assert {place.partition(":")[2].lower() for place in tasks} == set(TASKS)
    assert [place.partition(":")[2].lower() for place in tables.pop("mapped")] == [
        name for name, task in TASKS.items() if isinstance(task, interfaces.Mapped)
    ]
    assert tables == {kind: list(registry.SHIPPED[kind].values()) for kind in interfaces.INTERFACES}


class Doubled(nn.Linear):
    """A stranger's projector, which has nothing to say of frames, wants, weights or options."""

    def token_count(self, n: int, frames: int = 1) -> int:
        return n


class Endless:
    """A stranger's source without files."""

    tasks = ("avqa",)

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        self.seed = seed

    def sample(self, split: str, task: str, index: int) -> Any:
        return tiny.sample(index)

    def corpus(self) -> list[str]:
        return []


def test_what_a_stranger_leaves_out_is_as_the_interface_has_it() -> None:
    projector = completed(Doubled(3, 4), interfaces.Projector)
    assert (projector.joins_frames, projector.wants, projector.pretrained) == (False, (), False)
    assert (projector.loaded, projector.tuning, projector.not_compiled) == (None, "yes", None)
    projector.check_options({"any": 1})
    assert set(projector.state_dict()) == {"weight", "bias"}
    source = pickle.loads(pickle.dumps(completed(Endless(), interfaces.Source)))
    assert source.size("train", "avqa") is None
    assert source.where("train", "avqa", 3) is None
    assert source.truth("train", "avqa", 3).id == tiny.sample(3).id
    assert (source.skipped, source.on_error) == ((), "raise")


def test_what_a_stranger_says_itself_stays() -> None:
    class Joining(Doubled):
        joins_frames = True

        def __init__(self) -> None:
            super().__init__(3, 4)
            self.wants = ("vocabulary",)

    projector = completed(Joining(), interfaces.Projector)
    assert (projector.joins_frames, projector.wants) == (True, ("vocabulary",))


def test_what_cannot_be_done_without_is_named() -> None:
    with pytest.raises(AvalignError, match=r"Linear has no 'token_count': avalign.interfaces.Projector says"):
        completed(nn.Linear(3, 4), interfaces.Projector)
    with pytest.raises(AvalignError, match="Linear has no 'width', 'token_count', 'preprocessing': "):
        completed(nn.Linear(3, 4), interfaces.ImageEncoder)


def test_a_model_is_made_of_strangers_parts_or_names_the_one_that_will_not_do() -> None:
    whole = tiny.model()
    parts = {name: getattr(whole, name) for name in PARTS}
    width = parts["llm"].width
    model = AudioVisualLM(**parts | {"image_connector": Doubled(tiny.WIDTH, width)})
    assert model.media_tokens()[0] == parts["image_encoder"].token_count
    with pytest.raises(AvalignError, match=r"model.image_connector: Linear has no 'token_count'"):
        AudioVisualLM(**parts | {"image_connector": nn.Linear(tiny.WIDTH, width)})


def test_nothing_is_asked_for_to_see_whether_it_is_there() -> None:
    """A tokenizer is loaded when it is: for a model that is only counted there may be none."""

    class Unasked(Doubled):
        @property
        def wants(self) -> tuple[str, ...]:
            raise AssertionError("asked for")

    completed(Unasked(3, 4), interfaces.Projector)


def test_a_class_says_what_it_has_before_it_is_built() -> None:
    assert attribute(Endless, interfaces.Source, "tasks") == ("avqa",)
    assert attribute(nn.Linear, interfaces.Source, "tasks") == ()
    assert attribute(nn.Linear, interfaces.Component, "check_options")({}) is None
