"""BLEU, ROUGE-L and CIDEr-D: cases worked by hand, and coco-caption's own code where it is installed."""

from __future__ import annotations

import math
import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.meerkatbench import captions
from avalign.meerkatbench.captions import Cider, bleu, bleu_counts, rouge_l, words

captions_drawn = st.lists(st.sampled_from("a dog cat barks runs red loud".split()), max_size=9).map(tuple)  # noqa: SIM905


def corpus_bleu(pairs, order):
    counts = [bleu_counts(words(answer), [words(r) for r in references]) for answer, references in pairs]
    return float(bleu(np.array(counts, dtype=float).sum(0), order))


def test_words():
    assert words("A dog's bark -- it's LOUD, 2x!") == ("a", "dog's", "bark", "it's", "loud", "2x")
    assert words(" .,!? ") == ()


def test_bleu_by_hand():
    pair = ("the the the cat", ["the cat sat", "the the mat is here"])
    # 1-grams: the (3, at most 2 in one reference) + cat = 3 of 4; 2-grams: "the the" (2, at most 1)
    # + "the cat" = 2 of 3; 3-grams: none of 2. Lengths 3 and 5 are equally close to 4: the shorter counts, no
    # penalty.
    assert bleu_counts(words(pair[0]), [words(r) for r in pair[1]]) == [3, 2, 0, 0, 4, 3, 2, 1, 4, 3]
    assert corpus_bleu([pair], 1) == pytest.approx(3 / 4)
    assert corpus_bleu([pair], 2) == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    assert corpus_bleu([pair], 3) == 0


def test_bleu_is_of_the_corpus_and_punishes_short_answers():
    pairs = [("a dog barks", ["a dog barks loudly"]), ("a cat", ["a cow"])]
    # 1-grams 4 of 5, 2-grams 2 of 3; lengths 5 against 6
    assert corpus_bleu(pairs, 1) == pytest.approx(4 / 5 * math.exp(1 - 6 / 5))
    assert corpus_bleu(pairs, 2) == pytest.approx(math.sqrt(4 / 5 * 2 / 3) * math.exp(1 - 6 / 5))
    assert corpus_bleu([("", ["a cow"])], 1) == 0
    assert corpus_bleu([("a dog barks at me", ["a dog barks at me"])], 4) == 1


def test_rouge_by_hand():
    # common: "a barks" is 2 of 3 words answered; best recall is of the other reference: "dog" of 1 word
    score = rouge_l(("a", "dog", "barks"), [("a", "cow", "barks", "now"), ("dog",)])
    assert score == pytest.approx((1 + 1.44) * (2 / 3) * 1 / (1 + 1.44 * 2 / 3))
    assert rouge_l(words("a dog barks"), [words("a dog barks loudly")]) == pytest.approx(0.836, abs=5e-4)
    assert rouge_l((), [("a",)]) == rouge_l(("b",), [("a",)]) == 0


def test_cider_by_hand():
    """Two items of one reference each: "a dog" and "a cat". idf(a) = log 2/2 = 0, all others log 2.

    Answer "a dog" to "a dog": 1-grams (dog) and 2-grams ("a dog") are parallel, 3- and 4-grams are none:
    10 * (1 + 1 + 0 + 0) / 4 = 5. Answer "dog" : only the 1-grams, and a length (in pairs) of 0 against 1:
    10 / 4 * exp(-1 / 72). Answer "dog dog": clipped, min(2, 1) * 1 / (2 * 1) = 1/2: 10 / 4 / 2.
    """
    cider = Cider([[("a", "dog")], [("a", "cat")]])
    assert cider.score(("a", "dog"), [("a", "dog")]) == pytest.approx(5)
    assert cider.score(("dog",), [("a", "dog")]) == pytest.approx(2.5 * math.exp(-1 / 72))
    assert cider.score(("dog", "dog"), [("a", "dog")]) == pytest.approx(1.25)
    assert cider.score(("a", "cat"), [("a", "dog")]) == 0
    assert cider.score(("a", "dog"), [("a", "dog"), ("a", "cat")]) == pytest.approx(2.5)
    assert cider.score((), [("a", "dog")]) == 0


def test_a_perfect_long_caption_has_ten():
    caption = words("a dog barks at me")
    assert Cider([[caption], [("none",)]]).score(caption, [caption]) == pytest.approx(10)


def test_one_item_has_no_document_frequency():
    with pytest.raises(ValueError, match="at least two"):
        Cider([[("a", "dog")]])


@given(captions_drawn, st.lists(captions_drawn.filter(len), min_size=1, max_size=3))
def test_no_score_leaves_its_range(answer, references):
    counts = np.array(bleu_counts(answer, references), dtype=float)
    assert all(0 <= bleu(counts, order) <= 1 for order in captions.ORDERS)
    assert 0 <= rouge_l(answer, references) <= 1 + 1e-12
    assert 0 <= Cider([references, [("other",)]]).score(answer, references) <= 10 + 1e-9


@pytest.fixture
def drawn_corpus():
    """30 tokenised items of 1-3 references."""
    draw = random.Random(0)
    vocabulary = "a the dog cat barks runs on grass red loud while it rains and".split()  # noqa: SIM905
    text = lambda: " ".join(draw.choices(vocabulary, k=draw.randint(4, 12)))  # noqa: E731
    references = {i: [text() for _ in range(draw.randint(1, 3))] for i in range(30)}
    answers = {i: [" ".join([*references[i][0].split()[: draw.randint(2, 9)], "dog"])] for i in range(30)}
    return answers, references


def test_against_coco_caption(drawn_corpus):
    """BLEU@1-4, ROUGE-L and CIDEr-D of pycocoevalcap 1.2, fed tokenised text."""
    reason = "coco-caption's code is not a dependency: pip install pycocoevalcap to cross-check"
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason=reason)
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason=reason)
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge", reason=reason)
    answers, references = drawn_corpus
    scorer = bleu_scorer.BleuScorer(n=4)
    for i in answers:
        scorer += (answers[i][0], references[i])
    theirs, _ = scorer.compute_score(option="closest", verbose=0)
    ours = [
        corpus_bleu([(answers[i][0], references[i]) for i in answers], order) for order in captions.ORDERS
    ]
    assert ours == pytest.approx(theirs, abs=1e-4)

    ours_rouge = [rouge_l(words(answers[i][0]), [words(r) for r in references[i]]) for i in answers]
    assert ours_rouge == pytest.approx(rouge.Rouge().compute_score(references, answers)[1].tolist(), abs=1e-4)

    scorer = Cider([[words(r) for r in references[i]] for i in answers])
    ours_cider = [scorer.score(words(answers[i][0]), [words(r) for r in references[i]]) for i in answers]
    assert ours_cider == pytest.approx(cider.Cider().compute_score(references, answers)[1].tolist(), abs=1e-4)
    assert min(theirs) > 0.1  # the cases are not all trivial


def test_meteor_is_not_available_rather_than_another_measure(monkeypatch):
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    assert captions.meteor([("a", "dog")], [[("a", "dog")]]) is None


@pytest.mark.skipif(
    "AVALIGN_METEOR_JAR" not in os.environ, reason="METEOR is a Java program, named by this variable"
)
def test_meteor_by_its_own_program():
    right, wrong = words("a dog barks at the moon"), words("rain")
    assert captions.meteor([right], [[right]]) == pytest.approx(1.0, abs=0.01)
    assert captions.meteor([wrong, ()], [[right], [right]]) == pytest.approx(0.0, abs=0.01)
