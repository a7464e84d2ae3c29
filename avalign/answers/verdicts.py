"""True or false as models say it.

- "True", "yes", "No, the dog is silent", "It is not true", "that isn't false", "The claim is correct".
- "no" counts where it stands for itself: "No." or "No, ...", not "no mismatch" or "no idea".
- A clause that holds a verdict must be a plain one: a bare word, or a claim that is true or false. Any other
  ("hardly true", "the opposite is true", "I doubt it is true") leaves the whole answer unread; so does a
  condition or a doubt in the sentence of a verdict.
- What says both is not read: "True or False", "yes and no", "Yes, it is not".
"""

from __future__ import annotations

import re

from avalign.answers.text import answer_in

_SENTENCE = re.compile(r"[^.!?;\n]*(?:\.(?=\d)[^.!?;\n]*)*[.!?;\n]?")
_CLAUSE_ENDS = re.compile(r"[,:=()\u2013\u2014]|\s--?|--?\s")
_QUOTES = re.compile(r"[\"\u201c\u201d`*\[\]{}<>]|(?<![a-z])'|'(?![a-z])")

_TRUE = r"true|correct|accurate"
_FALSE = r"false|incorrect|inaccurate|wrong"
_ADVERB = (
    r"(?:definitely|certainly|absolutely|clearly|obviously|indeed|quite|entirely|completely|totally|fully"
    r"|simply|actually|really|also|therefore|thus|hence)"
)
_NOT = r"(?:(?:\s*\bnot|\s*n't|nt)(?:\s+at\s+all|\s+actually)?)"
_CLAIM = r"(?:claim|statement|assertion|proposition|sentence|description|caption|answer)"
_SUBJECT = (
    r"(?:it|this|that|(?:the|this|that|your)\s+(?:(?:given|above|whole|entire|following)\s+)?"
    rf"{_CLAIM}(?:\s+(?:that|about|given|above)\b.*?)?)"
)
_WORD_IN_BRACKETS = re.compile(rf"\(({_TRUE}|{_FALSE})\)")
_BEFORE = (
    r"(?:(?:so|thus|therefore|hence|and|well|okay|ok|because|since|as|then|overall|that(?=\s+(?:it|this|the)\b)"
    r"|i(?:'d|\s+would)?\s+(?:think|believe|say|answer)(?:\s+that(?=\s+(?:it|this|the|that)\b))?)\s+)*"
)
_AFTER = r"(?:\s+(?P<after>(?:that|because|since|as|here|in\s+this\s+case)\b.*))?"
_PLAIN = re.compile(
    rf"{_BEFORE}(?:(?:{_SUBJECT}\s+)?(?:is|was)(?=\W|n)|{_SUBJECT}'s\b)?(?:\s*\b{_ADVERB})*(?P<no>{_NOT})?"
    rf"\s*\b(?:an?\s+(?:(?P<a_true>{_TRUE})|{_FALSE})\s+{_CLAIM}|(?P<true>{_TRUE})|{_FALSE}){_AFTER}"
)
_YES_NO = re.compile(
    rf"{_BEFORE}(?:(?:the|my)\s+answer\s+is\s+)?(?:{_ADVERB}\s+)?(?:(?P<yes>yes|yeah|yep)|no|nope)"
)
_LEAD = re.compile(
    r"(yes|no|true|false)\s+(?=(?:it|the|this|that|there|they|he|she|i|because|since|as)\b)"
)  # "Yes it does"
_SHORT = re.compile(
    r"(?:(?:it|this|that|there|they|he|she|i|the\s+\w+)\s+(?:is|are|was|does|do|did|has|have)|(?=not))"
    r"(?P<no>n't|nt|\s*not)?"
)  # "it does not": no verdict, but it may go against one
_THINK_SO = re.compile(r"(?:so\s+)?i\s+(?:(?P<no>don't|dont|do\s+not)\s+|do\s+)?think\s+so")
_HELD = re.compile(
    rf"\b(?:true|false|yes)\b|\b(?:{_TRUE}|{_FALSE}|no)$|\ban?\s+(?:{_TRUE}|{_FALSE})\s+{_CLAIM}"
)
_OF_A_NOUN = re.compile(  # "the true class"
    rf"\b(?:the|its|their|what)\s+(?:{_TRUE}|{_FALSE})\s+(?!(?:or|and|but)\b|{_CLAIM})[a-z]+"
)
_UNSURE = re.compile(
    r"\b(?:unsure|uncertain|not\s+(?:sure|certain)|(?:do\s+not|don't)\s+know"
    r"|(?:cannot|can't|can\s+not|could\s+not|couldn't)\s+(?:say|tell|know|determine|verify|confirm|judge|decide))\b"
)
_DOUBTED = re.compile(
    r"\b(?:if|unless|whether|perhaps|maybe|possibly|probably|(?:un)?likely|hardly|barely|scarcely|assuming|provided"
    r"|as\s+long\s+as|(?<!no\s)(?<!without\s)(?<!without\sa\s)doubt(?:ful)?"
    r"|(?:it|this|that)\s+(?:could|might|may|would|should))\b"
)
_BUT = re.compile(r"\b(?:but|however|although|though|except)\b")


def read_verdict(text: str) -> bool | None:
    """Whether `text` says true (yes) or false (no); None when it says both or neither, or is not sure."""
    text = _QUOTES.sub("", answer_in(text).lower().replace("\u2019", "'"))
    text = _WORD_IN_BRACKETS.sub(r"\1", text)
    if _UNSURE.search(text):
        return None
    verdicts: set[bool | None] = set()
    shorts: set[bool] = set()
    for sentence in _SENTENCE.findall(text):
        if sentence.endswith("?"):
            continue
        clauses = [clause.strip(" .!;\n\t") for clause in _CLAUSE_ENDS.split(sentence)]
        said = {verdict for clause in clauses for verdict in _of_clause(clause)}
        if (said and _DOUBTED.search(sentence)) or (True in said and _BUT.search(sentence)):
            return None
        verdicts |= said
        shorts |= {not short["no"] for clause in clauses if (short := _SHORT.fullmatch(_behind_lead(clause)))}
    if len(verdicts) != 1 or (shorts and shorts != verdicts):
        return None
    return verdicts.pop()


def _of_clause(clause: str) -> set[bool | None]:
    """What it says; None among it where it holds a verdict in another than a plain form."""
    if found := _YES_NO.fullmatch(clause):
        return {bool(found["yes"])}
    if found := _THINK_SO.fullmatch(clause):
        return {not found["no"]}
    if (found := _PLAIN.fullmatch(clause)) and not _held(found["after"] or ""):
        inner = clause[: found.start("after")] if found["after"] else clause
        if len(_HELD.findall(inner.rstrip())) <= 1:
            return {bool(found["true"] or found["a_true"]) != bool(found["no"])}
    if found := _LEAD.match(clause):
        return {found[1] in ("yes", "true")} | _of_clause(clause[found.end() :])
    return {None} if _held(clause) else set()


def _behind_lead(clause: str) -> str:
    return _LEAD.sub("", clause, count=1) if _LEAD.match(clause) else clause


def _held(clause: str) -> bool:
    """Whether a verdict's word stands there, other than before the noun that it tells of."""
    return _HELD.search(_OF_A_NOUN.sub(" ", clause)) is not None
