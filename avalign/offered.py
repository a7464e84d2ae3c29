"""What a component leaves out of its interface: it is given defaults, and refused for lack of the rest."""

from __future__ import annotations

from functools import cache, partial
from inspect import getattr_static, isfunction
from typing import Any, TypeVar

from avalign import interfaces
from avalign.errors import AvalignError
from avalign.system.terminal import warn

Offering = TypeVar("Offering")
FORMER = {"corpus": "texts"}  # members that had another name: taken by it, with a note, for this release


def members(interface: type) -> dict[str, Any]:
    """Name -> default of all that an interface asks for; ... (Ellipsis) where there is none."""
    found: dict[str, Any] = {}
    for base in interface.__mro__:
        if base.__module__ == interfaces.__name__:
            abstract = base.__abstractmethods__  # type: ignore[attr-defined]
            for name in [*base.__annotations__, *vars(base)]:
                if not name.startswith("_"):
                    found.setdefault(name, ... if name in abstract else vars(base).get(name, ...))
    return found


def completed(component: Offering, interface: type) -> Offering:
    """The component, given the interface's defaults of what it leaves out. AvalignError if it lacks more."""
    lacking = []
    for name, default in members(interface).items():
        # looked up without being asked for first: a tokenizer, for one, is loaded when it is
        if getattr_static(component, name, ...) is not ... or hasattr(component, name):
            continue
        if default is ... and hasattr(component, FORMER.get(name, name)):
            _note_renamed(type(component).__name__, FORMER[name], name)
            object.__setattr__(component, name, getattr(component, FORMER[name]))
        elif default is ...:
            lacking.append(name)
        elif isinstance(default, staticmethod):
            object.__setattr__(component, name, default.__func__)
        elif isfunction(default):  # a bound method would not be pickled with what it is bound to
            object.__setattr__(component, name, partial(default, component))
        else:
            object.__setattr__(component, name, default)
    if lacking:
        raise AvalignError(
            f"{type(component).__name__} has no {', '.join(map(repr, lacking))}: avalign.interfaces."
            f"{interface.__name__} says what it must offer"
        )
    return component


@cache  # once a component
def _note_renamed(component: str, old: str, new: str) -> None:
    warn(f"{component}: {old!r} is now called {new!r}; it is still taken in this release")


def attribute(kind: type, interface: type, name: str) -> Any:
    """What a class says of itself before it is built: its own, or the interface's default."""
    return getattr(kind, name) if hasattr(kind, name) else getattr(interface, name)
