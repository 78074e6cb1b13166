"""Counts of a run from the values of every node: what a machine that follows events executes."""

from dataclasses import replace

import numpy as np

from ...core.meter import FIELDS, Counts
from ...graph.difference import Difference
from ...graph.graph import Graph, Node
from ...graph.ops import Conv, Dense, Neurons, Select
from ...graph.summary import fans
from ..engine.values import Values


def count(graph: Graph, values: Values) -> Counts:
    """Count what `values` [T, ...] of every node take, step by step; as `nn.meter` counts events.

    A value that is not 0 is an event, and is met by each weight that it reaches. A spike that is a
    number counts as many times. A neuron is updated when its input is not 0.
    """
    rows: dict[str, dict[str, np.ndarray]] = {}
    for node in graph:
        if isinstance(node.op, Dense | Conv):
            rows[node.name] = _synapses(graph, node, values[node.inputs[0]])
        elif isinstance(node.op, Neurons):
            rows[node.name] = _population(node.op, values[node.inputs[0]], values[node.name])
        elif isinstance(node.op, Difference):
            shapes = (graph.shapes[name] for name in (node.name, *node.inputs))
            work = node.op.work(*shapes)
            rows[node.name] = {field: np.array(number) for field, number in work.items()}
    steps = len(next(iter(values.values())))
    table = np.zeros((steps, len(rows), len(FIELDS)))
    for layer, row in enumerate(rows.values()):
        for field, column in row.items():
            table[:, layer, FIELDS.index(field)] = column
    return Counts(tuple(rows), table, 1)


def _synapses(graph: Graph, node: Node, x: np.ndarray) -> dict[str, np.ndarray]:
    """The work of weights in each step, of those that are 0 too."""
    assert isinstance(node.op, Dense | Conv)
    full = replace(node.op, weight=np.ones_like(node.op.weight))
    _, outward = fans(full, x.shape[1:], graph.shapes[node.name])
    source = graph.nodes[node.inputs[0]]
    while isinstance(source.op, Select) and source.op.reshapes:
        source = graph.nodes[source.inputs[0]]
    spikes = isinstance(source.op, Neurons) and not source.op.dynamics.graded
    work = _sizes(x, spikes) @ outward.ravel().astype(np.float64)
    row = dict.fromkeys(("synops", "adds", "weight_reads", "state_reads", "state_writes"), work)
    return row | {"multiplies": 0 * work if spikes else work}


def _population(op: Neurons, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The work of neurons in each step: membranes updated, and spikes sent."""
    updates = 2.0 * _sizes(x, False).sum(1)
    spikes = _sizes(y, not op.dynamics.graded).sum(1)
    sites = np.full(len(y), y[0].size * op.dynamics.events)
    row = {"adds": updates, "state_reads": updates, "state_writes": spikes, "spikes": spikes}
    return row | {"sites": sites}


def _sizes(x: np.ndarray, numbers: bool) -> np.ndarray:
    """[T, values] how many events each value is: its size if it is a number of spikes, else one."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    return abs(flat) if numbers else (flat != 0).astype(np.float64)
