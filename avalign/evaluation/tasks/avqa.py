"""AVQA: questions about image and audio.

    prompt    <image> <audio> How many of the objects in the picture are heard?
    answer    two
    parse     `grammar.answer_in` (without thoughts and "The answer is"); "Yes, ..." is yes, "No, ..." is no;
              `grammar.normalise_answer` (case, punctuation, articles, number words); nothing left: unparsed
    score     right when it equals the normal form of the response or of one of the references
    choices   where the sample has them (provenance "choices", strings: AVQA), "B", "(b)", "B. dog" or
              "dog (B)" names the second; the choice itself is right as well. Choices that normalisation would
              make one ("C", "C++") or nothing ("A") are compared by all they are written with

A worked example. Truth "two", answer "The 2." -> both "2": right. Truth "left", answer "on the left" -> "on
left": wrong, for nothing but the stated normalisation is forgiven. Truth "dog" of the choices cat, dog, cow,
frog: "B", "(b)", "b) Dog" and "dog" are right; "C" is read as "cow"; "B. cow" and "A. dog" say two things:
wrong.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from avalign.answers import answer_in, normalise_answer
from avalign.evaluation.metrics.bootstrap import Metric, mean, mean_of_groups
from avalign.evaluation.tasks.task import Scored, Trivial, most_common
from avalign.interfaces import Task
from avalign.types import Sample


class Avqa(Task):
    name = "avqa"
    title = "AVQA: audio-visual question answering"
    headline = "accuracy"
    group_name = "question"
    definitions = {  # noqa: RUF012
        "accuracy": "micro: share of all samples whose answer equals the truth after normalisation (case, "
        "punctuation, articles, number words to twenty); of multiple choice the letter or the text",
        "macro accuracy": "mean over question types of accuracy",
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        scored = []
        for sample, answer in zip(samples, answers, strict=True):
            choices = choices_of(sample)
            answered = said(answer, choices)
            right = {compared(truth, choices) for truth in (sample.response, *sample.references)}
            scored.append(Scored(answered or None, {"right": float(answered != "" and answered in right)}))
        return scored

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        right = [s.values["right"] for s in scored]
        yield mean("accuracy", right)
        if all(sample.kind for sample in samples):
            yield mean_of_groups("macro accuracy", right, [str(sample.kind) for sample in samples])

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        if not train:
            return {}
        overall = most_common([normalise_answer(sample.response) for sample in train])
        kinds = {sample.kind for sample in train}
        by_kind = {
            kind: most_common([normalise_answer(s.response) for s in train if s.kind == kind])
            for kind in kinds
        }
        return {
            "majority answer": lambda _: overall,
            "majority answer of the question type": lambda sample: by_kind.get(sample.kind, overall),
        }

    def group(self, sample: Sample) -> str | None:
        return sample.kind


_YES_NO = re.compile(r"(yes|no)\s*[.,!;:]", re.IGNORECASE)
_OPTION = r"(?:(?i:answer|option|choice)\s*:?\s*)?"
_LETTER = re.compile(
    rf"\s*{_OPTION}(?P<open>[(\[]?)(?P<letter>[a-zA-Z])(?P<gap>\s*[).\]:,-]+\s*|\s+|$)(?P<behind>.*)",
    re.DOTALL,
)
_LETTER_BEHIND = re.compile(rf"(.*?)[\s(\[,:;-]+{_OPTION}[(\[]?(?P<letter>[a-zA-Z])\W*", re.DOTALL)
_LONGEST = 200  # characters of a choice with its letter behind it
_MARK = re.compile(r"(?<![\w'\u2019.-])(?P<letter>[B-HJ-Z](?![\w'\u2019-])|[a-zA-Z](?=\s*(?:[).\]:,]|$)))")


def choices_of(sample: Sample) -> tuple[str, ...]:
    """The texts to choose from, in their order; none where the question is an open one."""
    choices = sample.provenance.get("choices", ())
    if not isinstance(choices, list | tuple) or not all(isinstance(text, str) for text in choices):
        raise ValueError(f"sample {sample.id}: its choices are not a list of strings: {choices!r:.80}")
    return tuple(choices)


def said(answer: str, choices: Sequence[str]) -> str:
    """The normal form of what is answered; of a sentence that begins with yes or no, that."""
    answer = answer_in(answer)
    if choices:
        return compared(answer, choices)
    begins = _YES_NO.match(answer)
    return normalise_answer(begins.group(1) if begins else answer)


def compared(answer: str, choices: Sequence[str]) -> str:
    """The form of the choice that is named; of an answer that names none, or two, all its words."""
    if not choices:
        return normalise_answer(answer)
    index = chosen(answer, choices)
    if index is not None:
        return _forms(choices)[index]
    return normalise_answer(answer, articles=True) if normalise_answer(answer) else ""


def chosen(answer: str, choices: Sequence[str]) -> int | None:
    """Which choice an answer names by its text, by its letter, or by both where they agree.

    A text that is a choice is that choice, whatever letter it begins with.
    """
    literal = [_literal(choice) for choice in choices]
    if _literal(answer) in literal:
        return literal.index(_literal(answer))
    forms = _forms(choices)
    found = _LETTER.fullmatch(answer)
    if found and (index := _index(found, choices)) is not None:
        behind, gap = found["behind"], found["gap"]
        told = (
            found["open"] or re.search(r"[).\]:,\n]|\s-|-\s", gap) or re.match(r"(?i)(?:an?|the)\s", behind)
        )
        if any(_index(mark, choices) not in (None, index) for mark in _MARK.finditer(behind)):
            return None
        if not behind or normalise_answer(behind) in ("", forms[index]) or _literal(behind) == literal[index]:
            return index
        if told:
            return (
                index if re.search(r"[).\]:]", gap) and _is_of_none(normalise_answer(behind), forms) else None
            )
    by_text = _by_text(answer, choices)
    found = _LETTER_BEHIND.fullmatch(answer) if len(answer) <= _LONGEST else None
    if found and (index := _index(found, choices)) is not None:
        before = _by_text(found.group(1), choices)
        if before is not None:
            return index if before == index else None
    return by_text


def _literal(text: str) -> str:
    """All that a text is written with, but case, spaces and the marks around it."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.split()).strip("\"'` ").rstrip(".!?,;") or text


def _forms(choices: Sequence[str]) -> list[str]:
    """The form of each choice: the normal one, or the literal where that is another's or nothing."""
    normal, literal = [normalise_answer(c) for c in choices], [_literal(c) for c in choices]
    literals: dict[str, set[str]] = {}
    for n, text in zip(normal, literal, strict=True):
        literals.setdefault(n, set()).add(text)
    return [n if n and len(literals[n]) == 1 else text for n, text in zip(normal, literal, strict=True)]


def _by_text(answer: str, choices: Sequence[str]) -> int | None:
    normal, forms = normalise_answer(answer), _forms(choices)
    matches = [k for k, choice in enumerate(choices) if normal and normalise_answer(choice) == normal]
    return matches[0] if len({forms[k] for k in matches}) == 1 else None


def _index(letter: re.Match[str], choices: Sequence[str]) -> int | None:
    index = ord(letter["letter"].lower()) - ord("a")
    return index if index < len(choices) else None


def _is_of_none(behind: str, choices: Sequence[str]) -> bool:
    """Whether what stands behind a letter explains it rather than names a choice."""
    return not any(choice and re.search(rf"\b{re.escape(choice)}\b", behind) for choice in choices)
