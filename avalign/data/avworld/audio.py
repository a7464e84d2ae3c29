"""The voices of avworld: every class is a synthesiser whose pitch, rhythm and envelope vary by the draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
Voice = Callable[[NDArray[np.float64], int, np.random.Generator], NDArray[np.float64]]
TAU = 2 * np.pi


def _vary(rng: np.random.Generator, value: float, share: float = 0.12) -> float:
    return value * float(np.exp(rng.uniform(-share, share)))


def _strikes(t: NDArray[np.float64], rate: float, decay: float) -> NDArray[np.float64]:
    """Exponential decays, `rate` a second: the envelope of anything that is struck."""
    return np.asarray(np.exp(-((t * rate) % 1.0) / rate / decay))


def _pulses(t: NDArray[np.float64], rate: float, duty: float) -> NDArray[np.float64]:
    """A smooth on and off, `rate` a second, on for `duty` of the time."""
    phase = (t * rate) % 1.0
    return np.asarray(np.clip(np.minimum(phase, duty - phase) * 12.0 / duty, 0.0, 1.0))


def _band(noise: NDArray[np.float64], rate: int, low: float, high: float) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / rate)
    spectrum[(hertz < low) | (hertz > high)] = 0
    band = np.fft.irfft(spectrum, len(noise))
    return np.asarray(band / (np.abs(band).max() + 1e-9))


def _chord(t: NDArray[np.float64], base: float, partials: tuple[float, ...]) -> NDArray[np.float64]:
    return np.asarray(sum(np.sin(TAU * base * p * t) / (k + 1) for k, p in enumerate(partials)))


def _bell(t, rate, rng):  # type: ignore[no-untyped-def]
    return _chord(t, _vary(rng, 720), (1.0, 2.76, 4.1)) * _strikes(t, _vary(rng, 1.8), 0.25)


def _drum(t, rate, rng):  # type: ignore[no-untyped-def]
    beat = _vary(rng, 4.0)
    return np.sin(TAU * _vary(rng, 95) * t) * _strikes(t, beat, 0.07)


def _siren(t, rate, rng):  # type: ignore[no-untyped-def]
    centre, speed = _vary(rng, 900), _vary(rng, 1.0)
    return np.sin(TAU * centre * t + centre * 0.35 / speed * np.sin(TAU * speed * t))


def _cricket(t, rate, rng):  # type: ignore[no-untyped-def]
    return np.sin(TAU * _vary(rng, 3300, 0.06) * t) * _pulses(t, _vary(rng, 22), 0.6) * _pulses(t, 2.5, 0.8)


def _engine(t, rate, rng):  # type: ignore[no-untyped-def]
    return _chord(t, _vary(rng, 62), (1, 2, 3, 4, 5, 6)) * (0.7 + 0.3 * np.sin(TAU * _vary(rng, 16) * t))


def _whistle(t, rate, rng):  # type: ignore[no-untyped-def]
    pitch = _vary(rng, 2100, 0.06)
    return np.sin(TAU * pitch * t + 9.0 * np.sin(TAU * _vary(rng, 6) * t))


def _frog(t, rate, rng):  # type: ignore[no-untyped-def]
    return _chord(t, _vary(rng, 330), (1, 1.5, 2)) * _strikes(t, _vary(rng, 13), 0.03) * _pulses(t, 2.2, 0.7)


def _clock(t, rate, rng):  # type: ignore[no-untyped-def]
    noise = _band(rng.standard_normal(len(t)), rate, 1200, 3800)
    return noise * _strikes(t, _vary(rng, 5.0), 0.012)


def _horn(t, rate, rng):  # type: ignore[no-untyped-def]
    return _chord(t, _vary(rng, 290, 0.08), (1, 3, 5, 7, 9))


def _rattle(t, rate, rng):  # type: ignore[no-untyped-def]
    return _band(rng.standard_normal(len(t)), rate, 2200, 3900) * _pulses(t, _vary(rng, 9), 0.5)


def _flute(t, rate, rng):  # type: ignore[no-untyped-def]
    steps = np.array([1.0, 1.122, 1.26, 1.335, 1.498])[rng.integers(0, 5, 40)]
    pitch = _vary(rng, 620, 0.08) * steps[(t * _vary(rng, 4)).astype(int)]
    phase = TAU * np.cumsum(pitch) / rate
    return np.sin(phase) + 0.25 * np.sin(2 * phase)


def _saw(t, rate, rng):  # type: ignore[no-untyped-def]
    noise = _band(rng.standard_normal(len(t)), rate, 500, 1800)
    return noise * np.abs(np.sin(np.pi * _vary(rng, 2.2) * t))


def _phone(t, rate, rng):  # type: ignore[no-untyped-def]
    base = _vary(rng, 1250, 0.06)
    return (np.sin(TAU * base * t) + np.sin(TAU * base * 1.25 * t)) * _pulses(t, _vary(rng, 11), 0.55)


def _bird(t, rate, rng):  # type: ignore[no-untyped-def]
    chirp = _vary(rng, 5.0)
    phase = (t * chirp) % 1.0
    pitch = _vary(rng, 3100, 0.05) * (1 - 0.45 * phase)
    return np.sin(TAU * np.cumsum(pitch) / rate) * np.clip(1 - phase * 1.7, 0, 1)


VOICES: dict[str, Voice] = {
    "bell": _bell,
    "bird": _bird,
    "clock": _clock,
    "cricket": _cricket,
    "drum": _drum,
    "engine": _engine,
    "flute": _flute,
    "frog": _frog,
    "horn": _horn,
    "phone": _phone,
    "rattle": _rattle,
    "saw": _saw,
    "siren": _siren,
    "whistle": _whistle,
}
CLASSES = tuple(VOICES)


def render(
    events: list[tuple[str, float, float]], seconds: float, rate: int, rng: np.random.Generator
) -> Wave:
    """(class, start s, end s) events over background noise 14 to 26 dB below them. -> (seconds * rate,)"""
    length = round(seconds * rate)
    wave = np.zeros(length)
    for name, start, end in events:
        first, last = round(start * rate), round(end * rate)
        t = np.arange(last - first) / rate
        voice = VOICES[name](t, rate, rng)
        fade = max(1, round(0.01 * rate))
        ramp = np.minimum(1.0, np.minimum(np.arange(len(t)), np.arange(len(t))[::-1]) / fade)
        loudness = float(np.sqrt(np.mean(voice**2))) + 1e-9
        wave[first:last] += voice * ramp * (0.12 * float(np.exp(rng.uniform(-0.7, 0.5))) / loudness)
    colour = rng.uniform(0.0, 0.9)  # from white to nearly brown noise
    noise = rng.standard_normal(length)
    spectrum = np.fft.rfft(noise) / np.maximum(1.0, np.arange(length // 2 + 1)) ** (colour / 2)
    noise = np.fft.irfft(spectrum, length)
    noise *= 0.12 * 10 ** (-rng.uniform(14, 26) / 20) / float(noise.std())
    return np.clip(wave + noise, -1, 1).astype(np.float32)
