"""A threshold that sets itself, without labels, to a budget of wakes an hour."""

from collections.abc import Iterable
from math import ceil, exp, inf, isfinite, log
from typing import Any

import numpy as np

from ...core.errors import InputError, NotFinite
from ..stream import Stateful

HOUR = 3_600_000_000  # microseconds
TAIL, FEWEST = 0.1, 10  # the share of blocks that is the tail, and blocks that make one
# Of the shape: a normal tail of thousands looks like -0.2; the moments that the fit needs exist
# below 1/2.
FLATTEST, STEEPEST = -0.2, 0.45
MOST = 1 << 20  # blocks that can be remembered
LEAST = 1e-9  # odds that a threshold has at least, where all that was seen scores 0
SURE = 1e9  # odds of a score of 1


def odds(score: Any) -> Any:
    """s / (1 - s) of scores in [0, 1], for a `Budget`; at most `SURE`.

    The tail of odds, and of their logarithm, has no end at 1: what is extrapolated from few scores
    can still be reached.
    """
    return np.minimum(score / np.maximum(1 - score, 1 / SURE), SURE)


def return_level(peaks: np.ndarray, chance: float) -> float:
    """The level that a peak reaches with probability `chance`, from the tail of earlier peaks.

    Peaks over a threshold (Pickands 1975; online in SPOT, Siffer et al. 2017): above the quantile
    u that leaves `TAIL` of the peaks, their excess is generalised Pareto,

        P(peak > z) = TAIL (1 + xi (z - u) / sigma)^(-1 / xi)

    xi and sigma by probability-weighted moments (Hosking and Wallis 1987): with m the mean excess
    and w the mean of excess times its share of larger ones, xi = 2 - m / (m - 2 w), sigma =
    m (1 - xi). xi is taken a standard error higher, 1 / sqrt(peaks of the tail), from `FLATTEST`
    to `STEEPEST`: few peaks, or ties among them, often look as if they had an end, beyond which
    the next one then lies. A chance above `TAIL` is the empirical quantile. Ties stay below the
    level.

    Args:
        peaks: [N] finite, at least `FEWEST`.
        chance: in (0, 1).
    """
    ordered = np.sort(peaks)[::-1]
    count = max(FEWEST, ceil(TAIL * len(ordered)))
    if chance * len(ordered) >= count or count == len(ordered):
        return _above(np.quantile(ordered, 1 - chance))
    level, excess = ordered[count], ordered[:count] - ordered[count]
    mean = excess.mean()
    weighted = (excess * (np.arange(count) + 0.5) / count).mean()
    bend = mean - 2 * weighted
    shape = 2 - mean / bend + count**-0.5 if bend > 0 else 0.0
    shape = min(max(shape, FLATTEST), STEEPEST)
    rarer = chance * len(ordered) / count
    grown = -log(rarer) if abs(shape) < 1e-6 else (rarer**-shape - 1) / shape
    return float(max(level + mean * (1 - shape) * grown, _above(level)))


def _above(level: float) -> float:
    """The next number that is not noise of float arithmetic."""
    return float(max(np.nextafter(level, inf), LEAST))


class Budget(Stateful):
    """The threshold that scores reach so many times an hour, as life goes on.

    Time is cut into blocks of `merge` seconds, and of each only the peak counts: a burst in it is
    one wake. The threshold is the level that a block's peak reaches with the budget's
    probability, by `return_level` over the blocks of the last `memory` hours, so that rare wakes
    are extrapolated from little life, and old life is forgotten. Blocks without scores are skipped;
    the usual gap between the others is measured. Every score counts as normal life: leave out those
    of what should wake again. Before `FEWEST` blocks the threshold is infinite: nothing wakes.

    Args:
        wakes_per_hour: the budget.
        merge: seconds within which scores are one wake.
        memory: hours, counting blocks with scores.

    Attributes:
        threshold: to be reached by a score that wakes.

    Raises:
        InputError: an option is out of its range.
    """

    STATE = ("threshold", "peaks", "count", "block", "peak", "gap")

    def __init__(self, wakes_per_hour: float, *, merge: float = 1.0, memory: float = 2.0):
        blocks = memory * 3600 / merge if merge >= 1e-6 else inf
        self.chance = wakes_per_hour * merge / 3600
        if not (0 < self.chance < 1 and FEWEST <= blocks <= MOST):
            raise InputError(
                f"{wakes_per_hour} wakes an hour, merged over {merge} s, from {memory} hours: more "
                f"than none, less than one a merge, and a memory of {FEWEST} to {MOST} merges"
            )
        self.merge = round(merge * 1e6)
        self.peaks = np.zeros(int(blocks))
        self._forget()

    def _forget(self) -> None:
        self.threshold, self.count, self.block, self.peak, self.gap = inf, 0, -1, -inf, 0.0

    @property
    def learning(self) -> tuple[float, float] | None:
        """Until there is a threshold: seconds of scores that it takes, and the highest so far."""
        if self.threshold < inf:
            return None
        highest = max([self.peak, *self.peaks[: self.count]])
        return (FEWEST - self.count) * self.merge * 1e-6, highest

    def update(self, score: float, t_us: int) -> float:
        """Take a score at a time >= 0, and return the threshold.

        Raises:
            NotFinite: the score is NaN or infinite. Nothing was changed.
        """
        if not isfinite(score):
            raise NotFinite(f"a score of {score} at {t_us} us; see what the detector scored")
        if self._note(float(score), int(t_us) // self.merge):
            self._set()
        return self.threshold

    def _note(self, score: float, block: int) -> bool:
        """Take a score, and return whether it begins a new block."""
        begins = block > self.block
        if begins:
            self._close(block)
        self.peak = max(self.peak, score)
        return begins

    def _close(self, following: int) -> None:
        """Take the peak of the block before `following`."""
        if self.block >= 0:
            self.peaks[self.count % len(self.peaks)] = self.peak
            self.count += 1
            # The logarithm, so that a pause of hours is one long gap and no usual one.
            self.gap += (log(following - self.block) - self.gap) / min(self.count, len(self.peaks))
        self.block, self.peak = following, -inf

    def _set(self) -> None:
        if self.count >= FEWEST:
            chance = min(self.chance * exp(self.gap), 0.5)
            self.threshold = return_level(self.peaks[: self.count], chance)

    def fit(self, scores: Iterable[float], seconds: float) -> float:
        """Begin anew from scores of normal life, evenly spread over so many seconds.

        Raises:
            InputError: too short a life.
            NotFinite: a score is NaN or infinite.
        """
        scores = np.asarray(scores, np.float64)
        if not np.isfinite(scores).all():
            raise NotFinite("scores are not finite; see what the detector scored")
        self._forget()
        apart = seconds * 1e6 / max(len(scores), 1)
        for i, score in enumerate(scores.tolist()):
            self._note(score, int(i * apart) // self.merge)
        self._close(self.block + max(1, round(exp(self.gap))))
        self._set()
        self.block = -1  # its clock is not that of what comes next
        if self.threshold == inf:
            raise InputError(f"{seconds} s are less than {FEWEST} times {self.merge / 1e6} s")
        return self.threshold


class WindowBudget(Stateful):
    """The threshold that one in so many windows reaches by chance, set without labels.

    Of the calibration's last quarter, blocks of 32 windows (fewer where it is short) have a peak
    each; the threshold is the level that one reaches with the budget's probability
    (`return_level`). From then on it follows what happens, as adaptive conformal inference does
    (Gibbs and Candes 2021, arXiv 2106.00170): an event, a run of blocks that reach it or stay above
    0.8 of it, raises it by the factor e^0.2 once; each other block lowers it so that both are in
    balance at the budget. So an anomaly that lasts moves it once.

    Args:
        windows_per_wake: the budget, at least 64.
        calibration: windows, at least 128.

    Attributes:
        threshold: to be reached by a score that wakes; infinite during the calibration.

    Raises:
        InputError: an option is out of its range.
    """

    STATE = ("threshold", "scores", "count", "peak", "inside", "since", "first_us", "last_us")
    BLOCK, PACE, OFF, GAP, BLOCKS = 32, 0.2, 0.8, 2, 24

    def __init__(self, windows_per_wake: float, *, calibration: int = 2000):
        if not (windows_per_wake >= 2 * self.BLOCK and 128 <= calibration <= MOST):
            raise InputError(
                f"one wake in {windows_per_wake} windows after {calibration}: at least "
                f"{2 * self.BLOCK}, and from 128 to {MOST:,}"
            )
        self.rate, self.calibration = 1 / windows_per_wake, int(calibration)
        self.scores = np.zeros(max(self.calibration // 4, 1))
        self.threshold, self.count = inf, 0
        self.peak, self.inside, self.since = -inf, 0, self.GAP + 1
        self.first_us = self.last_us = 0

    @property
    def learning(self) -> tuple[float, float] | None:
        """Until there is a threshold: seconds of scores that it takes, and the highest so far."""
        if self.threshold < inf:
            return None
        each = (self.last_us - self.first_us) * 1e-6 / max(self.count - 1, 1)
        return (self.calibration - self.count) * each, float(self.scores.max())

    def update(self, score: float, t_us: int) -> float:
        """Take the score of a window, and return the threshold.

        Raises:
            NotFinite: the score is NaN or infinite. Nothing was changed.
        """
        if not isfinite(score):
            raise NotFinite(f"a score of {score} at {t_us} us; see what the detector scored")
        self.first_us = self.first_us if self.count else int(t_us)
        self.last_us, self.count = int(t_us), self.count + 1
        if self.count <= self.calibration:
            self.scores[self.count % len(self.scores)] = score
            if self.count == self.calibration:
                self._fit()
            return self.threshold
        self.peak, self.inside = max(self.peak, score), self.inside + 1
        if self.inside == self.BLOCK:
            self._follow()
        return self.threshold

    def _fit(self) -> None:
        block = self.BLOCK
        while len(self.scores) // block < self.BLOCKS and block > 1:
            block //= 2
        ordered = np.roll(self.scores, -(self.count % len(self.scores)) - 1)
        peaks = ordered[: len(ordered) // block * block].reshape(-1, block).max(1)
        self.threshold = return_level(peaks, min(self.rate * block, 0.5))

    def _follow(self) -> None:
        lasts = self.since < self.GAP
        if self.peak >= self.threshold * (self.OFF if lasts else 1.0):
            self.threshold *= 1.0 if lasts else exp(self.PACE)
            self.since = 0
        else:
            self.threshold *= exp(-self.PACE * self.rate * self.BLOCK)
            self.since += 1
        self.peak, self.inside = -inf, 0
