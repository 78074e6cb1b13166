"""Digits that an event camera sees now and then, in noise that comes and goes.

Recordings of N-MNIST's test set, at full contrast and fainter, are spliced into Poisson noise whose
rate changes, with hot pixels. A larger model is to be woken for each, and for nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from axonal.data.recordings import nmnist
from axonal.sense.detectors import Budget
from axonal.sense.features import Windows
from axonal.sense.filters import LEVELS, STCF, Correlation, HotPixel, InhibitedTrace, LIFTrace
from axonal.sense.wake import Policy

from ..harness.results import Figures
from .scenes import CONTRASTS, SIDE, Digit, Scene, in_order, poisson
from .scorecard import score
from .waking import burst_threshold, by_chance, surprises, wake_intervals

PASSES = 0.05  # noise that a filter lets through, events a second and pixel
WINDOW, GRID, BUDGET = 0.05, 4, 1.0  # seconds, cells a side, false wakes an hour
POLICY, MERGE = Policy(postroll=0.2), 0.5  # seconds within which wakes are one
WORST = (20.0,)
CHAINS = (  # filters, and the rates that their thresholds are found at
    (partial(LIFTrace, tau=5000.0), WORST),
    (STCF, WORST),
    (STCF, LEVELS),
    (partial(STCF, k=6), WORST),
    (partial(STCF, radius=2, k=14), WORST),
)


@dataclass
class Watched:
    """A scene behind filters, window by window.

    Attributes:
        cells: features of the raster, [N, GRID^2]; `arrived`, `passed`: events before and after
            the filters, [N].
        digits: that were shown.
    """

    cells: np.ndarray
    arrived: np.ndarray
    passed: np.ndarray
    digits: list[Digit]

    @property
    def ends_us(self) -> np.ndarray:
        """The ends of the windows, in microseconds, [N]."""
        return (np.arange(len(self.passed)) + 1) * round(WINDOW * 1e6)

    @property
    def seconds(self) -> float:
        """The length of the scene."""
        return len(self.passed) * WINDOW


def inhibited() -> Callable[[np.ndarray], np.ndarray]:
    """Chain a filter for hot pixels and the LIF trace whose threshold follows the noise."""
    hot, lif = HotPixel(SIDE, SIDE), InhibitedTrace(SIDE, SIDE, passes=PASSES)
    return lambda packet: lif(hot(packet))


class Following:
    """A filter behind one for hot pixels, with a threshold that follows the rate of all events.

    It is what passes `PASSES` events a second and pixel of noise of that rate, interpolated between
    `levels`, at which it is found once, on noise alone. One level makes it a fixed threshold.

    Args:
        make: the filter.
        levels: events a second and pixel.
        seed: of the noise.
    """

    def __init__(self, make: Callable[..., Correlation], levels: Sequence[float], seed: int):
        self.hot, self.filter, self.levels = HotPixel(SIDE, SIDE), make(SIDE, SIDE), levels
        rng = np.random.default_rng(seed)
        noise = (poisson(rng, 0.0, rate * SIDE**2) for rate in levels)
        calibrated = (make(SIDE, SIDE).calibrate(in_order(part), PASSES) for part in noise)
        self.limits = [one.threshold for one in calibrated]

    def __call__(self, packet: np.ndarray) -> np.ndarray:
        """Filter a packet that begins and ends with windows."""
        calm = self.hot(packet)
        period = round(WINDOW * 1e6)
        parts = []
        for part in np.split(calm, np.flatnonzero(np.diff(calm["t"] // period)) + 1):
            rate = len(part) / WINDOW / SIDE**2
            self.filter.threshold = float(np.interp(rate, self.levels, self.limits))
            parts.append(self.filter(part))
        return np.concatenate(parts)


def watch(
    scene: Scene, minutes: int, filters: Sequence[Callable[[np.ndarray], np.ndarray]]
) -> list[Watched]:
    """Pass so many minutes of a scene through each of the filters, in windows."""
    windows = [Windows(WINDOW, SIDE, SIDE, grid=GRID) for _ in filters]
    outputs, digits = [[] for _ in filters], []
    for number in range(minutes):
        packet, new = scene.minute(number)
        digits += new
        for one, cut, output in zip(filters, windows, outputs, strict=True):
            output += [*cut.push(packet, one(packet)), *cut.advance(60_000_000 * (number + 1))]
    columns = [zip(*((w.x, w.n_in, w.n_out) for w in output), strict=True) for output in outputs]
    return [Watched(*(np.array(column) for column in three), digits) for three in columns]


def judge(scenes: Sequence[Watched], scores: Sequence[np.ndarray], seed: int) -> Figures:
    """Judge scores of the calm, the quiet and the busy scene, each the mean of two windows.

    That is at the threshold that the calm one sets, and for recall also at the lowest that keeps
    to the budget on the quiet scene itself.
    """
    _, quiet, busy = scenes
    calm, silent, lively = (np.convolve(one, [0.5, 0.5])[: len(one)] for one in scores)
    limit = Budget(BUDGET, merge=MERGE).fit(calm, len(calm) * WINDOW)
    false = score(wake_intervals(quiet.ends_us, silent, limit, POLICY), [], quiet.seconds)
    spans = [(a, b) for a, b, _ in busy.digits]
    card = score(wake_intervals(busy.ends_us, lively, limit, POLICY), spans, busy.seconds)
    figures = card.figures() | {"false_per_hour": false.false_per_hour}
    figures["recall_by_chance"] = by_chance(card, spans, busy.seconds, seed).recall
    bursts = int(BUDGET * quiet.seconds / 3600)
    wakes = wake_intervals(
        busy.ends_us, lively, burst_threshold(quiet.ends_us, silent, bursts, MERGE), POLICY
    )
    figures["recall_at_budget"] = score(wakes, spans, busy.seconds).recall
    for contrast in CONTRASTS:
        some = [(a, b) for a, b, at in busy.digits if at == contrast]
        figures[f"recall_at_budget_{contrast:g}"] = score(wakes, some, busy.seconds).recall
    return {name: round(value, 4) for name, value in figures.items() if np.isfinite(value)}


def figures(seed: int = 0, minutes: int = 60) -> Figures:
    """Measure how well digits wake, beside controls.

    Args:
        seed: of noise, places in time and contrasts.
        minutes: of the scene without digits; a third as many calibrate, half as many have digits.

    Returns:
        "digits_[K]_[figure]" of `Scorecard.figures` at a threshold set without labels; false wakes
        an hour on the scene without digits; recall if one woke at random for as long; "recall_at_
        budget" at the lowest threshold that keeps to the budget on the test itself, and of each
        contrast. K: "lif", events behind the inhibited LIF trace; "lif_fixed", behind one with a
        threshold for the worst noise; "evolving", an evolving network on the raster of "lif";
        "rate", all events; "stcf", STCF with its default k and a fixed threshold; "stcf_best",
        the STCF of `CHAINS` with the highest recall on this very test.

    Raises:
        FileError: the recordings are missing or damaged.
    """
    lengths = max(minutes // 3, 1), minutes, max(minutes // 2, 1)
    recordings = None, None, nmnist("test")
    scenes = [
        watch(
            Scene(recordings[i], seed + i),
            lengths[i],
            [inhibited(), *(Following(*how, seed) for how in CHAINS)],
        )
        for i in range(3)
    ]
    lif, fixed, *offered = zip(*scenes, strict=True)
    ends = np.cumsum([len(scene.passed) for scene in lif])[:-1]
    strangeness = np.split(surprises(np.concatenate([s.cells for s in lif]), ends[0]), ends)
    strangeness[0] = strangeness[0][
        len(strangeness[0]) // 2 :
    ]  # the first half is still being learned
    stcf = [judge(three, [s.passed for s in three], seed) for three in offered]
    judged = {
        "lif": judge(lif, [s.passed for s in lif], seed),
        "lif_fixed": judge(fixed, [s.passed for s in fixed], seed),
        "evolving": judge(lif, strangeness, seed),
        "rate": judge(lif, [s.arrived for s in lif], seed),
        "stcf": stcf[0],
        "stcf_best": max(stcf, key=lambda one: one["recall_at_budget"]),
    }
    return {f"digits_{k}_{name}": value for k, one in judged.items() for name, value in one.items()}
