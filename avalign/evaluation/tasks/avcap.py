"""AVCap: describe what is seen and heard.

    prompt    <image> <audio> Describe the scene and its sound.
    answer    A dog barks beside a red ball.
    parse     `captions.words`: lower case, no punctuation; no word left: unparsed
    score     CIDEr-D, BLEU@1-4, ROUGE-L against the response and the references; METEOR where it can run

A worked example. Reference "a dog barks loudly", answer "a dog barks": all 3 words, 2 pairs and the one
triple match, so the BLEU precisions are 1 and the brevity penalty exp(1 - 4/3) = 0.717: BLEU@1-3 = 0.717, and
BLEU@4 = 0 as no four words are there. ROUGE-L: P = 1, R = 3/4, (1 + 1.44) * 0.75 / (0.75 + 1.44) = 0.836.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from avalign.evaluation.metrics.bootstrap import Metric, mean
from avalign.evaluation.metrics.captions import (
    ORDERS,
    Cider,
    Words,
    bleu,
    bleu_counts,
    meteor,
    rouge_l,
    words,
)
from avalign.evaluation.tasks.task import Scored, Trivial
from avalign.interfaces import Task
from avalign.types import Sample

_CANDIDATES = 60  # different training captions tried as the most typical one


class Avcap(Task):
    name = "avcap"
    title = "AVCap: audio-visual captioning"
    headline = "CIDEr-D"
    group_name = ""
    definitions = {  # noqa: RUF012
        "CIDEr-D": "n = 1..4, sigma 6, x 10: at most 10, less where references differ; document frequencies "
        "of this test list's references, kept in resampling",
        **{f"BLEU@{n}": "corpus level, closest reference length, no smoothing" for n in ORDERS},
        "ROUGE-L": "beta 1.2, best P and best R over references taken apart",
        "METEOR": "1.5, by its Java program; n/a without Java and the jar that pycocoevalcap brings, or that "
        "AVALIGN_METEOR_JAR names",
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        references = [_references(sample) for sample in samples]
        cider = Cider(references) if len(samples) > 1 else None
        scored = []
        for answer, refs in zip(answers, references, strict=True):
            said = words(answer)
            values = {"ROUGE-L": rouge_l(said, refs)}
            if cider is not None:
                values["CIDEr-D"] = cider.score(said, refs)
            scored.append(Scored(" ".join(said) or None, values))
        return scored

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        if all("CIDEr-D" in s.values for s in scored):
            yield mean("CIDEr-D", [s.values["CIDEr-D"] for s in scored])
        else:
            yield Metric("CIDEr-D", None)
        answers, references = [words(s.parsed or "") for s in scored], [_references(s) for s in samples]
        counts = np.array([bleu_counts(a, r) for a, r in zip(answers, references, strict=True)], dtype=float)
        for order in ORDERS:
            yield Metric(f"BLEU@{order}", counts, partial(bleu, order=order))
        yield mean("ROUGE-L", [s.values["ROUGE-L"] for s in scored])
        yield Metric("METEOR", None, fixed=meteor(answers, references))

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        if not train:
            return {}
        captions = [words(sample.response) for sample in train]
        if len(captions) < 2:
            return {"most typical caption of training": lambda _: train[0].response}
        cider = Cider([[caption] for caption in captions])

        def typical(index: int) -> float:
            return sum(
                cider.score(captions[index], [other]) for j, other in enumerate(captions) if j != index
            )

        different = {caption: index for index, caption in reversed(list(enumerate(captions)))}
        best = max(itertools.islice(sorted(different.values()), _CANDIDATES), key=typical)
        return {"most typical caption of training": lambda _: train[best].response}

    def group(self, sample: Sample) -> str | None:
        return None


def _references(sample: Sample) -> list[Words]:
    references = [words(text) for text in (sample.response, *sample.references)]
    if not all(references):
        raise ValueError(f"sample {sample.id}: a reference caption holds no word")
    return references
