"""AVFC, audio-visual fact checking: is the claim about image and audio true?

    prompt    <image> <audio> The object in [0.10, 0.20, 0.50, 0.60] makes this sound. True or False?
    answer    True
    parse     `grammar.read_verdict`: true, yes, false, no; both or neither: unparsed, never "yes"
    score     right or wrong; precision, recall and F1 of True over all samples
    types     1 box and audio, 2 image and interval, 3 box and interval, 4 the whole scene and the audio

A worked example. Truths T T T T T F F F F F, answers T T T F F T F F F F: TP 3, FP 1, FN 2, TN 4, so
precision 3/4 = 0.75, recall 3/5 = 0.6, F1 = 6/9 = 0.667, accuracy 7/10. If the first answer were "perhaps" it
would be a miss: TP 2, FN 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from avalign.answers import read_verdict, write_verdict
from avalign.evaluation.metrics import overlap as metrics
from avalign.evaluation.metrics.bootstrap import Metric, mean_of_groups
from avalign.evaluation.tasks.task import Scored, Trivial, most_common
from avalign.interfaces import Task
from avalign.types import Sample


class Avfc(Task):
    name = "avfc"
    title = "AVFC: audio-visual fact checking"
    headline = "accuracy"
    group_name = "type"
    definitions = {  # noqa: RUF012
        "accuracy": "share of right verdicts; an unparsed answer is wrong",
        "macro accuracy": "mean over types of accuracy",
        "balanced accuracy": "mean of the shares of True and of False claims judged right",
        "precision": "of True",
        "recall": "of True; an unparsed answer is a miss",
        "F1": "of True, over all samples",
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        scored = []
        for sample, answer in zip(samples, answers, strict=True):
            verdict = read_verdict(answer)
            scored.append(Scored(verdict, {"right": float(verdict is truth(sample))}))
        return scored

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        counts = metrics.verdict_counts([s.parsed for s in scored], [truth(sample) for sample in samples])
        yield Metric("accuracy", counts, metrics.accuracy)
        if all(sample.kind for sample in samples):
            right = [s.values["right"] for s in scored]
            yield mean_of_groups("macro accuracy", right, [str(sample.kind) for sample in samples])
        yield Metric("balanced accuracy", counts, metrics.balanced_accuracy)
        yield Metric("precision", counts, metrics.precision)
        yield Metric("recall", counts, metrics.recall)
        yield Metric("F1", counts, metrics.f1)

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        always: dict[str, Trivial] = {"always True": lambda _: write_verdict(True)}
        if not train:
            return always
        majority = most_common([write_verdict(truth(sample)) for sample in train])
        return {"majority answer": lambda _: majority, **always}

    def group(self, sample: Sample) -> str | None:
        return sample.kind


def truth(sample: Sample) -> bool:
    verdict = read_verdict(sample.response)
    if verdict is None:
        raise ValueError(f"sample {sample.id}: its response {sample.response!r} is neither True nor False")
    return verdict
