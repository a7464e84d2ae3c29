"""What a phrasing must and must not hold: its media, its task's tokens, nothing of the answer, nothing twice.

A phrasing is an instruction with tokens in the place of what changes from sample to sample:

    <image><audio>Does the <class> in the box <box> make the sound? Answer True or False.

Written phrasings and generated ones are checked by the same rules (`faults`, `wording`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from avalign.answers import normalise_answer, read_verdict
from avalign.errors import AvalignError, suggest

MEDIA = ("<image>", "<audio>")
SLOTS = {"<class>": "class", "<box>": "box", "<time>": "time", "<question>": "question"}  # of Record.slots
TOKENS = (*MEDIA, *SLOTS)
LONGEST = 300  # characters


@dataclass(frozen=True, slots=True)
class Needs:
    """Tokens that each phrasing of a section holds once, beside <image> and <audio>, and those it may hold.

    may: the answer is the same with and without it, or the question would be of another task
    """

    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


# A section is a task, or a task and a kind of it. What is neither in `must` nor in `may` would be the answer,
# or is not known: ARIG's answer is a class and a box, IGATL's a time.
NEEDS: dict[str, Needs] = {
    "arig": Needs(),
    "igatl": Needs(may=("<class>",)),
    "igatl audio": Needs(must=("<class>",)),
    "igatl visual": Needs(must=("<class>",)),
    "igatl audio-visual": Needs(must=("<class>",)),
    "avfc type1": Needs(must=("<box>",), may=("<class>",)),
    "avfc type2": Needs(must=("<class>", "<time>")),
    "avfc type3": Needs(must=("<box>", "<time>"), may=("<class>",)),
    "avfc type4": Needs(),
    "avqa": Needs(must=("<question>",)),
    "avcap": Needs(),
}
ANSWERS = {"arig": ("<class>", "<box>"), "igatl": ("<time>",)}
WITH_KINDS = ("igatl", "avfc")  # tasks whose kinds are asked differently

# Things that sound in the public data sets. A phrasing that names one gives it away, or suits it alone.
_SOUNDING = """
accordion airplane aeroplane alarm baby banjo bark barking bee bicycle bird boat bus car cat cello chainsaw
chicken child clarinet clock cow cricket crow crying dog drum drums duck engine fire flute fly frog gun
guitar hammer harmonica helicopter hen horn horse keyboard lawnmower lion man meow motorbike motorcycle
mouse owl piano pig rain rooster sax saxophone sheep singer singing siren speech toilet train trombone truck
trumpet tuba turkey tv ukulele vacuum vehicle violin voice whistle woman wolf
"""
SOUNDING = frozenset(_SOUNDING.split())


def section_of(task: str, kind: str | None) -> str:
    """Where the phrasings of a task and kind stand: "avfc type1", "arig". AvalignError if nowhere."""
    if task not in {section.split()[0] for section in NEEDS}:
        raise AvalignError(f"no task {task!r}.{suggest(task, (s.split()[0] for s in NEEDS))}")
    section = f"{task} {kind}" if task in WITH_KINDS and kind is not None else task
    if section not in NEEDS:
        kinds = [known.partition(" ")[2] for known in NEEDS if known.startswith(f"{task} ")]
        said = "the phrasings of avfc stand by kind" if kind is None else f"{task} has no kind {kind!r}"
        raise AvalignError(f"{said}.{suggest(kind or '', kinds)}")
    return section


def tokens_of(text: str) -> list[str]:
    """Whatever stands in angle brackets, in its order: "<image><audio>Is <b>" -> its three."""
    return re.findall(r"<[^<>\s]*>", text)


def wording(text: str) -> str:
    """What two phrasings of the same words share, wherever their media stand and however they are punctuated.

    "<image><audio>Is it <box>?" -> "is it box"
    """
    return normalise_answer(re.sub("|".join(MEDIA), " ", text))


def faults(text: str, section: str) -> list[tuple[str, str]]:
    """What is wrong with a phrasing of a section: (a few fixed words to count by, what exactly)."""
    found = []
    if not text.isprintable() or text != text.strip():
        found.append(("not one plain line", "holds line breaks, control signs or blanks at its ends"))
    if len(text) > LONGEST:
        found.append(("too long", f"has {len(text)} characters, {LONGEST} are allowed"))
    if not wording(text):
        found.append(("no words", "says nothing"))
    return found + _token_faults(text, section) + _leaks(text, section)


def _token_faults(text: str, section: str) -> list[tuple[str, str]]:
    needs, found = NEEDS[section], []
    tokens = tokens_of(text)
    if text.count("<") != len(tokens) or text.count(">") != len(tokens):
        found.append(("unknown token", "holds a '<' or '>' that belongs to no token"))
    for token in dict.fromkeys((*MEDIA, *needs.must, *tokens)):
        count = tokens.count(token)
        if token not in TOKENS:
            found.append(
                ("unknown token", f"has no token {token!r}.{suggest(token, TOKENS).removesuffix('.')}")
            )
        elif token not in (*MEDIA, *needs.must, *needs.may):
            answer = token in ANSWERS.get(section.split()[0], ())
            why = "is the answer" if answer else f"has no place in {section}"
            found.append(("answer leaked" if answer else "token added", f"{token} {why}"))
        elif count == 0:
            found.append(("token lost", f"lacks {token}"))
        elif count > 1:
            found.append(("token repeated", f"has {token} {count} times"))
    return found


# "no explanation" is no verdict
_VERDICT = re.compile(r"(?:\bnot\s+|n['\u2019]t\s+)?\b(?:true|false|yes|no(?!\s+[a-z]))\b", re.IGNORECASE)


def _leaks(text: str, section: str) -> list[tuple[str, str]]:
    """Numbers and classes in the words; of fact checking, a verdict that is not one of two to choose from."""
    words = re.sub("|".join(TOKENS), " ", text)
    found = []
    if number := re.search(r"\d[\d.,]*", words):
        found.append(("answer leaked", f"holds the number {number.group()!r}"))
    if named := [word for word in re.findall(r"[a-z]+", words.lower()) if word in SOUNDING]:
        found.append(("answer leaked", f"names the class {named[0]!r}"))
    if section.startswith("avfc"):
        said = [read_verdict(verdict) for verdict in _VERDICT.findall(words)]
        if said.count(True) != said.count(False):
            more = said.count(True) > said.count(False)
            found.append(("answer leaked", f"says {more} more often than {not more}"))
    return found
