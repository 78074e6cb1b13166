"""Equations as a record of operations, and their derivatives.

A `Node` is a number that is not known yet. Running `Dynamics.step` and a surrogate on nodes
records what they compute; `differentiate` walks the record backwards (reverse accumulation;
Griewank and Walther 2008, chapter 3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .surrogate import SURROGATES


def _operator(op: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The methods for `node op other` and `other op node`."""

    def ahead(self: "Node", *other: Any) -> "Node":
        return self.graph.make(op, self, *other)

    def behind(self: "Node", other: Any) -> "Node":
        return self.graph.make(op, other, self)

    return ahead, behind


@dataclass(frozen=True, eq=False)
class Node:
    """A value in a `Graph`: an operation and its arguments."""

    graph: "Graph" = field(repr=False)
    index: int
    op: str
    args: tuple[Any, ...]

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("sub")
    __mul__, __rmul__ = _operator("mul")
    __truediv__, __rtruediv__ = _operator("div")
    __neg__, __abs__ = _operator("neg")[0], _operator("abs")[0]
    __lt__, __gt__ = _operator("lt")[0], _operator("gt")[0]
    __le__, __ge__ = _operator("le")[0], _operator("ge")[0]
    __and__ = _operator("and")[0]

    def __pow__(self, power: int):
        return self * self if power == 2 else NotImplemented

    def __bool__(self):
        raise TypeError("equations can't branch on a value; use the algebra's where")


class Graph:
    """The `Algebra` of nodes, and their record; equal operations are one node."""

    def __init__(self, surrogate: str):
        self.row = SURROGATES[surrogate]
        self.nodes: list[Node] = []
        self._known: dict[tuple, Node] = {}

    def make(self, op: str, *args: Node | float | str) -> Node:
        """Record an operation on nodes and numbers; equal ones are one node."""
        key = (op, *(a.index if isinstance(a, Node) else (type(a), a) for a in args))
        if key not in self._known:
            self._known[key] = Node(self, len(self.nodes), op, args)
            self.nodes.append(self._known[key])
        return self._known[key]

    def input(self, name: str) -> Node:
        """An input of the program."""
        return self.make("input", name)

    def where(self, condition, yes, no):
        return self.make("where", condition, yes, no)

    def exp(self, x):
        return self.make("exp", x)

    def floor(self, x):
        return self.make("floor", x)

    def detach(self, x):
        return self.make("detach", x)

    def straight_through(self, value, gradient):
        return self.make("straight_through", value, gradient)

    def surrogate(self, x):
        return self.detach(self.row.derivative(self, x, self.input("slope_")))


# What reaches the arguments a, b of y = op(a, b), given g, what reached y; None: nothing.
DERIVATIVES = {
    "add": lambda m, g, y, a, b: (g, g),
    "sub": lambda m, g, y, a, b: (g, -g),
    "mul": lambda m, g, y, a, b: (g * b, g * a),
    "div": lambda m, g, y, a, b: (g / b, -g * y / b),
    "neg": lambda m, g, y, a: (-g,),
    "abs": lambda m, g, y, a: (m.where(a > 0, g, m.where(a < 0, -g, 0.0)),),
    "exp": lambda m, g, y, a: (g * y,),
    "where": lambda m, g, y, c, a, b: (None, m.where(c, g, 0.0), m.where(c, 0.0, g)),
    "straight_through": lambda m, g, y, a, b: (None, g),
}


def differentiate(
    graph: Graph, reached: Mapping[Node, Node], wanted: Sequence[Node]
) -> list[Node | None]:
    """The gradients of `wanted`, from those that reached the results; None where none arrives."""
    gradients: dict[Node, Node] = dict(reached)
    for node in reversed(graph.nodes[: max(n.index for n in reached) + 1]):
        if node not in gradients or node.op not in DERIVATIVES:
            continue
        parts = DERIVATIVES[node.op](graph, gradients[node], node, *node.args)
        for arg, part in zip(node.args, parts, strict=True):
            if isinstance(arg, Node) and part is not None:
                gradients[arg] = gradients[arg] + part if arg in gradients else part
    return [gradients.get(node) for node in wanted]
