"""Samples into events: send-on-delta, and populations of receptive fields."""

import math
from collections.abc import Iterator

import numba
import numpy as np

from ...core.errors import InputError
from ..stream import EVENT, Remembering, Source, channels_of, events
from .wrapped import Wrapped

BURST = 256  # events that one sample may send a channel, however far it jumped
CELLS = 1 << 16  # values that are looked at together


class SendOnDelta(Remembering):
    """An event for each threshold that a value has moved by since it last sent.

    x is the channel, p whether it went up (Miskowicz 2006, Sensors 6:49, in whole thresholds).
    Counted up and down from the first value they follow it within a threshold, but where it
    jumped by more than `BURST` of them.

    Args:
        thresholds: of each channel, in its unit.

    Raises:
        InputError: one that is not positive and finite.
    """

    KEPT = ("_start", "_level")

    def __init__(self, thresholds):
        self._thresholds = np.atleast_1d(np.asarray(thresholds, np.float64))
        fine = (self._thresholds > 1e-30) & (self._thresholds < 1e30)
        if self._thresholds.ndim != 1 or not fine.size or not fine.all():
            raise InputError(f"thresholds {thresholds}: give a list of positive numbers")
        self.width, self.height = self._thresholds.size, 1
        self._start = np.full(self.width, np.nan)
        self._level = np.zeros(self.width)  # thresholds sent since, up less down

    def encode(self, packet: np.ndarray) -> np.ndarray:
        """Samples to events at their times.

        Raises:
            InputError: other channels, or a value that is not finite.
        """
        return self._send(packet["t"], checked(packet, self.width))

    def flush(self) -> np.ndarray:
        """Nothing: no event waits."""
        return np.empty(0, EVENT)

    def _send(self, t: np.ndarray, values: np.ndarray) -> np.ndarray:
        before = self._start.copy(), self._level.copy()
        size = _cross(values, self._thresholds, *before, np.empty((3, 0), np.int64))
        out = np.empty((3, size), np.int64)
        _cross(values, self._thresholds, self._start, self._level, out)
        row, n, p = out
        return events(t[row], n % self.width, n // self.width, p)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cross(values, thresholds, start, level, out):
    """Writes row, column and direction of what is sent, if there is room; how much that is."""
    count = 0
    for i in range(values.shape[0]):
        for n in range(values.shape[1]):
            if math.isnan(start[n]):
                start[n] = values[i, n]
            height = (values[i, n] - start[n]) / thresholds[n]
            if abs(height - level[n]) < 1:
                continue
            to = np.floor(height) if height > level[n] else np.ceil(height)
            for _ in range(min(abs(to - level[n]), BURST)):
                if out.shape[1]:
                    out[0, count], out[1, count], out[2, count] = i, n, to > level[n]
                count += 1
            level[n] = to
    return count


class Population(Remembering):
    """Each value as the latencies of a row of neurons, sooner the nearer it is to their centre.

    Gaussian receptive fields (Bohte et al. 2002, Neurocomputing 48:17): neuron k of a channel
    answers a = exp(-(value - centre_k)^2 / (2 width^2)), and sends, if a is `least` or more, an
    event (x = k, y = channel, p = 1) `window_us` (1 - a) after the sample. Events wait until no
    earlier one can come.

    Args:
        centres: [K], or [channels, K].
        width: of the fields, in the unit of the values.

    Raises:
        InputError: numbers out of range.
    """

    KEPT = ("_waiting",)

    def __init__(self, centres, width: float, window_us: int = 10_000, least: float = 0.05):
        self.centres = np.atleast_2d(np.asarray(centres, np.float64))
        fine = self.centres.ndim == 2 and self.centres.size and np.isfinite(self.centres).all()
        if not (fine and 0 < width < math.inf and 0 < least <= 1 and 0 <= window_us < 1 << 40):
            raise InputError(
                f"Population: centres {self.centres.shape}, width {width}, window {window_us}, "
                f"least {least}; give finite ones, width > 0 and least in (0, 1]"
            )
        self.height, self.width = self.centres.shape
        self._width, self._window, self._least = width, window_us, least
        self._waiting = np.empty(0, EVENT)

    def encode(self, packet: np.ndarray) -> np.ndarray:
        """Samples to the events that are due before the last of them.

        Raises:
            InputError: other channels, or a value that is not finite.
        """
        values, step = checked(packet, self.height), max(1, CELLS // self.centres.size)
        at = [slice(i, i + step) for i in range(0, len(packet), step)]
        found = [self._waiting, *(self._answers(packet["t"][i], values[i]) for i in at)]
        found = np.concatenate(found)
        found = found[np.argsort(found["t"], kind="stable")]
        due = np.searchsorted(found["t"], packet["t"][-1]) if len(packet) else 0
        self._waiting = found[due:]
        return found[:due]

    def flush(self) -> np.ndarray:
        """The events that still wait."""
        found, self._waiting = self._waiting, self._waiting[:0]
        return found

    def _answers(self, t: np.ndarray, values: np.ndarray) -> np.ndarray:
        far = (values[:, :, None] - self.centres) / self._width
        answer = np.exp(-0.5 * far**2)
        row, y, x = np.nonzero(answer >= self._least)
        late = np.rint(self._window * (1 - answer[row, y, x])).astype(np.int64)
        return events(t[row] + late, x, y, np.ones(len(x)))


class Encoded(Wrapped, Remembering):
    """A source of samples as the events of its encoder; after a restart both are needed.

    An encoder has `encode(packet)`, `flush()` for what waits at the end, `state`, `restore`, and
    the `width` and `height` of its events.
    """

    KEPT = ("encoder",)

    def __init__(self, source: Source, encoder: SendOnDelta | Population):
        super().__init__(source)
        self.width, self.height, self.encoder = encoder.width, encoder.height, encoder

    def __iter__(self) -> Iterator[np.ndarray]:
        for packet in self.source:
            found, self.position = self.encoder.encode(packet), self.source.position
            yield found
        yield self.encoder.flush()


def checked(packet: np.ndarray, channels: int) -> np.ndarray:
    """A packet's values [T, channels].

    Raises:
        InputError: other channels, or a value that is not finite.
    """
    if channels_of(packet) != channels:
        raise InputError(f"{packet.dtype} are no samples of {channels} channels")
    if not (fine := np.isfinite(packet["value"]).all(1)).all():
        row = int(np.argmin(fine))
        raise InputError(
            f"sample {row}, t = {packet['t'][row]}: a value is not finite; leave it out"
        )
    return packet["value"]
