"""Graphs with a `Difference`, in stages: compiled, event-driven parts, and dense work between them.

What comes before a `Difference` is one stage and what reads it is the next; all steps of a push run
stage by stage. A value that a later stage reads is an input there. Only sums and concatenations
read across stages, so that weights stay behind the spikes that they read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.events import Events
from ...core.meter import FIELDS, Counts
from ...graph.difference import Difference
from ...graph.graph import Graph, Node
from ...graph.ops import Input
from .layout import Tables
from .values import SEPARATE, GraphState, named_inputs, steps_of


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of a graph.

    Attributes:
        graph: what runs in compiled code; it puts out what others read.
        tables: its layout.
        after: the Differences that run then, by name and in order.
    """

    graph: Graph
    tables: Tables
    after: Mapping[str, Difference]


def split(graph: Graph, weights: str) -> list[Stage]:
    """Split `graph` into stages, whose populations share one list of kinds.

    Raises:
        InputError: a cycle goes through a `Difference`.
    """
    number, kinds, stages = _numbered(graph), [], []
    if not any(isinstance(node.op, Difference) for node in graph):
        return [Stage(graph, Tables(graph, weights, kinds), {})]
    for stage in range(max(number.values()) + 1):
        mine = [node for node in graph if number[node.name] == stage]
        after = {node.name: node.op for node in mine if isinstance(node.op, Difference)}
        here = {node.name: node for node in mine if node.name not in after}
        outside = dict.fromkeys(n for node in here.values() for n in node.inputs if n not in here)
        inputs = [Node(name, Input(graph.shapes[name])) for name in outside]
        read = {n for node in graph if node.name not in here for n in node.inputs}
        wanted = [name for name in here if name in read or name in graph.outputs]
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
            earliest = [number[n] + (differs[n] and not differs[node.name]) for n in node.inputs]
            number[node.name] = max(earliest, default=0)
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

    def __init__(
        self, graph: Graph, stages: Sequence[Stage], runs: Sequence[Any], state: GraphState
    ):
        self.graph, self.parts = graph, list(zip(stages, runs, strict=True))
        self.after: GraphState = {}
        self.work: dict[str, np.ndarray] = {}
        for name, op in (pair for stage in stages for pair in stage.after.items()):
            work = op.work(*(graph.shapes[n] for n in (name, *graph.nodes[name].inputs)))
            self.work[name] = np.array([[[work.get(field, 0.0) for field in FIELDS]]])
            self.after[name] = state[name].copy()
        self.pushes: list[np.ndarray] = []

    def push(self, inputs: Any) -> dict[str, Events]:
        """Take events in and give events out, as `Stream.push`."""
        inputs = named_inputs(self.graph, inputs)
        steps, tables = steps_of(self.graph, inputs), []
        none = np.zeros(0, np.int64)
        known = {
            name: Events(none, none, np.zeros(0, np.float32), (steps, *self.graph.shapes[name]))
            for name in self.graph.inputs
        }
        for name, value in inputs.items():
            known[name] = value if isinstance(value, Events) else Events.from_dense(value)
        for stage, run in self.parts:
            known |= run.push({name: known[name] for name in stage.graph.inputs})
            tables.append(run.counts().table)
            run.pushes.clear()
            for name, op in stage.after.items():
                x = [known[n].to_dense().astype(np.float32) for n in self.graph.nodes[name].inputs]
                y, self.after[name] = op.over(x, self.after[name])
                known[name] = Events.from_dense(y)
                tables.append(steps * self.work[name])
        self.pushes.append(np.concatenate(tables, 1))
        if len(self.pushes) > SEPARATE:
            self.pushes[:2] = [self.pushes[0] + self.pushes[1]]
        return {name: known[name] for name in self.graph.outputs}

    def counts(self) -> Counts:
        """Count what was executed, as `Stream.counts`, stage by stage.

        Raises:
            InputError: nothing was pushed.
        """
        if not self.pushes:
            raise InputError("Stream: nothing was pushed")
        names = []
        for stage, _ in self.parts:
            names += [*(name for name, *_ in stage.tables.counted), *stage.after]
        return Counts(tuple(names), np.concatenate(self.pushes), 1)

    def state(self) -> GraphState:
        """The memory of all stages, as `Stream.state`."""
        state = {name: value for _, run in self.parts for name, value in run.state().items()}
        return state | {name: value.copy() for name, value in self.after.items()}
