"""Parts that detectors share: reading x, and the neuron that turns novelty into a score."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log1p, sqrt
from typing import Any

import numpy as np

from ...core.errors import InputError, NotFinite
from ...core.meter import FIELDS, Counts
from ..stream import Stateful


def vector(x: Any, features: int = 0) -> np.ndarray:
    """x as [F] float64: a vector, a number, or a mapping of names to numbers in its order.

    Args:
        x: the argument of a detector.
        features: F, where it is known already.

    Raises:
        InputError: x is no vector of F numbers.
        NotFinite: one is NaN or infinite.
    """
    try:
        values = np.array(list(x.values()) if isinstance(x, Mapping) else x, np.float64, ndmin=1)
    except (TypeError, ValueError) as error:
        raise InputError(f"a detector takes a vector of numbers, not {x!r}: {error}") from error
    if values.ndim != 1 or not len(values) or (features and len(values) != features):
        raise InputError(
            f"a detector takes a vector of {features or 'F'} numbers each time, not {values.shape}"
        )
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NotFinite(f"feature {at} is {values[at]}; leave out windows that have no number")
    return values


class Online(Stateful, ABC):
    """Base of detectors that learn: `_begin(x)` once, `_score(x)` and `_learn(x)` of x [F]."""

    STATE = ("features",)
    features = 0  # F, once it is known

    def _begin(self, x: np.ndarray) -> None:
        """Set up what depends on F: nothing, by default."""

    @abstractmethod
    def _score(self, x: np.ndarray) -> float: ...

    @abstractmethod
    def _learn(self, x: np.ndarray) -> None: ...

    def score_one(self, x: Any) -> float:
        """Score how strange x is, in [0, 1]; 0 before anything was learned. Nothing changes.

        Raises:
            InputError, NotFinite: see `vector`.
        """
        x = vector(x, self.features)
        return self._score(x) if self.features else 0.0

    def learn_one(self, x: Any) -> None:
        """Learn from x. Raises as `score_one` does, and has changed nothing then."""
        x = vector(x, self.features)
        if not self.features:
            self._begin(x)
            self.features = len(x)
        self._learn(x)


class StandardScaler(Stateful):
    """A running mean and deviation: x as z, cut at +-`far`, and forgotten over `memory` steps.

    Where less than `floor` was seen of a deviation, it is taken for `floor`.

    Raises:
        InputError: `memory` is below one step, or `floor` below 0.
    """

    STATE = ("steps", "mean", "variance")

    def __init__(self, memory: float, far: float, floor: float = 0.0):
        if not (memory >= 1 and floor >= 0):
            raise InputError(f"memory {memory} is one step or more, and floor {floor} from 0")
        self.memory, self.far, self.floor = memory, far, floor
        self.steps, self.mean, self.variance = 0, np.empty(0), np.empty(0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """z [F] of x [F], 0 at first; without a floor, all is far from what has been constant."""
        if not self.steps:
            return np.zeros(len(x))
        least = np.maximum(1e-9 * (1 + np.abs(self.mean)), self.floor)
        z = (x - self.mean) / np.maximum(np.sqrt(self.variance), least)
        return np.clip(z, -self.far, self.far)

    def learn(self, x: np.ndarray) -> None:
        """Learn from x [F], one step."""
        if not self.steps:
            self.mean, self.variance = x.copy(), np.zeros(len(x))
        self.steps += 1
        pace = max(1 / self.steps, 1 / self.memory)
        away = x - self.mean
        self.mean = self.mean + pace * away
        self.variance = self.variance + pace * ((1 - pace) * away**2 - self.variance)


class Alarm(Stateful):
    """A neuron with an adaptive threshold, driven by how novel x is; it fires on surprise.

    With the novelty n >= 0 and its root mean square s over the past (of the last `memory` steps
    or so), the drive, threshold and score are

        d = ln(1 + n / (s + floor)),  theta <- max(theta (1 - 1 / rest), d),
        score = 1 - exp(-max(0, d - theta (1 - 1 / rest)))

    So what has been quiet is surprised by little; and after an alarm only something stranger
    raises another, until about `rest` steps have passed. With theta at 0 the score is
    n / (n + s + floor): 0.5 where x is as novel as what was novel before. The logarithm is
    Weber's law; for adaptive thresholds see Bellec et al. 2018 (arXiv 1803.09574).

    Raises:
        InputError: an option is out of its range.
    """

    STATE = ("steps", "power", "theta")

    def __init__(self, rest: float, floor: float, memory: float):
        if not (rest >= 1 and floor > 0 and memory >= 1):
            raise InputError(f"rest {rest} and memory {memory} are >= 1 step, floor {floor} > 0")
        self.rest, self.floor, self.memory = rest, floor, memory
        self.steps, self.power, self.theta = 0, 0.0, 0.0

    def _drive(self, novelty: float) -> float:
        """The input d of the neuron."""
        return log1p(novelty / (sqrt(self.power) + self.floor))

    def score(self, novelty: float) -> float:
        """The score of a novelty, in [0, 1). Nothing changes."""
        return 1 - exp(-max(0.0, self._drive(novelty) - self.theta * (1 - 1 / self.rest)))

    def learn(self, novelty: float) -> None:
        """Learn from a novelty, one step."""
        self.theta = max(self.theta * (1 - 1 / self.rest), self._drive(novelty))
        self.steps += 1
        self.power += (novelty**2 - self.power) * max(1 / self.steps, 1 / self.memory)


@dataclass(eq=False, kw_only=True)
class Spiking(Online):
    """Base of spiking networks that measure novelty, `_measure(x)`, scored by an `Alarm`.

    `_adapt(x)` learns from x and returns by name of `core.meter.FIELDS` what the step took.
    `rest`, `floor` and `memory` are those of the alarm.
    """

    STATE = ("features", "alarm", "work")

    rest: float = 75.0
    floor: float = 0.01
    memory: float = 50_000.0

    def __post_init__(self):
        self.alarm = Alarm(self.rest, self.floor, self.memory)
        self.work = np.zeros(len(FIELDS))

    @abstractmethod
    def _measure(self, x: np.ndarray) -> float: ...

    @abstractmethod
    def _adapt(self, x: np.ndarray) -> Mapping[str, float]: ...

    def _score(self, x: np.ndarray) -> float:
        return self.alarm.score(self._measure(x))

    def _learn(self, x: np.ndarray) -> None:
        self.alarm.learn(self._measure(x))
        work = self._adapt(x)
        self.work += [work.get(field, 0) for field in FIELDS]

    def counts(self) -> Counts:
        """The work of an x, over all that were learned, a sample each; `energy.price` prices it."""
        table = self.work.reshape(1, 1, -1).copy()
        return Counts((type(self).__name__,), table, max(self.alarm.steps, 1))
