"""Graphs with a `Difference`, in stages: compiled, event-driven parts, and between them dense work.

What comes before a `Difference` is one stage and what reads it is the next, all steps of a push
one stage after another. A value that a later stage reads is an input there. Only sums and
concatenations read across stages, so that all weights stay behind what they read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...core.errors import InputError
from ...core.events import Events
from ...core.meter import FIELDS, Counts
from ..graph import Difference, Graph, Input, Node
from .tables import Tables
from .values import KEPT, State, steps_of


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of a graph.

    Attributes:
        graph: what runs in compiled code; it puts out what others read.
        tables: its layout.
        after: the Differences that run then, in order.
    """

    graph: Graph
    tables: Tables
    after: tuple[Node, ...]


class Run(Protocol):
    """A stage at work: an `engine.Stream`."""

    pushes: list[Any]

    def push(self, given: Mapping[str, Any]) -> dict[str, Events]: ...
    def counts(self) -> Counts: ...
    def state(self) -> State: ...


def split(graph: Graph, weights: str) -> list[Stage]:
    """The stages of `graph`, whose populations share one list of kinds.

    Raises:
        InputError: a cycle goes through a `Difference`.
    """
    number, kinds, stages = _numbered(graph), [], []
    if not any(isinstance(node.op, Difference) for node in graph):
        return [Stage(graph, Tables(graph, weights, kinds), ())]
    read = {name for node in graph if isinstance(node.op, Difference) for name in node.inputs}
    for stage in range(max(number.values()) + 1):
        mine = [node for node in graph if number[node.name] == stage]
        after = tuple(node for node in mine if isinstance(node.op, Difference))
        here = {node.name: node for node in mine if node not in after}
        outside = dict.fromkeys(n for node in here.values() for n in node.inputs if n not in here)
        inputs = [Node(name, Input(graph.shapes[name])) for name in outside]
        later = {n for node in graph if number[node.name] > stage for n in node.inputs}
        wanted = [name for name in here if name in {*graph.outputs, *read, *later}]
        part = Graph([*inputs, *here.values()], wanted or [*here][-1:])
        stages.append(Stage(part, Tables(part, weights, kinds), after))
    return stages


def _numbered(graph: Graph) -> dict[str, int]:
    """The stage of each node: that of what it reads, and the next behind a `Difference`."""
    differs = {node.name: isinstance(node.op, Difference) for node in graph}
    number, before = dict.fromkeys(differs, 0), None
    while number != before:
        before = dict(number)
        for node in graph:
            found = [number[n] + (differs[n] and not differs[node.name]) for n in node.inputs]
            number[node.name] = max(found, default=0)
            if number[node.name] > sum(differs.values()):
                raise InputError(
                    f"Engine: {node.name!r} stands in a cycle through a Difference, which runs all "
                    "steps at once; keep cycles to neurons and linear maps"
                )
    return number


class Staged:
    """A network in stages at work, as `Stream`. Made by `Engine.stream`.

    The work of a `Difference` counts as `Difference.work` says, under its name.

    Attributes:
        pushes: of each push the table of counts, [1, layers, fields].
    """

    def __init__(self, graph: Graph, stages: Sequence[Stage], runs: Sequence[Run], state: State):
        self.graph, self.parts = graph, list(zip(stages, runs, strict=True))
        self.after = {node.name: state[node.name].copy() for s in stages for node in s.after}
        self.work = {node.name: self._work(node) for s in stages for node in s.after}
        self.pushes: list[np.ndarray] = []

    def push(self, given: Mapping[str, np.ndarray | Events]) -> dict[str, Events]:
        """As `Stream.push`."""
        steps, tables = steps_of(self.graph, given), []
        none = np.zeros(0, np.int64)
        known = {
            name: _events(given[name])
            if name in given
            else Events(none, none, np.zeros(0, np.float32), (steps, *self.graph.shapes[name]))
            for name in self.graph.inputs
        }
        for stage, run in self.parts:
            known |= run.push({name: known[name] for name in stage.graph.inputs})
            tables.append(run.counts().table)
            run.pushes.clear()
            for node in stage.after:
                x = [known[name].to_dense().astype(np.float32) for name in node.inputs]
                y, self.after[node.name] = _op(node).over(x, self.after[node.name])
                known[node.name] = _events(y)
                tables.append(steps * self.work[node.name])
        self.pushes.append(np.concatenate(tables, 1))
        if len(self.pushes) > KEPT:
            self.pushes[:2] = [self.pushes[0] + self.pushes[1]]
        return {name: known[name] for name in self.graph.outputs}

    def counts(self) -> Counts:
        """As `Stream.counts`, stage by stage.

        Raises:
            InputError: nothing was pushed.
        """
        if not self.pushes:
            raise InputError("Stream: nothing was pushed")
        names = [
            name
            for stage, _ in self.parts
            for name in (*(n for n, *_ in stage.tables.counted), *(n.name for n in stage.after))
        ]
        return Counts(tuple(names), np.concatenate(self.pushes), 1)

    def state(self) -> State:
        """As `Stream.state`."""
        found = {name: value for _, run in self.parts for name, value in run.state().items()}
        return found | {name: value.copy() for name, value in self.after.items()}

    def _work(self, node: Node) -> np.ndarray:
        work = _op(node).work(*(self.graph.shapes[name] for name in (node.name, *node.inputs)))
        return np.array([[[work.get(field, 0.0) for field in FIELDS]]])


def _op(node: Node) -> Difference:
    assert isinstance(node.op, Difference)
    return node.op


def _events(value: np.ndarray | Events) -> Events:
    return value if isinstance(value, Events) else Events.from_dense(value)
