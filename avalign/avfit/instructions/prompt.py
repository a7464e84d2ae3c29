"""What a language model is asked: the task, the rules that its phrasings are checked by, examples of ours."""

from __future__ import annotations

from collections.abc import Sequence

from avalign.data.manifest.phrasing_rules import LONGEST, NEEDS
from avalign.data.manifest.phrasings import shipped

VERSION = 1  # raised when the wording changes; stands beside every phrasing that was generated
EXAMPLES = 4
NOT_AGAIN = 60  # of the phrasings there are already, the latest: the prompt stays short

_TOLD = {
    "arig": (
        "The model looks at an image and listens to a recording. It has to name the object that makes the "
        "sound and give the bounding box around it."
    ),
    "igatl": (
        "The model looks at an image and listens to a recording. It has to give the time interval, in "
        "seconds, in which the object of the image is heard."
    ),
    "igatl audio": (
        "The model watches a clip with sound. It has to give every time interval, in seconds, in which an "
        "event of the given class is heard, be it seen or not."
    ),
    "igatl visual": (
        "The model watches a clip with sound. It has to give every time interval, in seconds, in which an "
        "event of the given class is seen, be it heard or not."
    ),
    "igatl audio-visual": (
        "The model watches a clip with sound. It has to give every time interval, in seconds, in which an "
        "event of the given class is seen and heard at the same time."
    ),
    "avfc type1": (
        "The model is given a claim: the object in one box of the image makes the sound that is heard. It "
        "has to answer True or False."
    ),
    "avfc type2": (
        "The model is given a claim: an object of the given class, seen in the image, is heard in one time "
        "interval of the recording. It has to answer True or False."
    ),
    "avfc type3": (
        "The model is given a claim: the object in one box of the image is heard in one time interval of "
        "the recording. It has to answer True or False."
    ),
    "avfc type4": (
        "The model is given a claim: the whole sound goes with the whole scene in the image. It has to "
        "answer True or False."
    ),
    "avqa": (
        "The model is asked a question about an image and a recording. The question stands in the data; "
        "what you write leads up to it, or follows it."
    ),
    "avcap": (
        "The model looks at an image and listens to a recording. It has to write a caption of one sentence "
        "that tells what is seen and what is heard."
    ),
}
_MEANS = {
    "<class>": "the name of an object or event, such as a musical instrument or an animal",
    "<box>": "a bounding box, four numbers in square brackets",
    "<time>": "a time interval, two numbers of seconds in square brackets",
    "<question>": "a whole question, with its question mark",
}


def prompt(section: str, wanted: int, taken: Sequence[str]) -> str:
    """What is sent, all of it: asks for `wanted` phrasings of a section beside those that are `taken`."""
    needs = NEEDS[section]
    rules = [
        "Write <image> exactly once, where the image belongs, and <audio> exactly once, for the recording."
    ]
    rules += [f"Write {token} exactly once: it stands for {_MEANS[token]}." for token in needs.must]
    rules += [f"In about half of them write {t} once: it stands for {_MEANS[t]}." for t in needs.may]
    rules += [
        "Use no other token in angle brackets.",
        "Write no digits, and name no object or animal: these would give the answer away.",
    ]
    if section.startswith("avfc"):
        rules.append("Offer both answers, as in 'True or False', and never hint at which is right.")
    rules += [
        "Plain and natural English, one line, at most two short sentences and "
        f"{LONGEST} characters; formal and casual, questions and requests in turn.",
        "Each differs from the others, and from those below, in more than a word or a comma; all ask for the "
        "same thing.",
    ]
    examples = [phrasing.text for phrasing in shipped().sections[section]]
    step = max(1, len(examples) // EXAMPLES)
    lines = [
        "You write instructions for training a multimodal language model.",
        f"The task: {_TOLD[section]}",
        "",
        f"Write {wanted} new phrasings of the instruction for this task. Rules:",
        *(f"- {rule}" for rule in rules),
        "",
        "Examples:",
        *(f"- {text}" for text in examples[::step][:EXAMPLES]),
    ]
    if taken:
        lines += ["", "There are already, do not write them again:", *(f"- {t}" for t in taken[-NOT_AGAIN:])]
    lines += ["", f"Reply with a JSON list of {wanted} strings and with nothing else."]
    return "\n".join(lines)
