"""Quality of generated images beside real ones: Frechet distance, precision and recall.

Every figure compares features (see `features.py`) and depends on them and on the sample counts:
compare runs of the same features and counts only.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from ..core import files
from ..core.errors import FileError, InputError
from ..data.images import DATASETS
from .features import Features, asset, classifier_features
from .runs import Interval

LEVEL = 0.95
REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] of `count` feature rows, float64.

    Raises:
        InputError: fewer than 2 rows, shapes that don't fit, or values that are not finite.
    """

    mean: np.ndarray
    cov: np.ndarray
    count: int

    def __post_init__(self):
        if self.count < 2:
            raise InputError(f"moments need at least 2 samples, not {self.count}")
        if self.mean.ndim != 1 or self.cov.shape != 2 * self.mean.shape:
            raise InputError(f"moments: mean {self.mean.shape}, covariance {self.cov.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.cov).all()):
            raise InputError("moments: a feature is NaN or infinite")

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """The moments of `features` [N, D], with the unbiased covariance.

        Raises:
            InputError: not a table, fewer than 2 rows, NaN or infinite features.
        """
        rows = _checked(features)
        mean = rows.mean(0)
        away = rows - mean
        return cls(mean, away.T @ away / (len(rows) - 1), len(rows))


def frechet(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two normal distributions (Heusel et al. 2017).

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)    (arXiv 1706.08500, eq. 6)

    The root is taken of a symmetric matrix by its eigenvalues, so that rank-deficient
    covariances give no complex numbers.

    Raises:
        InputError: features of different dimensions.
    """
    _same_width(len(a.mean), len(b.mean))
    return _distance(a, _root(a.cov), b.mean, b.cov)


def _distance(real: Moments, root: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    squares = np.linalg.eigvalsh(root.T @ cov @ root)
    overlap = np.sqrt(squares.clip(0)).sum()
    gap = np.square(real.mean - mean).sum()
    return max(0.0, float(gap + np.trace(real.cov) + np.trace(cov) - 2 * overlap))


def _root(cov: np.ndarray) -> np.ndarray:
    """R [D, rank] with R R^T = `cov`; R^T S R has the eigenvalues of S_a^1/2 S S_a^1/2."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    # The square root would blow rounding errors up, from 1e-16 of the largest value to 1e-8.
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, keep] * np.sqrt(values[keep])


def bootstrap(
    real: Moments, features: np.ndarray, resamples: int = 200, level: float = LEVEL, seed: int = 0
) -> tuple[Interval, np.ndarray]:
    """The Frechet distance of `features` [N, D] to `real`, and its bootstrap interval.

    Drawing N rows out of N with replacement raises every distance by about the bias that N rows
    have already, so the spread of the draws is taken about their own mean and laid around the
    distance of the rows as they are. The interval is therefore one for the distance that N
    images give on average; its bias, which falls as 1 / N, is not removed, nor is it in the
    figures that others report. `real` is taken as given.

    Args:
        real: moments of the real images.
        features: of the generated images.
        resamples: how many draws. One of 10,000 rows takes 4 ms at 64 features, and 4 s at the
            2,048 of Inception-v3, where fewer will do.
        level: of the interval.
        seed: of the draws. Equal seeds and counts draw equal rows, so that runs which began with
            the same noise compare draw by draw.

    Returns:
        The interval, and the draws [resamples] laid around the distance.

    Raises:
        InputError: as `Moments.of`, different dimensions, a level outside (0, 1), or fewer than
            2 draws.
    """
    if resamples < 2 or not 0 < level < 1:
        raise InputError(f"bootstrap: {resamples} resamples at level {level}")
    fake = Moments.of(features)
    value = frechet(real, fake)
    count, root = fake.count, _root(real.cov)
    away, random = np.asarray(features, np.float64) - fake.mean, np.random.default_rng(seed)
    draws = np.empty(resamples)
    for i in range(resamples):
        weights = np.bincount(random.integers(count, size=count), minlength=count) / count
        mean = weights @ away
        cov = ((away.T * weights) @ away - np.outer(mean, mean)) * (count / (count - 1))
        draws[i] = _distance(real, root, fake.mean + mean, cov)
    draws = (draws - draws.mean() + value).clip(0)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high))), draws


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """The share of the fakes among the real, and that of the real among the fakes.

    A set's manifold is the union of balls about its points, each reaching to the point's k-th
    nearest neighbour in the set (Kynkaanniemi et al. 2019, arXiv 1904.06991, eqs. 1 and 2).

    Args:
        real: features [N, D].
        fake: features [M, D]; M = N in the paper, and the figures depend on it.
        k: the neighbour.

    Returns:
        (precision, recall), each in [0, 1].

    Raises:
        InputError: as `Moments.of`, different dimensions, or no more than `k` rows.
    """
    real, fake = _checked(real), _checked(fake)
    _same_width(real.shape[1], fake.shape[1])
    if not 1 <= k < min(len(real), len(fake)):
        raise InputError(f"precision_recall: k = {k} with {len(real)} and {len(fake)} rows")
    centre = real.mean(0)
    real, fake = real - centre, fake - centre
    # Squared distances come from products of rows, which leaves rounding errors of this order.
    slack = 1e-12 * max(np.square(real).sum(1).max(), np.square(fake).sum(1).max())
    reach_real, reach_fake = _reach(real, k) + slack, _reach(fake, k) + slack
    among, covered = [], np.zeros(len(real), bool)
    for start, squares in _squares(fake, real):
        among.append((squares <= reach_real).any(1))
        covered |= (squares <= reach_fake[start : start + len(squares), None]).any(0)
    return float(np.concatenate(among).mean()), float(covered.mean())


def _reach(rows: np.ndarray, k: int) -> np.ndarray:
    # Each row finds itself at distance 0, so its k-th neighbour is the entry of index k. Copied,
    # because a view of one column would keep the whole block.
    columns = (np.partition(squares, k, axis=1)[:, k] for _, squares in _squares(rows, rows))
    return np.concatenate([column.copy() for column in columns])


def _squares(a: np.ndarray, b: np.ndarray, block: int = 500):
    """Squared distances of `block` rows of `a` at a time to all of `b`, with the first's index."""
    lengths = np.square(b).sum(1)
    for start in range(0, len(a), block):
        part = a[start : start + block]
        squares = part @ (-2 * b.T)
        squares += lengths
        squares += np.square(part).sum(1)[:, None]
        yield start, squares


@dataclass(frozen=True)
class Reference:
    """Real images as the measures need them.

    Attributes:
        features: what turns images into rows.
        moments: over all real images.
        rows: features [R, D] of some or all of them, for precision and recall.
    """

    features: Features
    moments: Moments
    rows: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray | Tensor, features: Features) -> Self:
        """The reference of real `images` [N, C, H, W] uint8, all of their rows kept."""
        rows = features(images)
        return cls(features, Moments.of(rows), rows)

    def save(self, path: str | Path, rows: int, seed: int = 0) -> Path:
        """Write the moments, and `rows` rows drawn with `seed`, in float16.

        Raises:
            InputError: there are fewer rows. FileError: the file can't be written.
        """
        if rows > len(self.rows):
            raise InputError(f"reference: {rows} rows of {len(self.rows)}")
        pick = np.random.default_rng(seed).choice(len(self.rows), rows, replace=False)
        tensors = {
            "mean": self.moments.mean,
            "cov": self.moments.cov,
            "count": np.array([self.moments.count], np.int64),
            "rows": self.rows[np.sort(pick)].astype(np.float16),
        }
        return files.write(path, lambda partial: save_file(tensors, partial))

    @classmethod
    def load(cls, path: str | Path, features: Features) -> Self:
        """Read what `save` wrote, for images seen through `features`.

        Raises:
            FileError: the file is missing or damaged.
        """
        try:
            tensors = load_file(path)
            moments = Moments(tensors["mean"], tensors["cov"], int(tensors["count"][0]))
            return cls(features, moments, tensors["rows"].astype(np.float64))
        except (OSError, SafetensorError, KeyError, InputError) as error:
            raise FileError(f"can't read {path} ({error}); install Axonal again") from error


def reference(name: str, data: bool = False, features: Features | None = None) -> Reference:
    """The test set of `name` as seen by its classifier, or by `features`.

    Args:
        name: of the data set.
        data: read the test set itself and keep all its rows, instead of what ships: the moments
            of all test images, and 2,000 rows.
        features: another view, as of `features.network_features`; it needs the data set.

    Raises:
        InputError: nothing ships for that name, or it is no data set.
        FileError: files are missing or damaged.
    """
    if features is None:
        features = classifier_features(name)
        if not data:
            return Reference.load(asset(name) / REFERENCE, features)
    if name not in DATASETS:
        raise InputError(f"{name!r} is not one of {', '.join(DATASETS)}")
    return Reference.of(DATASETS[name]("test").pixels, features)


class Measures(dict[str, Interval]):
    """The intervals by name, and the sample counts that they hold for.

    Attributes:
        images: generated images whose distance was taken.
        real: real images behind the moments.
        draws: of the distance, as `bootstrap` returns them.
        rows: generated and real images, each, that precision and recall compare.
    """

    def __init__(
        self, intervals: dict[str, Interval], draws: np.ndarray, images: int, real: int, rows: int
    ):
        super().__init__(intervals)
        self.draws, self.images, self.real, self.rows = draws, images, real, rows


def measure(
    images: np.ndarray | Tensor, reference: Reference, seed: int = 0, resamples: int = 200
) -> Measures:
    """The quality of generated `images` [N, C, H, W] uint8, with 95 % intervals.

    Precision and recall compare equally many rows of both sides, as their paper does: as many as
    the smaller side has, drawn with `seed`. Their intervals are Wilson's (1927), of the fakes
    (precision) or the real (recall) as a sample, given the other side.

    Args:
        resamples: of the distance; see `bootstrap` for what they cost.

    Returns:
        "fd" (see `bootstrap`), "precision" and "recall".

    Raises:
        InputError: fewer than 4 images, or of a shape or type that the features don't take.
    """
    rows = reference.features(images)
    random = np.random.default_rng(seed)
    count = min(len(rows), len(reference.rows))
    fake = rows[random.choice(len(rows), count, replace=False)]
    real = reference.rows[random.choice(len(reference.rows), count, replace=False)]
    fd, draws = bootstrap(reference.moments, rows, resamples, seed=seed)
    precision, recall = precision_recall(real, fake)
    intervals = {"fd": fd, "precision": _wilson(precision, count), "recall": _wilson(recall, count)}
    return Measures(intervals, draws, len(rows), reference.moments.count, count)


def _wilson(share: float, count: int) -> Interval:
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def _checked(features: np.ndarray) -> np.ndarray:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise InputError(f"features are {rows.shape}; they must be [N, D] with at least 2 rows")
    if not np.isfinite(rows).all():
        raise InputError("features: one is NaN or infinite")
    return rows


def _same_width(a: int, b: int) -> None:
    if a != b:
        raise InputError(f"features of {a} and of {b} dimensions can't be compared")
