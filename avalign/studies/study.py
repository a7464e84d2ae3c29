"""A study: a recipe, the arms that change it, the seeds. Read with every problem named at its location.

name: fusion
base: ../meerkat.yaml             # from this file
overrides: {train.batch_size: 8}  # of every arm
arms:                             # label: what it changes; nothing, the base as it is
  avace: {}
  none: {model.fusion: none, losses: {avace: {weight: 0}}}
  other: {recipe: mine.yaml}      # another recipe in the base's place
reference: avace                  # the arm that the others are compared with
seeds: 3                          # 0, 1 and 2; or a list of them
metrics: [arig, avfc/F1]          # task, or task/metric; if not given, each task's headline
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avalign.config.recipe import Recipe
from avalign.config.recipe_file import RecipeError, dump, read
from avalign.config.yaml import KeyPath, Node, YamlError, parse
from avalign.errors import AvalignError, suggest
from avalign.evaluation.evaluate import TASKS

KEYS = ("name", "about", "base", "overrides", "arms", "reference", "seeds", "metrics")
SEEDS = 3  # when neither the study nor the command says how many


class StudyError(AvalignError, ValueError):
    """Every problem of a study file, each as `file:line  dotted.path: what is wrong`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))  # one of the base is found again by every arm
        super().__init__(
            "\n".join([f"{len(self.problems)} problems", *self.problems][len(self.problems) == 1 :])
        )


@dataclass(frozen=True)
class Study:
    """arms: label -> recipe, as it is but for the seed. metrics: (task, metric), in the table's order."""

    name: str
    about: str  # what it asks, for the head of the table
    path: Path
    arms: dict[str, Recipe]
    reference: str
    seeds: tuple[int, ...]
    metrics: tuple[tuple[str, str], ...]

    def recipe(self, arm: str, seed: int) -> Recipe:
        return replace(self.arms[arm], name=f"{self.name}-{arm}", seed=seed)


def read_study(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """The study of a file, the recipe of every arm checked. StudyError names all that is wrong.

    overrides: key=value, over the study's own and every arm's
    seeds:     in place of the study's
    """
    return _Reader(Path(path)).study(overrides, seeds)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def note(self, where: str, path: KeyPath, what: str) -> None:
        self.problems.append(f"{where}  {'.'.join(path)}: {what}")

    def study(self, overrides: Sequence[str], seeds: Sequence[int] | None) -> Study:
        tree = self.tree()
        said = tree.value
        for key in said.keys() - set(KEYS):
            self.note(said[key].where, (key,), f"unknown key {key!r}.{suggest(key, KEYS)}")
        name = self.text(tree, "name")
        if name is None:
            self.note(tree.where, ("name",), "missing, and it has no default.")
        about = self.text(tree, "about") or ""
        labels = self.labels(tree)
        arms = self.arms(tree, labels, overrides)
        reference = self.text(tree, "reference")
        if reference is None:
            what = (
                f"missing: the arm that the others are compared with. Known: {', '.join(labels) or '(none)'}."
            )
            self.note(tree.where, ("reference",), what)
        elif reference not in labels:
            where = said["reference"].where
            self.note(where, ("reference",), f"no arm is named {reference!r}.{suggest(reference, labels)}")
        own = self.seeds(tree)
        metrics = self.metrics(tree, arms)
        if self.problems:
            raise StudyError(self.problems)
        assert name is not None
        assert reference is not None
        return Study(name, about, self.path, arms, reference, tuple(seeds or own), metrics)

    def tree(self) -> Node:
        try:
            text = self.path.read_text(encoding="utf-8")
            tree = parse(text, lambda line: f"{self.path}:{line}", self.note)
        except FileNotFoundError:
            beside = sorted(p.name for p in self.path.parent.glob("*.y*ml"))
            hint = suggest(self.path.name, beside) if beside else ""
            raise StudyError([f"{self.path}: no such file.{hint}"]) from None
        except UnicodeDecodeError:
            raise StudyError([f"{self.path}: not UTF-8 text."]) from None
        except IsADirectoryError:
            raise StudyError([f"{self.path}: a folder, not a study."]) from None
        except YamlError as error:
            raise StudyError([*self.problems, str(error)]) from None
        if not isinstance(tree.value, dict):
            raise StudyError([f"{self.path}: should be a mapping, with base, arms and reference."])
        if "arms" not in tree.value and {"model", "train", "losses", "extends"} & tree.value.keys():
            raise StudyError(
                [f"{self.path}: a recipe, not a study: it has no `arms`. Run it: avalign train."]
            )
        return tree

    # -- its parts

    def text(self, tree: Node, key: str) -> str | None:
        node = tree.value.get(key)
        if node is None:
            return None
        if not isinstance(node.value, str) or not node.value.strip():
            self.note(node.where, (key,), f"should be text, got {node.plain()!r}.")
            return None
        if key == "name":
            self.folder(node.value, node.where, (key,))
        return str(node.value).strip()

    def folder(self, name: str, where: str, path: KeyPath) -> None:
        if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
            self.note(where, path, f"{name!r} cannot name a folder.")

    def labels(self, tree: Node) -> dict[str, Node]:
        """The arms that say something readable, and for each a mapping of what it changes."""
        node = tree.value.get("arms")
        if node is None or not isinstance(node.value, dict) or not node.value:
            where = tree.where if node is None else node.where
            self.note(where, ("arms",), "should be a mapping of arms: each a label and what it changes.")
            return {}
        found: dict[str, Node] = {}
        for label, arm in node.value.items():
            path = ("arms", label)
            self.folder(label, arm.where, path)
            if any(label.casefold() == other.casefold() for other in found):
                self.note(arm.where, path, "its folder would be another arm's, but for upper and lower case.")
            if arm.value is None:
                arm = Node({}, arm.where)
            if isinstance(arm.value, dict):
                found[label] = arm
            else:
                self.note(arm.where, path, f"should be a mapping of settings, got {arm.plain()!r}.")
        return found

    def arms(self, tree: Node, labels: dict[str, Node], overrides: Sequence[str]) -> dict[str, Recipe]:
        common = tree.value.get("overrides") or Node({}, tree.where)
        if not isinstance(common.value, dict):
            self.note(common.where, ("overrides",), "should be a mapping of settings.")
            common = Node({}, common.where)
        self.refuse_fixed(common, ("overrides",))
        arms: dict[str, Recipe] = {}
        for label, node in labels.items():
            self.refuse_fixed(node, ("arms", label))
            settings = dict(node.value)
            own = settings.pop("recipe", None)
            file, key = (own, f"arms.{label}.recipe") if own is not None else (tree.value.get("base"), "base")
            if file is None or not isinstance(file.value, str):
                where = node.where if file is None else file.where
                problem = "base: missing" if file is None else f"{key}: should be a path"
                self.problems.append(f"{where}  {problem}: the recipe that the arms change, from this file.")
                continue
            path = Path(os.path.normpath(self.path.parent / file.value))
            try:
                changes = (common, Node(settings, node.where))
                arms[label] = read(path, overrides, changes, f"{file.where}  {key}: ")
            except RecipeError as error:
                self.problems += error.problems
        self.refuse_alike(labels, arms)
        return arms

    def refuse_fixed(self, node: Node, path: KeyPath) -> None:
        for key in ("name", "seed", "extends"):
            if key in node.value:
                why = {"seed": "it stands in `seeds`.", "name": "it is the study's and the arm's."}
                what = why.get(key, "a recipe to start from is given by `base`, or an arm's `recipe`.")
                self.note(node.value.pop(key).where, (*path, key), f"cannot be set here: {what}")

    def refuse_alike(self, labels: dict[str, Node], arms: dict[str, Recipe]) -> None:
        """Two arms of one recipe differ in nothing: the second would seem to be measured."""
        seen: dict[str, str] = {}
        for label, recipe in arms.items():
            first = seen.setdefault(dump(replace(recipe, name="", seed=0)), label)
            if first != label:
                self.note(labels[label].where, ("arms", label), f"the same recipe as the arm {first!r}.")

    def seeds(self, tree: Node) -> tuple[int, ...]:
        node = tree.value.get("seeds")
        if node is None:
            return tuple(range(SEEDS))
        plain = node.plain()
        if type(plain) is int and plain > 0:
            return tuple(range(plain))
        if isinstance(plain, list) and plain and all(type(seed) is int and seed >= 0 for seed in plain):
            if len(set(plain)) == len(plain):
                return tuple(plain)
            self.note(node.where, ("seeds",), f"a seed is given twice: {plain}.")
            return tuple(plain)
        self.note(node.where, ("seeds",), f"should be how many, or a list of seeds, got {plain!r}.")
        return ()

    def metrics(self, tree: Node, arms: dict[str, Recipe]) -> tuple[tuple[str, str], ...]:
        scored = [task for task in TASKS if any(task in recipe.evaluation.tasks for recipe in arms.values())]
        node = tree.value.get("metrics")
        if node is None:
            return tuple((task, TASKS[task].headline) for task in scored)
        if not isinstance(node.value, list) or not node.value:
            self.note(node.where, ("metrics",), "should be a list, as [arig, avfc/F1].")
            return ()
        found: list[tuple[str, str]] = []
        for i, item in enumerate(node.value):
            task, _, metric = str(item.plain()).partition("/")
            path = ("metrics", str(i))
            if task not in TASKS:
                self.note(item.where, path, f"no task is named {task!r}.{suggest(task, TASKS)}")
                continue
            known = TASKS[task].definitions
            if metric and metric not in known:
                self.note(item.where, path, f"{task} has no metric {metric!r}.{suggest(metric, known)}")
            elif arms and task not in scored:
                self.note(item.where, path, f"no arm is scored on {task!r} (evaluation.tasks).")
            found.append((task, metric or TASKS[task].headline))
        return tuple(dict.fromkeys(found))
