"""Graphs that tests of several rooms draw, inputs to drive them, and what makes two the same."""

import numpy as np
from hypothesis import strategies as st

from axonal.core.neurons import Current, Delta, Leaky
from axonal.deploy.engine.reference import run
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import (
    Add,
    Bias,
    Concat,
    Conv,
    Delay,
    Dense,
    Input,
    Neurons,
    Pool,
    Resize,
    Scale,
    Select,
    reshape,
)

DYNAMICS = [
    Leaky(decay=0.9, threshold=0.4),
    Leaky(decay=0.8, threshold=0.3, reset="zero", refractory=2),
    Leaky(decay=0.7, threshold=0.3, reset="late", above=True),
    Leaky(decay=0.9, threshold=0.3, emit="ternary"),
    Leaky(decay=0.9, threshold=0.3, emit="integer", levels=3),
    Leaky(decay=0.9, threshold=0.5, emit="graded", levels=3),
    Leaky(decay=0.9, emit="membrane", reset="none"),
    Current(threshold=0.4),
    Delta(threshold=0.2),
    Delta(threshold=0.1, negative_slope=1.0),
]

VARYING = [
    DYNAMICS[0],
    DYNAMICS[4],
    DYNAMICS[-1],
]  # that are drawn with a threshold for each neuron


def weights(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/64, whose sums are exact in any order."""
    return (generator.integers(-32, 48, shape) / 64).astype(np.float32)


@st.composite
def graphs(draw) -> Graph:
    """A chain of random maps and populations behind one input, with a skip and a cycle."""
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 3)), draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    else:
        shape = (draw(st.integers(1, 3)), draw(st.integers(3, 9)))
    nodes, last = [Node("x", Input(shape))], "x"
    for i in range(draw(st.integers(1, 4))):
        op, shape = _map(draw, generator, shape)
        nodes.append(Node(f"map{i}", op, (last,)))
        if draw(st.booleans()):
            nodes.append(
                Node(
                    f"bias{i}",
                    Bias(weights(generator, shape[0], *(1,) * (len(shape) - 1))),
                    (f"map{i}",),
                )
            )
        dynamics = draw(st.sampled_from(DYNAMICS))
        values = {}
        if dynamics in VARYING and draw(st.booleans()):
            values = {"threshold": 0.25 + abs(weights(generator, *shape))}
        nodes.append(Node(f"n{i}", Neurons(dynamics, values), (nodes[-1].name,)))
        last = f"n{i}"
        if draw(st.booleans()):
            nodes += [
                Node(f"late{i}", Delay(generator.integers(0, 4, shape)), (last,)),
                Node(f"sum{i}", Add(), (last, f"late{i}")),
            ]
            last = f"sum{i}"
    nodes += [
        Node("flat", reshape((int(np.prod(shape)),)), (last,)),
        Node("in", Dense(weights(generator, 70, int(np.prod(shape)))), ("flat",)),
        Node("both", Add(), ("in", "again")),
        Node("loop", Neurons(Leaky(decay=0.9, threshold=0.7)), ("both",)),
        Node("line", Delay(generator.integers(1, 4, 70)), ("loop",)),
        Node("again", Dense(weights(generator, 70, 70) / 8), ("line",)),
        Node("twice", Concat(), ("loop", "flat")),
    ]
    return Graph(nodes, ["twice", "n0", "loop"])


def _map(draw, generator: np.random.Generator, shape: tuple[int, ...]):
    """A map of values of a shape, and the shape of its result."""
    dims, channels = len(shape) - 1, shape[0]
    kind = draw(st.sampled_from(["conv", "conv", "pool", "resize", "select", "scale"]))
    if kind == "conv":
        groups = draw(st.sampled_from([1, 1, channels]))
        padding = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(dims))
        room = [n + sum(p) for n, p in zip(shape[1:], padding, strict=True)]
        kernel = tuple(draw(st.integers(1, min(3, r))) for r in room)
        dilation = tuple(
            2 if 2 * (k - 1) < r and draw(st.booleans()) else 1
            for k, r in zip(kernel, room, strict=True)
        )
        stride = tuple(draw(st.integers(1, 2)) for _ in range(dims))
        weight = weights(generator, groups * draw(st.integers(1, 3)), channels // groups, *kernel)
        op = Conv(weight, stride, padding, dilation, groups)
    elif kind == "pool":
        size = tuple(draw(st.integers(1, min(2, n))) for n in shape[1:])
        op = Pool(size, size, ((0, 0),) * dims, draw(st.booleans()))
    elif kind == "resize":
        op = Resize((2,) * dims, draw(st.booleans()))
    elif kind == "select":
        op = Select(generator.permutation(int(np.prod(shape))).reshape(shape))
    else:
        op = Scale(weights(generator, channels, *(1,) * dims))
    return op, op.shape(shape)


def drive(graph: Graph, steps: int, seed: int, share: float = 0.3) -> dict[str, np.ndarray]:
    """Values of the inputs, most of them 0."""
    generator = np.random.default_rng(seed)
    x = {}
    for name in graph.inputs:
        shape = (steps, *graph.shapes[name])
        x[name] = ((generator.random(shape) < share) * weights(generator, *shape)).astype("f4")
    return x


def assert_same(a: Graph, b: Graph) -> None:
    """Both have the same nodes with the same data, to the bit, and compute the same."""
    assert list(a.nodes) == list(b.nodes) and a.outputs == b.outputs and a.shapes == b.shapes
    for one, other in zip(a, b, strict=True):
        assert type(one.op) is type(other.op) and one.inputs == other.inputs
        for key, value in vars(one.op).items():
            _assert_equal(value, getattr(other.op, key))
    x = drive(a, 12, 0)
    values, again = run(a, x)[0], run(b, x)[0]
    assert all(np.array_equal(values[name], again[name]) for name in a.nodes)


def _assert_equal(a, b) -> None:
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            _assert_equal(value, b[key])
    else:
        assert type(a) is type(b) and a == b
