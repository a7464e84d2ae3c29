"""Times that no file can have are refused for what they are; numbers of numpy are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames
from tests.helpers.media_files import Kind, bursts, write

NO_TIMES = (-1, -1e-9, float("nan"), float("inf"), 1e300, "1", None, [1.0], b"1", 1j)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("film"), Kind("mp4", "aac", "libx264", rate=44_100))


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wav") / "a.wav"
    soundfile.write(file, bursts(48_000), 48_000)
    return file


@pytest.mark.parametrize("time", NO_TIMES, ids=str)
def test_a_time_that_no_file_can_have_is_an_error_of_the_argument(time, film: Path, wav: Path) -> None:
    refused = [(r"^times\[1\] is ", lambda: read_frames(film, [0.0, time]))]
    for file in (film, wav):
        refused.append((r"^start is ", lambda file=file: read_audio(file, time)))
        if time is not None:
            refused.append((r"^end is ", lambda file=file: read_audio(file, 0.0, time)))
    for said, read in refused:
        with pytest.raises(AvalignError, match=said) as caught:
            read()
        assert not isinstance(caught.value, MediaError)


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 1), (0, 0), (0, -1.0)])
def test_a_part_that_ends_before_it_begins_is_refused(start, end, film: Path, wav: Path) -> None:
    for file in (film, wav):
        with pytest.raises(AvalignError, match=r"^end is "):
            read_audio(file, start, end)


def test_a_part_of_less_than_a_sample_is_refused_for_that(film: Path, wav: Path) -> None:
    for file in (film, wav):
        with pytest.raises(MediaError, match=r"no sample lies from 1 s to 1.000005 s"):
            read_audio(file, 1, 1.000005)


@pytest.mark.parametrize("times", [[], (), "12", 1.0, None, np.zeros(0)], ids=str)
def test_no_times_are_refused(times, film: Path) -> None:
    with pytest.raises(AvalignError, match=r"^times are "):
        read_frames(film, times)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64, np.float16])
def test_numbers_of_numpy_are_numbers(number, film: Path, wav: Path) -> None:
    np.testing.assert_array_equal(read_frames(film, [number(1)]), read_frames(film, [1.0]))
    np.testing.assert_array_equal(read_frames(film, np.array([1], number)), read_frames(film, [1.0]))
    for file in (film, wav):
        np.testing.assert_array_equal(
            read_audio(file, number(1), number(2))[0], read_audio(file, 1.0, 2.0)[0]
        )
