"""Scores of captions as in coco-caption: BLEU@1-4, ROUGE-L, CIDEr-D, and METEOR where it can run.

Two things differ from coco-caption. The words are ours (`words`: lower case, no punctuation), not the Penn
Treebank tokenizer's, which needs Java. BLEU adds no 1e-15 to its counts: it is 0, not 0.0001, where no n-gram
matches, and 1 for a perfect answer.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avalign.system.terminal import warn

Words = tuple[str, ...]
ORDERS = (1, 2, 3, 4)
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0


def words(text: str) -> Words:
    """Lower case; every character but letters, digits and apostrophes inside a word parts words."""
    return tuple(re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower()))


def ngrams(caption: Words, order: int) -> Counter[Words]:
    return Counter(caption[i : i + order] for i in range(len(caption) - order + 1))


# ---- BLEU ----


def bleu_counts(answer: Words, references: Sequence[Words]) -> list[float]:
    """Ten counts whose sums over a corpus give BLEU: matches of order 1-4, n-grams of order 1-4, length of
    the answer, length of the closest reference (the shorter of two equally close)."""
    matches, totals = [], []
    for order in ORDERS:
        found = ngrams(answer, order)
        most: Counter[Words] = Counter()
        for reference in references:
            most |= ngrams(reference, order)
        matches.append((found & most).total())
        totals.append(found.total())
    closest = min((abs(len(r) - len(answer)), len(r)) for r in references)[1]
    return [*matches, *totals, len(answer), closest]


def bleu(counts: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU@order of sums (..., 10) of `bleu_counts`: geometric mean of the precisions, times
    exp(1 - reference length / answer length) for answers that are too short. Papineni et al. 2002."""
    matches, totals = counts[..., :order], counts[..., 4 : 4 + order]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.exp(np.log(matches / totals).mean(-1))
        brevity = np.exp(np.minimum(0.0, 1 - counts[..., 9] / counts[..., 8]))
    return np.where((matches > 0).all(-1), mean * brevity, 0.0)


# ---- ROUGE-L ----


def rouge_l(answer: Words, references: Sequence[Words]) -> float:
    """(1 + beta^2) P R / (R + beta^2 P), beta = 1.2, of the longest common subsequence; the best P and the
    best R over references are taken apart. Lin 2004, as in coco-caption."""
    if not answer:
        return 0.0
    common = [_longest_common_subsequence(answer, r) for r in references]
    p = max(c / len(answer) for c in common)
    r = max((c / len(ref) for c, ref in zip(common, references, strict=True) if ref), default=0.0)
    return (1 + ROUGE_BETA**2) * p * r / (r + ROUGE_BETA**2 * p) if p > 0 and r > 0 else 0.0


def _longest_common_subsequence(a: Words, b: Words) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(row[j], row[j - 1])
            diagonal = above
    return row[-1]


# ---- CIDEr-D ----


class Cider:
    """CIDEr-D: n = 1..4, sigma = 6, times 10, so 10 is the most; Vedantam et al. 2015, as in coco-caption.

    documents: the references of each item of the test set; an n-gram's document frequency is the number of
    items with it in any reference. At least two items: with one, every n-gram is everywhere and weighs
    nothing.
    """

    def __init__(self, documents: Sequence[Sequence[Words]]) -> None:
        if len(documents) < 2:
            raise ValueError(f"CIDEr-D needs at least two items, got {len(documents)}")
        self.frequency: Counter[Words] = Counter()
        for references in documents:
            self.frequency.update({gram for r in references for order in ORDERS for gram in ngrams(r, order)})
        self.log_items = math.log(len(documents))
        self._seen: dict[Words, tuple[list[dict[Words, float]], list[float], int]] = {}

    def score(self, answer: Words, references: Sequence[Words]) -> float:
        """Mean over references, then over n, of the clipped cosine similarity of TF-IDF vectors."""
        total = sum(self._similarity(answer, reference) for reference in references)
        return 10 * total / (len(references) * len(ORDERS))

    def _similarity(self, answer: Words, reference: Words) -> float:
        vectors_a, norms_a, pairs_a = self._vectors(answer)
        vectors_r, norms_r, pairs_r = self._vectors(reference)
        total = 0.0
        for a, r, norm_a, norm_r in zip(vectors_a, vectors_r, norms_a, norms_r, strict=True):
            if norm_a > 0 and norm_r > 0:
                total += sum(min(x, r[gram]) * r[gram] for gram, x in a.items() if gram in r) / (
                    norm_a * norm_r
                )
        return total * math.exp(-((pairs_a - pairs_r) ** 2) / (2 * CIDER_SIGMA**2))

    def _vectors(self, caption: Words) -> tuple[list[dict[Words, float]], list[float], int]:
        """Per order the TF-IDF vector and its norm; and the number of word pairs, coco-caption's length."""
        if caption not in self._seen:
            vectors = [
                {
                    g: n * (self.log_items - math.log(max(1, self.frequency[g])))
                    for g, n in ngrams(caption, k).items()
                }
                for k in ORDERS
            ]
            norms = [math.sqrt(sum(x * x for x in vector.values())) for vector in vectors]
            self._seen[caption] = (vectors, norms, max(0, len(caption) - 1))
        return self._seen[caption]


# ---- METEOR ----


class MeteorError(Exception):
    """METEOR's program was there, and gave no score."""


def meteor(answers: Sequence[Words], references: Sequence[Sequence[Words]]) -> float | None:
    """Corpus METEOR 1.5 by its own Java program, asked as coco-caption asks it; None where it cannot run, and
    a warning where it fails.

    It runs where Java is installed and meteor-1.5.jar found: that of `pip install pycocoevalcap`, or the one
    that AVALIGN_METEOR_JAR names ("off": no METEOR). It takes some 10 s and 2 GB. No other measure is ever
    given this name.
    """
    java, jar = shutil.which("java"), _meteor_jar()
    if java is None or jar is None:
        return None
    # Java writes numbers as the locale does, 0,5 in many, and METEOR cannot read back its own.
    locale = ["-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8"]
    command = [java, "-Xmx2G", *locale, "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, cwd=jar.parent, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8"
        ) as program:
            try:
                return _asked(program, answers, references)
            finally:
                program.kill()  # it ends by itself only when it is asked for nothing more
    except (OSError, ValueError, MeteorError) as error:
        warn(f"METEOR is n/a: its program failed: {error}")
        return None


def _asked(
    program: subprocess.Popen[str], answers: Sequence[Words], references: Sequence[Sequence[Words]]
) -> float:
    assert program.stdin is not None
    assert program.stdout is not None
    asked, answered = program.stdin, program.stdout

    def line() -> str:
        said = answered.readline()
        if not said:
            raise MeteorError(f"it ended, with exit status {program.wait()}")
        return said.strip()

    def ask(*parts: str) -> str:
        print(" ||| ".join(parts), file=asked, flush=True)
        return line()

    statistics = [
        ask("SCORE", *map(" ".join, refs), " ".join(answer))
        for answer, refs in zip(answers, references, strict=True)
    ]
    ask("EVAL", *statistics)  # answers with the score of each, then of all
    for _ in answers[1:]:
        line()
    score = float(line())
    if not 0 <= score <= 1:
        raise MeteorError(f"it says {score}")
    return score


def _meteor_jar() -> Path | None:
    named = os.environ.get("AVALIGN_METEOR_JAR")
    if named is not None:
        return Path(named) if Path(named).is_file() else None
    package = importlib.util.find_spec("pycocoevalcap")  # found, not imported
    folders = [] if package is None else package.submodule_search_locations or []
    jars = [Path(folder) / "meteor" / "meteor-1.5.jar" for folder in folders]
    return next((jar for jar in jars if jar.is_file()), None)
