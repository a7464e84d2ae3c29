"""A file, with those it extends and the command line, as a dataclass; each problem at its location."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from avalign import interfaces, registry
from avalign.config import shipped
from avalign.config.recipe import Component, Recipe
from avalign.config.tree import (
    as_plain_or_none,
    completed,
    defaults_of,
    hints,
    inside,
    is_component,
    is_either,
    is_section,
    literals,
    merge,
    new_name,
    normalised,
    own_keys,
)
from avalign.config.yaml import KeyPath, Node, YamlError, file_of, folder_of, parse, scalar
from avalign.errors import AvalignError, suggest
from avalign.local_components import is_local, resolved, trust
from avalign.offered import attribute

COMMAND_LINE = "command line"
DEEPEST = 50  # dots of a setting, or files that extend one another: beyond any that is meant
WRONG = object()  # stands for a value already reported


class RecipeError(AvalignError, ValueError):
    """Every problem of a recipe, each as `file:line  dotted.path: what is wrong`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join([f"{len(self.problems)} problems", *self.problems][len(self.problems) == 1 :])


class Reader:
    """One reading of a recipe: collects problems, and goes on as long as what follows still makes sense.

    form, noun, example: the dataclass that the file is read as, what it is called, a setting of it. Other
    files than recipes, such as AVFIT's plans, are read so too.
    """

    def __init__(
        self, form: type[Any] = Recipe, noun: str = "recipe", example: str = "train.batch_size=8"
    ) -> None:
        self.form, self.noun, self.example = form, noun, example
        self.problems: list[str] = []
        self.reported: list[KeyPath] = []

    def read(
        self, path: Path, overrides: Sequence[str] = (), changes: Sequence[Node] = (), by: str = ""
    ) -> tuple[Node, Any]:
        """The file as a tree, and as its dataclass; what is wrong stands in `problems`."""
        tree = self.load(path, by)
        for change in changes:
            tree = completed(self.change(tree, change, (), self.form), self.form, os.fspath(path))
        for text in overrides:
            tree = completed(self.override(tree, text), self.form, os.fspath(path))
        return tree, self.section(tree, self.form, ())

    def note(self, where: str, path: KeyPath, what: str) -> None:
        self.problems.append(f"{where}  {'.'.join(path)}: {what}")

    def report(self, where: str, path: KeyPath, what: str) -> None:
        """Once for a value, and not again for what is inside it."""
        if not any(path[: len(known)] == known for known in self.reported):
            self.reported.append(path)
            self.note(where, path, what)

    def give_up(self, problem: str) -> RecipeError:
        return RecipeError([*self.problems, problem])

    # -- files and the command line

    def load(self, path: Path, by: str = "", chain: tuple[Path, ...] = ()) -> Node:
        """A file over the files it extends, complete. `by` is the location that named the file."""
        text = self.text(path, by)
        try:
            tree = parse(text, lambda line: f"{path}:{line}", self.note)
        except YamlError as error:
            raise self.give_up(str(error)) from None
        if not isinstance(tree.value, dict):
            what = "empty." if tree.value is None else "should be a mapping of settings."
            raise self.give_up(f"{by}{path}: {what}")
        parent = tree.value.pop("extends", None)
        tree = normalised(tree, self.form)
        if parent is not None:
            by, chain = f"{parent.where}  extends: ", (*chain, path.resolve())
            if trust.is_of_a_run(path) and not trust.is_asked():
                raise self.give_up(
                    f"{by}a run's recipe stands alone; this one would read other files. "
                    f"Look at it, then ask: {trust.OPTION}."
                )
            if not isinstance(parent.value, str):
                raise self.give_up(
                    f"{by}should be the path of one {self.noun}, got {_shown(parent.plain())}."
                )
            if len(chain) > DEEPEST:
                raise self.give_up(f"{by}more than {DEEPEST} files extend one another.")
            other = self.parent(path, parent.value, by)
            if other.resolve() in chain:
                circle = [*chain[chain.index(other.resolve()) :], other]
                raise self.give_up(f"{by}a circle: {' -> '.join(link.name for link in circle)}.")
            tree = merge(self.load(other, by, chain), tree, self.form)
        return completed(tree, self.form, str(path))

    def parent(self, path: Path, word: str, by: str) -> Path:
        """The file that `path` extends: one that lies there, or a shipped recipe by its name."""
        other = Path(os.path.normpath(path.parent / word))
        if self.form is not Recipe or word.endswith(shipped.ENDINGS) or other.is_file():
            return other
        try:
            return shipped.found(word)
        except AvalignError as error:
            raise self.give_up(f"{by}{error}") from None

    def text(self, path: Path, by: str) -> str:
        try:
            return path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            beside = sorted(p.name for p in path.parent.glob("*.y*ml"))
            hint = suggest(path.name, beside) if beside else ""
            raise self.give_up(f"{by}{path}: no such file.{hint}") from None
        except IsADirectoryError:
            raise self.give_up(f"{by}{path}: a folder, not a {self.noun}.") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise self.give_up(f"{path}:{line}  not UTF-8 text.") from None
        except OSError as error:
            raise self.give_up(f"{by}{path}: {error.strerror}.") from None

    def override(self, tree: Node, text: str) -> Node:
        key, equals, value = text.partition("=")
        path = tuple(key.strip().split("."))
        if len(path) > DEEPEST:
            self.problems.append(f"{COMMAND_LINE}  {key[:40]}...: nested too deeply.")
            return tree
        if not equals or not all(path):
            self.problems.append(f"{COMMAND_LINE}  {text!r} should be key=value, as in {self.example}.")
            return tree
        try:
            node = parse(
                value, lambda line: COMMAND_LINE, lambda where, _, what: self.note(where, path, what)
            )
        except YamlError as error:
            self.note(COMMAND_LINE, path, error.what)
            return tree
        return merge(tree, self.child(tree, path, (), node, self.form), self.form)

    def change(self, tree: Node, value: Node, behind: KeyPath, hint: Any) -> Node:
        """What a mapping of settings says, setting by setting; a component is merged as a whole."""
        entered = is_section(hint) or get_origin(hint) in (dict, list)
        if not (entered and isinstance(value.value, dict)):
            return merge(tree, self.child(tree, behind, (), value, self.form), self.form)
        for key, node in value.value.items():
            path = tuple(key.split("."))
            if not all(path) or len(path) > DEEPEST:
                self.note(node.where, (*behind, key[:40]), "a dotted key names a setting: train.batch_size.")
                continue
            inner = hint
            for word in path:
                inner = inside(inner, word)
            tree = self.change(tree, node, (*behind, *path), inner)
        return tree

    def child(self, node: Node, ahead: KeyPath, behind: KeyPath, value: Node, hint: Any) -> Node:
        """What an override says, as a child of `node`; lists are entered by index or by an item's `name`."""
        if not ahead:
            return normalised(value, hint)
        key = new_name(hint, ahead[0], value.where)
        path = (*behind, key)
        if not isinstance(node.value, list):
            said = node.value.get(key) if isinstance(node.value, dict) else None
            inner = normalised(said or Node(None, value.where), inside(hint, key))
            rest = node.value if is_either(hint) and isinstance(node.value, dict) else {}
            own = self.child(inner, ahead[1:], path, value, inside(hint, key))
            return Node({**rest, key: own}, value.where)
        items, hint = list(node.value), inside(hint)
        labels = [str(item.plain().get("name", "")) if isinstance(item.value, dict) else "" for item in items]
        index = labels.index(key) if key in labels else int(key) if key.isdecimal() else len(labels)
        if index >= len(labels):
            known = [*map(str, range(len(labels))), *filter(None, labels)]
            self.report(value.where, path, f"no such entry.{suggest(key, known)}")
            return node
        items[index] = merge(items[index], self.child(items[index], ahead[1:], path, value, hint), hint)
        return Node(items, node.where)

    # -- values

    def value(self, node: Node, hint: Any, path: KeyPath, kind: str = "") -> Any:
        """What a node says, by its annotation; WRONG, and a problem more, if it does not fit."""
        if is_component(hint):
            return self.component(node, hint, path, kind)
        if is_section(hint):
            return self.section(node, hint, path)
        if is_either(hint) and isinstance(node.value, dict):
            return self.one_mapping(node, hint, path)
        inner = inside(hint)
        if get_origin(hint) is dict and isinstance(node.value, dict):
            said = {
                key: self.value(child, inner, (*path, key), kind)
                for key, child in node.value.items()
                if not (is_component(inner) and child.value is None)  # `avopt: null` drops the term
            }
            return {key: value for key, value in said.items() if value is not WRONG}
        if get_origin(hint) is list and isinstance(node.value, list):
            rows = [self.value(child, inner, (*path, str(i)), kind) for i, child in enumerate(node.value)]
            return [None if row is WRONG else row for row in rows]
        return self.leaf(node, hint, path)

    def one_mapping(self, node: Node, hint: Any, path: KeyPath) -> Any:
        """A mapping that is one value, right or wrong as a whole, where a number would do too: a schedule."""
        arm = next((arm for arm in get_args(hint) if get_origin(arm) is dict), None)
        if arm is None:
            return self.leaf(node, hint, path)
        if not node.value:
            self.report(node.where, path, "an empty mapping.")
            return WRONG
        key_hint, inner = get_args(arm)
        said = {}
        for key, child in node.value.items():
            # keys are text in a Node; as an annotation may have it, they are numbers
            known = self.leaf(Node(scalar(key), child.where, key), key_hint, (*path, key))
            value = self.value(child, inner, (*path, key))
            if known in said and known is not WRONG:
                self.report(child.where, (*path, key), f"given twice, once as {_shown(known)}.")
            said[known] = value
        return WRONG if WRONG in [*said, *said.values()] else said

    def section(self, node: Node, hint: type[Any], path: KeyPath) -> Any:
        """A dataclass. A wrong value is replaced by its default, so that the rest can still be checked."""
        if not isinstance(node.value, dict):
            self.report(node.where, path, f"should be a mapping of settings, got {_shown(node.plain())}.")
            node = completed(Node({}, node.where), hint, node.where)
        for key, child in node.value.items():
            if key not in hints(hint):
                self.report(child.where, (*path, key), f"unknown key {key!r}.{suggest(key, hints(hint))}")
        values: dict[str, Any] = {}
        for field in fields(hint):
            inner, required = (*path, field.name), field.default is field.default_factory is MISSING
            if field.name not in node.value:
                self.report(node.where, inner, "missing, and it has no default.")
                values[field.name] = None
                continue
            child, kind = node.value[field.name], field.metadata.get("kind", "")
            value = self.value(child, hints(hint)[field.name], inner, kind)
            if value is not WRONG:
                values[field.name] = value
            elif required:
                values[field.name] = None
        return hint(**values)

    def component(self, node: Node, hint: type[Component], path: KeyPath, kind: str) -> Any:
        name = node.value.get("name") if isinstance(node.value, dict) else None
        if name is None or not isinstance(name.value, str):
            what = f"should be the name of a {kind}, or a mapping with its name and options"
            known = ", ".join(registry.names(kind))
            self.report(node.where, path, f"{what}, got {_shown(node.plain())}. Known: {known}.")
            return hint("")
        settings = {
            key: self.value(node.value[key], hints(hint)[key], (*path, key))
            for key in own_keys(hint)
            if key in node.value
        }
        result = hint(**{key: value for key, value in settings.items() if value is not WRONG})
        try:
            if is_local(result.name):
                result.name = resolved(result.name, folder_of(name.where))
            if trust.is_of_a_run(file_of(name.where)):
                registry.refuse_strange(result.name)
            loaded = registry.load(kind, result.name)
            parameters = registry.options(loaded)
        except AvalignError as error:
            self.report(name.where, path, str(error))
            return result
        result.options = defaults_of(parameters)
        for key, child in node.value.items():
            if key in parameters:
                result.options[key] = self.option(child, parameters[key], (*path, key))
            elif key not in settings:
                known = suggest(key, {*parameters, *own_keys(hint)} - {"name"})
                self.report(child.where, (*path, key), f"{kind} {name.value!r} has no option {key!r}.{known}")
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in node.value:
                what = f"missing, and {kind} {name.value!r} has no default for it."
                self.report(name.where, (*path, key), what)
                result.options[key] = WRONG
        self.together(loaded, result.options, node.where, path)
        return result

    def together(self, component: type[Any], options: Mapping[str, Any], where: str, path: KeyPath) -> None:
        """What a component's class says of its options before it is built."""
        if not any(value is WRONG for value in options.values()):
            try:
                attribute(component, interfaces.Component, "check_options")(options)
            except ValueError as error:
                self.report(where, path, f"{error}.")

    def option(self, node: Node, parameter: Any, path: KeyPath) -> Any:
        if parameter.default is not parameter.empty and _same(node.plain(), parameter.default):
            return parameter.default  # whatever its annotation says: `heads: int = None`
        return self.value(
            node, Any if parameter.annotation is parameter.empty else parameter.annotation, path
        )

    def leaf(self, node: Node, hint: Any, path: KeyPath) -> Any:
        """Typed by pydantic. Strictly and from JSON: true is no number, and a list may become a tuple."""
        plain = node.plain()
        try:
            adapter = TypeAdapter(hint)
        except (PydanticSchemaGenerationError, PydanticUserError, NameError):
            return plain  # a class pydantic knows nothing of: the component's own business
        said: dict[str, None] = {}
        for candidate in (plain,) if node.text is None else (plain, node.text):  # `name: 5` may be text
            try:
                return adapter.validate_json(json.dumps(candidate), strict=True)
            except ValidationError as error:
                said = said or dict.fromkeys(_in_yaml_words(e["msg"]) for e in error.errors())
        words = literals(hint)
        near = suggest(plain, words) if words and isinstance(plain, str) else ""
        self.report(node.where, path, f"{' or '.join(said)}, got {_shown(plain)}.{near}")
        return WRONG


def _in_yaml_words(message: str) -> str:
    """pydantic speaks of JSON, in sentences about "Input"."""
    words = message.removeprefix("Input ")
    return words.replace("a valid array", "a list").replace("an object", "a mapping")


def _shown(plain: Any) -> str:
    text = "nothing" if plain is None else json.dumps(plain, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _same(plain: Any, default: Any) -> bool:
    """Whether a plain value is how a default is written. 1, 1.0 and true are three different values."""
    return json.dumps(plain) == json.dumps(as_plain_or_none(default))
