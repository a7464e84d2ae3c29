"""Every component has a manual, and every kind its tests."""

from __future__ import annotations

import re

import pytest

from avalign import registry
from tests.helpers.contract.components import EVERYTHING, TINY, WIRED


def test_every_kind_has_a_contract() -> None:
    assert set(WIRED) == set(registry.SHIPPED), "a new kind needs its tests here, and what is wired into it"
    unknown = set(TINY) - set(EVERYTHING)
    assert not unknown, f"no longer registered: {unknown}"


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_the_manual_describes_every_option(kind: str, name: str) -> None:
    """In a line of the docstring that begins with the option's name, and with a type that people can read."""
    manual = registry.manual(kind, name)
    for option in manual.options:
        described = rf"^ *(\w+, )*{option.name}(, \w+)*: +\S"
        assert re.search(described, manual.text, re.MULTILINE), f"'{option.name}: ...' is not in the manual"
        assert option.type
        assert not re.search(r"Annotated|FieldInfo|typing\.|<class|ForwardRef", option.type), option
