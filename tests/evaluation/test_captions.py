"""BLEU, ROUGE-L and CIDEr-D: cases worked by hand, and coco-caption's own code where it is installed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.evaluation.metrics import captions
from avalign.evaluation.metrics.captions import Cider, bleu, bleu_counts, rouge_l, words

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


# ---- three sets written out, and what pycocoevalcap 1.2 gives for them (tokenised text) ----

SETS: dict[str, list[tuple[str, list[str]]]] = {
    "one reference": [
        ("a dog barks at a passing car", ["a dog barks at a car on the street"]),
        ("rain falls on the roof", ["heavy rain falls on a tin roof"]),
        ("a man speaks while a cat meows", ["a cat meows and then a man speaks"]),
        ("waves break on the shore", ["the sea is calm"]),
    ],
    "several references": [
        ("the the the cat", ["the cat sat", "the the mat is here"]),
        (
            "two birds sing in a tree",
            ["birds sing in the tree", "two birds are singing in a tree", "a bird sings"],
        ),
        ("an engine starts", ["an engine starts and idles", "a car engine starts"]),
        (
            "a baby cries loudly in a room",
            ["a baby cries", "a baby is crying loudly in the room next door"],
        ),
        ("bells", ["church bells ring", "bells ring far away"]),
    ],
    "long and repeated": [
        (
            "a man plays the guitar and a woman sings while people clap and a dog barks and a dog barks "
            "and a dog barks",
            [
                "a man plays the guitar while a woman sings and the people in the hall clap",
                "a man and a woman make music",
            ],
        ),
        (
            "a woman plays the violin in an empty hall",
            [
                "a woman plays the violin in an empty hall",
                "a violin is played alone in a large hall without people",
            ],
        ),
        ("people clap", ["the audience claps and cheers after the song has ended", "people clap"]),
    ],
}
COCO = {  # BLEU@1-4, ROUGE-L, CIDEr-D, METEOR
    "one reference": (0.59959122, 0.50375739, 0.43188081, 0.32650476, 0.50067399, 3.28472318, 0.31150345),
    "several references": (0.74784492, 0.68088697, 0.50361889, 6.027e-05, 0.68706408, 2.35715043, 0.34797662),
    "long and repeated": (0.65714286, 0.5732115, 0.51420664, 0.44800702, 0.85084541, 2.77107754, 0.45976608),
}


def ours(pairs):
    """BLEU@1-4, ROUGE-L, CIDEr-D."""
    answers = [words(answer) for answer, _ in pairs]
    references = [[words(r) for r in refs] for _, refs in pairs]
    cider_d = Cider(references)
    both = list(zip(answers, references, strict=True))
    return [
        *(corpus_bleu(pairs, order) for order in captions.ORDERS),
        float(np.mean([rouge_l(a, r) for a, r in both])),
        float(np.mean([cider_d.score(a, r) for a, r in both])),
    ]


@pytest.mark.parametrize("name", SETS)
def test_the_figures_of_coco_caption(name):
    """Where no 4-gram matches coco-caption's BLEU@4 is 6e-5, by what it adds to its counts; ours is 0."""
    assert ours(SETS[name]) == pytest.approx(COCO[name][:6], abs=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_the_figures_are_those_of_the_package(name):
    """The constants above, made anew where pycocoevalcap is installed."""
    reason = "coco-caption's code is not a dependency: pip install pycocoevalcap to cross-check"
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason=reason)
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason=reason)
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge", reason=reason)
    scorer = bleu_scorer.BleuScorer(n=4)
    for answer, references in SETS[name]:
        scorer += (answer, references)
    true = {i: references for i, (_, references) in enumerate(SETS[name])}
    said = {i: [answer] for i, (answer, _) in enumerate(SETS[name])}
    theirs = [
        *scorer.compute_score(option="closest", verbose=0)[0],
        rouge.Rouge().compute_score(true, said)[0],
        cider.Cider().compute_score(true, said)[0],
    ]
    assert theirs == pytest.approx(COCO[name][:6], abs=1e-7)


def test_meteor_is_not_available_rather_than_another_measure(monkeypatch):
    assert captions.meteor([("a", "dog")], [[("a", "dog")]]) is None  # "off", as every test is run
    monkeypatch.delenv("AVALIGN_METEOR_JAR")
    monkeypatch.setattr(captions.importlib.util, "find_spec", lambda name: None)
    assert captions.meteor([("a", "dog")], [[("a", "dog")]]) is None
    monkeypatch.undo()
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    assert captions.meteor([("a", "dog")], [[("a", "dog")]]) is None


@pytest.mark.wide
def test_meteor_by_its_own_program(monkeypatch):
    """Its jar as pycocoevalcap brings it: the figure of pycocoevalcap's own wrapper."""
    monkeypatch.delenv("AVALIGN_METEOR_JAR")
    if captions.shutil.which("java") is None or captions._meteor_jar() is None:
        pytest.skip("METEOR needs Java and meteor-1.5.jar (pip install pycocoevalcap)")
    pairs = SETS["several references"]
    found = captions.meteor([words(a) for a, _ in pairs], [[words(r) for r in refs] for _, refs in pairs])
    assert found == pytest.approx(COCO["several references"][6], abs=1e-4)


@pytest.mark.wide
def test_meteor_in_a_locale_with_a_decimal_comma(monkeypatch):
    """Java would write 0,5 there, and METEOR fail to read its own numbers."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv(
        "JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE"
    )  # where it has no such locale
    test_meteor_by_its_own_program(monkeypatch)


@pytest.mark.parametrize(
    "program",
    [
        "exit 3",
        "read line; echo nonsense; read line; echo 0,5; echo 0,5",
        "read line; echo; read line; echo 7; echo 7",
    ],
)
def test_a_meteor_that_fails_is_not_available_and_says_why(monkeypatch, tmp_path, capsys, program):
    java, jar = tmp_path / "java", tmp_path / "meteor.jar"
    java.write_text(f"#!/bin/sh\n{program}\n")
    java.chmod(0o755)
    jar.write_bytes(b"x")
    monkeypatch.setenv("AVALIGN_METEOR_JAR", str(jar))
    monkeypatch.setattr(captions.shutil, "which", lambda name: str(java))
    assert captions.meteor([("a", "dog")], [[("a", "dog")]]) is None
    said = capsys.readouterr().err
    assert said.startswith("warning: METEOR is n/a: its program failed: ")
    assert said.count("\n") == 1
