"""Components are found by name, by entry point and by place; what cannot be found says what could."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

import pytest

from avalign import registry
from avalign.registry import RegistryError
from tests.helpers import fakes

SHIPPED = [(kind, name) for kind, places in registry.SHIPPED.items() for name in places]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fakes.install(monkeypatch, tmp_path)
    return lambda name, source: fakes.write_module(monkeypatch, tmp_path, name, source)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages with these entry points (group, name, "module:Class") are installed."""

    def pretend(*points):
        found = [EntryPoint(name, value, group) for group, name, value in points]
        monkeypatch.setattr(registry, "installed", lambda group: [p for p in found if p.group == group])

    return pretend


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_shipped_component_takes_its_options_by_keyword_with_their_types(kind, name):
    component = registry.load(kind, name)
    for option in registry.options(component).values():
        assert option.annotation is not option.empty, f"{option.name} has no annotation"
        assert not isinstance(option.annotation, str), (
            f"{option.name}: {option.annotation} cannot be resolved"
        )
    reserved = {"name", "weight"} & set(registry.options(component))
    assert not reserved, f"a recipe says these of the component itself: {reserved}"
    assert (component.__doc__ or "").strip(), "the docstring is the manual"
    if component.__init__.__module__.startswith("avalign."):  # not torch.nn.Module's own
        kinds = {p.kind for p in inspect.signature(component).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, "an option taken by **kwargs cannot be checked"


def test_a_component_is_loaded_by_name_and_by_place(fake):
    import avalign_fakes

    assert registry.load("projector", "mlp") is avalign_fakes.Mlp
    assert registry.load("projectors", "avalign_fakes:Fusion") is avalign_fakes.Fusion
    assert registry.names("projector") == ["linear", "mlp"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [("loss", "loss"), ("losses", "loss"), ("image-encoders", "image_encoder"), ("fusion", "fusion")],
)
def test_a_kind_is_understood_in_singular_and_plural(word, kind):
    assert registry.kind_named(word) == kind


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(
        RegistryError, match=r"'projectr'\. Did you mean 'projector'\? Known: audio_encoder, "
    ):
        registry.kind_named("projectr")


def test_an_unknown_name_names_the_nearest_and_all(fake):
    with pytest.raises(RegistryError, match=r"'liner'\. Did you mean 'linear'\? Known: linear, mlp\."):
        registry.load("projector", "liner")


@pytest.mark.parametrize("name", [":", "avalign_fakes:", ":Mlp", "avalign fakes:Mlp", "..x:Y", "a:b:c"])
def test_a_place_is_a_module_and_a_class(fake, name):
    with pytest.raises(RegistryError, match="neither a known name nor of the form 'module:Class'"):
        registry.load("projector", name)


def test_a_place_without_such_a_class_names_those_there(fake):
    with pytest.raises(
        RegistryError, match=r"avalign_fakes has no class 'Mpl'\. Did you mean 'Mlp'\? Known: .*Plain"
    ):
        registry.load("projector", "avalign_fakes:Mpl")
    fake("own_function", "def Mlp(): ...")
    with pytest.raises(RegistryError, match="has no class 'Mlp'"):
        registry.load("projector", "own_function:Mlp")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(RegistryError, match="there is no module 'no_such_module' on the Python path"):
        registry.load("loss", "no_such_module:Loss")
    with pytest.raises(RegistryError, match=r"there is no module 'email\.nothing' on the Python path"):
        registry.load("loss", "email.nothing:Loss")


@pytest.mark.parametrize(
    ("module", "package"), [("laion_clap.hook", "laion-clap"), ("timn", "timn"), ("ot", "pot")]
)
def test_a_missing_package_comes_with_the_command_that_installs_it(fake, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    fake("own_encoder", f"import {module}\nclass Encoder: ...")
    with pytest.raises(RegistryError, match=rf"needs the package .*: pip install {package}$"):
        registry.load("image_encoder", "own_encoder:Encoder")


def test_an_import_that_fails_within_says_how(fake):
    fake("half_written", "from email import nothing_of_the_kind\nclass Encoder: ...")
    with pytest.raises(RegistryError, match="cannot be imported: cannot import name 'nothing_of_the_kind'"):
        registry.load("image_encoder", "half_written:Encoder")


def test_an_error_inside_a_component_keeps_its_traceback(fake):
    fake("broken", "raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        registry.load("loss", "broken:Loss")


@pytest.mark.parametrize("group", ["avalign.loss", "avalign.losses"])
def test_others_add_components_by_entry_points(fake, installed, group):
    installed((group, "theirs", "avalign_fakes:Mlp"), ("avalign.fusion", "other", "avalign_fakes:Mlp"))
    import avalign_fakes

    assert registry.load("loss", "theirs") is avalign_fakes.Mlp
    assert registry.names("loss") == [*fakes.LOCATIONS["loss"], "theirs"]
    assert registry.names("fusion") == ["avace", "none", "other"]


def test_the_entry_points_of_a_group_are_those_of_the_installed_packages():
    assert registry.installed("console_scripts") == tuple(entry_points(group="console_scripts"))


@pytest.mark.parametrize(
    "points",
    [
        [("avalign.losses", "avopt", "theirs:Loss")],
        [("avalign.losses", "mine", "a:Loss"), ("avalign.losses", "mine", "b:Loss")],
        [("avalign.losses", "mine", "a:Loss"), ("avalign.loss", "mine", "b:Loss")],
    ],
)
def test_two_components_of_one_name_are_an_error(fake, installed, points):
    installed(*points)
    with pytest.raises(RegistryError, match=f"two losses are named '{points[0][1]}'"):
        registry.load("loss", "language_modelling")


def test_the_keyword_only_arguments_are_the_options(fake):
    options = registry.options(registry.load("fusion", "avace"))
    assert list(registry.options(registry.load("projector", "mlp"))) == ["hidden", "depth"]
    assert options["kind"].annotation == Literal["pre", "post"]
    assert options["cache"].annotation == Path | None
    assert options["heads"].default == 4


def test_a_name_known_to_type_checkers_only_stays_text(fake):
    assert registry.options(registry.load("loss", "needy"))["target"].annotation == "Tensor"


def test_a_manual_holds_the_docstring_and_every_option(fake):
    manual = registry.manual("projectors", "mlp")
    assert (manual.kind, manual.name, manual.location) == ("projector", "mlp", "avalign_fakes:Mlp")
    assert manual.text == "Linear maps with GELU between.\n\nShapes: (b, n, d)"
    assert manual.options[0] == registry.Option("hidden", "int", "4096")
    assert manual.options[1] == registry.Option("depth", "int, above 0", "2")
    needed = registry.manual("loss", "needy").options[0]
    assert needed == registry.Option("epsilon", "float", "required")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Annotated[float, Field(gt=0, allow_inf_nan=False)]", "float, above 0"),
        ("Annotated[float, Field(ge=0, le=1)]", "float, 0..1"),
        ("Annotated[float, Field(ge=0, lt=1)]", "float, 0 or above, below 1"),
        ("Annotated[int, Field(description='no limit')]", "int"),
        ("PositiveInt", "int, above 0"),
        ("PositiveInt | None", "(int, above 0) | None"),
        ("Optional[int]", "int | None"),
        ("list[PositiveInt]", "list[int, above 0]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("Sequence[str]", "Sequence[str]"),
        ("dict[str, Any] | None", "dict[str, Any] | None"),
        ("Path | str", "Path | str"),
        ("Literal['a', 'b'] | None", "Literal['a', 'b'] | None"),
        ("bool", "bool"),
        ("Unknown", "Unknown"),
    ],
)
def test_a_manual_says_types_as_people_do(fake, written, said):
    fake(
        "typed",
        "from __future__ import annotations\nfrom collections.abc import Sequence\n"
        "from pathlib import Path\nfrom typing import Annotated, Any, Literal, Optional\n"
        "from pydantic import Field, PositiveInt\n"
        f"class Loss:\n    def __init__(self, *, option: {written} = None): ...\n",
    )
    (option,) = registry.manual("loss", "typed:Loss").options
    assert option.type == said


def test_finding_components_imports_nothing_heavy():
    code = "import sys, avalign.registry as r; r.names('loss'); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
