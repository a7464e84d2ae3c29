"""A recipe as a tree: what annotations say of each node, one tree over another, and back to plain values."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from pydantic_core import PydanticSerializationError, to_jsonable_python

from avalign import registry
from avalign.config.recipe import Component
from avalign.config.yaml import Node, OneLine, folder_of, from_plain
from avalign.local_components import LocalFileError, is_local, resolved
from avalign.system.terminal import warn

# ---- what the annotations of recipe.py say -------------------------------------------------------


# asked for thousands of times a recipe; no functools.cache, to which a class is not hashable, says mypy
_known_hints: dict[type[Any], dict[str, Any]] = {}


def hints(section: type[Any]) -> dict[str, Any]:
    if section not in _known_hints:
        _known_hints[section] = get_type_hints(section, include_extras=True)
    return _known_hints[section]


def is_component(hint: Any) -> TypeGuard[type[Component]]:
    return isinstance(hint, type) and issubclass(hint, Component)


def is_section(hint: Any) -> TypeGuard[type[Any]]:
    return isinstance(hint, type) and is_dataclass(hint) and not is_component(hint)


def own_keys(hint: type[Component]) -> list[str]:
    """Keys of a component's mapping that are not options: name, and a loss's weight."""
    return [f.name for f in fields(hint) if f.name != "options"]


def inside(hint: Any, key: str = "") -> Any:
    """The annotation of what stands under `key` in a value annotated `hint`."""
    if is_section(hint) or (is_component(hint) and key in own_keys(hint)):
        return hints(hint).get(key, Any)
    return get_args(hint)[-1] if get_origin(hint) in (dict, list) else Any


def is_either(hint: Any) -> bool:
    """Whether it is one value of several kinds, as a weight is a number or a schedule."""
    return get_origin(hint) in (Union, types.UnionType)


def literals(hint: Any) -> list[str]:
    """The words an annotation allows, "fp32" and "bf16"."""
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if isinstance(value, str)]
    inner = get_args(hint) if is_either(hint) or get_origin(hint) is Annotated else ()
    return [word for part in inner for word in literals(part)]


# ---- merging -------------------------------------------------------------------------------------


def normalised(node: Node, hint: Any) -> Node:
    """`fusion: avace` as `fusion: {name: avace}`; a section left empty as one that says nothing."""
    value = node.value
    if is_component(hint) and isinstance(value, str):
        value = {"name": Node(value, node.where)}
    elif is_section(hint) and value is None:
        value = {}
    elif isinstance(value, dict):
        value = _by_new_names(value, lambda key, node: new_name(hint, key, node.where))
        value = {key: normalised(child, inside(hint, key)) for key, child in value.items()}
    elif isinstance(value, list):
        value = [normalised(child, inside(hint)) for child in value]
    return Node(value, node.where, node.text)


def new_name(hint: Any, key: str, where: str) -> str:
    """What a key of a section, or a component's own key, is called now."""
    if not (is_section(hint) or is_component(hint)):
        return key
    former = {f.metadata["formerly"]: f.name for f in fields(hint) if "formerly" in f.metadata}
    return _renamed(key, former, where)


def _renamed(key: str, renamed: Mapping[str, str], where: str) -> str:
    if key in renamed:
        _note_renamed(key, renamed[key], where)
    return renamed.get(key, key)


@cache  # once a location
def _note_renamed(old: str, new: str, where: str) -> None:
    warn(f"{where}  {old!r} is now called {new!r}; it is still read in this release")


def with_new_names(value: dict[str, Node], former: Mapping[str, str]) -> dict[str, Node]:
    """A mapping by the keys' new names. former: old name -> new name"""
    return _by_new_names(value, lambda key, node: _renamed(key, former, node.where))


def _by_new_names(value: dict[str, Node], new: Callable[[str, Node], str]) -> dict[str, Node]:
    """Keys as they are called now. Where both names are given, the old one stays, to be refused."""
    names = {key: new(key, node) for key, node in value.items()}
    return {key if names[key] in value else names[key]: node for key, node in value.items()}


def _with_new_names(component: Node, name: Any) -> Node:
    """The same with the options of a shipped component as they are called now. name: of the component"""
    renamed = registry.RENAMED.get(name) if isinstance(name, str) else None
    if renamed is None or not isinstance(component.value, dict):
        return component
    return Node(with_new_names(component.value, renamed), component.where, component.text)


def merge(old: Node, new: Node, hint: Any) -> Node:
    """`new` over `old`: mappings merge, all else replaces, another component drops the old options."""
    if not (isinstance(old.value, dict) and isinstance(new.value, dict)) or is_either(hint):
        return new
    if is_component(hint):
        new = _with_new_names(new, called(new if "name" in new.value else old))
        assert isinstance(new.value, dict)
    merged = dict(old.value)
    if is_component(hint) and "name" in new.value and called(new) != called(old):
        merged = {key: node for key, node in merged.items() if key in own_keys(hint)}
    for key, node in new.value.items():
        merged[key] = merge(merged[key], node, inside(hint, key)) if key in merged else node
    return Node(merged, old.where)


def called(component: Node) -> Any:
    """A component's name: of a file, with its whole path, for another folder's of that name is another."""
    name = component.at(("name",))
    if isinstance(name.value, str) and is_local(name.value):
        with contextlib.suppress(LocalFileError):  # it is named when the component is read
            return resolved(name.value, folder_of(name.where))
    return name.value


def completed(node: Node, hint: Any, where: str) -> Node:
    """With the dataclasses' defaults for what is left unsaid, so that a child can change a part of them."""
    if isinstance(node.value, list):
        return Node([completed(child, inside(hint), where) for child in node.value], node.where)
    if is_component(hint):
        return _with_new_names(node, called(node))
    if not isinstance(node.value, dict):
        return node
    value = dict(node.value)
    names = dict.fromkeys(value, "") if is_section(hint) else {label: label for label in value}
    for field in fields(hint) if is_section(hint) else ():
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if isinstance(default, Component):
            names[field.name] = default.name
        if field.name not in value and default is not MISSING:
            plain = as_plain(default, fill=False)
            value[field.name] = normalised(from_plain(plain, where), inside(hint, field.name))
    for key, child in value.items():
        inner = inside(hint, key)
        if is_component(inner) and isinstance(child.value, dict) and "name" not in child.value:
            name = Node(inner.usual or names[key], child.where)
            child = Node({"name": name, **child.value}, child.where)
        value[key] = completed(child, inside(hint, key), where)
    return Node(value, node.where)


# ---- writing -------------------------------------------------------------------------------------


def defaults_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a component's options, less those that no YAML can hold."""
    found = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return {
        name: value for name, value in found.items() if as_plain_or_none(value) is not None or value is None
    }


def as_plain_or_none(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return None


def as_plain(value: Any, kind: str = "", fill: bool = True, named: Callable[[str], str] = str) -> Any:
    """Sections as mappings, components as mappings of one line; `fill`: with their options' defaults."""

    def inner(item: Any, kind: str) -> Any:
        return as_plain(item, kind, fill, named)

    if isinstance(value, Component):
        options = defaults_of(registry.options(registry.load(kind, value.name))) if fill else {}
        settings = {key: as_plain(getattr(value, key)) for key in own_keys(type(value))}
        settings["name"] = named(value.name)
        return OneLine({**settings, **to_jsonable_python({**options, **value.options})})
    if is_dataclass(value):
        return {f.name: inner(getattr(value, f.name), f.metadata.get("kind", "")) for f in fields(value)}
    if isinstance(value, list):
        return [inner(item, kind) for item in value]
    if isinstance(value, dict):
        rows = {key: inner(item, kind) for key, item in value.items()}
        return rows if any(is_dataclass(item) for item in value.values()) else OneLine(rows)
    return to_jsonable_python(value)
