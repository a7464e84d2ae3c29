"""What can be wrong with a manifest: each finding by a plain phrase, its severity, how often, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

ERROR, WARNING = "error", "warning"
EXAMPLES = 20  # kept of each finding


@dataclass(frozen=True, slots=True)
class Kind:
    severity: str
    meaning: str


def _error(meaning: str) -> Kind:
    return Kind(ERROR, meaning)


def _warning(meaning: str) -> Kind:
    return Kind(WARNING, meaning)


KINDS: dict[str, Kind] = {
    # the lines
    "manifest file cannot be read": _error(
        "a file of the manifest is no file, no Parquet, or not ours to read"
    ),
    "manifest holds no record": _error("its files are empty, or of blank lines"),
    "line is no record": _error(
        "not JSON, a field missing, of another kind or unknown, a path that leads up"
    ),
    "id is used twice": _error("two records have one id"),
    # what a record says
    "box out of range or inverted": _error("not 0 <= x_left < x_right <= 1, or the same of y"),
    "interval behind its span's end": _error(
        "it ends after audio_end - audio_start: intervals are of the span, not of the file"
    ),
    "interval inverted or before 0": _error("not 0 <= start < end"),
    "ARIG record without a box": _error("there is nothing to ground"),
    "IGATL record without an interval": _error("there is nothing to find in time"),
    "response reads back differently": _error(
        "the grammar finds other boxes, intervals or classes in the response than the record holds"
    ),
    "response is empty": _error("there is nothing to learn and nothing to score by"),
    "verdict is neither true nor false": _error("an AVFC response says both or neither"),
    "instruction lacks a place for media": _error("the record has a picture (sound), no <image> (<audio>)"),
    "instruction repeats a place for media": _error("<image> or <audio> stands in it more than once"),
    "instruction holds an unfilled token": _error("a <token> that is no place for media and not in slots"),
    "slot cannot be written": _error(
        "a <box> or <time> that the grammar's writer refuses, a <class> without text"
    ),
    "origins are no list of texts": _error("provenance's origins cannot be compared between splits"),
    "no phrasing fits": _error(
        "no instruction, and none of its task's phrasings does with its slots and kind"
    ),
    "instruction has a place without media": _warning("an <image> (<audio>) place, and no picture (sound)"),
    "record has neither picture nor sound": _warning("only its text is left to answer from"),
    # media
    "media file is missing": _error("or empty, or a folder"),
    "media leads out of the root": _error("a link out of the media root; it was not opened"),
    "media cannot be decoded": _error("corrupt, or of a format that is not read"),
    "media breaks off": _error("less is there than the file's own header or end mark promises"),
    "media kills its decoder": _error("the process that decoded the file died"),
    "sound is shorter than its span": _error("the span ends behind the sound's end (0.05 s are let pass)"),
    "interval behind the sound's end": _error("an interval ends behind the span's end (0.05 s are let pass)"),
    "frame before the video's first": _error("a frame time more than a second before the first frame"),
    "frame behind the video's end": _error("a frame time after the last frame (0.05 s are let pass)"),
    "silent sound": _warning("no sample of the span is louder than the stated level"),
    "clipped sound": _warning("more samples of the file at full scale than the stated share"),
    "low sample rate": _warning("a sound's sample rate is below the stated one"),
    "upsampled sound": _warning(
        "its rate is as stated, but its energy fills a band below 0.55 of half that rate and ends there"
    ),
    "sound begins late": _warning(
        "its first sample comes after its file's picture has begun: read as silence"
    ),
    "sound of several streams": _warning(
        "Ogg streams behind one another, read as one sound: other readers may hear the first only"
    ),
    "clock begins anew": _warning(
        "its time stamps go back, as in files put behind one another: a time may be found in the wrong one"
    ),
    "header counts too little": _warning(
        "more is there than the file's own header counts: other readers stop there"
    ),
    "sound has gaps": _warning("its time stamps jump ahead: read as silence"),
    "channels cancel": _warning("the mean of its channels, which is what is heard, is far weaker than they"),
    "video begins late": _warning("its first frame comes after its sound has begun"),
    "small picture": _warning("the shorter side is below the stated number of pixels"),
    # the whole
    "origin in two splits": _error("the same video or photograph is in the origins of two splits"),
    "media file in two splits": _error("the same file is used by records of two splits"),
    "content in two splits": _error("files of the same bytes are used by records of two splits"),
    "one answer makes up a task": _warning("the most common class or answer has more than the stated share"),
    "true and false out of balance": _warning("AVFC's True are fewer than 40 % or more than 60 % of a split"),
    "task without test records": _warning("it has records in other splits, none in test"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """where: "part.jsonl:12", or a media file; record: its id; detail: what is wrong with this one"""

    code: str
    where: str
    record: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: " + (f"record {self.record!r}: " if self.record else "") + self.detail


class Findings:
    """Of each code how many there are and the first EXAMPLES; every one goes to `sink`, if one is given."""

    def __init__(self, sink: TextIO | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[Found]] = {}
        self.sink = sink

    def add(self, code: str, where: str, record: str, detail: str) -> None:
        if code not in KINDS:
            raise ValueError(f"no finding is called {code!r}")
        found = Found(code, one_line(where, 400), one_line(record, 200), one_line(detail, 400))
        self.counts[code] = self.counts.get(code, 0) + 1
        examples = self.examples.setdefault(code, [])
        if len(examples) < EXAMPLES:
            examples.append(found)
        if self.sink is not None:
            cells = (KINDS[code].severity, code, found.where, found.record, found.detail)
            self.sink.write("\t".join(cells) + "\n")

    def total(self, severity: str) -> int:
        return sum(count for code, count in self.counts.items() if KINDS[code].severity == severity)

    def __iter__(self) -> Iterator[tuple[str, Kind, int, list[Found]]]:
        """Errors before warnings, each in the order of KINDS."""
        for severity in (ERROR, WARNING):
            for code, kind in KINDS.items():
                if kind.severity == severity and code in self.counts:
                    yield code, kind, self.counts[code], self.examples[code]

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "code": code,
                "severity": kind.severity,
                "meaning": kind.meaning,
                "count": count,
                "examples": [
                    {"where": one.where, "record": one.record, "detail": one.detail} for one in examples
                ],
            }
            for code, kind, count, examples in self
        ]


def one_line(text: str, most: int) -> str:
    """Without what a terminal would obey or UTF-8 cannot hold, cut with "..." behind `most` signs."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."
