"""Images of one data set with recordings of another, by class: samples of ARIG, IGATL and AVFC.

What is certain decides, not what is likely: a claim is false only where no class that is heard may be the
same thing as what it is said of (`Classes.related`), and pairs whose answer would be open are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from avalign.answers import Box, Interval, write_box, write_interval, write_verdict
from avalign.avfit.pairing.claims import CLASSES, TYPES, Claims, kinds_of, shares_of, tried_after
from avalign.avfit.pairing.classes import Classes
from avalign.avfit.pairing.matches import ATTEMPTS, Match, Matches
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.avfit.pairing.sampling import SplitMix64, dealt, key_of
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest
from avalign.types import SPLITS

TASKS = ("arig", "igatl", "avfc")


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be made of a task (or a type of claim) in a split.

    pairs: different pairs of an image and a recording there are; not all of them may give a sure answer
    why:   why there are none, or what part of the task there is not; "" where nothing is lacking
    """

    pairs: int
    classes: tuple[str, ...]
    why: str = ""


class Pairing:
    """Samples made of images and recordings that share a class of the look-up.

    ARIG:  the truth is every box of the class, and no other class that is heard is seen
    IGATL: the truth is when the class is heard, its events merged, and no other class that is heard is seen
    AVFC:  the types take turns and within a type true and false alternate. A claim says of the image's
           `class` (in `box`) that it is what is heard (at `time`); each part of a false one that is wrong
           stands in the provenance as "negative" (claims.NEGATIVES). A phrasing may leave the class out: the
           verdict is the same
    Images of a split meet only recordings of that split. A use (a task; of AVFC a type, true or a kind of
    false) goes through all pairs of a class before it repeats one, as far as they give sure answers.

    sampling:   "even": every class as often as any other, as long as it has pairs that were not used; or
                "frequency": as often as there are images or recordings of it, whichever are fewer
    others:     share of ARIG in which the image shows something else that could sound, so that the answer
                depends on the audio; classes without such images are sampled from the rest
    most_boxes: of an ARIG answer; images with more boxes of the class are not used for it
    all_along:  share of IGATL in which the class may be heard from beginning to end
    types:      of AVFC's claims; every type that can be made if none is named
    negatives:  kind of false claim -> weight; a kind that a pair does not allow is replaced by the nearest
    overlap:    of a wrong box with any right one, at most: IoU, or share of the smaller for shifted boxes
    """

    def __init__(
        self,
        name: str,
        images: ImagePool,
        recordings: RecordingPool,
        classes: Classes,
        seed: int = 0,
        *,
        sampling: Literal["even", "frequency"] = "even",
        others: float = 0.5,
        most_boxes: int = 10,
        all_along: float = 0.1,
        types: Sequence[str] | None = None,
        negatives: Mapping[str, float] | None = None,
        overlap: float = 0.1,
    ) -> None:
        if sampling not in ("even", "frequency"):
            known = suggest(sampling, ("even", "frequency"))
            raise AvalignError(f"{name}: sampling: no way {sampling!r}.{known}")
        for option, share in (("others", others), ("all_along", all_along), ("overlap", overlap)):
            if not 0 <= share <= 1:
                raise AvalignError(f"{name}: {option} is {share}, not a share in 0..1")
        for claim in types or ():
            if claim not in TYPES:
                raise AvalignError(f"{name}: types: no type {claim!r}.{suggest(claim, TYPES)}")
        if most_boxes < 1:
            raise AvalignError(f"{name}: most_boxes is {most_boxes}, not 1 or above")
        self.name, self.images, self.recordings, self.classes = name, images, recordings, classes
        self.seed, self.most_boxes, self.types = seed, most_boxes, types
        self.negatives = shares_of(negatives)
        self.matches = Matches(images, recordings, classes, sampling, key_of(seed, name))
        self.claims = Claims(self.matches, overlap)
        self.arig = {"showing_others": others, "showing": 1 - others}
        self.igatl = {"timed": all_along, "now_and_then": 1 - all_along}
        self.possible, self._types = cache(self._possible), cache(self._types_of)
        options: dict[str, Any] = {"sampling": sampling, "others": others, "most_boxes": most_boxes}
        options |= {"all_along": all_along, "types": types, "negatives": negatives, "overlap": overlap}
        self._again = partial(Pairing, name, images, recordings, classes, seed, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()  # what was looked up is looked up again in another process

    def record(self, split: str, task: str, number: int) -> Record:
        """The same record for the same arguments and seed, whoever asks, in whatever order."""
        can = self.possible(split)
        if task not in TASKS:
            raise AvalignError(f"{self.name}: pairs make no {task!r}.{suggest(task, TASKS)}")
        if number < 0:
            raise AvalignError(f"{self.name}: there is no record {number}")
        if not can[task].pairs:
            raise AvalignError(f"{self.name}: no {task} in {split}: {can[task].why}")
        if task == "arig":
            return self._arig(split, number)
        return self._igatl(split, number) if task == "igatl" else self._avfc(split, number)

    # ---- what there is ----

    def _possible(self, split: str) -> dict[str, Possible]:
        """For each task, and each type of claim ("avfc type1"), what can be made, and if not, why not."""
        if split not in SPLITS:
            raise AvalignError(f"{self.name}: no split {split!r}.{suggest(split, SPLITS)}")
        found = {"arig": self._can(split, "heard"), "igatl": self._can(split, "timed")}
        claims = {}
        for claim, (_, timed) in TYPES.items():
            claims[claim] = self._can(split, "timed" if timed else "heard")
            if claims[claim].pairs and not self._kinds(split, claim):
                claims[claim] = Possible(0, (), "no kind of false claim that is sampled can be made")
        wanted = [claim for claim in TYPES if self.types is None or claim in self.types]
        why = "; ".join(f"{claim}: {claims[claim].why}" for claim in wanted if not claims[claim].pairs)
        made = [claims[claim] for claim in wanted if claims[claim].pairs]
        if self.types is not None and why:  # asked for by name: all of them or none
            made = []
        names = tuple(dict.fromkeys(name for can in made for name in can.classes))
        found["avfc"] = Possible(sum(can.pairs for can in made), names, why)
        return found | {f"avfc {claim}": can for claim, can in claims.items()}

    def _can(self, split: str, audio_list: str) -> Possible:
        most = self.matches.most(split, audio_list)
        if most:
            return Possible(sum(most.values()), tuple(self.classes.names[c] for c in most))
        if not any(self.matches.has_images(split, "showing", c) for c in self.classes.paired):
            return Possible(0, (), f"no image of {split} shows a class of the look-up")
        if not any(self.matches.has_audio(split, "heard", c) for c in self.classes.paired):
            return Possible(0, (), f"in no recording of {split} a class of the look-up is heard")
        if self.matches.most(split, "heard"):
            return Possible(0, (), f"of no recording of {split} is it known when its classes are heard")
        return Possible(0, (), f"images and recordings of {split} have no class in common")

    def _kinds(self, split: str, claim: str) -> dict[str, float]:
        """The kinds of false claim of a type that can be made here, with their weights."""
        audio_list = "timed" if TYPES[claim][1] else "heard"

        def some(kind: str) -> bool:
            if kind not in CLASSES:
                return True
            most = self.matches.most(split, audio_list)
            return any(self.matches.partners(split, audio_list, c, kind == "similar") for c in most)

        return {k: self.negatives[k] for k in kinds_of(claim) if self.negatives[k] > 0 and some(k)}

    def _types_of(self, split: str) -> list[tuple[str, dict[str, float], int]]:
        """Each type of claim that is made: its name, its kinds of false, a key for its chance."""
        can = self.possible(split)
        names = [t for t in TYPES if (self.types is None or t in self.types) and can[f"avfc {t}"].pairs]
        return [(t, self._kinds(split, t), key_of(self.seed, self.name, split, t)) for t in names]

    # ---- tasks ----

    def _arig(self, split: str, number: int) -> Record:
        which, nth = dealt(number, self.arig)

        def of_class(c: int, nth: int, instead: str, again: bool) -> tuple[Match, list[Box]] | None:
            image_list = which if self.matches.has_images(split, which, c) else "showing"
            use = f"arig {which} {instead}"
            lists = (image_list, "heard")
            return self.matches.search(split, lists, c, (c,), use, nth, again, self._boxes_asked)

        made = self.matches.first_made(split, "heard", nth, of_class)
        if made is None:
            raise self._nothing(split, "arig")
        match, boxes = made
        response = " ".join(write_box(box, self.classes.names[match.c]) for box in boxes)
        return self._record(split, "arig", number, match, response, boxes=tuple(boxes))

    def _boxes_asked(self, match: Match) -> tuple[Match, list[Box]] | None:
        c = match.c
        if self.classes.broader[c] & self.classes.bits(match.image_classes):
            return None  # "person" beside "man": it may be another man
        if self.matches.is_open(match):
            return None
        boxes = self.matches.boxes(match, self.classes.kinds[c])
        return (match, boxes) if len(boxes) <= self.most_boxes else None

    def _igatl(self, split: str, number: int) -> Record:
        which, nth = dealt(number, self.igatl)

        def of_class(c: int, nth: int, instead: str, again: bool) -> tuple[Match, list[Interval]] | None:
            audio_list = which if self.matches.has_audio(split, which, c) else "timed"
            use = f"igatl {which} {instead}"
            lists = ("showing", audio_list)
            return self.matches.search(split, lists, c, (c,), use, nth, again, self._times_asked)

        made = self.matches.first_made(split, "timed", nth, of_class)
        if made is None:
            raise self._nothing(split, "igatl")
        match, times = made
        response = " ".join(write_interval(time) for time in times)
        slots = {"class": self.classes.names[match.c]}
        return self._record(split, "igatl", number, match, response, intervals=tuple(times), slots=slots)

    def _times_asked(self, match: Match) -> tuple[Match, list[Interval]] | None:
        if self.matches.is_open(match):
            return None
        times = self.matches.times(match, self.classes.kinds[match.c])
        if not times or times != self.matches.times(match, self.classes.related[match.c]):
            return None  # "bird" at another time than "owl": it may be an owl again
        return match, times

    def _avfc(self, split: str, number: int) -> Record:
        types = self._types(split)
        claim, kinds, key = types[number % len(types)]
        nth, odd = divmod(number // len(types), 2)
        audio_list = "timed" if TYPES[claim][1] else "heard"
        kind, tried = "", [""]
        if odd:
            kind, nth = dealt(nth, kinds)
            tried = tried_after(kind, tuple(kinds))
        rng = SplitMix64(key, number)

        def of_class(c: int, nth: int, instead: str, again: bool) -> Record | None:
            for kind in tried:
                among: tuple[int, ...] = (c,)
                if kind in CLASSES:
                    among = self.matches.partners(split, audio_list, c, kind == "similar")
                if among:
                    make = partial(self.claims.claim, claim=claim, kind=kind, rng=rng)
                    use = f"{claim} {kind} {instead}"
                    lists = ("showing", audio_list)
                    found = self.matches.search(split, lists, c, among, use, nth, again, make)
                    if found is not None:
                        return self._claim(split, number, claim, kind, *found)
            return None

        made = self.matches.first_made(split, audio_list, nth, of_class)
        if made is None:
            raise self._nothing(split, f"{'false' if odd else 'true'} avfc {claim}")
        return made

    def _claim(
        self,
        split: str,
        number: int,
        claim: str,
        kind: str,
        match: Match,
        box: Box | None,
        time: Interval | None,
    ) -> Record:
        slots: dict[str, Any] = {"class": self.classes.names[match.c]}
        if box is not None:
            slots["box"] = list(box)
        if time is not None:
            slots["time"] = list(time)
        boxes: Sequence[Box] = ()
        times: Sequence[Interval] | None = ()
        if kind not in CLASSES:  # what is heard is in the image: boxes and times
            boxes = self.matches.boxes(match, self.classes.kinds[match.c])
            times = self.matches.times(match, self.classes.kinds[match.c])
        told = {"kind": claim, "slots": slots, "boxes": tuple(boxes), "intervals": tuple(times or ())}
        negative = {"negative": kind} if kind else {}
        return self._record(split, "avfc", number, match, write_verdict(not kind), negative, **told)

    def _record(
        self,
        split: str,
        task: str,
        number: int,
        match: Match,
        response: str,
        more: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Record:
        image_id, image, image_origin, frame_time = self.images.image(match.image)
        recording_id, audio, audio_origin, start, end = self.recordings.recording(match.recording)
        origins = [origin for origin in (image_origin, audio_origin) if origin]
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
            label=self.classes.names[match.c],
            provenance={"origins": origins, "picture": image_id, "recording": recording_id, **(more or {})},
            **fields,
        )

    def _nothing(self, split: str, what: str) -> AvalignError:
        return AvalignError(
            f"{self.name}: no {what} in {split}: no pair of any class gives a sure answer "
            f"({ATTEMPTS} pairs of each were tried)"
        )
