"""A layer of leaky integrators whose threshold follows the noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...core.errors import InputError
from ..stream import State, events
from . import kernels
from .filters import LIFTrace

LEVELS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # of noise, events a second and pixel
PATCH, LASTS = 32, 5.0  # pixels a side, and seconds, of the noise that limits are found in


@lru_cache(64)
def limits(radius: int, tau: float, passes: float) -> tuple[float, ...]:
    """The thresholds of a `LIFTrace` that let `passes` of noise through, at each of `LEVELS`."""
    found, random = [], np.random.default_rng(0)
    for rate in LEVELS:
        t = np.sort(random.integers(0, round(LASTS * 1e6), round(rate * LASTS * PATCH**2)))
        noise = events(t, *random.integers(0, PATCH, (2, len(t))), t & 1)
        plain = LIFTrace(PATCH, PATCH, radius=radius, tau=tau)
        found.append(plain.calibrate(noise, passes).threshold)
    return tuple(found)


@dataclass(eq=False, kw_only=True)
class InhibitedTrace(LIFTrace):
    """`LIFTrace` inhibited by one neuron that hears all pixels: its threshold follows the noise.

    That neuron's trace w, as a pixel's v but of every event, tells their rate r = w / (tau pixels).
    score = `LIFTrace`'s - limit(r), where limit lets `passes` events a second and pixel through of
    Poisson noise of that rate: found once, at `LEVELS`, on noise alone, and straight between them.
    So 0 is the threshold, in dim light and in bright light; what fills the whole view inhibits
    itself.

    Attributes:
        passes: noise that is let through, events a second and pixel.
        limits: of the scores of `LIFTrace` at `LEVELS`.
    """

    calibrate = None  # it has done so itself

    tau: float = 5000.0
    threshold: float = 0.0
    passes: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        if not self.passes >= 0:
            raise InputError(f"passes is a rate from 0, not {self.passes}")
        self._drive, self.limits = 0.0, limits(self.radius, self.tau, self.passes)

    def score(self, packet: np.ndarray) -> np.ndarray:
        """As `PixelFilter.score`; 0 is where as much noise passes as may."""
        before = int(self._clock[1]) if self._clock.size else None
        scores, pooled = super().score(packet), np.empty(len(packet))
        if len(packet):
            before = int(packet["t"][0]) if before is None else before
            self._drive = kernels.pooled(packet, before, self._drive, self.tau, pooled)
            rate = pooled / (self.tau * 1e-6 * self.width * self.height)
            scores -= np.interp(rate, LEVELS, self.limits).astype(np.float32)
        return scores

    def state(self) -> State:
        """What it remembers, and its threshold."""
        return super().state() | {"drive": self._drive}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the filter did that gave `state`, whose options were the same.

        Raises:
            InputError: its map has another size, or it is of another kind. Nothing was changed.
        """
        if "drive" not in state:
            raise InputError("the state is of a filter of another kind; use that")
        super().restore(state)
        self._drive = float(state["drive"])
