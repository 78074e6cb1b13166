"""Tables and drawings of graphs: numbers against brute force, and text that stays text."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from axonal.core.errors import InputError
from axonal.core.neurons import AdaptiveThreshold, Delta, Leaky
from axonal.graph.drawing import EDGES, mermaid
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import (
    Add,
    Bias,
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
from axonal.graph.summary import description, layers, summary


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def alone(op, shape):
    return Graph([Node("x", Input(shape)), Node("op", op, ("x",))], ["op"])


def connected(op, shape):
    """[outputs, inputs] whether a value of the input reaches one of the output: one at a time."""
    graph = alone(op, shape)
    ones = type(op)(**{**vars(op), "weight": (op.weight != 0).astype(np.float32)})
    columns = []
    for i in range(graph.size("x")):
        x = np.zeros(graph.size("x"), np.float32)
        x[i] = 1
        columns.append(ones.apply(x.reshape(shape)).ravel())
    return np.array(columns).T


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    sides=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 3),
    groups=st.integers(1, 2),
    sparse=st.booleans(),
)
def test_synapses_are_counted_at_the_edges(sizes, kernel, stride, sides, dilation, groups, sparse):
    dims = len(sizes)
    weight = weights(2 * groups, 3, *[kernel] * dims)
    weight[np.random.default_rng(1).random(weight.shape) < 0.5 * sparse] = 0
    op = Conv(weight, (stride,) * dims, (sides,) * dims, (dilation,) * dims, groups)
    shape = (3 * groups, *sizes)
    try:
        op.shape(shape)
    except InputError:
        return
    there = connected(op, shape)
    layer = layers(alone(op, shape))[1]
    assert layer.synapses == there.sum()
    assert layer.fan_in == (pytest.approx(there.sum(1).mean()), there.sum(1).max())
    assert layer.fan_out == (pytest.approx(there.sum(0).mean()), there.sum(0).max())


def network():
    """A convolution, a residual sum, a recurrent loop with a delay, and two outputs."""
    axon = np.arange(4)
    return Graph(
        [
            Node("x", Input((1, 4, 4))),
            Node("conv", Conv(weights(2, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), ("x",)),
            Node("bias", Bias(weights(2, 1, 1)), ("conv",)),
            Node("lif", Neurons(Leaky(decay=0.9)), ("bias",)),
            Node("twice", Scale(weights(2, 1, 1)), ("lif",)),
            Node("sum", Add(), ("twice", "lif")),
            Node("pool", Pool((2, 2), (2, 2), ((0, 0), (0, 0))), ("sum",)),
            Node("flat", reshape((8,)), ("pool",)),
            Node("fc", Dense(weights(4, 8)), ("flat",)),
            Node("in", Add(), ("fc", "back.weight")),
            Node("rnn", Neurons(Leaky(), {"decay": np.linspace(0.5, 0.9, 4)}), ("in",)),
            Node("back", Delay(np.array(1)), ("rnn",)),
            Node("back.weight", Dense(np.eye(4, dtype=np.float32)), ("back",)),
            Node("axon", Delay(axon), ("rnn",)),
        ],
        ["axon", "lif"],
    )


def test_layers_in_numbers():
    rows = {layer.name: layer for layer in layers(network())}
    assert list(rows)[:4] == ["x", "conv", "bias", "lif"]
    assert list(rows).index("back") > list(rows).index("rnn")
    conv = rows["conv"]
    assert (conv.kind, conv.shape, conv.parameters, conv.neurons) == ("Conv", (2, 4, 4), 18, 0)
    assert conv.synapses == 2 * 10**2 and conv.fan_in[1] == 9 and conv.fan_out[1] == 18
    dense = rows["back.weight"]
    assert (dense.parameters, dense.synapses, dense.fan_in) == (16, 4, (1.0, 1))
    assert (rows["rnn"].neurons, rows["rnn"].parameters) == (4, 4)
    assert rows["flat"].parameters == rows["axon"].parameters == rows["pool"].synapses == 0


DESCRIPTIONS = [
    (Neurons(Leaky()), "integrate, threshold 1, one spike, takes the threshold away"),
    (
        Neurons(Leaky(reset="zero", above=True, refractory=2), {"decay": np.array([0.5, 0.25])}),
        "leaky, threshold 1, decay 0.25 to 0.5, one spike, resets to 0, "
        "fires above the threshold alone, rests 2 steps",
    ),
    (
        Neurons(AdaptiveThreshold(emit="integer", levels=4, gain=2.0)),
        "adaptive threshold, gain 2, threshold 1, decay 0.9, rho 0.97, beta 0.2, "
        "up to 4 spikes, rounded, takes the threshold away",
    ),
    (Neurons(Delta(threshold=0.1)), "delta, threshold 0.1, negative_slope 0, sends changes"),
    (
        Conv(weights(2, 1, 3, 2), (2, 2), ((0, 0), (0, 0)), (1, 3), 2),
        "3×2 kernels, stride 2, dilation 1×3, 2 groups",
    ),
    (Conv(weights(2, 1, 3), (1,), ((0, 0),), (1,)), "3 kernels"),
    (Pool((2, 3), (2, 2), ((0, 0), (0, 0)), average=False), "sum of 2×3"),
    (Resize((2, 2), bilinear=True), "2×2 as large, bilinear"),
    (Delay(np.array(1)), "1 step later"),
    (Delay(np.array([0, 3])), "0 to 3 steps later"),
    (Select(np.array([1, 0])), "picks values"),
    (reshape((2, 2)), "reshapes"),
    (Dense(weights(2, 2)), ""),
]


@pytest.mark.parametrize(("op", "said"), DESCRIPTIONS, ids=[said[:20] for _, said in DESCRIPTIONS])
def test_descriptions(op, said):
    assert description(op) == said


def printed(table):
    out = io.StringIO()
    Console(file=out, width=240, color_system=None).print(table)
    return out.getvalue()


def test_the_table_has_totals():
    text = printed(summary(network()))
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "2×4×4" in rows["conv"] and "200" in rows["conv"] and "6.25, max 9" in rows["conv"]
    assert [cell.strip() for cell in rows["total"].split("│")[4:7]] == ["36", "74", "236"]


NASTY = "[red]<script>alert(1)</script>&\"'\x1b[31m\x00\u202e" + "n" * 99


def test_names_stay_names():
    graph = Graph([Node(NASTY, Input((2,)))], [NASTY])
    text, drawing = printed(summary(graph)), mermaid(graph)
    assert "[red]<script>" in text
    assert not set(text + drawing) & set("\x1b\x00\u202e")
    (box,) = boxes(drawing).values()
    assert box == ("[red]<script>alert(1)</sc…", "Input 2, output", "(", "input")


BOX = re.compile(r'    (n\d+)([(\[]+)"([\w ._…\-#;]*)<br>([\w ,×]+)"[)\]]+:::(\w+)')
EDGE = re.compile(r"    (n\d+) (-->|-\.->) (n\d+)")


def boxes(drawing):
    """Every box by its number: the name and the text in it, its shape and its style."""
    lines = filter(None, map(BOX.fullmatch, drawing.splitlines()))
    return {
        number: (re.sub(r"#(\d+);", lambda m: chr(int(m[1])), name), text, shape, style)
        for number, shape, name, text, style in (line.groups() for line in lines)
    }


def test_the_drawing_shows_every_node_and_edge():
    graph = network()
    drawing = mermaid(graph)
    shown = boxes(drawing)
    assert [box[0] for box in shown.values()] == [layer.name for layer in layers(graph)]
    by_name = {name: box for name, *box in shown.values()}
    assert by_name["lif"] == ["Leaky 2×4×4, output", "([", "neurons"]
    assert by_name["conv"] == ["Conv 2×4×4", "[", "weights"]
    assert by_name["axon"] == ["0 to 3 steps later, output", "(", "late"]
    assert {name for name, box in by_name.items() if box[2] == "late"} == {"back", "axon"}
    edges = [line.groups() for line in filter(None, map(EDGE.fullmatch, drawing.splitlines()))]
    ends = sorted((shown[source][0], shown[reader][0]) for source, _, reader in edges)
    assert ends == sorted((source, node.name) for node in graph for source in node.inputs)
    late = {(shown[source][0], shown[reader][0]) for source, way, reader in edges if "." in way}
    assert late == {("rnn", "back"), ("rnn", "axon"), ("back", "back.weight")}
    styles = set(re.findall(r"classDef (\w+) ", drawing))
    assert {box[3] for box in shown.values()} <= styles
    assert len(boxes(drawing)) + len(edges) + len(styles) + 1 == len(drawing.splitlines())


def test_too_many_edges_are_not_drawn():
    nodes = [Node("0", Input((1,)))]
    nodes += [Node(str(i), Bias(np.ones(1, np.float32)), (str(i - 1),)) for i in range(1, 502)]
    with pytest.raises(InputError, match="501 edges; 500 are drawn at most"):
        mermaid(Graph(nodes, ["501"]))
    assert len(boxes(mermaid(Graph(nodes[:501], ["500"])))) == EDGES + 1
