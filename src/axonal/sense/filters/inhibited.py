"""A layer of leaky integrators whose threshold follows the noise."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from ...core.errors import InputError
from ..stream import events
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
        x, y = random.integers(0, PATCH, (2, len(t)))
        noise = events(t, x, y, t & 1)
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

    KEPT = (*LIFTrace.KEPT, "drive")
    calibrate: ClassVar[Any] = None  # it has done so itself

    tau: float = 5000.0
    threshold: float = 0.0
    passes: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        if not self.passes >= 0:
            raise InputError(f"passes is a rate from 0, not {self.passes}")
        self.drive, self.limits = 0.0, limits(self.radius, self.tau, self.passes)

    def score(self, packet: np.ndarray) -> np.ndarray:
        """As `PixelFilter.score`; 0 is where as much noise passes as may."""
        before = int(self.clock[1]) if self.clock.size else None
        scores, pooled = super().score(packet), np.empty(len(packet))
        if len(packet):
            before = int(packet["t"][0]) if before is None else before
            self.drive = kernels.pooled(packet, before, self.drive, self.tau, pooled)
            rate = pooled / (self.tau * 1e-6 * self.width * self.height)
            scores -= np.interp(rate, LEVELS, self.limits).astype(np.float32)
        return scores
