"""What users would pick to find anomalies in telemetry, each at scores [T] of rows to be judged.

A contender is `score(u, train)`: rows u [T, C], standardised by the first `train` of them, which
are normal. What it returns for the others is as long as these. None sees a label.
"""

from collections.abc import Callable

import numpy as np

from axonal.sense.detectors import DETECTORS
from axonal.sense.detectors.context.context import period_of

LAGS, WIDEST, NUMBERS = 10, 32, 1024  # rows of a forest's and of a PCA's windows; numbers of these
SHARE = 0.95  # of the variance that a PCA keeps
NEIGHBOURS = 3000  # windows of normal life that are compared with
MOVING = 100  # rows
GAUSSIAN = 1000


def windows(u: np.ndarray, lags: int) -> np.ndarray:
    """Each row with those before it, [T, C * lags]; the first one again where there is none."""
    padded = np.concatenate([np.repeat(u[:1], lags - 1, 0), u])
    return np.lib.stride_tricks.sliding_window_view(padded, lags, 0).reshape(len(u), -1)


def always(u: np.ndarray, train: int) -> np.ndarray:
    """Always: every row is as strange as another."""
    return np.zeros(len(u) - train)


def random(u: np.ndarray, train: int) -> np.ndarray:
    """Chance."""
    return np.random.default_rng(len(u)).random(len(u) - train)


def level(u: np.ndarray, train: int) -> np.ndarray:
    """The largest deviation from normal life of any channel."""
    return np.abs(u[train:]).max(1)


def _moving(u: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of so many rows before each."""
    sums = np.cumsum(np.concatenate([np.zeros((1, u.shape[1])), u]), 0)
    squares = np.cumsum(np.concatenate([np.zeros((1, u.shape[1])), u.astype(float) ** 2]), 0)
    last = np.arange(len(u))
    first = np.maximum(last - rows, 0)
    n = np.maximum(last - first, 1)[:, None]
    mean = (sums[last] - sums[first]) / n
    return mean, np.sqrt(np.maximum((squares[last] - squares[first]) / n - mean**2, 1e-6))


def moving_z(u: np.ndarray, train: int, rows: int = MOVING) -> np.ndarray:
    """A moving z-score."""
    mean, deviation = _moving(u, rows)
    return (np.abs(u - mean) / deviation).max(1)[train:]


def windowed_gaussian(u: np.ndarray, train: int) -> np.ndarray:
    """The same over 1,000 rows."""
    return moving_z(u, train, GAUSSIAN)


def moving_mad(u: np.ndarray, train: int) -> np.ndarray:
    """A moving median and the median deviation from it."""
    out = np.zeros(len(u))
    padded = np.concatenate([np.repeat(u[:1], MOVING, 0), u])
    views = np.lib.stride_tricks.sliding_window_view(padded[:-1], MOVING, 0)
    for at in range(train, len(u), 2000):
        part = views[at : at + 2000]
        middle = np.median(part, 2)
        spread = np.median(np.abs(part - middle[..., None]), 2)
        out[at : at + 2000] = (np.abs(u[at : at + 2000] - middle) / np.maximum(spread, 1e-3)).max(1)
    return out[train:]


def ewma(u: np.ndarray, train: int) -> np.ndarray:
    """How far an exponential average is from normal life."""
    average, out = np.zeros(u.shape[1]), np.zeros(len(u))
    for i, row in enumerate(u):
        average += (row - average) / 20
        out[i] = np.abs(average).max()
    return out[train:]


def sub_pca(u: np.ndarray, train: int) -> np.ndarray:
    """What a PCA of windows of 32 rows, of normal life, doesn't explain."""
    w = windows(u, max(1, min(WIDEST, NUMBERS // u.shape[1])))
    mean = w[:train].mean(0)
    known = w[: train : max(1, train // 4000)] - mean
    _, size, axes = np.linalg.svd(known, full_matrices=False)
    share = np.cumsum(size**2) / max(float((size**2).sum()), 1e-12)
    axes = axes[: int(np.searchsorted(share, SHARE)) + 1]
    rest = w[train:] - mean
    return ((rest - (rest @ axes.T) @ axes) ** 2).sum(1)


def neighbour(u: np.ndarray, train: int) -> np.ndarray:
    """The distance to the nearest window of normal life, of one period."""
    channels = u.shape[1]
    w = windows(u, max(8, min(period_of(u[:train]), 512 // channels))).astype(np.float32)
    known = w[: train : max(1, train // NEIGHBOURS)]
    lengths, out = (known**2).sum(1), np.empty(len(w) - train, np.float32)
    for at in range(train, len(w), 2000):
        part = w[at : at + 2000]
        square = (part**2).sum(1)[:, None] + lengths - 2 * part @ known.T
        out[at - train : at - train + len(part)] = square.min(1)
    return np.sqrt(np.maximum(out, 0))


def ours(name: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """A detector of Axonal, with its default options, learning as it goes."""

    def score(u: np.ndarray, train: int) -> np.ndarray:
        if name == "context":
            return DETECTORS[name](calibration=max(train, 128)).follow(u)[train:]
        detector, out = DETECTORS[name](), np.zeros(len(u))
        for i, row in enumerate(u):
            out[i] = detector.score_one(row)
            detector.learn_one(row)
        return out[train:]

    return score


CONTENDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    **{name: ours(name) for name in ("context", "evolving", "predictor", "cusum", "rate")},
    "nearest window": neighbour,
    "sub-PCA": sub_pca,
    "windowed Gaussian": windowed_gaussian,
    "moving z-score": moving_z,
    "moving median and MAD": moving_mad,
    "EWMA": ewma,
    "level": level,
    "random": random,
    "always": always,
}
OUTSIDE = {  # contenders of other libraries, that run in an environment of theirs
    "isolation forest": "forest",
    "matrix profile": "profile",
    "half-space trees": "trees",
}
