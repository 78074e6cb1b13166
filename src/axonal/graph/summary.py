"""Tables of the layers of a graph: neurons, parameters, synapses, and what each layer does."""

import math
import re
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..core.neurons import Delta, Leaky
from .difference import Difference
from .drawing import plain, traversal
from .graph import Graph, Node
from .ops import Conv, Delay, Dense, Neurons, Op, Pool, Resize, Select, Shape

__all__ = ["Layer", "description", "fans", "layers", "summary"]

EMITS = {
    "binary": "one spike",
    "ternary": "a spike of either sign",
    "integer": "up to {} spikes, rounded",
    "multiple": "up to {} spikes",
    "graded": "a power of two of {} sizes",
    "membrane": "its membrane",
}
RESETS = {
    "subtract": "takes the threshold away",
    "zero": "resets to 0",
    "late": "takes the threshold away a step late",
    "none": "no reset",
}


@dataclass(frozen=True)
class Layer:
    """The figures of a node.

    Attributes:
        name: of the node.
        kind: of its op.
        shape: of its value.
        neurons: in it; 0 if it is no population.
        parameters: numbers that it holds: weights, biases, factors, constants of each neuron.
        synapses: pairs of an input and an output value with a weight between them that is not 0;
            what lies in the padding is no input.
        fan_in: synapses of an output value, the mean and the most.
        fan_out: synapses of an input value, the mean and the most.
        description: of what it does.
    """

    name: str
    kind: str
    shape: Shape
    neurons: int
    parameters: int
    synapses: int
    fan_in: tuple[float, int]
    fan_out: tuple[float, int]
    description: str


def layers(graph: Graph) -> list[Layer]:
    """List the nodes of `graph` in numbers, each after what it reads where no cycle forbids it."""
    return [_layer(graph, graph.nodes[name]) for name in traversal(graph)[1]]


def _layer(graph: Graph, node: Node) -> Layer:
    op, shape = node.op, graph.shapes[node.name]
    inward, outward = fans(op, graph.shapes[node.inputs[0]] if node.inputs else (), shape)
    synapses = int(inward.sum())
    return Layer(
        node.name,
        type(op).__name__,
        shape,
        math.prod(shape) if isinstance(op, Neurons) else 0,
        sum(array.size for array in op.arrays().values() if array.dtype.kind == "f"),
        synapses,
        (synapses / inward.size, int(inward.max())),
        (synapses / outward.size, int(outward.max())),
        description(op),
    )


def fans(op: Op, before: Shape, after: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Count the synapses of each output value, and those of each input value.

    Args:
        op: what computes the one of the other; without weights it has no synapses.
        before, after: shapes of its input and of its output.

    Returns:
        Both in the order of the values: [groups, channels, places...] of a `Conv`.
    """
    if isinstance(op, Dense):
        there = op.weight != 0
        return there.sum(1), there.sum(0)
    if not isinstance(op, Conv):
        return np.zeros(1, int), np.zeros(1, int)
    there = (op.weight != 0).astype(np.int64).reshape(op.groups, -1, *op.weight.shape[1:])
    inward, outward = there.sum(2), there.sum(1)  # [groups, channels, taps...]
    sizes = zip(before[1:], after[1:], op.weight.shape[2:], strict=True)
    for axis, (inputs, outputs, taps) in enumerate(sizes):
        place = np.arange(outputs)[:, None] * op.stride[axis] - op.padding[axis][0]
        place = place + np.arange(taps) * op.dilation[axis]  # [outputs, taps], in the input
        valid = (place >= 0) & (place < inputs)
        used = np.zeros((inputs, taps), np.int64)
        used[place[valid], np.nonzero(valid)[1]] = 1
        # The taps of this axis become its places, which go to the end.
        inward = np.tensordot(inward, valid.astype(np.int64), (2, 1))
        outward = np.tensordot(outward, used, (2, 1))
    return inward, outward


def description(op: Op) -> str:
    """What an op does, in a few words."""
    match op:
        case Neurons():
            return _dynamics(op)
        case Conv():
            sizes = "×".join(map(str, op.weight.shape[2:]))
            more = [f"stride {_short(op.stride)}", f"dilation {_short(op.dilation)}"]
            more = [text for text in more if not text.endswith(" 1")]
            more += [f"{op.groups} groups"] if op.groups > 1 else []
            return ", ".join([f"{sizes} kernels", *more])
        case Pool():
            return f"{'mean' if op.average else 'sum'} of {'×'.join(map(str, op.size))}"
        case Resize():
            way = "bilinear" if op.bilinear else "nearest"
            return f"{'×'.join(map(str, op.factor))} as large, {way}"
        case Delay():
            return f"{_range(op.steps)} step{'s' if op.steps.max() != 1 else ''} later"
        case Select():
            return "reshapes" if op.reshapes else "picks values"
        case Difference():
            return f"{op.function} of rates"
    return ""


def _dynamics(op: Neurons) -> str:
    d = op.dynamics
    values = d.constants() | dict(op.values)
    never = isinstance(d, Leaky) and bool((np.asarray(values["decay"]) == 1).all())
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(d).__name__).lower()
    parts = ["integrate" if never else name]
    skipped = {"decay"} if never else set()
    skipped |= {"gain"} if np.all(np.asarray(values["gain"]) == 1) else set()
    parts += [f"{key} {_range(np.asarray(v))}" for key, v in values.items() if key not in skipped]
    if isinstance(d, Delta):
        return ", ".join([*parts, "sends changes"])
    parts += [EMITS[d.emit].format(d.levels), RESETS[d.reset]]
    parts += ["fires above the threshold alone"] if d.above else []
    parts += [f"rests {d.refractory} steps"] if d.refractory else []
    return ", ".join(parts)


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "×".join(map(str, values))


def summary(graph: Graph) -> Group:
    """Build a table of the layers of `graph`, with totals, and below it what each does."""
    rows = layers(graph)
    totals = {key: sum(getattr(layer, key) for layer in rows) for key in _COUNTS}
    table = Table(show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind")
    table.add_column("shape", justify="right", no_wrap=True)
    for key, total in totals.items():
        table.add_column(key, f"{total:,}", justify="right")
    table.add_column("fan-in", justify="right")
    table.add_column("fan-out", justify="right")
    for layer in rows:
        counts = [f"{n:,}" if (n := getattr(layer, key)) else "" for key in totals]
        shape = "×".join(map(str, layer.shape))
        ends = _fan(layer.fan_in), _fan(layer.fan_out)
        table.add_row(Text(plain(layer.name)), layer.kind, shape, *counts, *ends)
    lines = [f"{plain(layer.name)}: {layer.description}" for layer in rows if layer.description]
    return Group(table, *map(Text, lines))


_COUNTS = ("neurons", "parameters", "synapses")


def _fan(fan: tuple[float, int]) -> str:
    """The mean, and the most if it differs."""
    mean, most = fan
    if not most:
        return ""
    return f"{mean:g}" if mean == most else f"{mean:.4g}, max {most}"
