"""The Numenta Anomaly Benchmark, run whole: spiking detectors, one configuration each, no labels.

The default detector runs as it does on any telemetry. The options of `evolving` were chosen on
the whole corpus with its labels, as those of the published detectors were; what is free of labels
is the detector itself and `wakes`. Nothing is known of a
file beforehand, neither its range nor its length, which NAB offers and some detectors use.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from math import erfc, sqrt
from pathlib import Path

import numpy as np

from axonal.data.images import root
from axonal.sense.detectors import Budget, Context, Evolving

from ..harness.results import Figures
from .nab_score import LONGEST, PROBATION, PROFILES, Series, optimum, read, score

DAY = 86_400  # seconds
CLOCK = 10.0  # of the two numbers that tell the time of day, what is as far as the value's range
ROWS, MEMORY = 1000, 10_000  # the unlabelled budget: one wake in so many rows, of the last ones
QUIET = 64  # rows, of an event's surroundings
WINDOW, STEP, FINEST = 6400, 100, 12  # of the windowed Gaussian; digits of its published scores


def features(series: Series) -> np.ndarray:
    """Make a row's features: its value, and the time of day on a circle, [N, 3]."""
    angle = 2 * np.pi * (series.seconds % DAY) / DAY
    return np.stack((series.values, np.sin(angle), np.cos(angle)), axis=1)


def detect(series: Series) -> tuple[np.ndarray, dict[str, float]]:
    """Score each row before it is learned, [N], and count the work of a row."""
    detector = Evolving(spans=(0.0, CLOCK, CLOCK))
    scores = np.zeros(len(series.values))
    for row, x in enumerate(features(series)):
        scores[row] = detector.score_one(x)
        detector.learn_one(x)
    return scores, detector.counts().totals()


def beginnings(series: Series) -> np.ndarray:
    """The scores of the default detector at rows stranger than the `QUIET` before them, [N].

    It takes NAB's probation for normal; in between nothing is detected anew.
    """
    calibration = max(int(PROBATION * min(len(series.values), LONGEST)), 128)
    scores = Context(calibration=calibration).follow(series.values[:, None])
    padded = np.concatenate([np.zeros(QUIET), scores[:-1]])
    before = np.lib.stride_tricks.sliding_window_view(padded, QUIET).max(1)
    return np.where(scores > before, scores, 0.0)


def wakes(scores: np.ndarray) -> np.ndarray:
    """Mark with 1 where a score reaches a `Budget`, made of the scores before it, [N]."""
    budget = Budget(3600 / ROWS, memory=MEMORY / 3600)  # a row for a second
    marks = np.zeros(len(scores))
    for row, value in enumerate(scores.tolist()):
        marks[row] = value >= budget.threshold
        budget.update(value, row * 1_000_000)
    return marks


def windowed_gaussian(series: Series) -> np.ndarray:
    """Score with NAB's baseline, [N]: 1 - a value's Gaussian tail, of the last `WINDOW` before it.

    The window moves in steps; scores are rounded as the published ones were printed.
    """
    values, scores = series.values, np.zeros(len(series.values))
    first = last = 0
    mean, deviation = 0.0, 1.0
    for row in range(1, len(values)):
        if row <= WINDOW:
            last = row
        elif (row - WINDOW) % STEP == 0:
            first, last = row - WINDOW, row
        if last == row:
            mean = values[first:last].mean()
            deviation = values[first:last].std() or 1e-6
        scores[row] = 1 - erfc(abs(values[row] - mean) / deviation / sqrt(2)) / 2
    return scores.round(FINEST)


def half(series: Series) -> int:
    """Assign a file to half 0 or 1, by its name."""
    return int(hashlib.sha256(series.name.encode()).hexdigest(), 16) % 2


def figures(seed: int = 0, folder: Path | None = None) -> Figures:
    """Score in NAB's profiles, and with thresholds set in other ways; 0 null, 100 perfect.

    `nab_unlabelled_threshold` is scored with `wakes`: a budget of one in 1,000 rows, a round
    number, from the scores so far. The halves are scored with the other half's best threshold.

    Args:
        seed: the benches' convention; nothing is random here.
        folder: of NAB; `$AXONAL_DATA/nab` if None.

    Raises:
        FileError: no NAB is there.
    """
    corpus = read(folder or root() / "nab")
    scores, work = zip(*map(detect, corpus), strict=True)
    figures = {
        f"nab_evolving_{name}": optimum(corpus, scores, it).score for name, it in PROFILES.items()
    }
    figures["nab_standard"] = optimum(corpus, [*map(beginnings, corpus)]).score
    figures["nab_threshold"] = (best := optimum(corpus, scores)).threshold
    figures["nab_unlabelled_threshold"] = score(corpus, [wakes(one) for one in scores], 0.5)
    figures["nab_windowed_gaussian"] = optimum(corpus, [*map(windowed_gaussian, corpus)]).score
    for one in (0, 1):
        mine, others = (_part(corpus, scores, lambda s, k=k: half(s) == k) for k in (one, 1 - one))
        figures[f"nab_half [{one}]"] = score(*mine, optimum(*others).threshold)
    for category in sorted({series.category for series in corpus if series.windows}):
        part = _part(corpus, scores, lambda s, c=category: s.category == c)
        figures[f"nab_category [{category}]"] = score(*part, best.threshold)
    rows = [len(series.values) for series in corpus]
    for field in ("spikes", "synops"):
        figures[f"nab_{field}_a_row"] = float(
            np.average([one[field] for one in work], weights=rows)
        )
    return figures


def _part(
    corpus: Sequence[Series], scores: Iterable[np.ndarray], belongs: Callable[[Series], bool]
) -> tuple[list[Series], list[np.ndarray]]:
    pairs = [(s, x) for s, x in zip(corpus, scores, strict=True) if belongs(s)]
    return [s for s, _ in pairs], [x for _, x in pairs]
