"""AVQA: questions about picture and sound.

    prompt    <image> <audio> How many of the objects in the picture are heard?
    answer    two
    parse     `grammar.normalise_answer` (case, punctuation, articles, number words); nothing left: unparsed
    score     right when it equals the normal form of the response or of one of the references

A worked example. Truth "two", answer "The 2." -> both "2": right. Truth "left", answer "on the left" -> "on
left": wrong, for nothing but the stated normalisation is forgiven.
"""

from __future__ import annotations

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
        "punctuation, articles, number words to twenty)",
        "macro accuracy": "mean over question types of accuracy",
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        scored = []
        for sample, answer in zip(samples, answers, strict=True):
            answered = normalise_answer(answer)
            right = {normalise_answer(truth) for truth in (sample.response, *sample.references)}
            scored.append(Scored(answered or None, {"right": float(answered != "" and answered in right)}))
        return scored

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        right = [s.values["right"] for s in scored]
        yield mean("accuracy", right)
        if all(sample.kind for sample in samples):
            yield mean_of_groups("macro accuracy", right, [str(sample.kind) for sample in samples])

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
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
