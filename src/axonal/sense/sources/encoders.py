"""Encoders of samples as events: send-on-delta and a cochlea."""

import math
from collections.abc import Iterator

import numba
import numpy as np

from ...core import auditory
from ...core.errors import InputError
from ..stream import EVENT, Source, Stateful, channels_of, events
from .buffer import Wrapper

BURST = 256  # events that one sample may send a channel, however far it jumped
CELLS = 1 << 16  # values that are looked at together
FLOOR = 1e-7  # energy of a cochlea's channel that counts as silence; a full-scale tone has 1/4


class SendOnDelta(Stateful):
    """An event for each threshold that a value has moved by since it last sent.

    x is the channel, p whether it went up (Miskowicz 2006, Sensors 6:49, in whole thresholds).
    Counted up and down from the first value they follow it within a threshold, but where it
    jumped by more than `BURST` of them.

    Args:
        thresholds: of each channel, in its unit.

    Raises:
        InputError: one that is not positive and finite.
    """

    STATE = ("_start", "_level")

    def __init__(self, thresholds):
        self._thresholds = np.atleast_1d(np.asarray(thresholds, np.float64))
        fine = (self._thresholds > 1e-30) & (self._thresholds < 1e30)
        if self._thresholds.ndim != 1 or not fine.size or not fine.all():
            raise InputError(f"thresholds {thresholds}: give a list of positive numbers")
        self.width, self.height, self._inputs = self._thresholds.size, 1, self._thresholds.size
        self._start = np.full(self.width, np.nan)
        self._level = np.zeros(self.width)  # thresholds sent since, up less down

    def encode(self, packet: np.ndarray) -> np.ndarray:
        """Encode samples as events at their times. Raises as `finite_values`."""
        values, thresholds = finite_values(packet, self._inputs), self._thresholds
        parts, step = [np.empty(0, EVENT)], max(1, CELLS // len(thresholds))
        for i in range(0, len(packet), step):
            levels = self._levels(values[i : i + step])
            before = self._start.copy(), self._level.copy()
            size = _cross(levels, thresholds, *before, np.empty((3, 0), np.int64))
            out = np.empty((3, size), np.int64)
            _cross(levels, thresholds, self._start, self._level, out)
            row, n, p = out
            parts.append(events(packet["t"][i + row], n % self.width, n // self.width, p))
        return np.concatenate(parts)

    def flush(self) -> np.ndarray:
        """The events that still wait: none."""
        return np.empty(0, EVENT)

    def _levels(self, values: np.ndarray) -> np.ndarray:
        """The levels that thresholds are for, [T, N]: the values themselves."""
        return values


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cross(values, thresholds, start, level, out):
    """Write row, column and direction of each event, if there is room; their number."""
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


class Cochlea(SendOnDelta):
    """Samples in [-1, 1] as events: x the channel, low to high, y the microphone, p louder.

    Gammatone filters of fourth order as a cascade of complex one-pole filters (Hohmann 2002, Acta
    Acustica 88:433), 1 at their centres, which are those of `core.auditory`, as are their widths;
    half-wave rectified, squared, smoothed over `tau_s`; an event for each `threshold` that the
    energy's natural logarithm moves. Samples are taken as evenly spaced.

    Args:
        rate: samples a second.
        channels: of each microphone.
        low, high: the first and last centre in Hz; `high` None is 0.45 of the rate.
        microphones: channels of the samples.

    Raises:
        InputError: numbers out of range.
    """

    STATE = (*SendOnDelta.STATE, "_real", "_imaginary", "_energy")

    def __init__(
        self,
        rate: float,
        channels: int = 32,
        low: float = 80.0,
        high: float | None = None,
        microphones: int = 1,
        threshold: float = 0.5,
        tau_s: float = 0.01,
    ):
        high = 0.45 * rate if high is None else high
        fine = min(channels, microphones) >= 1 and channels * microphones <= CELLS
        fine = fine and 0 < low <= high < 0.5 * rate
        if not (fine and 1e-3 <= threshold < math.inf and 0 < tau_s < math.inf):
            raise InputError(
                f"Cochlea: {channels} channels from {low} to {high} Hz at {rate} Hz, {microphones} "
                f"microphones, threshold {threshold}, tau {tau_s} s; centres lie below half the "
                f"rate, {CELLS:,} channels at most in all, and the threshold is 0.001 or more"
            )
        neurons = channels * microphones
        super().__init__(np.full(neurons, threshold))
        self.width, self.height, self._inputs = channels, microphones, microphones
        self.centres = auditory.centres(low, high, channels)
        damping = 2 * np.pi * auditory.bandwidths(self.centres) / rate
        turn = 2 * np.pi * self.centres / rate
        self._poles = np.exp(-damping) * np.array([np.cos(turn), np.sin(turn)])
        self._gain = 2 * (1 - np.exp(-damping)) ** 4
        self._smooth = -math.expm1(-1 / (tau_s * rate))
        self._real, self._imaginary = np.zeros((4, neurons)), np.zeros((4, neurons))
        self._energy, self._start = np.zeros(neurons), np.full(neurons, math.log(FLOOR))

    def _levels(self, values: np.ndarray) -> np.ndarray:
        """The logarithms of the energies, [T, N], of samples [T, microphones]."""
        logarithms = np.empty((len(values), len(self._energy)))
        (real, imaginary), memory = self._poles, (self._real, self._imaginary, self._energy)
        _filter(values, real, imaginary, self._gain, self._smooth, *memory, logarithms)
        return logarithms


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _filter(values, pole_re, pole_im, gain, smooth, state_re, state_im, energy, out):
    """Run the gammatone filters, and write the logarithms of their energies [T, N]."""
    channels = len(gain)
    for i in range(values.shape[0]):
        for m in range(values.shape[1]):
            x = np.float64(values[i, m])
            for c in range(channels):
                n = m * channels + c
                re, im = gain[c] * x, 0.0
                for k in range(4):
                    a, b = state_re[k, n], state_im[k, n]
                    re += a * pole_re[c] - b * pole_im[c]
                    im += a * pole_im[c] + b * pole_re[c]
                    state_re[k, n], state_im[k, n] = re, im
                rectified = max(re, 0.0)
                energy[n] += smooth * (rectified * rectified - energy[n])
        for n in range(len(energy)):  # apart, so that the filters run side by side
            out[i, n] = math.log(energy[n] + FLOOR)


class Encoded(Wrapper, Stateful):
    """A source of samples as the events of its encoder; a restart needs the state of both.

    An encoder has `encode(packet)`, `flush()` for what waits at the end, `state`, `restore`, and
    the `width` and `height` of its events.
    """

    STATE = ("encoder",)

    def __init__(self, source: Source, encoder: SendOnDelta):
        super().__init__(source)
        self.width, self.height, self.encoder = encoder.width, encoder.height, encoder

    def __iter__(self) -> Iterator[np.ndarray]:
        for packet in self.source:
            encoded, self.position = self.encoder.encode(packet), self.source.position
            yield encoded
        yield self.encoder.flush()


def finite_values(packet: np.ndarray, channels: int) -> np.ndarray:
    """The values [T, channels] of a packet.

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
