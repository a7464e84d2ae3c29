"""Pictures of one data set with recordings of another, by class: samples of ARIG, IGATL and AVFC.

What is certain decides, not what is likely: a claim is false only where no class that is heard may be the
same thing as what it is said of (`Classes.related`), and pairs whose answer would be open are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from avalign.avfit.chance import Dice, Pairs, Turns, dealt, key_of
from avalign.avfit.classes import Classes
from avalign.avfit.facts import (
    BOXES,
    CLASSES,
    TYPES,
    apart,
    disjoint,
    kinds_of,
    shares_of,
    shifted,
    silence,
    tried_after,
)
from avalign.avfit.pools import PicturePool, RecordingPool, merged
from avalign.data.manifest.record import SPLITS, Record
from avalign.errors import AvalignError, suggest
from avalign.grammar import Box, Interval, write_box, write_interval, write_verdict

TASKS = ("arig", "igatl", "avfc")
ATTEMPTS = 32  # pairs of a class that are tried before another class is

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be made of a task (or a type of claim) in a split.

    pairs: different pairs of a picture and a recording there are; not all of them may give a sure answer
    why:   why there are none, or what part of the task there is not; "" where nothing is lacking
    """

    pairs: int
    classes: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A picture that shows a class, and a recording in which it (or another) is heard."""

    c: int
    picture: int
    recording: int
    seen: list[int]  # the class of each thing
    heard: list[int]  # the class of each event


@dataclass(frozen=True, slots=True)
class _Claim:
    pair: _Pair
    verdict: bool
    box: Box | None = None
    time: Interval | None = None
    negative: str = ""


class Pairing:
    """Samples made of pictures and recordings that share a class of the look-up.

    draw:       "even": every class as often as any other, as long as it has pairs that were not used; or
                "frequency": as often as pictures and recordings of it allow
    others:     share of ARIG in which the picture shows something else that could sound, so that the answer
                depends on the sound; classes without such pictures are drawn from the rest
    most_boxes: of an ARIG answer; pictures with more boxes of the class are not used for it
    all_along:  share of IGATL and of true claims... in which the class may be heard from beginning to end
    types:      of AVFC's claims; every type that can be made if none is named
    negatives:  kind of false claim -> weight (facts.NEGATIVES)
    overlap:    of a wrong box with any right one: at most this IoU (shifted: share of the smaller)
    """

    def __init__(
        self,
        name: str,
        pictures: PicturePool,
        recordings: RecordingPool,
        classes: Classes,
        seed: int = 0,
        *,
        draw: Literal["even", "frequency"] = "even",
        others: float = 0.5,
        most_boxes: int = 10,
        all_along: float = 0.1,
        types: Sequence[str] | None = None,
        negatives: Mapping[str, float] | None = None,
        overlap: float = 0.1,
    ) -> None:
        if draw not in ("even", "frequency"):
            raise AvalignError(f"{name}: draw: no way {draw!r}.{suggest(draw, ('even', 'frequency'))}")
        for option, share in (("others", others), ("all_along", all_along), ("overlap", overlap)):
            if not 0 <= share <= 1:
                raise AvalignError(f"{name}: {option} is {share}, not a share in 0..1")
        for claim in types or ():
            if claim not in TYPES:
                raise AvalignError(f"{name}: types: no type {claim!r}.{suggest(claim, TYPES)}")
        if most_boxes < 1:
            raise AvalignError(f"{name}: most_boxes is {most_boxes}, not 1 or above")
        self.name, self.pictures, self.recordings, self.classes = name, pictures, recordings, classes
        self.seed, self.draw, self.most_boxes, self.overlap = seed, draw, most_boxes, overlap
        self.others, self.all_along, self.types = others, all_along, types
        self.negatives = shares_of(negatives)
        self._kept: dict[Any, Any] = {}

    def record(self, split: str, task: str, number: int) -> Record:
        """The same record for the same arguments and seed, whoever asks."""
        if task not in TASKS:
            raise AvalignError(f"{self.name}: pairs make no {task!r}.{suggest(task, TASKS)}")
        if number < 0:
            raise AvalignError(f"{self.name}: there is no record {number}")
        can = self.possible(split)[task]
        if not can.pairs:
            raise AvalignError(f"{self.name}: no {task} in {split}: {can.why}")
        if task == "arig":
            return self._arig(split, number)
        return self._igatl(split, number) if task == "igatl" else self._avfc(split, number)

    # ---- what there is ----

    def possible(self, split: str) -> dict[str, Possible]:
        """For each task, and each type of claim ("avfc type1"), what can be made, and if not, why not."""
        if split not in SPLITS:
            raise AvalignError(f"{self.name}: no split {split!r}.{suggest(split, SPLITS)}")
        return self._once(("possible", split), lambda: self._possible(split))

    def _possible(self, split: str) -> dict[str, Possible]:
        found = {
            "arig": self._can(split, "heard"),
            "igatl": self._can(split, "timed"),
        }
        claims = {}
        for claim, (_, time) in TYPES.items():
            can = self._can(split, "timed" if time else "heard")
            if can.pairs and not self._kinds(split, claim):
                can = Possible(
                    0, (), "no kind of false claim can be made: there is one class, or none is drawn"
                )
            claims[claim] = can
        wanted = [claim for claim in TYPES if self.types is None or claim in self.types]
        lacking = "; ".join(f"{claim}: {claims[claim].why}" for claim in wanted if not claims[claim].pairs)
        made = [claims[claim] for claim in wanted if claims[claim].pairs]
        if self.types is not None and lacking:
            made = []
        names = tuple(dict.fromkeys(name for can in made for name in can.classes))
        found["avfc"] = Possible(sum(can.pairs for can in made), names, lacking)
        return found | {f"avfc {claim}": can for claim, can in claims.items()}

    def _can(self, split: str, sounds: str) -> Possible:
        most = self._most(split, sounds)
        if most:
            return Possible(sum(most.values()), tuple(self.classes.names[c] for c in most))
        if not any(len(self.pictures.showing(split, c)) for c in self.classes.paired):
            return Possible(0, (), f"no picture of {split} shows a class of the look-up")
        if not any(len(self.recordings.heard(split, c)) for c in self.classes.paired):
            return Possible(0, (), f"no recording of {split} has a class of the look-up")
        if self._most(split, "heard"):
            return Possible(0, (), f"no recording of {split} says when its classes are heard")
        return Possible(0, (), f"pictures and recordings of {split} have no class in common")

    def _most(self, split: str, sounds: str) -> dict[int, int]:
        """Class -> how many pairs it has; `sounds` names the list of recordings."""

        def made() -> dict[int, int]:
            recordings = getattr(self.recordings, sounds)
            counts = {
                c: len(self.pictures.showing(split, c)) * len(recordings(split, c))
                for c in self.classes.paired
            }
            return {c: count for c, count in counts.items() if count}

        return self._once(("most", split, sounds), made)

    def _turns(self, split: str, sounds: str) -> Turns:
        def made() -> Turns:
            most, weights = self._most(split, sounds), dict.fromkeys(self._most(split, sounds), 1)
            if self.draw == "frequency":
                recordings = getattr(self.recordings, sounds)
                size = {c: min(len(self.pictures.showing(split, c)), len(recordings(split, c))) for c in most}
                weights = {c: max(1, round(1000 * count / sum(size.values()))) for c, count in size.items()}
            return Turns(most, weights, key_of(self.seed, self.name, split, sounds, "turns"))

        return self._once(("turns", split, sounds), made)

    def _kinds(self, split: str, claim: str) -> dict[str, float]:
        """The kinds of false claim of a type that can be made here, with their shares."""

        def made() -> dict[str, float]:
            found = {kind: self.negatives[kind] for kind in kinds_of(claim) if self.negatives[kind] > 0}
            sounds = "timed" if TYPES[claim][1] else "heard"
            partners = {
                kind: any(self._partners(split, sounds, c, kind) for c in self._most(split, sounds))
                for kind in CLASSES
            }
            return {kind: share for kind, share in found.items() if partners.get(kind, True)}

        return self._once(("kinds", split, claim), made)

    def _partners(self, split: str, sounds: str, c: int, kind: str) -> tuple[int, ...]:
        """The classes that may be heard instead of c: similar ones, or any that is surely another."""

        def made() -> tuple[int, ...]:
            among = self.classes.similar[c] if kind == "similar" else self.classes.paired
            recordings = getattr(self.recordings, sounds)
            return tuple(
                d for d in among if not self.classes.related[c] >> d & 1 and len(recordings(split, d))
            )

        return self._once(("partners", split, sounds, c, kind), made)

    def _once(self, key: Any, make: Callable[[], Made]) -> Made:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}  # views of arrays do not travel

    # ---- pairs ----

    def _pair(self, split: str, lists: tuple[str, str], c: int, d: int, use: str, place: int) -> _Pair:
        """Of all pairs of a picture of c and a recording of d, the one at a place in the order of a use."""

        def made() -> tuple[memoryview, memoryview, Pairs]:
            shown = getattr(self.pictures, lists[0])(split, c)
            sounds = getattr(self.recordings, lists[1])(split, d)
            key = key_of(self.seed, self.name, split, use, self.classes.names[c], self.classes.names[d])
            return shown, sounds, Pairs(len(shown), len(sounds), key)

        shown, sounds, pairs = self._once((split, lists, c, d, use), made)
        first, second = pairs.at(place)
        picture, recording = shown[first], sounds[second]
        seen, heard = self.pictures.classes_of(picture), self.recordings.classes_of(recording)
        return _Pair(c, picture, recording, seen, heard)

    def _searched(
        self,
        split: str,
        lists: tuple[str, str],
        c: int,
        partners: Sequence[int],
        use: str,
        nth: int,
        make: Callable[[_Pair], Made | None],
    ) -> Made | None:
        """What `make` makes of the pair whose turn it is, or of the first after it that it makes something of."""
        shown, sounds = getattr(self.pictures, lists[0]), getattr(self.recordings, lists[1])
        for attempt in range(ATTEMPTS):
            d = partners[(nth + attempt) % len(partners)]
            count = len(shown(split, c)) * len(sounds(split, d))
            if count:
                place = nth // len(partners) + attempt * max(1, count // ATTEMPTS)
                found = make(self._pair(split, lists, c, d, use, place))
                if found is not None:
                    return found
            if attempt >= count * len(partners):
                break
        return None

    def _from(self, c: int, split: str, sounds: str) -> list[int]:
        """The classes of a split, from c on."""
        order = list(self._most(split, sounds))
        return order[order.index(c) :] + order[: order.index(c)]

    def _open(self, pair: _Pair) -> bool:
        """Whether something else that is seen may be heard too, so that the answer is not sure."""
        related, seen = self.classes.related, self.classes.bits(pair.seen)
        own = related[pair.c]
        return any(related[h] & seen for h in pair.heard if not own >> h & 1)

    def _boxes(self, pair: _Pair, among: int) -> list[Box]:
        boxes = self.pictures.boxes(pair.picture)
        return [box for box, c in zip(boxes, pair.seen, strict=True) if among >> c & 1]

    def _when(self, pair: _Pair, among: int) -> list[Interval] | None:
        """When classes are heard, merged; None if it is not known of all their events."""
        found = []
        for time, c in zip(self.recordings.intervals(pair.recording), pair.heard, strict=True):
            if among >> c & 1:
                if time is None:
                    return None
                found.append(time)
        return merged(found)

    # ---- tasks ----

    def _arig(self, split: str, number: int) -> Record:
        which, nth = dealt(number, {"showing_others": self.others, "showing": 1 - self.others})
        c, nth = self._turns(split, "heard").at(nth)
        for own in self._from(c, split, "heard"):
            shown = which if len(getattr(self.pictures, which)(split, own)) else "showing"
            found = self._searched(split, (shown, "heard"), own, (own,), f"arig {which}", nth, self._where)
            if found is not None:
                pair, boxes = found
                name = self.classes.names[own]
                response = " ".join(write_box(box, name) for box in boxes)
                return self._record(split, "arig", number, pair, response, boxes=tuple(boxes))
        raise self._nothing(split, "arig")

    def _where(self, pair: _Pair) -> tuple[_Pair, list[Box]] | None:
        kinds, related = self.classes.kinds[pair.c], self.classes.related[pair.c]
        if any(related >> c & 1 and not kinds >> c & 1 for c in pair.seen if not self._part(c)):
            return None  # "person" beside "man": it may be another man
        if self._open(pair):
            return None
        boxes = list(dict.fromkeys(self._boxes(pair, kinds)))
        return (pair, boxes) if len(boxes) <= self.most_boxes else None

    def _part(self, c: int) -> bool:
        return bool(self.classes.entries[self.classes.names[c]].part_of)

    def _igatl(self, split: str, number: int) -> Record:
        shares = {"timed": self.all_along, "now_and_then": 1 - self.all_along}
        which, nth = dealt(number, shares)
        c, nth = self._turns(split, "timed").at(nth)
        for own in self._from(c, split, "timed"):
            sounds = which if len(getattr(self.recordings, which)(split, own)) else "timed"
            found = self._searched(
                split, ("showing", sounds), own, (own,), f"igatl {which}", nth, self._heard
            )
            if found is not None:
                pair, times = found
                response = " ".join(write_interval(time) for time in times)
                slots = {"class": self.classes.names[own]}
                return self._record(
                    split, "igatl", number, pair, response, intervals=tuple(times), slots=slots
                )
        raise self._nothing(split, "igatl")

    def _heard(self, pair: _Pair) -> tuple[_Pair, list[Interval]] | None:
        if self._open(pair):
            return None
        times = self._when(pair, self.classes.kinds[pair.c])
        maybe = self._when(pair, self.classes.related[pair.c])
        return (pair, times) if times and times == maybe else None  # else a broader class is heard elsewhere

    def _avfc(self, split: str, number: int) -> Record:
        can = self.possible(split)
        types = [t for t in self.types or TYPES if can[f"avfc {t}"].pairs]
        claim = types[number % len(types)]
        number_of_type = number // len(types)
        verdict, nth = number_of_type % 2 == 0, number_of_type // 2
        dice = Dice(key_of(self.seed, self.name, split, claim), number)
        sounds = "timed" if TYPES[claim][1] else "heard"
        kind, tried = "", [""]
        if not verdict:
            kinds = self._kinds(split, claim)
            kind, nth = dealt(nth, kinds)
            tried = tried_after(kind, list(kinds))
        c, nth = self._turns(split, sounds).at(nth)
        for own in self._from(c, split, sounds):
            for kind in tried:
                partners = self._partners(split, sounds, own, kind) if kind in CLASSES else (own,)
                if not partners:
                    continue

                def make(pair: _Pair, kind: str = kind) -> _Claim | None:
                    return self._claim(pair, claim, kind, dice)

                use = f"avfc {claim} {kind}"
                made = self._searched(split, ("showing", sounds), own, partners, use, nth, make)
                if made is not None:
                    return self._fact(split, number, claim, made)
        raise self._nothing(split, f"avfc {claim}, {'true' if verdict else 'false'},")

    def _claim(self, pair: _Pair, claim: str, kind: str, dice: Dice) -> _Claim | None:
        """The claim that a pair makes: a true one if no kind of false one is named; None if it makes none."""
        has_box, has_time = TYPES[claim]
        related, c = self.classes.related, pair.c
        seen = self.classes.bits(pair.seen)
        if kind in CLASSES and any(related[h] & seen for h in pair.heard):
            return None  # what is heard is seen, after all
        box = dice.one_of(self._boxes(pair, self.classes.kinds[c])) if has_box else None
        if box is not None and kind in BOXES:
            maybe = 0
            for h in pair.heard:
                maybe |= related[h]
            box = self._wrong_box(pair, maybe, box, kind, dice)
            if box is None:
                return None
        time = None
        if has_time:
            heard = self.classes.kinds[c]
            if kind in CLASSES:
                heard = self.classes.bits(pair.heard)
            elif kind == "other_event" or kind == "other_time":
                pass
            times = self._when(pair, heard)
            if not times:
                return None
            time = dice.one_of(times)
            if kind in ("other_event", "other_time"):
                time = self._wrong_time(pair, seen, time, kind, dice)
                if time is None:
                    return None
        return _Claim(pair, not kind, box, time, kind)

    def _wrong_box(self, pair: _Pair, maybe: int, box: Box, kind: str, dice: Dice) -> Box | None:
        """A box in which nothing is that may be what is heard."""
        right = self._boxes(pair, maybe)
        if kind == "shifted_box":
            return shifted(box, right, self.overlap, dice)
        wrong = [other for other in self._boxes(pair, ~maybe) if apart(other, right, self.overlap)]
        return dice.one_of(wrong) if wrong else None

    def _wrong_time(self, pair: _Pair, seen: int, time: Interval, kind: str, dice: Dice) -> Interval | None:
        """A time at which nothing is heard that may be what is seen."""
        maybe = 0
        for c in set(pair.seen):
            maybe |= self.classes.related[c]
        busy = self._when(pair, maybe)
        if busy is None:
            return None
        if kind == "other_time":
            return silence(time, busy, self.recordings.length(pair.recording), dice)
        events = zip(self.recordings.intervals(pair.recording), pair.heard, strict=True)
        wrong = [t for t, c in events if t is not None and not maybe >> c & 1 and disjoint(t, busy)]
        return dice.one_of(wrong) if wrong else None

    # ---- records ----

    def _fact(self, split: str, number: int, claim: str, made: _Claim) -> Record:
        pair = made.pair
        slots: dict[str, Any] = {"class": self.classes.names[pair.c]}
        if made.box is not None:
            slots["box"] = list(made.box)
        if made.time is not None:
            slots["time"] = list(made.time)
        boxes: tuple[Box, ...] = ()
        times: tuple[Interval, ...] = ()
        if made.negative not in CLASSES:
            boxes = tuple(dict.fromkeys(self._boxes(pair, self.classes.kinds[pair.c])))
            times = tuple(self._when(pair, self.classes.kinds[pair.c]) or ())
        return self._record(
            split,
            "avfc",
            number,
            pair,
            write_verdict(made.verdict),
            kind=claim,
            boxes=boxes,
            intervals=times,
            slots=slots,
            more={"negative": made.negative} if made.negative else {},
        )

    def _record(
        self,
        split: str,
        task: str,
        number: int,
        pair: _Pair,
        response: str,
        *,
        more: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        picture, image, seen_at, frame_time = self.pictures.picture(pair.picture)
        recording, audio, heard_at, start, end = self.recordings.recording(pair.recording)
        origins = list(dict.fromkeys(origin for origin in (seen_at, heard_at) if origin))
        return Record(
            id=f"{self.name}/{split}/{task}/{number}",
            task=task,
            split=split,
            source=self.name,
            response=response,
            image=image,
            frame_times=() if frame_time is None else (frame_time,),
            audio=audio,
            audio_start=start,
            audio_end=end,
            label=self.classes.names[pair.c],
            provenance={"origins": origins, "picture": picture, "recording": recording, **(more or {})},
            **fields,
        )

    def _nothing(self, split: str, what: str) -> AvalignError:
        return AvalignError(
            f"{self.name}: no {what} in {split}: no pair of any class gives a sure answer "
            f"({ATTEMPTS} pairs of each tried)"
        )
