"""The look-up of classes: it says what the data sets' own lists say, and a mistake in it is named."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from avalign.avfit.pairing.classes import NOTHING, Classes
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt

_VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
_ESC_50 = (
    "dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets "
    "chirping_birds water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping "
    "breathing coughing footsteps laughing brushing_teeth snoring drinking_sipping door_wood_knock "
    "mouse_click keyboard_typing door_wood_creaks can_opening washing_machine vacuum_cleaner clock_alarm "
    "clock_tick glass_breaking helicopter chainsaw siren car_horn engine train church_bells airplane "
    "fireworks hand_saw"
)
VOC, ESC_50 = _VOC.split(), _ESC_50.split()


@pytest.fixture(scope="module")
def classes() -> Classes:
    return Classes.read()


def open_images() -> dict[str, str]:
    with open(excerpt("openimages/class-descriptions-boxable.csv"), newline="") as rows:
        return {name: mid for mid, name in csv.reader(rows)}


def audio_set() -> dict[str, str]:
    with open(excerpt("audioset/mid_to_display_name.tsv"), newline="") as rows:
        strong = {name: mid for mid, name in csv.reader(rows, delimiter="\t")}
    with open(excerpt("audioset/class_labels_indices.csv"), newline="") as rows:
        return strong | {row["display_name"]: row["mid"] for row in csv.DictReader(rows)}


def vgg_sound() -> dict[str, str]:
    with open(excerpt("vgg-sound/stat.csv"), newline="") as rows:
        return {row[0]: "" for row in csv.reader(rows)}


def test_every_name_and_mid_is_one_of_the_data_sets(classes: Classes) -> None:
    lists = {"openimages": open_images(), "audioset": audio_set(), "vgg_sound": vgg_sound()}
    lists |= {"pascal_voc": dict.fromkeys(VOC, ""), "esc50": dict.fromkeys(ESC_50, "")}
    assert {name: len(known) for name, known in lists.items() if name != "audioset"} == {
        "openimages": 601,
        "vgg_sound": 309,
        "pascal_voc": 20,
        "esc50": 50,
    }
    families = {f for own in classes.entries.values() for side in (own.images, own.audio) for f in side}
    assert families == set(lists)
    assert [line for family, known in lists.items() for line in classes.unknown(family, known)] == []


def test_what_two_ontologies_call_by_one_mid_is_one_class(classes: Classes) -> None:
    """Where OpenImages and AudioSet share a mid and both have a class for it, it is the same, or related."""
    sounds = {mid: name for name, mid in audio_set().items()}
    both = [(name, sounds[mid], mid) for name, mid in open_images().items() if mid in sounds]
    apart = []
    for seen, heard, mid in both:
        c, d = classes.of_image(seen, mid), classes.of_audio(heard, mid)
        if NOTHING not in (c, d) and not classes.related[c] >> d & 1:
            apart.append((seen, heard))
    assert len(both) > 80
    assert apart == []


@pytest.mark.parametrize(
    ("sound", "named"),
    [
        (("eletric blender running", ""), "blender"),
        (("playing timpani", ""), "drum"),
        (("playing tympani", ""), "drum"),
        (("Bark", "/m/05tny_"), "dog"),
        (("Howl", "/m/07qf0zm"), "dog"),
        (("Growling", "/m/0ghcn6"), "dog"),
        (("Duck", "/m/09ddx"), "duck"),
        (("Ducks, geese, waterfowl", "/m/09ddx"), "duck"),  # the strong list's name of the same mid
        (("another name", "/m/0bt9lr"), "dog"),
        (("CLOCK_ALARM", ""), "alarm clock"),
        (("Mouse", "/m/04rmv"), "mouse"),
        (("mouse_click", ""), "computer mouse"),
    ],
)
def test_the_names_of_sounds(classes: Classes, sound: tuple[str, str], named: str) -> None:
    assert classes.names[classes.of_audio(*sound)] == named


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (("Dog", "/m/0bt9lr"), "dog"),
        (("dog", ""), "dog"),
        (("aeroplane", ""), "airplane"),
        (("tvmonitor", ""), "television"),
        (("cow", ""), "cattle"),
        (("Horn", "/m/0319l"), "French horn"),
        (("Tap", "/m/02jz0l"), "tap"),
    ],
)
def test_the_names_of_things(classes: Classes, thing: tuple[str, str], named: str) -> None:
    assert classes.names[classes.of_image(*thing)] == named


def test_two_mids_are_never_one_thing(classes: Classes) -> None:
    assert classes.of_image("Dog", "/m/of another dog") == NOTHING
    assert classes.of_audio("Tap", "/m/07qcpgn") == NOTHING  # a knock, not a tap of water
    assert classes.of_image("no such thing") == NOTHING


def test_all_of_voc_and_what_it_has_in_common_with_esc_50(classes: Classes) -> None:
    seen = {classes.names[classes.of_image(name)] for name in VOC if classes.of_image(name) != NOTHING}
    heard = {classes.names[classes.of_audio(name)] for name in ESC_50 if classes.of_audio(name) != NOTHING}
    assert all(classes.of_image(name) != NOTHING for name in VOC)
    common = {name for name in seen & heard if classes.entries[name].paired}
    assert common == {"airplane", "bird", "car", "cat", "cattle", "dog", "person", "sheep", "train"}


def test_what_may_be_the_same_thing(classes: Classes) -> None:
    def related(a: str, b: str) -> bool:
        one, other = (
            classes.related[classes.numbers[x]] >> classes.numbers[y] & 1 for x, y in ((a, b), (b, a))
        )
        assert one == other
        return bool(one)

    alike = [("duck", "bird"), ("bull", "animal"), ("man", "person"), ("man", "part of a person")]
    alike += [("car", "engine"), ("police car", "car"), ("crowd", "woman"), ("guitar", "musical instrument")]
    assert all(related(a, b) for a, b in alike)
    apart = [("duck", "goose"), ("man", "woman"), ("dog", "cat"), ("car", "truck"), ("guitar", "banjo")]
    assert not any(related(a, b) for a, b in apart)
    assert classes.kinds[classes.numbers["bird"]] >> classes.numbers["duck"] & 1
    assert not classes.kinds[classes.numbers["person"]] >> classes.numbers["part of a person"] & 1
    assert classes.numbers["fox"] in classes.similar[classes.numbers["dog"]]
    assert classes.numbers["dog"] in classes.similar[classes.numbers["fox"]]


def test_a_table_of_the_users_extends_and_overrides(tmp_path: Path, classes: Classes) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "dog:\n  audio:\n    audioset: {Growling: null}\n    mine: [woof]\n"
        "wolf:\n  within: [canine]\n  similar: [dog]\n"
        "  images: {mine: [grey wolf]}\n  audio: {audioset: {Growling: /m/0ghcn6}}\n"
        "fox: null\n"
    )
    with pytest.raises(AvalignError, match=r"mine.yaml:1: dog: similar: no other class 'fox'"):
        Classes.read(own)
    own.write_text(own.read_text().replace("dog:\n", "dog:\n  similar: [wolf]\n", 1))
    changed = Classes.read(own)
    assert changed.names[changed.of_audio("Growling", "/m/0ghcn6")] == "wolf"
    assert changed.names[changed.of_audio("woof")] == "dog"
    assert changed.names[changed.of_audio("Bark")] == "dog"
    assert changed.names[changed.of_image("Grey_Wolf")] == "wolf"
    assert changed.of_image("Fox") == NOTHING
    assert {changed.names[c] for c in changed.similar[changed.numbers["dog"]]} == {"wolf"}
    assert len(changed) == len(classes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dog:\n  simlar: [cat]\n", r"mine.yaml:2: dog: no field 'simlar'. Did you mean 'similar'"),
        (
            "dog:\n  similar: [cats]\n",
            r"mine.yaml:1: dog: similar: no other class 'cats'. Did you mean 'cat'",
        ),
        ("dog:\n  similar: [canine]\n", r"mine.yaml:1: dog: similar: 'canine' may be the same thing"),
        ("dog:\n  within: [dog]\n", r"mine.yaml:1: dog: within: no other class 'dog'"),
        ("dog:\n  similar: cat\n", r"mine.yaml:2: dog.similar: a list of names is needed"),
        ("dog:\n  general: 1\n", r"mine.yaml:2: dog.general: true or false is needed"),
        ("dog:\n  audio: [Bark]\n", r"mine.yaml:2: dog.audio: a mapping is needed"),
        ("dog:\n  audio: {mine: woof}\n", r"mine.yaml:2: a list of names is needed, or a mapping"),
        ("dog: [Bark]\n", r"mine.yaml:1: dog: a mapping is needed"),
        ("dog:\n  audio: {mine: [meow_ing]}\ncat:\n  audio: {ours: [MEOW ing]}\n", "stands in 'dog' too"),
        ("dog:\n  audio: {mine: {x: /m/07qrkrw}}\n", "the mid '/m/07qrkrw' stands in"),
        ("gnu:\n  images: {mine: [gnu]}\n", r"mine.yaml:1: gnu: has no audio: name some, or say silent"),
        ("gnu:\n  audio: {mine: [gnu]}\n", r"mine.yaml:1: gnu: has no images: name some, or say general"),
        ("gnu:\n  silent: true\n  audio: {mine: [gnu]}\n", r"gnu: is silent, but has audio"),
        ("gnu:\n  silent: true\n  general: true\n", r"gnu: is either general or silent"),
        ("'[gnu]':\n  general: true\n", r"cannot be written in an answer"),
        ("animal:\n  within: [dog]\n", r"is within itself"),
        ("dog: {}\ndog: {}\n", r"mine.yaml:2: dog: given twice, first at mine.yaml:1"),
        ("- dog\n", r"mine.yaml:1: a mapping of classes is needed"),
        ("dog: [\n", r"mine.yaml:\d+  not YAML"),
        ("\x00", r"mine.yaml:1  not YAML"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    with pytest.raises(AvalignError, match=said):
        Classes.read(own)


def test_a_table_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match=r"none.yaml: cannot be read"):
        Classes.read(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(AvalignError, match=r"bytes.yaml: is not UTF-8"):
        Classes.read(tmp_path / "bytes.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert Classes.read(tmp_path / "empty.yaml").names == Classes.read().names


def test_the_checker_finds_names_and_mids_that_a_data_set_does_not_have(classes: Classes) -> None:
    lines = classes.unknown("pascal_voc", {name: "" for name in VOC if name != "dog"} | {"cat": "/m/01yrx"})
    assert len(lines) == 2
    assert "dog: pascal_voc: no name 'dog'" in lines[0]
    assert "cat: pascal_voc: 'cat' has the mid /m/01yrx, not ''" in lines[1]
