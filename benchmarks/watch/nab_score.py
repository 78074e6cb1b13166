"""The Numenta Anomaly Benchmark's own scoring: windows, profiles, and the best threshold.

Lavin and Ahmad 2015 (arXiv 1510.03336); Ahmad et al. 2017 (Neurocomputing 262:134). A detection
in a labelled window earns by how early it is, the best of a window counting once; a window
without any costs; every detection outside costs. With y the place relative to a window of n rows,

    S(y) = 2 / (1 + exp(5 y)) - 1,   in it  y = -(rows to its last + 1) / n,  S(y) / S(-1)
    behind it  y = rows since its last / (n - 1),  S(y), and -1 from y >= 3 or before any window.

The score is 100 (raw - null) / (perfect - null): 0 for no detection at all, 100 for one on the
first row of every window.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from axonal.core.errors import FileError, InputError

PROBATION, LONGEST = 0.15, 5000  # of a file's rows, of which at most so many count: not scored
STEEP, FAR = 5.0, 3.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a detection is worth: `fn` for a missed window, `fp` for an alarm outside of all."""

    fp: float = 0.11
    fn: float = 1.0


STANDARD = Profile()
PROFILES = {
    "standard": STANDARD,
    "reward_low_FP_rate": Profile(fp=0.22),
    "reward_low_FN_rate": Profile(fn=2.0),
}


@dataclass(frozen=True)
class Series:
    """One file of the corpus.

    Attributes:
        name: "category/file.csv".
        seconds: [N] int64 since 1970, of the rows' clock.
        values: [N] float64.
        windows: (first row, last row) of each labelled anomaly, both inside.
    """

    name: str
    seconds: np.ndarray
    values: np.ndarray
    windows: tuple[tuple[int, int], ...]

    @property
    def category(self) -> str:
        return self.name.split("/")[0]

    @property
    def probation(self) -> int:
        """How many rows in front are not scored."""
        return floor(PROBATION * min(len(self.values), LONGEST))


class Optimum(NamedTuple):
    """The best threshold of a corpus, what it earned there, and the score that this makes."""

    threshold: float
    raw: float
    score: float


def read(folder: str | Path) -> list[Series]:
    """Read the corpus in `folder`, as NAB lays it out: `data/`, `labels/combined_windows.json`.

    Raises:
        FileError: a file is missing or isn't NAB's.
    """
    labels = Path(folder) / "labels/combined_windows.json"
    try:
        windows = json.loads(labels.read_text())
        return [_series(Path(folder), name, windows[name]) for name in sorted(windows)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FileError(
            f"{folder} is no copy of NAB ({error}); get github.com/numenta/NAB and name its folder"
        ) from error


def _series(folder: Path, name: str, windows: Sequence[Sequence[str]]) -> Series:
    with open(folder / "data" / name, newline="") as file:
        rows = list(csv.reader(file))[1:]
    seconds = np.array([row[0] for row in rows], "datetime64[s]").astype(np.int64)
    values = np.array([row[1] for row in rows], np.float64)
    limits = np.array(windows, "datetime64[s]").reshape(-1, 2).astype(np.int64)
    # The first of equal times: so does NAB.
    first = {int(t): row for row, t in reversed(list(enumerate(seconds)))}
    return Series(name, seconds, values, tuple((first[int(a)], first[int(b)]) for a, b in limits))


def worth(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Value a detection at each scored row, before profiles: S [N], and its window's number.

    Rows outside of windows have number -1 and a worth <= 0, to be multiplied by the profile's fp.
    """
    rows = np.arange(len(series.values))
    y, number = np.full(len(rows), FAR), np.full(len(rows), -1)
    for k, (first, last) in enumerate(sorted(series.windows)):
        y[first:] = -(last - rows[first:] + 1) / (last - first + 1)
        number[first : last + 1] = k
        y[last + 1 :] = np.minimum((rows[last + 1 :] - last) / max(last - first, 1), FAR)
    earned = np.where(y >= FAR, -1.0, 2 / (1 + np.exp(STEEP * y)) - 1)
    earned[number >= 0] /= 2 / (1 + np.exp(-STEEP)) - 1
    return earned[series.probation :], number[series.probation :]


def sweep(
    corpus: Sequence[Series], scores: Sequence[np.ndarray], profile: Profile = STANDARD
) -> tuple[np.ndarray, np.ndarray]:
    """List every threshold that matters, from the highest, and what all of `corpus` earns with it.

    Args:
        corpus: K files.
        scores: of each file, [N] finite; a row is a detection at score >= threshold.
        profile: of costs.

    Returns:
        (thresholds, raw), [M] each; the first threshold is infinite: no detections.

    Raises:
        InputError: scores don't fit the corpus, or aren't finite, or it is empty.
    """
    if not corpus:
        raise InputError("a corpus of no files has no score")
    value, gain, missed = [], [], 0.0
    for series, score in zip(corpus, scores, strict=True):
        if np.shape(score) != series.values.shape or not np.isfinite(score).all():
            raise InputError(f"{series.name}: a score for every row, please, and finite ones")
        earned, number = worth(series)
        score = np.asarray(score)[series.probation :]
        value.append(score[number < 0])
        gain.append(earned[number < 0] * profile.fp)
        for k in set(number[number >= 0].tolist()):
            missed -= profile.fn
            order = np.flatnonzero(number == k)
            order = order[np.argsort(-score[order], kind="stable")]
            # The best of a window counts once: each row adds by how much it beats those above it.
            best = np.maximum.accumulate(np.append(-profile.fn, earned[order]))
            value.append(score[order])
            gain.append(np.diff(best))
    value, gain = np.concatenate(value), np.concatenate(gain)
    thresholds, place = np.unique(-value, return_inverse=True)
    raw = missed + np.cumsum(np.bincount(place, gain, len(thresholds)))
    return np.append(np.inf, -thresholds), np.append(missed, raw)


def normalised(raw: float, corpus: Sequence[Series], profile: Profile) -> float:
    """Scale what was earned to a score: 0 for no detections, 100 for a perfect detector."""
    windows = sum(len(series.windows) for series in corpus)
    null = -profile.fn * windows
    return 100 * (raw - null) / (windows - null)


def optimum(
    corpus: Sequence[Series], scores: Sequence[np.ndarray], profile: Profile = STANDARD
) -> Optimum:
    """Find the threshold that earns most over all of `corpus`, with the labels: NAB's score."""
    thresholds, raw = sweep(corpus, scores, profile)
    best = int(np.argmax(raw))
    earned = float(raw[best])
    return Optimum(float(thresholds[best]), earned, normalised(earned, corpus, profile))


def score(
    corpus: Sequence[Series],
    scores: Sequence[np.ndarray],
    threshold: float,
    profile: Profile = STANDARD,
) -> float:
    """Score with a threshold, instead of the best."""
    thresholds, raw = sweep(corpus, scores, profile)
    at = np.searchsorted(-thresholds, -threshold, "right") - 1
    return normalised(float(raw[at]), corpus, profile)
