"""More of how images and recordings are paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.avfit.pairing.claims import TYPES
from avalign.errors import AvalignError
from tests.helpers.avfit.pairing import LEFT, RIGHT, dogs
from tests.helpers.avfit.pairs import World, picture, recording


def test_what_cannot_be_made_is_named_with_its_reason() -> None:
    made_of = dogs(3, 3)
    can = made_of.pairing().possible("train")
    assert can["arig"].classes == ("dog",)
    assert not can["arig"].why
    assert can["avfc type4"].why == "no kind of false claim that is sampled can be made"  # nothing but dogs
    assert can["avfc"].pairs == 27
    assert {made_of.pairing().record("train", "avfc", n).kind for n in range(6)} == {
        "type1",
        "type2",
        "type3",
    }
    untimed = World(made_of.images, {"r": recording("r", ("dog", None)), "t": recording("t", ("car", None))})
    can = untimed.pairing().possible("train")
    assert can["igatl"].why == "of no recording of train is it known when its classes are heard"
    assert [can[f"avfc {t}"].pairs > 0 for t in TYPES] == [True, False, False, True]
    assert "type2: of no recording" in can["avfc"].why
    with pytest.raises(AvalignError, match="pair: no igatl in train: of no recording"):
        untimed.pairing().record("train", "igatl", 0)
    with pytest.raises(AvalignError, match="no avfc in train: type2: of no recording"):
        untimed.pairing(types=["type1", "type2"]).record("train", "avfc", 0)
    assert "no image of val" in made_of.pairing().possible("val")["arig"].why
    apart = World(made_of.images, {"c": recording("c", ("car", None))})
    assert apart.pairing().possible("train")["arig"].why.endswith("no class in common")
    mute = World(made_of.images, {})
    assert mute.pairing().possible("train")["arig"].why.startswith("in no recording of train")


def test_where_no_pair_is_sure_it_is_said() -> None:
    both = World(
        {"p": picture("p", ("dog", LEFT), ("car", RIGHT))},
        {"r": recording("r", ("dog", None), ("car", None))},
    )
    with pytest.raises(
        AvalignError, match="pair: no arig in train: no pair of any class gives a sure answer"
    ):
        both.pairing().record("train", "arig", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampling": "evenly"}, "sampling: no way 'evenly'. Did you mean 'even'"),
        ({"others": 1.5}, "others is 1.5, not a share"),
        ({"overlap": float("nan")}, "overlap is nan"),
        ({"types": ["type5"]}, "types: no type 'type5'"),
        ({"most_boxes": 0}, "most_boxes is 0"),
        ({"negatives": {"simlar": 1}}, "negatives: no kind 'simlar'. Did you mean 'similar'"),
        ({"negatives": {"similar": -1}}, "the share of 'similar' is -1"),
        ({"negatives": {"similar": 0}}, "all shares are 0"),
    ],
)
def test_options_that_mean_nothing_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        dogs(1, 1).pairing(**options)


@pytest.mark.parametrize(
    ("split", "task", "number", "said"),
    [
        ("trian", "arig", 0, "no split 'trian'. Did you mean 'train'"),
        ("train", "avqa", 0, "pairs make no 'avqa'"),
        ("train", "arig", -1, "no record -1"),
    ],
)
def test_a_record_that_is_none_is_named(split: str, task: str, number: int, said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        dogs(1, 1).pairing().record(split, task, number)


def test_records_lie_below_the_folders_of_their_data_sets(tmp_path: Path) -> None:
    record = dogs(1, 1).pairing().record("train", "avfc", 0)
    assert (record.id, record.source) == ("pair/train/avfc/0", "pair")
    assert (record.audio_start, record.audio_end) == (0.0, 10.0)
    assert record.provenance == {"origins": ["o:p0", "y:r0"], "picture": "p0", "recording": "r0"}
