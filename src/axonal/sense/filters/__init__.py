"""Filters of events: each scores how much an event looks like signal, and has a threshold.

Times are in microseconds. `kernels` computes the scores that `reference` defines.
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np

from ...core.errors import InputError
from ..stream import EVENT, Stateful, events
from . import kernels

SIDE = 1 << 16  # pixels that an event's uint16 can address
LEVELS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # of noise, events a second and pixel
PATCH, PATCH_S = 32, 5.0  # pixels a side, and seconds, of the noise of `noise_limits`


@dataclass(eq=False)
class PixelFilter(Stateful):
    """Base of filters: a `stream.Filter` with a map of numbers a pixel, and a clock of events.

    A subclass names its kernel, which of its fields that takes, and the number of a pixel that has
    seen nothing. Scores follow from the events so far alone, however they are cut into packets.

    Attributes:
        width, height: of the sensor, in pixels.
        threshold: the least score that passes.
        map, base, clock: its state, see `kernels`.

    Raises:
        InputError: an option is out of its range.
    """

    STATE = ("threshold", "base", "map", "clock")
    kernel: ClassVar[Callable]
    takes: ClassVar[tuple[str, ...]] = ("tau",)
    silent: ClassVar = np.float32(0)
    planes: ClassVar = 1  # maps: one, or one a polarity
    radius: ClassVar = 0  # of the neighbourhood: as wide is the map's margin

    width: int
    height: int
    _: KW_ONLY
    threshold: float = 0.0

    def __post_init__(self):
        for name, least in {"width": 1, "height": 1, "radius": 0}.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not least <= value <= SIDE:
                raise InputError(f"{name} is a whole number from {least} to {SIDE}, not {value!r}")
        if not 0 < getattr(self, "tau", 1) < math.inf or math.isnan(self.threshold):
            raise InputError("tau is a number of microseconds above 0, and threshold a number")
        high, wide = (side + 2 * self.radius for side in (self.height, self.width))
        self.map = np.full((self.planes, high, wide), self.silent)
        self.base, self.threshold = 0.0, float(self.threshold)
        self.clock = np.empty(0, np.int64)  # t of the first and of the last event

    def __call__(self, packet: np.ndarray) -> np.ndarray:
        """The events of a packet whose `score` reaches the threshold."""
        return np.compress(self.score(packet) >= self.threshold, packet)  # indexing is 4 x slower

    def score(self, packet: np.ndarray) -> np.ndarray:
        """Score how much each event looks like signal, [E] float32; moves the state on.

        A packet holds events (`stream.EVENT`) in the order of t; several may have the same.

        Raises:
            InputError: an event lies outside the sensor or before the one that precedes it, be it
                in an earlier packet, or these are no events. Nothing was changed.
        """
        if packet.dtype != EVENT or packet.ndim != 1:
            raise InputError(f"filters take packets of events, not {packet.dtype} {packet.shape}")
        packet, scores = np.ascontiguousarray(packet), np.empty(len(packet), np.float32)
        if not len(packet):
            return scores
        first, before = (self.clock if self.clock.size else packet["t"][[0, 0]]).tolist()
        if (e := kernels.misfit(packet, self.width, self.height, before)) >= 0:
            t, x, y, _ = packet[e].tolist()
            raise InputError(
                f"event {e} of the packet, at ({x}, {y}) and {t} us, lies outside the sensor of "
                f"{self.width} x {self.height}, or before others, or before {before} us; set the "
                "filter's size, or sort events by t"
            )
        options = [getattr(self, name) for name in self.takes]
        self.base = self.kernel(packet, first, self.base, self.map, *options, scores)
        self.clock = np.array([first, packet["t"][-1]])
        return scores


@dataclass(eq=False, kw_only=True)
class HotPixel(PixelFilter):
    """A filter of pixels that fire far more often than those beside them.

    score = -v / (1 + the median v of the eight neighbours), v a trace as of `LIFTrace`, own event
    included: tau times the rate of a pixel that fires steadily; `threshold` is minus the ratio that
    is hot. So it follows the scene, for a busy place has busy neighbours. Up to three hot pixels
    side by side leave the median alone; a line one pixel wide that keeps flickering looks hot too.
    """

    kernel = staticmethod(kernels.hot)
    tau: float = 1e6
    threshold: float = -8.0


@dataclass(eq=False, kw_only=True)
class Refractory(PixelFilter):
    """A filter of events that follow too soon on another one, passed or not, of the same pixel.

    score = t - T, T the time of the pixel's last event; infinite for its first one. So `threshold`
    is the refractory period.
    """

    kernel, takes, silent = staticmethod(kernels.ages), (), -np.inf
    threshold: float = 1000.0


@dataclass(eq=False, kw_only=True)
class Correlation(PixelFilter):
    """Base of filters that ask for recent events nearby, which noise has by chance alone.

    Nearby are (2 radius + 1)^2 pixels, the event's in the middle; fewer at the sensor's rim.
    """

    takes = "radius", "tau"
    radius: int = 1

    def calibrate(self, sample: np.ndarray, rate: float, seed: int = 0) -> Self:
        """Set `threshold` so that chance alone passes at most `rate` events a second and pixel.

        No labels are needed: the sample's events at new times, uniform over its span, are Poisson
        noise of the same rate at every pixel, in which nothing moves. A new filter of the same
        options scores them, after as many before; the threshold is the lowest that passes no more
        than asked for. Signal in the sample counts as noise too: the quieter the sample, the
        lower the threshold. Leave out hot pixels (`HotPixel`), which pass often by chance.

        Args:
            sample: events of normal life, over so long that `rate` allows some of them.
            rate: of what passes, in events per second and pixel.
            seed: of the new times.

        Raises:
            InputError: as `score`; the sample spans no time, or `rate` is negative.
        """
        span = int(sample["t"].max()) - int(sample["t"].min()) if len(sample) else 0
        if not 0 < span < 1 << 62 or not rate >= 0:
            raise InputError(
                f"can't calibrate to a rate of {rate} in {span} us; give more, and a rate from 0"
            )
        random, blank = np.random.default_rng(seed), replace(self)
        noise = random.permutation(sample)
        noise["t"] = np.sort(random.integers(0, span, len(noise)))
        blank.score(noise)  # the first events of all find nothing before them
        noise["t"] += span
        scores = np.sort(blank.score(noise))[::-1]
        allowed = rate * self.width * self.height * span * 1e-6
        self.threshold = -math.inf
        if allowed < len(scores):  # just above the first that may not pass
            self.threshold = float(np.nextafter(scores[int(allowed)], np.float32(np.inf)))
        return self


@dataclass(eq=False, kw_only=True)
class STCF(Correlation):
    """A filter by spatiotemporal correlation: events that k neighbours support pass.

    score = T - t, T the k-th most recent of the times of the neighbours' last events; -infinity
    where fewer have had any. So with `threshold = -tau` passes what at least k neighbours support
    within tau. Guo and Delbruck, IEEE TPAMI 45 (2023) 1.

    Attributes:
        k: neighbours; the pixel itself is none unless `own` says so.
        same_polarity: whether only events of the same polarity support each other.
    """

    kernel, takes, silent = staticmethod(kernels.recent), ("radius", "k", "own"), -np.inf
    k: int = 2
    own: bool = False
    same_polarity: bool = False
    threshold: float = -20_000.0

    def __post_init__(self):
        self.planes = 2 if self.same_polarity else 1
        super().__post_init__()
        if self.k not in range(1, most := (2 * self.radius + 1) ** 2 + self.own):
            raise InputError(f"k is from 1 to the {most - 1} neighbours, not {self.k}")


@dataclass(eq=False, kw_only=True)
class BackgroundActivity(STCF):
    """The background activity filter: an event needs one recent neighbour. `STCF` with k = 1.

    Delbruck, Frame-free dynamic digital vision, 2008. dv-processing's filter of this name passes
    ages below its duration D: in whole microseconds, `threshold = 1 - D`.
    """

    k: int = field(default=1, init=False)


@dataclass(eq=False, kw_only=True)
class TimeSurface(Correlation):
    """The mean of an exponential time surface around an event, before it is there itself.

    score = mean exp((T - t) / tau) over the neighbourhood and the pixel itself, T the time of the
    last event of the same polarity; what lies beyond the sensor's rim counts 0. Lagorce et al.,
    HOTS, IEEE TPAMI 39 (2017) 1346.
    """

    kernel, planes = staticmethod(kernels.surface), 2
    tau: float = 20_000.0
    threshold: float = 0.2


@dataclass(eq=False, kw_only=True)
class LIFTrace(Correlation):
    """A layer of leaky integrators: an event counts by all recent ones around it, itself included.

    Each event of any polarity moves its pixel's v to v exp(-Δt / tau) + 1, Δt the time since the
    event of that pixel before; score = the sum of v, decayed to the event's time, over the
    neighbourhood and the pixel itself, after the event. So an event that nothing precedes has
    score 1, and noise of r events per second and pixel 1 + (2 radius + 1)^2 r tau on average.

    Unlike `STCF` it sees how often a neighbour fired, and leaves no k to choose. Its own pixel's
    trace tells too, as edges fire in bursts; so does a hot pixel: put a `HotPixel` filter before.
    """

    kernel = staticmethod(kernels.lif)
    radius: int = 2
    tau: float = 20_000.0
    threshold: float = 5.0


@lru_cache(64)
def noise_limits(radius: int, tau: float, passes: float) -> tuple[float, ...]:
    """The thresholds of a `LIFTrace` that let `passes` of noise through, at each of `LEVELS`."""
    thresholds, random = [], np.random.default_rng(0)
    for rate in LEVELS:
        t = np.sort(random.integers(0, round(PATCH_S * 1e6), round(rate * PATCH_S * PATCH**2)))
        x, y = random.integers(0, PATCH, (2, len(t)))
        trace = LIFTrace(PATCH, PATCH, radius=radius, tau=tau)
        thresholds.append(trace.calibrate(events(t, x, y, t & 1), passes).threshold)
    return tuple(thresholds)


@dataclass(eq=False, kw_only=True)
class InhibitedTrace(LIFTrace):
    """A `LIFTrace` inhibited by one neuron that hears all pixels: its threshold follows the noise.

    That neuron's trace w, as a pixel's v but of every event, tells their rate r = w / (tau pixels).
    score = `LIFTrace`'s - limit(r), where limit lets `passes` events a second and pixel through of
    Poisson noise of that rate: measured once, at `LEVELS`, on noise alone, and linear between them.
    So 0 is the threshold, in dim light and in bright light; what fills the whole view inhibits
    itself.

    Attributes:
        passes: noise that is let through, events a second and pixel.
        limits: of the scores of `LIFTrace` at `LEVELS`.
    """

    STATE = (*LIFTrace.STATE, "drive")
    calibrate: ClassVar[Any] = None  # it does so itself

    tau: float = 5000.0
    threshold: float = 0.0
    passes: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        if not self.passes >= 0:
            raise InputError(f"passes is a rate from 0, not {self.passes}")
        self.drive, self.limits = 0.0, noise_limits(self.radius, self.tau, self.passes)

    def score(self, packet: np.ndarray) -> np.ndarray:
        """Score as `PixelFilter.score` does; at 0 as much noise passes as may."""
        before = int(self.clock[1]) if self.clock.size else None
        scores, pooled = super().score(packet), np.empty(len(packet))
        if len(packet):
            before = int(packet["t"][0]) if before is None else before
            self.drive = kernels.pooled(packet, before, self.drive, self.tau, pooled)
            rate = pooled / (self.tau * 1e-6 * self.width * self.height)
            scores -= np.interp(rate, LEVELS, self.limits).astype(np.float32)
        return scores


FILTERS = {  # by their names in settings
    "hot_pixel": HotPixel,
    "refractory": Refractory,
    "background_activity": BackgroundActivity,
    "stcf": STCF,
    "time_surface": TimeSurface,
    "lif_trace": LIFTrace,
    "inhibited_trace": InhibitedTrace,
}
