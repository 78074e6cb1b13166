"""Baselines for the spiking detectors: levels, cumulative sums, and half-space trees."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from ...core import extras
from ...core.errors import InputError
from .base import Online, StandardScaler


@dataclass(eq=False, kw_only=True)
class Rate(Online):
    """A threshold on the level: the largest |z| of any feature, z / (z + limit).

    Args:
        memory: steps over which mean and deviation are forgotten.
        limit: the z that scores 0.5.
        floor: the least deviation; 1 for counts of events, in whose units noise has that much.
        rising: whether only what lies above the mean counts.
    """

    STATE = (*Online.STATE, "standard")

    memory: float = 10_000.0
    limit: float = 3.0
    floor: float = 0.0
    rising: bool = False

    def __post_init__(self):
        if not self.limit > 0:
            raise InputError(f"limit {self.limit} is no number above 0")
        self.standard = StandardScaler(self.memory, inf, self.floor)

    def _score(self, x: np.ndarray) -> float:
        z = self.standard(x)
        far = float((np.maximum(z, 0) if self.rising else np.abs(z)).max())
        return far / (far + self.limit)

    def _learn(self, x: np.ndarray) -> None:
        self.standard.learn(x)


@dataclass(eq=False, kw_only=True)
class Cusum(Online):
    """Page's cumulative sums (1954), upwards and downwards, of every feature; the largest counts.

        up <- max(0, up + z - slack),  down <- max(0, down - z - slack)

    A sum that reaches `limit` begins anew; z is cut there, so that one outlier is no change.

    Args:
        slack: half the shift to be found, in deviations.
        memory: steps over which mean and deviation are forgotten.
        limit: the sum that scores 0.5.
        floor: the least deviation, as of `Rate`.
    """

    STATE = (*Online.STATE, "standard", "sums")

    slack: float = 0.5
    memory: float = 10_000.0
    limit: float = 5.0
    floor: float = 0.0

    def __post_init__(self):
        if not (self.slack >= 0 and self.limit > 0):
            raise InputError(f"slack {self.slack} is >= 0 and limit {self.limit} > 0")
        self.standard = StandardScaler(self.memory, self.limit, self.floor)
        self.sums = np.empty((2, 0))

    def _begin(self, x: np.ndarray) -> None:
        self.sums = np.zeros((2, len(x)))

    def _next(self, x: np.ndarray) -> np.ndarray:
        z = self.standard(x)
        return np.maximum(0, self.sums + np.stack((z, -z)) - self.slack)

    def _score(self, x: np.ndarray) -> float:
        largest = float(self._next(x).max())
        return largest / (largest + self.limit)

    def _learn(self, x: np.ndarray) -> None:
        sums = self._next(x)
        self.sums = np.where(sums < self.limit, sums, 0.0)
        self.standard.learn(x)


class HalfSpaceTrees(Online):
    """River's half-space trees (Tan, Ting and Liu 2011, IJCAI), on x scaled by its range so far.

    Their masses have no form but pickle's. So the state is the scaled x of the window that is
    full and of the one being filled, and `restore` learns them again: at most 2 `window` rows.

    Args:
        trees, height, window, seed: as River's.

    Raises:
        MissingExtra: River is not installed.
    """

    STATE = (*Online.STATE, "rows", "count", "least", "most")

    def __init__(self, *, trees: int = 10, height: int = 8, window: int = 250, seed: int = 0):
        self.options = {"n_trees": trees, "height": height, "window_size": window, "seed": seed}
        self.model = extras.require("river.anomaly", "watch").HalfSpaceTrees(**self.options)
        self.rows, self.count = np.empty((2 * window, 0)), 0
        self.least = self.most = np.empty(0)

    def _begin(self, x: np.ndarray) -> None:
        self.rows = np.zeros((len(self.rows), len(x)))
        self.least, self.most = x.copy(), x.copy()

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        span = self.most - self.least
        return np.where(span > 0, (x - self.least) / np.where(span > 0, span, 1.0), 0.5)

    def _score(self, x: np.ndarray) -> float:
        return float(self.model.score_one(dict(enumerate(self._scaled(x).tolist()))))

    def _learn(self, x: np.ndarray) -> None:
        if self.count == len(self.rows):
            self.count //= 2
            self.rows[: self.count] = self.rows[self.count :]
        self.rows[self.count] = self._scaled(x)
        self.model.learn_one(dict(enumerate(self.rows[self.count].tolist())))
        self.count += 1
        self.least, self.most = np.minimum(self.least, x), np.maximum(self.most, x)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as `Stateful.restore` does, learning the rows again."""
        super().restore(state)
        self.model = type(self.model)(**self.options)
        for row in self.rows[: self.count].tolist():
            self.model.learn_one(dict(enumerate(row)))
