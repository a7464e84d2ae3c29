"""Reading images and audio clips from files, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np

from avalign.errors import AvalignError
from avalign.media.audio import audio_seconds, decode_audio
from avalign.media.file import MediaError, MediaFile, check_audio, must_be_a_file, openable, read_once
from avalign.media.image import head_of, known_formats, oriented, unread_format
from avalign.media.plain_audio import plain_seconds, read_plain
from avalign.media.video import decode_frames

LONGEST = 1e9  # seconds, 30 years: containers count further in no unit of theirs


def read_image(path: MediaFile) -> np.ndarray:
    """The image as it is meant to be seen: (height, width, 3) uint8, EXIF rotation applied.

    Greyscale, 16 bits, palette, CMYK and LAB become RGB; transparent pixels are laid over black; of an
    animation the first frame is taken. A file that is missing, empty, truncated, not an image, or of numbers
    without a known white (floats, 32-bit integers) raises MediaError.
    """
    from PIL import Image, UnidentifiedImageError

    must_be_a_file(path)
    source = openable(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=known_formats()) as stored:
                return oriented(stored)
    except MediaError:  # of the file that this one lies in
        raise
    except UnidentifiedImageError:
        told = unread_format(source.getvalue() if isinstance(source, BytesIO) else head_of(source))
        why = f"is an image in {told}" if told else "is not an image that Pillow can read"
        raise MediaError(path, why) from None
    except Exception as error:  # of decoders, on broken files: struct.error, KeyError, ... by the format
        raise MediaError(path, f"cannot be decoded as an image: {error}") from error


def read_audio(path: MediaFile, start: float = 0.0, end: float | None = None) -> tuple[np.ndarray, int]:
    """The audio mixed down to one channel, (samples,) float32, and its rate in Hz.

    One channel is the plain mean over all, low frequencies' included; nothing is clipped, so that float
    samples beyond 1 stay.

    start, end: the part that is meant, in seconds of the file's clock; to the audio's end when not given

    All streams of a file share its clock: where audio begins after a video's first frame, or packets were
    lost, there is silence. What soundfile reads to the sample goes through it; MP3, whose length it guesses,
    and what it cannot read (the audio of a video, m4a, opus in webm) through PyAV. A file that is missing,
    empty, not audio, without samples, shorter than the part that is meant, or with NaN or infinite samples
    raises MediaError; a start or end that no file can have, AvalignError. Nothing is resampled here: see
    avalign.media.resample.
    """
    start, end = _part_of_times(start, end)
    must_be_a_file(path)
    path = read_once(path)
    found = read_plain(path, start, end)
    audio, rate = decode_audio(path, start, end, found) if isinstance(found, str) else found
    if end is not None and round(end * rate) <= round(start * rate):
        raise MediaError(path, f"no sample lies from {start:.7g} s to {end:.7g} s, it has {rate} a second")
    check_audio(audio, path)
    return audio.mean(axis=1), rate


def read_frames(path: MediaFile, times: Sequence[float]) -> np.ndarray:
    """The frames that a video shows at these seconds: (k, height, width, 3) uint8. Or MediaError;
    AvalignError for no times, and for such as no file can have."""
    seconds = [_seconds(time, f"times[{number}]") for number, time in enumerate(_several(times))]
    must_be_a_file(path)
    return decode_frames(read_once(path), seconds)


def seconds_of(path: MediaFile) -> float:
    """How long audio lasts on its file's clock; little of it is decoded. MediaError as `read_audio`'s."""
    must_be_a_file(path)
    path = read_once(path)
    found = plain_seconds(path)
    return audio_seconds(path, found) if isinstance(found, str) else found


def _several(times: Sequence[float]) -> Sequence[float]:
    if isinstance(times, (str, bytes)) or not hasattr(times, "__len__") or not hasattr(times, "__iter__"):
        raise AvalignError(f"times are {times!r:.60}, not a list of seconds")
    if not len(times):
        raise AvalignError("times are empty: no frame is asked for")
    return times


def _part_of_times(start: float, end: float | None) -> tuple[float, float | None]:
    """The same, looked at, as Python's numbers."""
    start = _seconds(start, "start")
    if end is None:
        return start, None
    end = _seconds(end, "end")
    if end <= start:
        raise AvalignError(f"end is {end:g} s: it lies behind start, which is {start:g} s")
    return start, end


def _seconds(value: float, name: str) -> float:
    """A time as a Python number; AvalignError that names the argument where it is none of a file's."""
    try:
        if not hasattr(value, "__float__"):  # texts, which float() would read
            raise TypeError
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise AvalignError(f"{name} is {value!r:.60}, not a number of seconds") from None
    if not 0 <= seconds < LONGEST:
        raise AvalignError(f"{name} is {seconds:g} s: times are of 0 s and above, below {LONGEST:g} s")
    return seconds
