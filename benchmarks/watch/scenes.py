"""Synthetic scenes of an event camera: recorded digits in noise that comes and goes."""

import numpy as np

from axonal.data.recordings import Recordings
from axonal.sense.stream import events

SIDE = 34  # pixels
RATES, HOLD = (1.0, 3.0, 10.0, 20.0), 5.0  # noise, events a second and pixel; seconds between two
HOT = ((5, 3, 200.0), (16, 10, 200.0), (27, 17, 50.0), (4, 24, 20.0))  # x, y, events a second
CONTRASTS = (1.0, 0.5, 0.25)  # shares of a recording's events that are left
GAP, LATE = (5.0, 15.0), 0.1  # seconds from one digit to the next; in which it still may wake
Digit = tuple[float, float, float]  # seconds from and to, and its contrast


def poisson(
    rng: np.random.Generator, start: float, rate: float, x: int = -1, y: int = -1
) -> np.ndarray:
    """Draw noise of `rate` events a second for `HOLD` seconds, at a pixel or any: [t, x, y, p]."""
    count = rng.poisson(rate * HOLD)
    places = [rng.integers(SIDE, size=count) if at < 0 else np.full(count, at) for at in (x, y)]
    t = rng.uniform(start, start + HOLD, count)
    return np.stack([t, *places, rng.integers(2, size=count)])


def in_order(columns: np.ndarray) -> np.ndarray:
    """Make a packet of [t in seconds, x, y, p], each [E]."""
    t, x, y, p = columns[:, np.argsort(columns[0], kind="stable")]
    return events((t * 1e6).astype(np.int64), x, y, p)


class Scene:
    """A minute after another of noise, with digits in it where there are `recordings`."""

    def __init__(self, recordings: Recordings | None, seed: int):
        self.recordings, self.rng, self.due = recordings, np.random.default_rng(seed), 0.0

    def minute(self, number: int) -> tuple[np.ndarray, list[Digit]]:
        """Simulate the events of a minute, and the digits in it."""
        begin, parts, digits = 60.0 * number, [], []
        for start in np.arange(begin, begin + 60, HOLD):
            parts.append(poisson(self.rng, start, self.rng.choice(RATES) * SIDE**2))
            parts += [poisson(self.rng, start, rate, x, y) for x, y, rate in HOT]
        self.due = max(self.due, begin)
        while self.recordings is not None and self.due < begin + 59:
            contrast = float(self.rng.choice(CONTRASTS))
            parts.append(digit := self._digit(contrast))
            digits.append((float(digit[0].min()), float(digit[0].max()) + LATE, contrast))
            self.due += self.rng.uniform(*GAP)
        return in_order(np.concatenate(parts, 1)), digits

    def _digit(self, contrast: float) -> np.ndarray:
        every = self.recordings
        i = self.rng.integers(len(every))
        rows = np.arange(every.offsets[i], every.offsets[i + 1])
        rows = rows[self.rng.random(len(rows)) < contrast]
        return np.stack(
            [self.due + every.t[rows] * 1e-6, every.x[rows], every.y[rows], every.p[rows]]
        )
