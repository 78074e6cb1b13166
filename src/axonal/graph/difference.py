"""Functions that are not linear as a node of a graph: they run on rates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..core.errors import InputError
from ..core.neurons import HALF
from .operators import OPERATORS, functions
from .ops import Op, Shape


@dataclass(frozen=True, eq=False)
class Difference(Op):
    """A function of rates: hands on by how much its sum should grow (`nn.Difference`).

        y_t = t f(mean of x up to t) - (t - 1) f(mean of x up to t - 1)

    Attributes:
        function: the name of a row of `OPERATORS` that has a value in numpy.
        values: its options by name, numbers and arrays.
        unit: of which t f is rounded to multiples; None to round nothing.
    """

    function: str
    values: Mapping[str, Any] = field(default_factory=dict)
    unit: float | None = None
    SEVERAL: ClassVar = True

    def __post_init__(self):
        if self.function not in (known := functions()):
            raise InputError(
                f"Difference: no function {self.function!r}; there are {', '.join(known)}"
            )

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: v for name, v in self.values.items() if isinstance(v, np.ndarray)}

    def shape(self, *inputs: Shape) -> Shape:
        try:
            shape = self._run(*(np.zeros((1, *size)) for size in inputs)).shape
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"Difference: {self.function} of {inputs}: {error}") from error
        if shape[:1] != (1,) or not 1 <= len(shape) - 1 <= 3:
            raise InputError(f"Difference: {self.function} of {inputs} is no sample")
        return shape[1:]

    def rest(self, result: Shape, *inputs: Shape) -> np.ndarray:
        """What it remembers before the first step: how many there were, sums, t f(means); flat."""
        return np.zeros(1 + sum(map(math.prod, (*inputs, result))))

    def over(self, inputs: list[np.ndarray], state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values for inputs [T, ...] after an earlier state, and the state after them."""
        count = state[0] + np.arange(1.0, len(inputs[0]) + 1)
        ends = np.cumsum([1, *(x[0].size for x in inputs)])
        _, *sums, last = np.split(state, ends)
        totals = [
            np.cumsum(np.concatenate([before.reshape(1, *x.shape[1:]), x]), 0)[1:]
            for before, x in zip(sums, inputs, strict=True)
        ]
        total = self._run(*(t / _behind(count, t) for t in totals))
        total = total * _behind(count, total)
        if self.unit is not None:
            total = np.floor(total / self.unit + HALF) * self.unit
        y = np.diff(total, axis=0, prepend=last.reshape(1, *total.shape[1:]))
        after = [count[-1:], *(t[-1].ravel() for t in totals), total[-1].ravel()]
        return y.astype(np.float32), np.concatenate(after)

    def work(self, result: Shape, *inputs: Shape) -> dict[str, float]:
        """What a step takes, by field of `Counts`: dense work, whatever moved.

        Each input is added to its sum and divided by t, each result multiplied by t and the last
        one taken off, and sums and results are stored. The function's own part is its row's `cost`;
        what is done once for a whole row, such as a root, is left out.
        """
        size, results = sum(map(math.prod, inputs)), math.prod(result)
        cost = OPERATORS[self.function].cost
        multiplies, adds = cost(self.values, result, inputs) if cost else (0, 0)
        return {
            "multiplies": size + results + multiplies,
            "adds": size + results + adds,
            "weight_reads": sum(a.size for a in self.arrays().values()),
            "state_reads": 2 * size + results,
            "state_writes": size + 2 * results,
        }

    def _run(self, *x: np.ndarray) -> np.ndarray:
        function = OPERATORS[self.function].value
        assert function is not None
        return np.asarray(function(*x, **self.values), np.float64)


def _behind(count: np.ndarray, like: np.ndarray) -> np.ndarray:
    return count.reshape(-1, *(1 for _ in like.shape[1:]))
