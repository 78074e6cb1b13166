"""A synthetic FMCW radar, as an example of a sensor that is neither camera nor microphone."""

from collections.abc import Iterator

import numpy as np

from ...core.errors import InputError
from ..stream import samples

LIGHT = 299_792_458.0  # metres a second
CELL, WAVE = LIGHT / (2 * 1e9), LIGHT / 60e9  # metres: c / (2 B) of 1 GHz, and of a 60 GHz carrier


class Radar:
    """Range profiles of a room in which now and then somebody walks. Synthetic, not recorded.

    Every frame is one chirp: an echo at range r beats with k = 2 r B / c cycles a chirp, in phase
    4 pi r / wavelength (Richards, Fundamentals of Radar Signal Processing, 2014); its amplitude
    falls with r^2. Eight fixed reflectors and white noise come on top. A sample is the power, in
    dB, of the Hann-windowed spectrum in `bins` cells of c / (2 B). Whoever walks appears and
    vanishes anywhere, at up to 1.5 m/s, one at a time, for 3 to 8 s.

    Args:
        seed: of everything; a frame is the same wherever iterating began.
        noise: standard deviation, where an echo from 1 m has the amplitude 1.
        gap_s: from one walk to the next, on average.

    Attributes:
        intervals: [N, 2] microseconds, when somebody was there: the truth.

    Raises:
        InputError: numbers out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        duration_s: float = 60.0,
        rate: float = 20.0,
        bins: int = 64,
        noise: float = 0.05,
        gap_s: float = 10.0,
    ):
        fine = 0 < duration_s <= 1e7 and 0 < rate <= 1e6 and 8 <= bins <= 4096
        if not (fine and seed >= 0 and noise >= 0 and gap_s > 0):
            raise InputError("Radar: give seed >= 0, 8 to 4096 bins, positive durations and rates")
        self.width, self.height, self.dropped, self.position = bins, 1, 0, 0
        self._seed, self._rate, self._frames = seed, rate, int(duration_s * rate)
        self._noise, self._closed = noise, False
        rng = np.random.default_rng(seed)
        reach = bins * CELL
        self._fixed = np.array([rng.uniform(0.1, 0.9, 8) * reach, rng.uniform(0.2, 1.0, 8)])
        walks, t = [], rng.exponential(gap_s)
        while t < duration_s:
            stay, r = rng.uniform(3, 8), rng.uniform(0.2, 0.8) * reach
            walks.append((t, min(t + stay, duration_s), r, rng.uniform(-1.5, 1.5)))
            t += stay + rng.exponential(gap_s)
        self._walks = np.array(walks).reshape(-1, 4)
        self.intervals = np.rint(self._walks[:, :2] * 1e6).astype(np.int64)

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.position < self._frames and not self._closed:
            t = np.array([round(self.position / self._rate * 1e6)])
            packet = samples(t, self._profile(self.position)[None])
            self.position += 1
            yield packet

    def seek(self, position: int) -> None:
        """Go on with that frame."""
        self.position = position

    def close(self) -> None:
        self._closed = True

    def _profile(self, frame: int) -> np.ndarray:
        """The power of a frame in dB, [bins]."""
        rng, t = np.random.default_rng([self._seed, frame]), frame / self._rate
        size = 2 * self.width
        first, end, r, speed = self._walks.T
        here = (first <= t) & (t < end)
        walking = np.abs(r + speed * (t - first))[here]
        r = np.concatenate([self._fixed[0], walking])
        amplitude = np.concatenate([self._fixed[1], np.ones(len(walking))])
        phase = 2 * np.pi * r[:, None] / CELL * np.arange(size) / size
        echo = np.cos(phase + 4 * np.pi * r[:, None] / WAVE) * amplitude[:, None]
        beat = (echo / np.maximum(r[:, None], 0.3) ** 2).sum(0) + rng.normal(0, self._noise, size)
        power = np.abs(np.fft.rfft(beat * np.hanning(size))[: self.width] / size) ** 2
        return 10 * np.log10(power + 1e-12)
