"""What makes a claim of AVFC false: which parts of it can be wrong, and wrong boxes and times for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avalign.answers import Box, Interval
from avalign.avfit.pairing.matches import Match, Matches
from avalign.avfit.pairing.sampling import SplitMix64
from avalign.errors import AvalignError, suggest

# what a claim holds besides its class: a box, a time
TYPES = {
    "type1": (True, False),
    "type2": (False, True),
    "type3": (True, True),
    "type4": (False, False),
}
BOXES, TIMES, CLASSES = (
    ("other_box", "shifted_box"),
    ("other_event", "other_time"),
    ("similar", "other_class"),
)
NEGATIVES = {"other_box": 2.0, "shifted_box": 1.0, "other_event": 2.0, "other_time": 1.0} | {
    "similar": 2.0,
    "other_class": 1.0,
}
TRIES = 12  # positions tried for a shifted box
SHORTEST = 0.1  # seconds that a wrong time lasts at least


def shares_of(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Weights of the kinds of wrong claim: 0 for kinds not named; NEGATIVES where there are none."""
    if weights is None:
        return dict(NEGATIVES)
    for kind, share in weights.items():
        if kind not in NEGATIVES:
            raise AvalignError(f"negatives: no kind {kind!r}.{suggest(kind, NEGATIVES)}")
        if not 0 <= share < float("inf"):
            raise AvalignError(f"negatives: the share of {kind!r} is {share}, not 0 or above")
    if not any(weights.values()):
        raise AvalignError("negatives: all shares are 0")
    return {kind: float(weights.get(kind, 0.0)) for kind in NEGATIVES}


def kinds_of(claim: str) -> tuple[str, ...]:
    """The kinds of wrong that a type of claim can be."""
    box, time = TYPES[claim]
    return (BOXES if box else ()) + (TIMES if time else ()) + CLASSES


def tried_after(kind: str, kinds: Sequence[str]) -> list[str]:
    """The kind that was sampled, then those that may stand in for it, the nearest first."""
    family = next(names for names in (BOXES, TIMES, CLASSES) if kind in names)
    return [kind, *(k for k in family if k in kinds and k != kind), *(k for k in kinds if k not in family)]


class Claims:
    """Claims about pairs, true ones and false ones. overlap: as `Pairing` says"""

    def __init__(self, matches: Matches, overlap: float) -> None:
        self.matches, self.classes, self.overlap = matches, matches.classes, overlap

    def claim(
        self, match: Match, *, claim: str, kind: str, rng: SplitMix64
    ) -> tuple[Match, Box | None, Interval | None] | None:
        """The box and time of a claim: true if `kind` is "", else wrong in that. None if it makes none."""
        has_box, has_time = TYPES[claim]
        visible = self.classes.bits(match.image_classes)
        if kind in CLASSES and self.matches.may_be(match.audio_classes) & visible:
            return None  # what is heard is seen, after all
        own = self.classes.kinds[match.c]
        box = rng.one_of(self.matches.boxes(match, own)) if has_box else None
        if box is not None and kind in BOXES:
            box = self._wrong_box(match, box, kind, rng)
            if box is None:
                return None
        if not has_time:
            return match, box, None
        times = self.matches.times(match, self.classes.kinds[match.d])
        if not times:
            return None
        time: Interval | None = rng.one_of(times)
        if time is not None and kind in TIMES:
            time = self._wrong_time(match, time, kind, rng)
        return None if time is None else (match, box, time)

    def _wrong_box(self, match: Match, box: Box, kind: str, rng: SplitMix64) -> Box | None:
        """A box in which nothing is that may be what is heard."""
        audible = self.matches.may_be(match.audio_classes)
        right = self.matches.boxes(match, audible)
        if kind == "shifted_box":
            return shifted(box, right, self.overlap, rng)
        wrong = [b for b in self.matches.boxes(match, ~audible) if apart(b, right, self.overlap)]
        return rng.one_of(wrong) if wrong else None

    def _wrong_time(self, match: Match, time: Interval, kind: str, rng: SplitMix64) -> Interval | None:
        """A time at which nothing is heard that may be what is seen."""
        visible = self.matches.may_be(match.image_classes)
        busy = self.matches.times(match, visible)
        if busy is None:
            return None
        recordings = self.matches.recordings
        if kind == "other_time":
            return silence(time, busy, recordings.length(match.recording), rng)
        events = zip(recordings.intervals(match.recording), match.audio_classes, strict=True)
        wrong = [t for t, c in events if t is not None and not visible >> c & 1 and disjoint(t, busy)]
        return rng.one_of(wrong) if wrong else None


# ---- boxes ----


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0..1."""
    common = shared(a, b)
    return common / (area(a) + area(b) - common)


def apart(box: Box, others: Sequence[Box], most: float) -> bool:
    """Whether its overlap with each of the others is at most `most`, as IoU."""
    return all(iou(box, other) <= most for other in others)


def shifted(box: Box, avoided: Sequence[Box], most: float, rng: SplitMix64) -> Box | None:
    """A box of about the size of `box` elsewhere: of it and of each avoided one at most `most` is covered.

    Covered is the smaller of the two: a small box within a large one is no other position. Where its own size
    leaves no room it is made smaller, down to 0.3 of its sides; None if nothing was found.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    for number in range(TRIES):
        scale = rng.between(0.75, 1.0) if number < TRIES // 2 else rng.between(0.3, 0.75)
        w, h = max(0.02, min(1.0, width * scale)), max(0.02, min(1.0, height * scale))
        x, y = rng.between(0, 1 - w), rng.between(0, 1 - h)
        found = (round(x, 4), round(y, 4), round(x + w, 4), round(y + h, 4))
        if all(shared(found, other) <= most * min(area(found), area(other)) for other in avoided):
            return found
    return None


# ---- times ----


def disjoint(interval: Interval, others: Sequence[Interval]) -> bool:
    return all(interval[1] <= start or end <= interval[0] for start, end in others)


def gaps(busy: Sequence[Interval], length: float) -> list[Interval]:
    """What a recording of `length` seconds has between merged intervals."""
    ends = [0.0, *(end for _, end in busy)]
    starts = [*(start for start, _ in busy), length]
    return [(a, b) for a, b in zip(ends, starts, strict=True) if b - a >= SHORTEST]


def silence(like: Interval, busy: Sequence[Interval], length: float, rng: SplitMix64) -> Interval | None:
    """An interval about as long as `like` (half to once and a half) in which nothing of `busy` is heard."""
    wanted = max(SHORTEST, (like[1] - like[0]) * rng.between(0.5, 1.5))
    least = max(SHORTEST, (like[1] - like[0]) * 0.5)
    room = [gap for gap in gaps(busy, length) if gap[1] - gap[0] >= least]
    if not room:
        return None
    start, end = rng.one_of(room)
    lasting = min(wanted, end - start)
    first = start if lasting >= end - start else rng.between(start, end - lasting)
    # whole milliseconds, taken inwards
    return max(start, round(first, 3)), min(end, round(first + lasting, 3))
