"""The engine in plain numpy: every node on dense values, step by step. The definition."""

from types import SimpleNamespace

import numpy as np

from ...graph.difference import Difference
from ...graph.graph import Graph
from ...graph.ops import Delay, Neurons
from .values import Arrays, GraphState, Values, rest, steps_of


def run(
    graph: Graph, inputs: Values, state: GraphState | None = None, scale: float = 1.0
) -> tuple[dict[str, np.ndarray], GraphState]:
    """Compute every node's values for inputs over time.

    Args:
        graph: the network.
        inputs: [T, ...] of each of `graph.inputs`; one left out is silent.
        state: of an earlier call, None for rest.
        scale: multiplies the thresholds of every population.

    Returns:
        [T, ...] of each node, and the state after them.

    Raises:
        InputError: an unknown input, another shape, or no steps.
    """
    steps = steps_of(graph, inputs)
    state = {name: value.copy() for name, value in (state or rest(graph)).items()}
    values = {name: np.zeros((steps, *shape), np.float32) for name, shape in graph.shapes.items()}
    for name, value in inputs.items():
        values[name][:] = value
    for t in range(steps):
        for node in graph:
            x, y = [values[name][t] for name in node.inputs], values[node.name]
            if isinstance(node.op, Neurons):
                y[t], state[node.name] = fire(node.op, x[0], state[node.name], scale)
            elif isinstance(node.op, Delay):
                line = np.concatenate([x[0][None], state[node.name][::-1]])  # the newest first
                back = np.broadcast_to(node.op.steps, x[0].shape)[None]
                y[t] = np.take_along_axis(line, back, 0)[0]
            elif isinstance(node.op, Difference):
                [y[t]], state[node.name] = node.op.over([a[None] for a in x], state[node.name])
            elif x:
                y[t] = node.op.apply(*x)
        for node in graph:  # when all have their values
            if isinstance(node.op, Delay):
                newest = values[node.inputs[0]][t]
                state[node.name] = np.concatenate([state[node.name], newest[None]])[1:]
    return values, state


def fire(op: Neurons, x: np.ndarray, state: np.ndarray, scale: float) -> tuple[np.ndarray, ...]:
    """Step a population: its spikes, and the state after."""
    constants = op.constants(x.shape)
    constants["threshold"] = constants["threshold"] * np.float32(scale)
    s, after = op.dynamics.step(Arrays(), x, tuple(state), SimpleNamespace(**constants))
    return s, np.stack([np.asarray(a, np.float32) for a in after])
