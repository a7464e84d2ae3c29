"""Recipes as files: read with every problem named at its place, and written with every default filled in.

    recipe = read("recipes/mine.yaml", ["model.fusion=none", "train.stages.align.steps=10"])

A file may say `extends: other.yaml`: mappings merge, lists replace, a changed component name drops the
parent's options, `avopt: null` drops a loss term. `key=value` is one more such child, and wins.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from avalign import registry
from avalign.batch import TASKS
from avalign.errors import AvalignError, suggest
from avalign.local import LocalFileError, beside, is_local, placed
from avalign.recipe import Component, Model, Recipe, weight_at
from avalign.recipe_tree import (
    as_plain,
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
    normalised,
    own_keys,
)
from avalign.recipe_yaml import (
    KeyPath,
    Node,
    YamlError,
    folder_of,
    parse,
    scalar,
    to_text,
)
from avalign.whole import write_whole

PARTS = tuple(f.name for f in fields(Model) if "kind" in f.metadata)  # what a stage's `train` may name
COMMAND_LINE = "command line"
WRONG = object()  # stands for a value already reported


class RecipeError(AvalignError, ValueError):
    """Every problem of a recipe, each as `file:line  dotted.path: what is wrong`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join([f"{len(self.problems)} problems", *self.problems][len(self.problems) == 1 :])


def read(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), changes: Sequence[Node] = (), by: str = ""
) -> Recipe:
    """The recipe of a file, checked, with every default filled in. RecipeError names all that is wrong.

    overrides: key=value, over everything else
    changes:   mappings of settings from another file, such as a study's, over the recipe's own. A key may
               be dotted, as an override's, and an entry of a list is named as there: `stages: {align: ...}`
    by:        the place that named the file, ahead of what is said of a file that cannot be read
    """
    reader = Reader()
    tree, recipe = reader.read(Path(path), overrides, changes, by)
    assert isinstance(recipe, Recipe)
    reader.check(tree, recipe)
    if reader.problems:
        raise RecipeError(reader.problems)
    return recipe


def dump(recipe: Recipe, named: Callable[[str], str] = str) -> str:
    """YAML that reads back as this recipe, the components' own defaults filled in.

    named: how the name of a component is written
    """
    return to_text(as_plain(recipe, named=named))


def write(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """`dump` into a file, whole or not at all: a run killed here leaves no half recipe.

    Components from files in the recipe's own folder are named from there, so that it can be moved.
    """
    path = Path(path)
    write_whole(path, dump(recipe, lambda name: beside(name, path.parent)))


# ---- reading -------------------------------------------------------------------------------------


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
        """A file over the files it extends, complete. `by` is the place that named the file."""
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
            if not isinstance(parent.value, str):
                raise self.give_up(
                    f"{by}should be the path of one {self.noun}, got {_shown(parent.plain())}."
                )
            other = Path(os.path.normpath(path.parent / parent.value))
            if other.resolve() in chain:
                circle = [*chain[chain.index(other.resolve()) :], other]
                raise self.give_up(f"{by}a circle: {' -> '.join(link.name for link in circle)}.")
            tree = merge(self.load(other, by, chain), tree, self.form)
        return completed(tree, self.form, str(path))

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
            if not all(path):
                self.note(node.where, (*behind, key), "a dotted key names a setting: train.batch_size.")
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
        key, path = ahead[0], (*behind, ahead[0])
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
                result.name = placed(result.name, folder_of(name.where))
            loaded = registry.load(kind, result.name)
            parameters = registry.options(loaded)
        except (registry.RegistryError, LocalFileError) as error:
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
        """What a component's class says of its options before it is built, if it has a `check_options`."""
        if hasattr(component, "check_options") and not any(value is WRONG for value in options.values()):
            try:
                component.check_options(options)
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

    # -- what no single value can tell

    def check(self, tree: Node, recipe: Recipe) -> None:
        def refuse(path: str, what: str) -> None:
            keys = tuple(path.split("/"))
            self.report(tree.at(keys).where, keys, what)

        def known(path: str, given: Iterable[str], names: Collection[str], noun: str) -> None:
            for key, name in enumerate(given) if isinstance(given, list) else ((k, k) for k in given):
                if name is not None and name not in names:
                    refuse(f"{path}/{key}", f"no {noun} is named {name!r}.{suggest(name, names)}")

        def folder(path: str, name: str | None) -> None:
            if name in ("", ".", "..") or re.search(r"[/\\\x00]", name or ""):
                refuse(path, f"{name!r} cannot name a folder.")

        train, evaluation = recipe.train, recipe.evaluation
        folder("name", recipe.name)
        if not recipe.losses:
            refuse("losses", "a recipe needs at least one loss.")
        if not train.stages:
            refuse("train/stages", "a recipe needs at least one stage.")
        for i, stage in enumerate(train.stages):
            path = f"train/stages/{i}"
            folder(f"{path}/name", stage.name)
            if stage.name in [earlier.name for earlier in train.stages[:i]]:
                refuse(f"{path}/name", f"an earlier stage is named {stage.name!r} too.")
            known(f"{path}/train", stage.train, PARTS, "part of the model")
            known(f"{path}/weights", stage.weights, recipe.losses, "loss of this recipe")
            known(f"{path}/tasks", stage.tasks, TASKS, "task")
            weights = {label: term.weight for label, term in recipe.losses.items()} | stage.weights
            step = _nothing_on(list(weights.values()), stage.steps or 0)
            if step is not None and recipe.losses:
                refuse(f"{path}/weights", f"every loss has weight 0 at step {step}: nothing would be learnt.")
            if not any(stage.tasks.values()):
                refuse(f"{path}/tasks", "no task has a share above 0.")
        known("evaluation/tasks", evaluation.tasks, TASKS, "task")
        if train.batch_size % train.gradient_accumulation:
            parts = train.gradient_accumulation
            refuse(
                "train/batch_size", f"{train.batch_size} is no multiple of gradient_accumulation, {parts}."
            )


def _nothing_on(weights: Sequence[float | dict[int, float]], steps: int) -> int | None:
    """The first of a stage's steps at which all weights are 0, if there is one."""
    # Straight lines that are never below 0: their sum comes down to 0 only where one of them bends.
    bends = {step for weight in weights if isinstance(weight, dict) for step in weight if step < steps}
    off = [s for s in sorted({0, *bends}) if not any(weight_at(weight, s) for weight in weights)]
    return off[0] if off else None


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
