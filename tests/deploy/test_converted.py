"""Converted networks in the engine: wired graphs, their neurons, and functions of rates."""

import operator
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from axonal.core.errors import InputError
from axonal.core.neurons import Burst, Leaky, Signed
from axonal.deploy import nir
from axonal.deploy.certify import certify, sent
from axonal.deploy.engine import Engine, reference, values
from axonal.deploy.from_torch import trace
from axonal.graph.difference import Difference
from axonal.graph.drawing import mermaid
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Add, Bias, Delay, Dense, Input, Neurons
from axonal.graph.summary import description, layers
from axonal.nn import Delay as Late
from axonal.nn import Difference as Differ
from axonal.nn import GraphModule, Neuron, OneStep, Sequential, Stateful
from axonal.nn.meter import Meter

T = 5
LEAKY = Leaky(threshold=0.5, emit="integer", levels=2)
SIGNED = Signed(levels=3, threshold=0.25, negative_slope=0.5)
FADING = Signed(threshold=0.5, decay=0.75, emit="multiple")
FINE = Signed(levels=15, threshold=0.0625, negative_slope=1.0)
FIRST, SECOND = Burst(opens=T, window=T), Burst(opens=2 * T, window=T, levels=2, threshold=0.5)


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


class Tracer(fx.Tracer):
    def is_leaf_module(self, m, name):
        return isinstance(m, Stateful | OneStep) or super().is_leaf_module(m, name)


def wired(module):
    """A module whose layers with states are called without, wired; weights are exact in any sum."""
    for parameter in module.parameters():
        parameter.copy_((parameter * 64).round() / 64)
    return GraphModule(fx.GraphModule(module, Tracer().trace(module)))


class Pictures(nn.Module):
    """Convolutions, a residual sum that waits, pools of both kinds, and all kinds of neurons."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.signed = Neuron(SIGNED)
        self.leaky = Neuron(LEAKY)
        self.late = Late(T)
        self.burst = Neuron(FIRST, values={"threshold": torch.rand(4, 1, 1).round() + 1})
        self.again = Neuron(SECOND)
        self.pool, self.sum = nn.AvgPool2d(2), nn.AvgPool2d(2, divisor_override=1)
        self.any = OneStep(Neuron(Leaky(threshold=0.5)))
        self.out = nn.Linear(16, 3)
        self.register_buffer("offset", torch.full((4, 1, 1), 0.125))

    def forward(self, x):
        x = self.signed(self.first(x))
        y = self.burst(self.second(self.leaky(x)) + self.offset)
        y = self.again(torch.add(y, self.late(x)) * 0.5)
        y = self.pool(x) + self.any(self.sum(y))
        return self.out(y.flatten(1)) - 1


def test_a_wired_network_runs_spike_for_spike():
    network = Sequential(wired(Pictures()), nn.Identity())
    x = (torch.randn(3 * T, 2, 2, 4, 4) * 8).round() / 8
    graph = trace(network, x)
    assert {"0.graph.signed", "0.graph.burst", "0.graph.any", "0.graph.second"} <= {*graph.nodes}
    assert {*graph.neurons} == {*sent(network, x)}
    engine = Engine(graph)
    assert certify(network, x, engine).share == 1
    expected, _ = network(x)
    for sample in range(2):
        result, _ = engine.run({"input": x[:, sample].numpy()})
        np.testing.assert_array_equal(result[graph.outputs[0]], expected[:, sample].numpy())
    assert all(values.any() for values in sent(network, x).values())


def test_an_input_that_stands_still_and_goes_on():
    network = wired(Pictures())
    x = (torch.randn(1, 1, 2, 4, 4) * 8).round().div(8).expand(3 * T, 1, 2, 4, 4)
    assert certify(network, x).share == 1
    engine, inputs = Engine(trace(network, x)), x[:, 0].numpy()
    total, last = engine.run({"input": inputs})
    first, state = engine.run({"input": inputs[:7]})
    second, after = engine.run({"input": inputs[7:]}, state)
    (name,) = engine.graph.outputs
    np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), total[name])
    for key, value in last.items():
        np.testing.assert_array_equal(after[key], value)


@pytest.mark.parametrize(
    ("dynamics", "fires"), [(SIGNED, -1), (FINE, 1), (FADING, 1), (SECOND, 1)], ids=repr
)
def test_neurons_fire_on_after_their_input(dynamics, fires):
    """And what slept has decayed when it is looked at again."""
    graph = Graph([Node("x", Input((2,))), Node("n", Neurons(dynamics), ("x",))], ["n"])
    x = np.zeros((16, 2), np.float32)
    x[6], x[13] = (3 * fires, 0.125), (0.5, 0.375)
    expected, state = reference.run(graph, {"x": x})
    result, after = Engine(graph).run({"x": x})
    assert (fires * expected["n"][7:13] > 0).any()
    np.testing.assert_array_equal(result["n"], expected["n"])
    np.testing.assert_array_equal(after["n"], state["n"])


@pytest.mark.parametrize("dynamics", [SIGNED, FADING], ids=repr)
def test_a_spike_of_several_levels_is_one_multiplication(dynamics):
    network, x = Sequential(Neuron(dynamics), nn.Linear(6, 4, bias=False)), torch.randn(8, 1, 6)
    with Meter(network, "events", batch_dim=1) as meter:
        spikes, _ = network[0](x)
        network(x)
    stream = Engine(trace(network, x)).stream()
    stream.push({"input": x[:, 0].numpy()})
    assert stream.counts().totals() == meter.counts().totals()
    events = float((spikes != 0).sum())
    assert stream.counts().by_layer("synops")["1"] == 4 * events > 0
    assert stream.counts().total("multiplies") == (4 * events if dynamics.levels > 1 else 0)


FUNCTIONS = {
    "max_pool2d": (nn.MaxPool2d(2), [(3, 4, 6)]),
    "max_pool2d options": (nn.MaxPool2d((3, 2), (2, 1), 1, (1, 2)), [(3, 5, 6)]),
    "max_pool1d": (nn.MaxPool1d(3, padding=1), [(3, 7)]),
    "max_pool2d partial": (partial(F.max_pool2d, kernel_size=2, stride=1), [(3, 4, 6)]),
    "softmax": (nn.Softmax(-1), [(2, 3, 4)]),
    "softmax partial": (partial(torch.softmax, dim=1), [(3, 4)]),
    "softmax function": (partial(F.softmax, dim=-1, _stacklevel=3, dtype=None), [(3, 4)]),
    "layer_norm": (nn.LayerNorm(4), [(3, 4)]),
    "layer_norm plain": (nn.LayerNorm(4, 0.1, elementwise_affine=False), [(4,)]),
    "layer_norm partial": (partial(F.layer_norm, normalized_shape=(4,)), [(3, 4)]),
    "gelu": (nn.GELU(), [(3, 4)]),
    "gelu tanh": (partial(F.gelu, approximate="tanh"), [(3, 4)]),
    "matmul": (torch.matmul, [(2, 3, 4), (2, 4, 5)]),
    "matmul operator": (operator.matmul, [(3, 4), (4, 5)]),
    "mul": (torch.mul, [(3, 4), (3, 4)]),
    "mul operator": (operator.mul, [(2, 3, 4), (2, 1, 4)]),
}


class Both(Stateful):
    """A function of one value or of two halves of one, over time."""

    def __init__(self, function, shapes):
        super().__init__()
        self.inner, self.shapes = Differ(function, 2.0**-12), shapes
        self.ends = np.cumsum([0, *(np.prod(shape) for shape in shapes)]).tolist()

    def forward(self, x, state=None):
        spans = zip(self.ends, self.ends[1:], self.shapes, strict=False)
        parts = [x[:, :, a:b].unflatten(2, shape) for a, b, shape in spans]
        return self.inner(*parts, state)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_rates(name):
    function, shapes = FUNCTIONS[name]
    if isinstance(function, nn.LayerNorm) and function.elementwise_affine:
        nn.init.normal_(function.weight), nn.init.normal_(function.bias)
    network = Both(function, shapes)
    x = torch.randn(7, 1, network.ends[-1])
    graph, (expected, _) = trace(network, x), network(x)
    (result,) = (node for node in graph if isinstance(node.op, Difference))
    assert result.op.function == name.split()[0] and graph.outputs == (result.name,)
    inputs = {"input": x[:, 0].numpy()}
    total, last = reference.run(graph, inputs)
    np.testing.assert_array_equal(total[result.name], expected[:, 0].numpy())
    assert total[result.name].any()
    stream = Engine(graph).stream()
    parts = [stream.push({"input": inputs["input"][a:b]}) for a, b in ((0, 1), (1, 5), (5, 7))]
    dense = np.concatenate([part[result.name].to_dense() for part in parts])
    np.testing.assert_array_equal(dense, total[result.name])
    np.testing.assert_array_equal(stream.state()[result.name], last[result.name])
    counted = stream.counts().by_layer
    size = sum(graph.size(n) for n in result.inputs)
    assert counted("adds")[result.name] >= 7 * size and not counted("synops")[result.name]


def test_work_of_functions():
    """For each value: what the mean, the sum and the difference take, and the function itself."""
    shapes = {"matmul": ((3, 4), (4, 5)), "mul": ((3, 4), (3, 4)), "max_pool1d": ((3, 4),)}
    for name, multiplies, adds in [
        ("matmul", 60 + 32 + 15, 60 + 32 + 15),
        ("mul", 12 + 24 + 12, 24 + 12),
        ("max_pool1d", 12 + 6, 12 + 12 + 6),
    ]:
        op = Difference(name, {"kernel_size": 2} if "pool" in name else {})
        work = op.work(op.shape(*shapes[name]), *shapes[name])
        assert (work["multiplies"], work["adds"]) == (multiplies, adds)


class Block(nn.Module):
    """A transformer's block between patches and classes, as a conversion leaves it."""

    def __init__(self, width=8, heads=2, tokens=4):
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(2, width, 2, 2)
        self.register_buffer("places", torch.randn(1, tokens, width))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norms = nn.ModuleList(Differ(nn.LayerNorm(width)) for _ in range(2))
        self.up, self.act, self.down = nn.Linear(width, 16), Differ(nn.GELU()), nn.Linear(16, width)
        self.scores, self.sums = Differ(torch.matmul), Differ(torch.matmul)
        self.softmax, self.gate = Differ(nn.Softmax(-1)), Differ(operator.mul)
        names = ("start", "query", "key", "value", "weights", "inner", "last")
        self.spikes = nn.ModuleDict({name: Neuron(FINE) for name in names})
        self.head = nn.Linear(width, 3)

    def split(self, name, x):
        x = self.spikes[name](getattr(self, name)(x))
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2) * 0.0625

    def forward(self, x):
        x = self.spikes["start"](self.patches(x).flatten(2).transpose(1, 2) + self.places) / 16
        y = self.norms[0](x)
        query, key, value = (self.split(name, y) for name in ("query", "key", "value"))
        weights = self.softmax(self.scores(query * 0.5, key.transpose(-2, -1)))
        weights = self.spikes["weights"](weights) * 0.0625
        x = x + self.out(self.sums(weights, value).transpose(1, 2).flatten(2))
        y = self.spikes["inner"](self.act(self.up(self.norms[1](x)))) * 0.0625
        x = x + self.gate(self.down(y), x)
        return self.head(self.spikes["last"](x).mean(1) / 16)


def test_a_transformer_runs_in_stages():
    network = wired(Block())
    x = torch.randn(1, 3, 2, 4, 4).expand(24, 3, 2, 4, 4)
    graph = trace(network, x)
    engine = Engine(graph)
    assert len(engine.stages) == 7
    assert certify(network, x).share > 0.999
    expected, _ = network(x)
    (output,) = graph.outputs
    for sample in range(3):
        inputs = {"input": x[:, sample].numpy()}
        result, after = engine.run(inputs)
        total = expected[:, sample].sum(0).numpy()
        np.testing.assert_allclose(result[output].sum(0), total, rtol=1e-4, atol=1e-4 * 24)
        dense, last = reference.run(graph, inputs)
        np.testing.assert_allclose(result[output], dense[output], rtol=1e-4, atol=1e-4)
        assert after.keys() == last.keys()


def staged():
    """Sums across stages, a cycle within the second, a delay, and an input that is put out."""
    generator = np.random.default_rng(0)
    weight = (generator.integers(-32, 48, (4, 4)) / 64).astype(np.float32)
    nodes = [
        Node("x", Input((4,))),
        Node("spare", Input((2,))),
        Node("a", Dense(weight), ("x",)),
        Node("n", Neurons(Leaky(threshold=0.25)), ("a",)),
        Node("f", Difference("softmax", {"dim": -1}), ("n",)),
        Node("g", Difference("mul"), ("f", "n")),
        Node("late", Delay(np.array(2)), ("n",)),
        Node("both", Add(), ("g", "late", "back")),
        Node("m", Neurons(Signed(threshold=0.25, levels=2)), ("both",)),
        Node("line", Delay(np.array(1)), ("m",)),
        Node("back", Dense(weight / 4), ("line",)),
        Node("h", Difference("gelu"), ("both",)),
        Node("end", Add(), ("h", "x")),
        Node("biased", Bias(np.ones(4, np.float32)), ("end",)),
    ]
    return Graph(nodes, ["m", "f", "biased", "x"])


def test_stages_equal_the_reference():
    graph = staged()
    x = (np.random.default_rng(1).integers(-16, 32, (12, 4)) / 16).astype(np.float32)
    expected, last = reference.run(graph, {"x": x})
    engine = Engine(graph)
    result, after = engine.run({"x": x})
    assert list(result) == list(graph.outputs) and [s.graph.outputs for s in engine.stages] == [
        ("x", "late", "n"),
        ("both", "m"),
        ("biased",),
    ]
    stream = engine.stream(engine.run({"x": x[:5]})[1])
    rest = stream.push({"x": x[5:]})
    for name, values_ in result.items():
        np.testing.assert_allclose(values_, expected[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(rest[name].to_dense(), values_[5:])
    for name, value in after.items():
        np.testing.assert_allclose(value, last[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(stream.state()[name], value)
    with pytest.raises(InputError, match="another graph"):
        engine.stream({**after, "f": after["f"][:3]})


def test_counts_of_stages_are_those_of_their_parts(monkeypatch):
    graph, x = staged(), np.ones((2, 4), np.float32)
    stream = Engine(graph).stream()
    with pytest.raises(InputError, match="nothing was pushed"):
        stream.counts()
    monkeypatch.setattr("axonal.deploy.engine.stages.SEPARATE", 3)
    for _ in range(5):
        stream.push({"x": x})
    counts = stream.counts()
    assert counts.layers == ("a", "n", "f", "g", "back", "m", "h") and counts.table.shape[0] == 3
    assert counts.by_layer("sites")["n"] == 40 and counts.by_layer("synops")["a"] == 160
    assert counts.by_layer("multiplies")["g"] == 10 * (4 + 8 + 4)
    assert counts.total("spikes") > 0 and counts.by_layer("spikes")["f"] == 0


def test_a_cycle_through_a_function_is_refused():
    nodes = [
        Node("x", Input((4,))),
        Node("sum", Add(), ("x", "late")),
        Node("f", Difference("gelu"), ("sum",)),
        Node("late", Delay(np.array(1)), ("f",)),
    ]
    graph = Graph(nodes, ["f"])
    assert reference.run(graph, {"x": np.ones((3, 4), np.float32)})[0]["f"].any()
    with pytest.raises(InputError, match=r"'(sum|late)' stands in a cycle through a Difference"):
        Engine(graph)


@pytest.mark.parametrize(
    ("dynamics", "said"),
    [
        (SIGNED, "signed, threshold 0.25, decay 1, negative_slope 0.5, up to 3 spikes, rounded"),
        (SECOND, "burst, threshold 0.5, opens 10, window 5, up to 2 spikes, rounded"),
    ],
)
def test_neurons_are_shown_and_not_written(dynamics, said):
    graph = Graph([Node("x", Input((4,))), Node("n", Neurons(dynamics), ("x",))], ["n"])
    assert description(graph.nodes["n"].op) == f"{said}, takes the threshold away"
    with pytest.raises(InputError, match=f"nir: 'n': NIR has no {type(dynamics).__name__} neurons"):
        nir.to_nir(graph, dt=1e-3, discretisation="euler")


def test_functions_are_shown_and_not_written():
    graph = staged()
    assert description(graph.nodes["f"].op) == "softmax of rates"
    norm = Difference("layer_norm", {"normalized_shape": (4,), "weight": np.ones(4, "f4")})
    graph = Graph([Node("x", Input((4,))), Node("f", norm, ("x",))], ["f"])
    assert [layer.parameters for layer in layers(graph)] == [0, 4]
    assert "Difference 4" in mermaid(graph)
    with pytest.raises(InputError, match="nir: 'f': NIR has no Difference; axonal"):
        nir.to_nir(graph, dt=1e-3, discretisation="euler")
    assert values.rest(graph)["f"].shape == (9,)


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (nn.Mish(), [(4,)], "no function Mish"),
        (nn.Softmax(0), [(4,)], "it mixes samples"),
        (nn.MaxPool2d(2, return_indices=True), [(2, 3, 3)], "no indices"),
        (nn.LayerNorm((3, 5)), [(3, 4)], "which are not the last axes"),
        (partial(torch.softmax, dim=1, dtype=torch.float64), [(4,)], "dtype"),
        (partial(torch.mul, 2.0), [(4,)], "by place; give them by name"),
        (torch.matmul, [(3, 4), (3, 4)], "matmul of"),
    ],
)
def test_functions_that_are_refused(function, shapes, message):
    network = Both(function, shapes)
    with pytest.raises(InputError, match=rf"can't trace 'inner' \(Difference\).*{message}"):
        trace(network, torch.zeros(2, 1, network.ends[-1]))


def test_functions_need_time_and_outside_of_rates_are_refused():
    class Alone(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.inner, self.run = Differ(nn.GELU()), run

        def forward(self, x):
            return self.run(self, x)

    for run, message in [
        (lambda m, x: m.inner(x)[0], r"'inner' \(Difference\).*needs time"),
        (lambda m, x: F.gelu(x), "convert the network"),
        (lambda m, x: torch.softmax(x, -1), "convert the network, .*or leave this part"),
        (lambda m, x: x * x, "convert the network"),
    ]:
        with pytest.raises(InputError, match=message):
            trace(Alone(run), torch.zeros(2, 4))
