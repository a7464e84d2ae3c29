"""AVQA: questions about picture and sound.

    prompt    <image> <audio> How many of the objects in the picture are heard?
    answer    two
    parse     `grammar.normalise_answer` (case, punctuation, articles, number words); nothing left: unparsed
    score     right when it equals the normal form of the response or of one of the references
    choices   where the sample has them (provenance "choices", a list of texts: AVQA), "B", "(b)" or "B. dog"
              names the second; the choice itself is right as well

A worked example. Truth "two", answer "The 2." -> both "2": right. Truth "left", answer "on the left" -> "on
left": wrong, for nothing but the stated normalisation is forgiven. Truth "dog" of the choices cat, dog, cow,
frog: "B", "(b)", "b) Dog" and "dog" are right; "C" is read as "cow"; "B. cow" says two things: wrong.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence

from avalign.batch import Sample
from avalign.grammar import normalise_answer
from avalign.meerkatbench.bootstrap import Metric, mean, mean_of_groups
from avalign.meerkatbench.task import Scored, Trivial, most_common


class Avqa:
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
            answered = normalise_answer(chosen(answer, choices))
            right = {
                normalise_answer(chosen(truth, choices)) for truth in (sample.response, *sample.references)
            }
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


_LETTER = re.compile(
    r"\s*(?:(?:answer|option|choice)\s*:?\s*)?\(?([a-z])(?:\s*[).:,-]\s*|\s+|$)(.*)",
    re.IGNORECASE | re.DOTALL,
)


def choices_of(sample: Sample) -> tuple[str, ...]:
    """The texts to choose from, in their order; none where the question is an open one."""
    choices = sample.provenance.get("choices", ())
    if not isinstance(choices, list | tuple) or not all(isinstance(text, str) for text in choices):
        raise ValueError(f"sample {sample.id}: its choices are not a list of texts: {choices!r:.80}")
    return tuple(choices)


def chosen(answer: str, choices: Sequence[str]) -> str:
    """The choice that an answer names by its letter, alone or before the same text; else the answer itself.

    A text that is a choice is that choice, whatever letter it begins with.
    """
    texts = [normalise_answer(choice) for choice in choices]
    found = _LETTER.fullmatch(answer)
    if normalise_answer(answer) in texts or found is None:
        return answer
    place = string.ascii_lowercase.index(found.group(1).lower())
    if place < len(choices) and normalise_answer(found.group(2)) in ("", texts[place]):
        return choices[place]
    return answer
