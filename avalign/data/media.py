"""Reading pictures and sounds from files, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from avalign.errors import AvalignError

PICTURES = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "JPEG2000",
)  # none that runs programs, as EPS does
END_SLACK = 0.05  # seconds by which a clip may end before the end asked for: annotations are rounded


@dataclass(frozen=True)
class Stored:
    """A media file that lies within another one. `name`: where, for people; `content`: reads all of it."""

    name: str
    content: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


MediaFile = str | Path | Stored


class MediaError(AvalignError):
    """A picture or sound that cannot be used: `file` is where, `why` is what is wrong with it."""

    def __init__(self, file: MediaFile, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = str(file)
        self.why = why


def read_image(path: MediaFile) -> np.ndarray:
    """The picture as it is meant to be seen: (height, width, 3) uint8, EXIF rotation applied.

    Greyscale, palette and CMYK become RGB; transparent pixels are laid over black. A file that is
    missing, empty, truncated or not a picture raises MediaError.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    must_be_a_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(openable(path), formats=PICTURES) as stored:
                upright = ImageOps.exif_transpose(stored)
                if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 255, not scale them
                    return np.repeat((np.asarray(upright) >> 8).astype(np.uint8)[..., None], 3, axis=2)
                if upright.has_transparency_data:
                    clear = upright.convert("RGBA")
                    upright = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
                return np.asarray(upright.convert("RGB"))
    except MediaError:  # of the file that this one lies in
        raise
    except UnidentifiedImageError:
        raise MediaError(path, "is not a picture that Pillow can read") from None
    except Exception as error:  # of decoders, on broken files: struct.error, KeyError, ... by the format
        raise MediaError(path, f"cannot be decoded as a picture: {error}") from error


def read_audio(path: MediaFile, start: float = 0.0, end: float | None = None) -> tuple[np.ndarray, int]:
    """The sound mixed down to one channel, (samples,) float32 in [-1, 1], and its rate in Hz.

    start, end: the part that is meant, in seconds; to the file's end when not given

    What soundfile cannot read (the sound of a video, m4a, opus in webm) goes through PyAV. A file that is
    missing, empty, not audio, without samples, shorter than the part that is meant, or with NaN or infinite
    samples raises MediaError. Nothing is resampled here: see `resample`.
    """
    import soundfile

    must_be_a_file(path)
    try:
        with soundfile.SoundFile(openable(path)) as file:
            rate = int(file.samplerate)
            first, last = round(start * rate), file.frames if end is None else round(end * rate)
            if (first and first >= file.frames) or last > file.frames + END_SLACK * rate:
                raise MediaError(path, too_short(file.frames / rate, start, end))
            file.seek(first)
            audio = file.read(last - first, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        from avalign.data.video import decode_audio

        audio, rate = decode_audio(path, start, end, f"cannot be decoded as audio: {error}")
    except (ValueError, OverflowError, MemoryError, RuntimeError) as error:  # a header that says too much
        raise MediaError(path, f"cannot be decoded as audio: {error}") from error
    check_audio(audio, path)
    return audio.mean(axis=1), rate


def read_frames(path: MediaFile, times: Sequence[float]) -> np.ndarray:
    """The frames that a video shows at these seconds: (k, height, width, 3) uint8. Or MediaError."""
    from avalign.data.video import decode_frames

    must_be_a_file(path)
    return decode_frames(path, times)


def seconds_of(path: MediaFile) -> float:
    """How long a sound lasts, by its file's header alone. MediaError names a file that does not say."""
    import soundfile

    must_be_a_file(path)
    try:
        found = soundfile.info(openable(path))
        return float(found.frames) / float(found.samplerate)
    except soundfile.SoundFileError as error:
        from avalign.data.video import audio_seconds

        return audio_seconds(path, f"cannot be decoded as audio: {error}")


def check_audio(audio: np.ndarray, name: MediaFile) -> None:
    """MediaError that names `name` if there are no samples, or if some are NaN or infinite."""
    if audio.shape[0] == 0:
        raise MediaError(name, "holds no audio samples")
    wrong = int(np.size(audio) - np.count_nonzero(np.isfinite(audio)))
    if wrong:
        raise MediaError(name, f"{wrong} of {np.size(audio)} audio samples are NaN or infinite")


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(samples,) at `from_rate` Hz -> (samples,) float32 at `to_rate` Hz by soxr; pitch and duration stay."""
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates are positive, got {from_rate} and {to_rate} Hz")
    if from_rate == to_rate:
        return audio.astype(np.float32, copy=False)
    import soxr

    return soxr.resample(audio.astype(np.float32, copy=False), from_rate, to_rate)


def fit_length(audio: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` samples, silence (zeros) after the end: (n,) -> (samples,)."""
    if audio.shape[0] >= samples:
        return audio[:samples]
    return np.pad(audio, (0, samples - audio.shape[0]))


def openable(path: MediaFile) -> str | BytesIO:
    """What decoders open: a file's name, or the bytes of one that lies within another."""
    return BytesIO(path.content()) if isinstance(path, Stored) else str(path)


def must_be_a_file(path: MediaFile) -> None:
    if isinstance(path, Stored):
        return
    try:
        if not Path(path).is_file():
            raise MediaError(path, "is a folder, not a file" if Path(path).is_dir() else "no such file")
        if Path(path).stat().st_size == 0:
            raise MediaError(path, "the file is empty")
    except (OSError, ValueError) as error:  # a name too long, or one that no file can have
        raise MediaError(path, f"cannot be looked up: {error}") from error


def too_short(seconds: float, start: float, end: float | None) -> str:
    to = "the end" if end is None else f"{end:g} s"
    return f"lasts {seconds:.2f} s, its part from {start:g} s to {to} is meant"
