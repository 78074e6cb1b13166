"""A cochlea: sound into events, by gammatone filters and changes of their loudness."""

import math

import numba
import numpy as np

from ...core import auditory
from ...core.errors import InputError
from .scalar import CELLS, SendOnDelta, checked

FLOOR = 1e-7  # energy that counts as silence; a full-scale tone has 1/4


class Cochlea(SendOnDelta):
    """Samples in [-1, 1] to events: x the channel, low to high, y the microphone, p louder.

    Gammatone filters of fourth order as a cascade of complex one-pole filters (Hohmann 2002, Acta
    Acustica 88:433), 1 at their centres, which are those of `core.hearing`, as are their widths;
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

    KEPT = (*SendOnDelta.KEPT, "_real", "_imaginary", "_energy")

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
        bands = min(channels, microphones) >= 1 and channels * microphones <= CELLS
        if not (
            bands
            and 0 < low <= high < 0.5 * rate
            and 1e-3 <= threshold < math.inf
            and 0 < tau_s < math.inf
        ):
            raise InputError(
                f"Cochlea: {channels} channels from {low} to {high} Hz at {rate} Hz, {microphones} "
                f"microphones, threshold {threshold}, tau {tau_s} s; centres lie below half the "
                f"rate, {CELLS:,} channels at most in all, and the threshold is 0.001 or more"
            )
        neurons = channels * microphones
        super().__init__(np.full(neurons, threshold))
        self.width, self.height = channels, microphones
        self.centres = auditory.centres(low, high, channels)
        damping = 2 * np.pi * auditory.bandwidths(self.centres) / rate
        turn = 2 * np.pi * self.centres / rate
        self._poles = np.exp(-damping) * np.array([np.cos(turn), np.sin(turn)])
        self._gain = 2 * (1 - np.exp(-damping)) ** 4
        self._smooth = -math.expm1(-1 / (tau_s * rate))
        self._real, self._imaginary = np.zeros((4, neurons)), np.zeros((4, neurons))
        self._energy, self._start = np.zeros(neurons), np.full(neurons, math.log(FLOOR))

    def encode(self, packet: np.ndarray) -> np.ndarray:
        """Samples [T, microphones] to events at their times.

        Raises:
            InputError: other channels, or a value that is not finite.
        """
        values, neurons, parts = checked(packet, self.height), len(self._energy), [self.flush()]
        rows = max(1, CELLS // neurons)
        for i in range(0, len(packet), rows):
            part = values[i : i + rows]
            loud = np.empty((len(part), neurons))
            (real, imaginary), memory = self._poles, (self._real, self._imaginary, self._energy)
            _filter(part, real, imaginary, self._gain, self._smooth, *memory, loud)
            parts.append(self._send(packet["t"][i : i + rows], loud))
        return np.concatenate(parts)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _filter(values, pole_re, pole_im, gain, smooth, state_re, state_im, energy, out):
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
                heard = max(re, 0.0)
                energy[n] += smooth * (heard * heard - energy[n])
        for n in range(len(energy)):  # apart, so that the filters run side by side
            out[i, n] = math.log(energy[n] + FLOOR)
