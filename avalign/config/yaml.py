"""YAML text as a tree of values, each with the location it was written at, and plain values as YAML text.

Knows nothing of recipes. Scalars are read by YAML 1.2, in which 1e-4 is a number and `no` is text; no tag
builds an object; a key given twice is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from avalign.errors import AvalignError
from avalign.system.escape import visible

MOST_VALUES = 10_000  # of one text, aliases followed: a recipe has some hundred

KeyPath = tuple[str, ...]
Report = Callable[[str, KeyPath, str], None]  # where, dotted path, what is wrong


class YamlError(AvalignError, ValueError):
    """Text that is no YAML at all: `where`, what."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}  {what}")
        self.where, self.what = where, what


@dataclass
class Node:
    """A mapping of Nodes, a list of Nodes or a scalar, and where it stands."""

    value: Any
    where: str  # "recipes/mine.yaml:4", "command line"; the file alone for a default
    text: str | None = None  # as written, of a scalar that is no text: "1e-4", "true"

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def at(self, path: KeyPath) -> Node:
        """The node at a path, or the last one on the way to it."""
        node = self
        for key in path:
            if isinstance(node.value, dict) and key in node.value:
                node = node.value[key]
            elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
                node = node.value[int(key)]
            else:
                break
        return node


def folder_of(where: str) -> Path:
    """The folder of "recipes/mine.yaml:4"; the working directory, if it is no location in a file."""
    return file_of(where).parent


def file_of(where: str) -> Path:
    """The file of "recipes/mine.yaml:4"."""
    return Path(re.sub(r":\d+$", "", where))


def from_plain(plain: Any, where: str) -> Node:
    if isinstance(plain, dict):
        return Node({key: from_plain(value, where) for key, value in plain.items()}, where)
    return Node([from_plain(item, where) for item in plain] if isinstance(plain, list) else plain, where)


def parse(text: str, where: Callable[[int], str], report: Report) -> Node:
    """YAML text as Nodes. `where` names the location of a line (from 1); `report` hears of what is wrong."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        return _Parser(where, report).node(root, where(1), ()) if root else Node(None, where(1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.problem, error.context) if part)
        raise YamlError(where(mark.line + 1 if mark else 1), f"not YAML: {what}.") from None
    except yaml.YAMLError as error:  # characters that no text holds
        raise YamlError(where(1), f"not YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise YamlError(where(1), "nested too deeply.") from None


class _Parser:
    def __init__(self, where: Callable[[int], str], report: Report) -> None:
        self.where, self.report, self.counter = where, report, count(1)

    def node(self, raw: yaml.Node, where: str, path: KeyPath) -> Node:
        if next(self.counter) > MOST_VALUES:
            raise YamlError(where, f"more than {MOST_VALUES} values.")
        if raw.tag not in _TAGS:
            self.report(where, path, f"the tag {raw.tag!r} is not read here.")
        if isinstance(raw, yaml.MappingNode):
            return Node(self.mapping(raw, path), where)
        if isinstance(raw, yaml.SequenceNode):
            rows = enumerate(raw.value)
            return Node([self.node(item, self.line(item), (*path, str(i))) for i, item in rows], where)
        quoted = not isinstance(raw, yaml.ScalarNode) or raw.style is not None
        value = raw.value if quoted else scalar(raw.value)
        return Node(value, where, None if value is None or isinstance(value, str) else raw.value)

    def mapping(self, raw: yaml.MappingNode, path: KeyPath) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key, value in raw.value:
            if not isinstance(key, yaml.ScalarNode):
                self.report(self.line(key), path, "a key should be text.")
                continue
            inner = (*path, key.value)
            if key.value in found:
                self.report(self.line(key), inner, f"given twice, first at {found[key.value].where}.")
            found[key.value] = self.node(value, self.line(key), inner)
        return found

    def line(self, raw: yaml.Node) -> str:
        return self.where(raw.start_mark.line + 1)


_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}  # all BaseLoader gives untagged nodes


def scalar(text: str) -> Any:
    """A scalar without quotes, by YAML 1.2's core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,100}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text, re.ASCII):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        return float(text.replace(".", ""))
    return text


class OneLine(dict[str, Any]):
    """A mapping written on one line: {name: mlp, depth: 2}."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quoted where the reader would take it for something else; escaped what it would take for a line end."""
    style = '"' if not text.isprintable() else None if scalar(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    one_line = not any(isinstance(item, dict) and not isinstance(item, OneLine) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=one_line)


def _represent_mapping(dumper: _Dumper, mapping: dict[str, Any]) -> yaml.Node:
    one_line = isinstance(mapping, OneLine) or not mapping
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=one_line)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(OneLine, _represent_mapping)


def to_text(plain: Any) -> str:
    """Plain mappings, lists and scalars as YAML that `parse` reads back."""
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return visible(text, keep="\n")  # what turns the direction of writing, too, is escaped in its quotes
