"""A trained network as a detector, by the probability of its target."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.errors import InputError
from ..stream import Stateful
from .base import vector


class Classifier(Stateful):
    """The probability of a class by a trained network, averaged over windows.

    Learned before, so `learn_one` does nothing, and `score_one`, which is to be called once a
    window, moves the average on. What the network itself remembers is not in `state()`.

    Args:
        run: takes x and returns a score of each class, [K]; their softmax are probabilities.
        target: the class that is looked for.
        windows: how many of the last ones are averaged.

    Raises:
        InputError: `windows` or `target` is out of range.
    """

    STATE = ("recent",)

    def __init__(self, run: Callable[[Any], Any], target: int, windows: int = 1):
        if windows < 1 or target < 0:
            raise InputError(f"target {target} is >= 0, and {windows} windows are at least one")
        self.run, self.target, self.windows = run, target, windows
        self.recent: list[float] = []

    def score_one(self, x: Any) -> float:
        """The mean probability of the target over the last windows, this one included.

        Raises:
            InputError: the network has no such class.
            NotFinite: it returned a number that is none.
        """
        scores = vector(self.run(x))
        if len(scores) <= self.target:
            raise InputError(f"the network has {len(scores)} classes, the target is {self.target}")
        odds = np.exp(scores - scores.max())
        latest = float(odds[self.target] / odds.sum())
        self.recent = [*self.recent, latest][-self.windows :]
        return float(np.mean(self.recent))

    def learn_one(self, x: Any) -> None:
        """Change nothing."""
