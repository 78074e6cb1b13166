"""Graphs in the making: nodes are added one by one, and values moved about in between.

A `Value` stands for a tensor [*lead, *shape]: time and batch, then one sample. What only moves
values within a sample (a reshape, a slice, a shuffle) runs on their places, which yields the
`Select` that does the same, and proves that samples and steps stay apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.errors import InputError
from .graph import Graph, Node
from .ops import Add, Bias, Op, Scale, Select, Shape

BATCH, TIME, FOLDED = (2,), (2, 2), (4,)  # leads: [B], [T, B], [T x B]; of each two, to tell apart
LEADS = (BATCH, TIME, FOLDED)


@dataclass(frozen=True, eq=False)
class Value:
    """A stand-in for a tensor whose values a node has.

    Attributes:
        node: its name.
        shape: of one sample.
        lead: the dimensions of time and batch before that.
        places: where in the node's values these lie, float64 in `shape`; None for all, in order.
        moved: the name of what moved them, if anything did.
    """

    node: str
    shape: Shape
    lead: tuple[int, ...]
    places: np.ndarray | None = None
    moved: str = ""

    def at(self, lead: tuple[int, ...]) -> "Value":
        """The same values behind other dimensions of time and batch."""
        return replace(self, lead=lead)


@dataclass(frozen=True, eq=False)
class Label:
    """A stand-in for integers [B] that choose rows; `name` is kept for their input."""

    name: str


class Builder:
    """The nodes so far.

    Args:
        reserved: names that only nodes added as `reserved` take.

    Attributes:
        start: a value of shape (1,) that is 1 in the first step, through which biases enter; None
            for biases in every step.
    """

    def __init__(self, reserved: Sequence[str] = ()):
        self.start: Value | None = None
        self.nodes: dict[str, Node] = {}
        self.shapes: dict[str, Shape] = {}
        self._taken = set(reserved)
        self._selected: dict[int, tuple[np.ndarray, Value]] = {}

    def unique(self, name: str) -> str:
        """`name`, or with a number behind it if it is taken; from now on it is."""
        tries = (f"{name}_{i}" if i else name for i in range(len(self._taken) + 1))
        free = next(name for name in tries if name not in self._taken)
        self._taken.add(free)
        return free

    def add(self, name: str, op: Op, *inputs: Value, reserved: bool = False) -> Value:
        """A node of its own for `op`.

        Raises:
            InputError: the inputs don't fit.
        """
        inputs = tuple(self.settle(value) for value in inputs)
        shape = op.shape(*(value.shape for value in inputs))
        name = name if reserved else self.unique(name)
        self.nodes[name] = Node(name, op, tuple(value.node for value in inputs))
        self.shapes[name] = shape
        return Value(name, shape, inputs[0].lead if inputs else BATCH)

    def settle(self, value: Value) -> Value:
        """The value as all that a node has; one that was moved needs a `Select`.

        Raises:
            InputError: a sample has no axis, or more than three.
        """
        if (places := value.places) is None:
            return value
        if id(places) not in self._selected:
            if not 1 <= len(value.shape) <= 3:
                raise InputError(f"samples of shape {list(value.shape)}; give them 1 to 3 axes")
            source = Value(value.node, self.shapes[value.node], value.lead)
            moved = self.add(value.moved, Select(places.astype(np.int64)), source)
            self._selected[id(places)] = places, moved  # places stay, and with them their id
        return self._selected[id(places)][1].at(value.lead)

    def move(self, name: str, value: Value, run: Callable[[np.ndarray], Any]) -> Any:
        """What `run` makes of the value, if all it does is move values within each sample.

        Args:
            name: of a node for that.
            value: what is moved.
            run: from the tensor to one or, in a list or tuple, more; or to what is no array, which
                is returned as it is.

        Raises:
            InputError: samples or steps meet, or values are made up.
        """
        places = value.places
        if places is None:
            places = np.arange(math.prod(value.shape), dtype=np.float64).reshape(value.shape)
        steps = self._steps(value).reshape(*value.lead, *(1 for _ in value.shape))
        seen = run(places + steps)
        if type(seen) in (list, tuple):
            return type(seen)(self._moved(name, value, part) for part in seen)
        return self._moved(name, value, seen) if isinstance(seen, np.ndarray) else seen

    def _steps(self, value: Value) -> np.ndarray:
        """What tells the places of samples apart."""
        return np.arange(math.prod(value.lead)) * math.prod(self.shapes[value.node])

    def _moved(self, name: str, value: Value, seen: np.ndarray) -> Value:
        own, steps = self.shapes[value.node], self._steps(value)
        for lead in LEADS:
            if seen.shape[: len(lead)] == lead and math.prod(lead) == len(steps):
                shape = seen.shape[len(lead) :]
                each = seen.reshape(len(steps), -1) - steps[:, None]
                if ((each == each[0]) & (each >= 0) & (each < math.prod(own))).all():
                    same = shape == own and (each[0] == np.arange(math.prod(own))).all()
                    places = None if same else each[0].reshape(shape).copy()
                    return Value(value.node, shape, lead, places, name)
        raise InputError("it mixes samples, or steps; keep each to itself")

    def bias(self, name: str, x: Value, value: np.ndarray) -> Value:
        """x + value, which broadcasts to one sample."""
        if self.start is None:
            return self.add(name, Bias(np.array(value, np.float32)), x)
        begin = self.add(f"{name}.start", Select(np.zeros(x.shape, np.int64)), self.start)
        spent = self.add(name, Scale(np.array(value, np.float32)), begin)
        return self.add(f"{name}.sum", Add(), x, spent)

    def graph(self, results: Sequence[Value]) -> Graph:
        """The graph whose outputs are `results`, without the nodes that these don't need."""
        outputs = [self.settle(value).node for value in results]
        needed, waiting = set(), list(outputs)
        while waiting:
            if (name := waiting.pop()) not in needed:
                needed.add(name)
                waiting.extend(self.nodes[name].inputs)
        nodes = self.nodes.values()
        return Graph([n for n in nodes if n.name in needed or not n.inputs], outputs)
