"""Scores of windows turned into wakes and thresholds, for all benches of wakes."""

import bisect
from collections.abc import Sequence

import numpy as np

from axonal.core.errors import FileError
from axonal.data.images import root
from axonal.sense.detectors import Evolving
from axonal.sense.detectors.budget import odds
from axonal.sense.wake import Cascade, Policy, Step

from .scorecard import Interval, Scorecard, random_wakes, score


def arrays(name: str, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read a file under $AXONAL_DATA: the arrays of these names, or all.

    Raises:
        FileError: it is missing or damaged.
    """
    path = root() / name
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in names or file}
    except (OSError, ValueError, KeyError) as error:
        raise FileError(f"can't use {path}: {error}; put it there, under $AXONAL_DATA") from error


def surprises(x: np.ndarray, learned: int) -> np.ndarray:
    """Score x [T, F] by an evolving network that learns the first rows: ln(1 + odds), [T].

    See `budget.odds`.
    """
    judge, scores = Evolving(rest=1.0), np.zeros(len(x))
    for t, row in enumerate(x):
        scores[t] = judge.score_one(row)
        if t < learned:
            judge.learn_one(row)
    return np.log1p(odds(scores))


def wake_intervals(
    ends_us: np.ndarray, scores: np.ndarray, limit: float, policy: Policy
) -> list[Interval]:
    """List from when to when, in seconds, a cascade of one step with these scores is awake.

    Args:
        ends_us: of the windows, [N].
        scores: of the windows, [N].
        limit: the threshold.
        policy: of the cascade.
    """
    cascade = Cascade([Step("scores", float, limit)], policy)
    times, wakes = ends_us.tolist(), []
    for t, value in zip(times, scores.tolist(), strict=True):
        wakes += cascade.step(t, value)
    wakes += cascade.finish(times[-1])
    return [(w.t_wake_us * 1e-6, w.t_end_us * 1e-6) for w in wakes if w.type == "end"]


def burst_threshold(ends_us: np.ndarray, scores: np.ndarray, bursts: int, apart: float) -> float:
    """Find the lowest threshold that at most so many bursts of scores reach.

    Bursts are `apart` seconds from each other. A threshold would be that which knew which windows
    are quiet.
    """
    middles: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        t = int(ends_us[i])
        k = bisect.bisect(middles, t)
        if not any(abs(t - near) <= apart * 1e6 for near in middles[max(k - 1, 0) : k + 1]):
            if len(middles) == bursts:
                return float(np.nextafter(scores[i], np.inf))
            middles.insert(k, t)
    return float(scores.min())


def by_chance(card: Scorecard, truth: Sequence[Interval], seconds: float, seed: int) -> Scorecard:
    """Judge a control that wakes at random, as long in all as `card` and as long each."""
    length = max(card.duty * seconds / max(card.wakes, 1), 1e-3)
    return score(random_wakes(card.duty, length, seconds, seed), truth, seconds)
