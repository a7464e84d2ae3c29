"""`avalign data show`: samples of a manifest on one page of HTML, with all they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from avalign import __version__
from avalign.avfit.show_card import CARD_STYLE, below, card
from avalign.batch import TASKS
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import SPLITS, Record
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError, suggest
from avalign.meerkatbench.page import whole_page
from avalign.whole import write_whole

FILTERS = ("task", "source", "split")


def show(
    folder: Path,
    root: Path,
    out: Path,
    *,
    task: str | None = None,
    split: str | None = None,
    source: str | None = None,
    label: str | None = None,
    count: int = 24,
    seed: int = 0,
    seconds: float = 10.0,
    follow_links: bool = False,
) -> int:
    """Write `count` records of the manifest in `folder`, drawn by `seed`, as a page. Returns how many it has.

    Each task that fits has its share of them, as far as it has so many. root: what media paths start from;
    a file that cannot be read is told on the page in its place. seconds: of each sound, from its begin.
    follow_links: also read what a link leads to outside the root
    """
    for name, value, known in (("task", task, TASKS), ("split", split, SPLITS)):
        if value is not None and value not in known:
            raise AvalignError(f"no {name} {value!r}.{suggest(value, known)}")
    table = Table(folder)
    phrasings = Phrasings(folder if folder.is_dir() else folder.parent)
    chosen = _chosen(table, task, split, source, label, count, seed)
    find = partial(below, root, follow_links)
    tasks = [name for name in TASKS if any(record.task == name for record in chosen)]
    body = [
        f"<style>{CARD_STYLE}</style>",
        f"<header><h1>{escape(folder.resolve().name)}</h1><p>{_subtitle(chosen, table, seed)}</p></header>",
        _filters(chosen),
    ]
    for name in tasks:
        cards = [card(record, find, seconds, phrasings) for record in chosen if record.task == name]
        body += [
            f"<section><h2 id={name}>{name.upper()}</h2>",
            f"<div class=samples>{''.join(cards)}</div></section>",
        ]
    body.append(f"<script>{_SCRIPT}</script>")
    write_whole(out, whole_page(folder.resolve().name, [(name, name.upper()) for name in tasks], body))
    return len(chosen)


def _chosen(
    table: Table,
    task: str | None,
    split: str | None,
    source: str | None,
    label: str | None,
    count: int,
    seed: int,
) -> list[Record]:
    """Records that fit, in turn from every task; in the order of tasks and then as drawn."""
    rng = np.random.default_rng(seed)
    draws: list[Iterator[Record]] = []
    seen: dict[str, set[str]] = {"source": set(), "label": set()}
    for number, name in enumerate(TASKS):
        fits = table.task == number
        if split is not None:
            fits &= table.split == SPLITS.index(split)
        if task in (None, name) and fits.any():
            draws.append(_drawn(table, rng.permutation(np.flatnonzero(fits)), source, label, seen))
    found: list[Record] = []
    while draws and len(found) < count:
        for draw in list(draws):
            record = next(draw, None)
            if record is None:
                draws.remove(draw)
            elif len(found) < count:
                found.append(record)
    if not found and count > 0:
        asked = {"task": task, "split": split, "source": source, "label": label}
        said = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value is not None)
        hints = "".join(
            suggest(value, list(seen[name])[:200])
            for name, value in (("source", source), ("label", label))
            if value is not None and value not in seen[name]
        )
        raise AvalignError(f"{table.root}: no record has {said}.{hints}")
    return found


def _drawn(
    table: Table, rows: np.ndarray, source: str | None, label: str | None, seen: dict[str, set[str]]
) -> Iterator[Record]:
    for row in rows.tolist():
        record = table[row]
        seen["source"].add(record.source)
        if source in (None, record.source):
            if record.label is not None:
                seen["label"].add(record.label)
            if label in (None, record.label):
                yield record


def _subtitle(chosen: list[Record], table: Table, seed: int) -> str:
    return escape(f"{len(chosen)} of {len(table):,} records, drawn by seed {seed}, avalign {__version__}")


def _filters(chosen: list[Record]) -> str:
    parts = []
    for name in FILTERS:
        values = sorted({str(getattr(record, name)) for record in chosen})
        options = "".join(f"<option>{escape(value)}</option>" for value in values)
        options = f'<option value="">all</option>{options}'
        parts.append(f"<label>{name} <select data-filter={name}>{options}</select></label>")
    return f"<form class=filters>{''.join(parts)}<output></output></form>"


_SCRIPT = """
const all=what=>[...document.querySelectorAll(what)],selects=all("select"),cards=all("article");
function choose(){
  let shown=0;
  for(const card of cards){
    card.hidden=!selects.every(s=>!s.value||card.dataset[s.dataset.filter]===s.value);
    shown+=!card.hidden;
  }
  for(const part of all("section"))part.hidden=!part.querySelector("article:not([hidden])");
  document.querySelector("output").textContent=shown+" of "+cards.length+" shown";
}
for(const s of selects)s.addEventListener("change",choose);
choose();
for(const player of all("audio")){
  const line=player.closest("article").querySelector(".now");
  const move=()=>{line.style.left=100*player.currentTime/player.dataset.seconds+"%";
    if(!player.paused)requestAnimationFrame(move)};
  for(const event of ["play","seeked","timeupdate"])player.addEventListener(event,move);
}
"""
