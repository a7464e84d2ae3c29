"""What the options of data sets share: which files are read, patterns of names, whose split is which."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from string import Formatter
from typing import TypeVar

from avalign.errors import AvalignError, suggest
from avalign.types import SPLITS

Split = TypeVar("Split", bound=Hashable)


def existing(file: Path, option: str) -> Path:
    """The file; AvalignError if it is missing. option: what decides that it is to be read"""
    if not file.is_file():
        raise AvalignError(f"{file}: no such file (decided by {option})")
    return file


def fields_of(pattern: str) -> set[str]:
    """ "audio/{youtube}_{start_seconds:0>6}.wav" -> {"youtube", "start_seconds"}"""
    return {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}


def checked_pattern(option: str, pattern: str, known: Collection[str]) -> str:
    """The pattern, if its fields are known ones. option: "openimages: image", for the error that says else"""
    try:
        used = fields_of(pattern)
        for name in sorted(used - set(known)):
            raise AvalignError(f"{option}: {pattern!r} has no field {name!r} to fill.{suggest(name, known)}")
        pattern.format_map(dict.fromkeys(known, "name"))  # a "{name:d}" shows here
    except (ValueError, IndexError, AttributeError, TypeError, KeyError) as error:
        raise AvalignError(f"{option}: {pattern!r} is no pattern of a file's name: {error}") from error
    if not used:
        raise AvalignError(f"{option}: {pattern!r} names the same file for all.{suggest('', known)}")
    return pattern


def checked_splits(
    option: str, splits: Mapping[Split, str], published: Collection[Split]
) -> dict[Split, str]:
    """Published split -> one of SPLITS, for at least one; AvalignError names what is neither."""
    if not isinstance(splits, Mapping) or not splits:
        raise AvalignError(f"{option}: {splits!r} does not say which published split is which of ours")
    for theirs, ours in splits.items():
        if theirs not in published:
            known = suggest(str(theirs), map(str, published))
            raise AvalignError(f"{option}: no split {theirs!r} was published.{known}")
        if ours not in SPLITS:
            raise AvalignError(f"{option}: {theirs} cannot become {ours!r}.{suggest(str(ours), SPLITS)}")
    return dict(splits)
