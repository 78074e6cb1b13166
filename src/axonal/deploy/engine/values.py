"""What goes into a graph and what it remembers, as plain arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.events import Events
from ...graph.difference import Difference
from ...graph.graph import Graph
from ...graph.ops import Delay, Neurons

SEPARATE = 4096  # pushes whose counts stay apart
Values = Mapping[str, np.ndarray]
GraphState = dict[str, np.ndarray]  # by node: neurons, delays and differences alone have one


class Arrays:
    """The `Algebra` of float32 arrays; there are no gradients here."""

    def exp(self, x: Any, /) -> Any:
        return np.exp(x)

    def floor(self, x: Any, /) -> Any:
        return np.floor(x)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, np.float32(yes), np.float32(no))

    def detach(self, x: Any, /) -> Any:
        return x

    def straight_through(self, value: Any, gradient: Any) -> Any:
        return value

    def surrogate(self, x: Any, /) -> Any:
        return np.float32(0)


def rest(graph: Graph) -> GraphState:
    """The state before the first step: neurons [K, ...] at rest, delays [steps, ...] empty, and
    what each `Difference` remembers, flat."""
    state = {}
    for node in graph:
        shape = graph.shapes[node.name]
        if isinstance(node.op, Neurons):
            values = np.array(node.op.dynamics.rest, np.float32)
            state[node.name] = np.tile(values.reshape(-1, *(1 for _ in shape)), (1, *shape))
        elif isinstance(node.op, Delay):
            state[node.name] = np.zeros((int(node.op.steps.max()), *shape), np.float32)
        elif isinstance(node.op, Difference):
            state[node.name] = node.op.rest(shape, *(graph.shapes[name] for name in node.inputs))
    return state


def named_inputs(graph: Graph, inputs: Any) -> dict[str, np.ndarray | Events]:
    """Inputs by name, as arrays or `Events`; of a graph with one input, it may come alone.

    Tensors and lists become arrays.

    Raises:
        InputError: it comes alone where there are several, or is nothing of numbers.
    """
    if not isinstance(inputs, Mapping):
        if len(graph.inputs) != 1:
            raise InputError(f"engine: give inputs by name: {', '.join(graph.inputs)}")
        inputs = {graph.inputs[0]: inputs}
    return {name: _array(name, value) for name, value in inputs.items()}


def _array(name: str, value: Any) -> np.ndarray | Events:
    if isinstance(value, Events):
        return value
    value = value.detach().cpu() if hasattr(value, "detach") else value  # a tensor, without torch
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"engine: {name!r} is no array: {error}") from error
    if array.dtype.kind not in "fiub":
        kind = type(value).__name__
        raise InputError(f"engine: {name!r} is of {kind}; give numbers [T, ...] or Events")
    return array


def steps_of(graph: Graph, inputs: Mapping[str, Any]) -> int:
    """The number of steps of inputs, arrays [T, ...] or `Events`, which must fit the graph.

    Raises:
        InputError: an unknown input, another shape, values that are not finite numbers, inputs of
            different numbers of steps, or none.
    """
    for name, value in inputs.items():
        if name not in graph.inputs or value.shape[1:] != graph.shapes[name]:
            raise InputError(
                f"engine: {name!r} of {value.shape}; there are "
                + ", ".join(f"{n} [T, *{graph.shapes[n]}]" for n in graph.inputs)
            )
        numbers = value if isinstance(value, np.ndarray) else value.value
        if numbers.dtype.kind not in "fiub" or not np.isfinite(numbers).all():
            raise InputError(f"engine: {name!r} has values that are not finite numbers")
    lengths = {value.shape[0] for value in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"engine: inputs of {sorted(lengths)} steps; give the same, at least one")
    return lengths.pop()
