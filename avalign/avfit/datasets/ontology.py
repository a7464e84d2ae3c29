"""Classes by their ids in AudioSet's and OpenImages' ontology ("mids"), as both publish them."""

from __future__ import annotations

from pathlib import Path

from avalign.avfit.annotation_files import rows_of
from avalign.errors import AvalignError


def names_by_mid(file: Path, *, delimiter: str = ",") -> dict[str, str]:
    """mid -> name, from rows that end in both: with or without an index before them, and a header.

    Read so: class-descriptions-boxable.csv (mid,name; some copies begin with a header),
    class_labels_indices.csv (index,mid,display_name) and mid_to_display_name.tsv (mid TAB name).
    """
    found: dict[str, str] = {}
    for index, (number, row) in enumerate(rows_of(file, delimiter=delimiter)):
        mid, name = row[-2:] if len(row) in (2, 3) else ("", "")
        if mid.startswith("/") and name:
            if found.setdefault(mid, name) != name:
                raise AvalignError(f"{file}:{number}: {mid} is {name!r} here and {found[mid]!r} before")
        elif index or not name:  # the first row may name the columns
            raise AvalignError(f"{file}:{number}: {','.join(row)[:80]!r} is not a class's mid and its name")
    if not found:
        raise AvalignError(f"{file}: names no class")
    return found
