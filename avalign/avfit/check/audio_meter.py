"""What can be told of audio by listening once, in pieces of any length."""

from __future__ import annotations

import numpy as np

FULL_SCALE = 0.999  # decoders give 32767/32768, lossy ones somewhat less or more
BEYOND = 1e-6  # share of the energy that may lie above `band`
FILLED = 1e-7  # of the strongest pitch's power: what a pitch has that a sound fills
WALL = 1e-3  # of the power below it: what is left above
LOWEST_WALL = 2_500.0  # Hz: half the lowest rate that is recorded at, and somewhat less
LOWEST_HZ = 20.0  # what lies below is no sound, an offset perhaps


def step_of(rate: int) -> int:
    """Samples of one peak: a tenth of a second, to a whole sample."""
    return max(1, round(rate / 10))


class AudioMeter:
    """Peaks, samples at full scale and spectrum of samples heard piece by piece. rate: Hz

    Peaks and spectrum are of the channels' mean, which is what a model hears.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.samples = self.not_finite = self._values = self._full = 0
        self._energy = self._mean_energy = 0.0  # of the channels, and of their mean
        self._step = step_of(rate)
        self._size = 1 << min(13, max(4, round(np.log2(0.064 * max(rate, 250)))))
        self._peaks: list[np.ndarray] = []
        self._open_peak, self._open = 0.0, 0  # the loudest of an unfinished tenth, and its samples so far
        self._rest = np.zeros(0, np.float32)
        self._window = np.hanning(self._size)
        self._power = np.zeros(self._size // 2 + 1)

    def add(self, samples: np.ndarray) -> None:
        """samples: (n, channels) float32 in [-1, 1]"""
        finite = np.isfinite(samples)
        if not finite.all():
            self.not_finite += int(samples.size - np.count_nonzero(finite))
            samples = np.where(finite, samples, 0)
        self._values += samples.size
        self._full += int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))
        mono = samples.mean(axis=1)
        self._energy += float(np.square(samples, dtype=np.float64).mean(axis=1).sum())
        self._mean_energy += float(np.square(mono, dtype=np.float64).sum())
        self.samples += len(mono)
        self._note_peaks(np.abs(mono))
        self._note_power(mono)

    def _note_peaks(self, loud: np.ndarray) -> None:
        missing = self._step - self._open
        head, body = loud[:missing], loud[missing:]
        self._open_peak = max(self._open_peak, float(head.max(initial=0)))
        self._open += len(head)
        if self._open < self._step:
            return
        complete = len(body) // self._step * self._step
        self._peaks += [np.array([self._open_peak]), body[:complete].reshape(-1, self._step).max(axis=1)]
        self._open_peak, self._open = float(body[complete:].max(initial=0)), len(body) - complete

    def _note_power(self, mono: np.ndarray) -> None:
        mono = np.concatenate([self._rest, mono]) if len(self._rest) else mono
        complete = len(mono) // self._size * self._size
        self._rest = mono[complete:]
        for begin in range(0, complete, 256 * self._size):
            frames = mono[begin : min(begin + 256 * self._size, complete)].reshape(-1, self._size)
            self._power += (np.abs(np.fft.rfft(frames * self._window, axis=1)) ** 2).sum(axis=0)

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def peaks(self) -> bytes:
        """The loudest of each 0.1 s as half decibels below full scale, one byte each; 255: 127.5 and less."""
        last = [np.array([self._open_peak])] if self._open else []
        peaks = np.concatenate([*self._peaks, *last]) if self._peaks or last else np.zeros(0)
        decibels = -20 * np.log10(np.maximum(peaks, 1e-9))
        return np.clip(np.round(2 * decibels), 0, 255).astype(np.uint8).tobytes()

    def full_scale(self) -> float:
        """Share of all samples, of all channels, at full scale."""
        return self._full / max(1, self._values)

    def lost_to_mixing(self) -> float:
        """Decibels by which the channels' mean is weaker than they are: 300 where they cancel."""
        if self._energy == 0:
            return 0.0
        return -10 * float(np.log10(max(self._mean_energy / self._energy, 1e-30)))

    def ends_in_a_wall(self) -> bool:
        """Whether the energy fills its band and ends at once, as a resampler leaves it. A tone, which fills
        nothing, and audio that fades towards high pitches do not."""
        hertz, edge = np.arange(len(self._power)) * self.rate / self._size, self.band()
        below = self._power[(hertz > 0.5 * edge) & (hertz < 0.95 * edge)]
        above = self._power[(hertz > 1.1 * edge) & (hertz < 1.5 * edge)]
        if edge < LOWEST_WALL or not len(below) or not len(above):
            return False
        filled = np.count_nonzero(below > FILLED * self._power[hertz >= LOWEST_HZ].max())
        return bool(filled > 0.9 * len(below) and np.median(above) < WALL * np.median(below))

    def band(self) -> float:
        """Hz below which all but BEYOND of the energy lies; 0 for silence and for less than one window."""
        hertz = np.arange(len(self._power)) * self.rate / self._size
        power = np.where(hertz >= LOWEST_HZ, self._power, 0)
        total = power.sum()
        if total <= 0:
            return 0.0
        return float(hertz[np.searchsorted(np.cumsum(power), (1 - BEYOND) * total)])
