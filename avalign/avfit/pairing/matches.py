"""Images and recordings that share a class, in an order that numbers alone decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from avalign.answers import Box, Interval
from avalign.avfit.datasets.intervals import covered
from avalign.avfit.pairing.classes import Classes
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.avfit.pairing.sampling import Pairs, Turns, key_of

ATTEMPTS = 32  # pairs of a class that are tried before another class is
STAND_INS = 8  # other classes that are tried before a pair comes again
CACHED_PAIRS = 1 << 14  # of pairs that are remembered

Made = TypeVar("Made")


@dataclass(slots=True)
class Match:
    """An image that shows class `c`, and a recording in which class `d` is heard."""

    c: int
    d: int
    image: int
    recording: int
    image_classes: list[int]  # the class of each thing
    audio_classes: list[int]  # the class of each event


class Matches:
    """The pairs of two pools. image_list, audio_list: names of their lists ("showing", "heard", "timed")."""

    def __init__(
        self, images: ImagePool, recordings: RecordingPool, classes: Classes, sampling: str, key: int
    ) -> None:
        self.images, self.recordings, self.classes = images, recordings, classes
        self.sampling, self.key = sampling, key
        # what is asked again for every record
        self.most, self.turns, self.partners = cache(self._most), cache(self._turns), cache(self._partners)
        self._of = lru_cache(CACHED_PAIRS)(self._pairs)

    # ---- what there is ----

    def _most(self, split: str, audio_list: str) -> dict[int, int]:
        """Class -> how many pairs it has."""
        recordings = getattr(self.recordings, audio_list)
        counts = {
            c: len(self.images.showing(split, c)) * len(recordings(split, c)) for c in self.classes.paired
        }
        return {c: count for c, count in counts.items() if count}

    def _turns(self, split: str, audio_list: str) -> Turns:
        """Which class each number is of."""
        most = self.most(split, audio_list)
        weights = dict.fromkeys(most, 1)
        if self.sampling == "frequency":
            recordings = getattr(self.recordings, audio_list)
            size = {c: min(len(self.images.showing(split, c)), len(recordings(split, c))) for c in most}
            weights = {c: max(1, round(1000 * count / sum(size.values()))) for c, count in size.items()}
        return Turns(most, weights, key_of(self.key, split, audio_list))

    def _partners(self, split: str, audio_list: str, c: int, similar: bool) -> tuple[int, ...]:
        """The classes that may be heard in place of c: similar ones, or all that are surely another."""
        among = self.classes.similar[c] if similar else self.classes.paired
        recordings = getattr(self.recordings, audio_list)
        return tuple(d for d in among if not self.classes.related[c] >> d & 1 and len(recordings(split, d)))

    def has_images(self, split: str, image_list: str, c: int) -> bool:
        return len(getattr(self.images, image_list)(split, c)) > 0

    def has_audio(self, split: str, audio_list: str, c: int) -> bool:
        return len(getattr(self.recordings, audio_list)(split, c)) > 0

    def _pairs(
        self, split: str, image_list: str, audio_list: str, c: int, d: int, use: str
    ) -> tuple[memoryview, memoryview, Pairs | None]:
        first = getattr(self.images, image_list)(split, c)
        second = getattr(self.recordings, audio_list)(split, d)
        names = self.classes.names
        key = key_of(self.key, split, image_list, audio_list, use, names[c], names[d])
        return first, second, Pairs(len(first), len(second), key) if len(first) and len(second) else None

    # ---- drawing ----

    def first_made(
        self, split: str, audio_list: str, number: int, make: Callable[[int, int, str, bool], Made | None]
    ) -> Made | None:
        """What `make` makes of the class whose turn it is, or of the first after it that it makes any of.

        make: (class, how many turns it had before, in whose place: "" in its own, whether a pair may come
              again) -> what was made. None may come again until a few classes have no other left.
        """
        c, nth = self.turns(split, audio_list).at(number)
        found = make(c, nth, "", False)
        if found is not None:
            return found
        order = list(self.most(split, audio_list))
        index = order.index(c)
        others = order[index + 1 :] + order[:index]
        name = self.classes.names[c]
        tried = [(d, name, False) for d in others[:STAND_INS]] + [(c, "", True)]
        for d, instead, again in tried + [(d, name, True) for d in others]:
            found = make(d, nth, instead, again)
            if found is not None:
                return found
        return None

    def search(
        self,
        split: str,
        lists: tuple[str, str],
        c: int,
        partners: Sequence[int],
        use: str,
        nth: int,
        again: bool,
        make: Callable[[Match], Made | None],
    ) -> Made | None:
        """What `make` makes of the pair whose turn it is, among images of c and recordings of its partners.

        All pairs of a use lie in groups of ATTEMPTS. The first turns take of each group the first pair that
        `make` makes something of, the next ones the second, and so on: none comes twice. When a group has
        no more, the answer is None, or with `again` one of its pairs anew.
        """
        image_list, audio_list = lists
        turn, which = divmod(nth, len(partners))
        first, second, pairs = self._of(split, image_list, audio_list, c, partners[which], use)
        if pairs is None:
            return None
        count = len(pairs)
        groups = -(-count // ATTEMPTS)
        index, left = turn % groups, turn // groups
        made: list[Made] = []
        for there in range(index, count, groups):
            i, j = pairs.at(there)
            image, recording = first[i], second[j]
            image_classes = self.images.classes_of(image)
            audio_classes = self.recordings.classes_of(recording)
            found = make(Match(c, partners[which], image, recording, image_classes, audio_classes))
            if found is not None:
                if len(made) == left:
                    return found
                made.append(found)
        return made[left % len(made)] if made and again else None

    # ---- what a pair says ----

    def may_be(self, those: Sequence[int]) -> int:
        """As bits, all classes that may be the same thing as one of those."""
        related, found = self.classes.related, 0
        for c in those:
            found |= related[c]
        return found

    def is_open(self, match: Match) -> bool:
        """Whether something else that is seen may be heard too, so that the answer is not sure."""
        related, own = self.classes.related, self.classes.related[match.c]
        image_classes = self.classes.bits(match.image_classes)
        return any(not own >> h & 1 and related[h] & image_classes for h in match.audio_classes)

    def boxes(self, match: Match, among: int) -> list[Box]:
        """The boxes of things whose class is one of `among` (bits), each once, in their order."""
        boxes = self.images.boxes(match.image)
        own = [box for box, c in zip(boxes, match.image_classes, strict=True) if among >> c & 1]
        return list(dict.fromkeys(own)) if len(own) > 1 else own

    def times(self, match: Match, among: int) -> list[Interval] | None:
        """When classes of `among` (bits) are heard, merged; None if it is not known of all their events."""
        found = []
        for time, c in zip(self.recordings.intervals(match.recording), match.audio_classes, strict=True):
            if among >> c & 1:
                if time is None:
                    return None
                found.append(time)
        return list(covered(found)) if len(found) > 1 else found
