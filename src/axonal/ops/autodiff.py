"""The equations of a neuron as a program: traced once, differentiated, printed for a compiler.

A `Node` is a number that is not known yet. Running `Dynamics.step` and a surrogate on nodes
records what they compute; `differentiate` walks the record backwards (reverse accumulation;
Griewank and Walther 2008, chapter 3); `lines` prints it as statements.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from ..core.neurons import Dynamics
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
        """The node of this operation on nodes and numbers."""
        key = (op, *(a.index if isinstance(a, Node) else (type(a), a) for a in args))
        if key not in self._known:
            self._known[key] = Node(self, len(self.nodes), op, args)
            self.nodes.append(self._known[key])
        return self._known[key]

    def input(self, name: str) -> Node:
        """A value that the program is given."""
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
    """What reaches each of `wanted`, given what reached the results; None: nothing does."""
    gradients: dict[Node, Node] = dict(reached)
    for node in reversed(graph.nodes[: max(n.index for n in reached) + 1]):
        if node not in gradients or node.op not in DERIVATIVES:
            continue
        parts = DERIVATIVES[node.op](graph, gradients[node], node, *node.args)
        for arg, part in zip(node.args, parts, strict=True):
            if isinstance(arg, Node) and part is not None:
                gradients[arg] = gradients[arg] + part if arg in gradients else part
    return [gradients.get(node) for node in wanted]


PYTHON = {
    "number": "F({!r})",
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "abs": "abs({})",
    "exp": "np.exp({})",
    "floor": "np.floor({})",
    "where": "{1} if {0} else {2}",
    "and": "{} & {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
}

TRITON = PYTHON | {
    "number": "{!r}",
    "where": "tl.where({0}, {1}, {2})",
    "exp": "tl.exp({})",
    "floor": "tl.floor({})",
    "abs": "tl.abs({})",
}
SYNTAX = {"python": PYTHON, "triton": TRITON}


def lines(results: Mapping[str, Node | float | None], syntax: Mapping[str, str]) -> list[str]:
    """Statements that compute `results` by name from the inputs by name."""
    text: list[str] = []
    names: dict[Node, str] = {}

    def name(value: Node | float | None) -> str:
        if not isinstance(value, Node):
            return syntax["number"].format(float(value or 0))
        if value not in names:
            if value.op in ("detach", "straight_through"):
                names[value] = name(value.args[0])
            elif value.op == "input":
                names[value] = value.args[0]
            else:
                args = [name(arg) for arg in value.args]
                text.append(f"t{value.index} = {syntax[value.op].format(*args)}")
                names[value] = f"t{value.index}"
        return names[value]

    found = [f"{result} = {name(value)}" for result, value in results.items()]
    return text + found


def frame(text: str, **parts: list[str] | str) -> str:
    """`text` with lists of statements in the places of lines that name them, as indented there."""
    found = []
    for line in text.splitlines():
        key = line.strip()[1:-1]
        if line.strip() == f"{{{key}}}" and isinstance(part := parts.get(key), list):
            indent = line[: len(line) - len(line.lstrip())]
            found += [indent + statement for statement in part]
        else:
            for name, part in parts.items():
                line = line.replace(f"{{{name}}}", part) if isinstance(part, str) else line
            found.append(line)
    return "\n".join(found) + "\n"


Rules = tuple[str, str, str, float]  # as `program` takes them, then the surrogate's slope
MARK = 32  # steps between the states that the forward pass marks for the backward pass


def new_marks(steps: int, state: Any) -> Any:
    """Room for the states [K, B, N] before every `MARK`th of so many steps: [M K, B, N]."""
    return state.new_empty(-(-steps // MARK) * state.shape[0], *state.shape[1:])


@dataclass(frozen=True)
class Program:
    """One step of a scan and its derivative.

    Values that it is given end in an underscore: `x_`, `slope_`, `<state>_` and `<constant>_`.

    Attributes:
        states: the names of the state's values.
        varying: the constants that differ between neurons, and have gradients.
        fixed: the values of all other constants.
        forward: statements from x, the states and the constants to `s_` and `next_<state>`.
        backward: from these, `grad_s` and `grad_<state>` (of the next state) to `grad_x`,
            `before_<state>` (the gradient of the state before) and `part_<constant>`.
    """

    states: tuple[str, ...]
    varying: tuple[str, ...]
    fixed: Mapping[str, float]
    forward: tuple[str, ...]
    backward: tuple[str, ...]


@lru_cache(maxsize=1024)
def program(text: str, names: str, surrogate: str, syntax: str = "python") -> Program:
    """The program of one step.

    Args:
        text: of the `Dynamics`.
        names: the constants that vary, with commas between them.
        surrogate: a row of `SURROGATES`.
        syntax: a key of `SYNTAX`.
    """
    dynamics, graph = Dynamics.from_dict(json.loads(text)), Graph(surrogate)
    constants = dynamics.constants()
    varying = tuple(name for name in constants if name in names.split(","))
    x, states = graph.input("x_"), [graph.input(f"{name}_") for name in dynamics.state_names]
    p = {name: graph.input(f"{name}_") for name in constants}
    s, after = dynamics.step(graph, x, tuple(states), SimpleNamespace(**p))
    results = {"s_": s} | {f"next_{n}": v for n, v in zip(dynamics.state_names, after, strict=True)}
    forward = lines(results, SYNTAX[syntax])
    reached: dict[Node, Node] = {}
    for node, name in zip((s, *after), ("s", *dynamics.state_names), strict=True):
        grad = graph.input(f"grad_{name}")
        reached[node] = reached[node] + grad if node in reached else grad
    wanted = {"grad_x": x} | {f"part_{name}": p[name] for name in varying}
    wanted |= {f"before_{n}": node for n, node in zip(dynamics.state_names, states, strict=True)}
    gradients = differentiate(graph, reached, list(wanted.values()))
    backward = lines(dict(zip(wanted, gradients, strict=True)), SYNTAX[syntax])
    fixed = {name: value for name, value in constants.items() if name not in varying}
    return Program(dynamics.state_names, varying, fixed, tuple(forward), tuple(backward))
