"""Traced graphs compute what the modules do, keep their names, and refuse what they can't hold."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import Net
from torch import nn

from axonal.convert import sigma_delta
from axonal.core.errors import InputError
from axonal.core.neurons import AdaptiveThreshold, Leaky
from axonal.deploy.engine.reference import run
from axonal.deploy.from_torch import trace, trace_changes
from axonal.graph import ops
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.nn import (
    IF,
    LIF,
    Conv2d,
    Current,
    Delay,
    DelayedLinear,
    IntegerLIF,
    Neuron,
    Noise,
    OneStep,
    Recurrent,
    Sequential,
    SigmaDelta,
    Stateful,
)

pytestmark = pytest.mark.usefixtures("no_grad")
SMALL = settings(max_examples=25)


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def shaken(module, seed=0):
    """The module in evaluation, every parameter and statistic away from its start."""
    torch.manual_seed(seed)
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point() and "delay" not in key and "threshold" not in key:
            value.add_(0.15 * (torch.rand_like(value) if "var" in key else torch.randn_like(value)))
    return module.eval()


def same(module, *shape, seed=0):
    """The graph of `module`, once its steps were found to equal the module's samples."""
    torch.manual_seed(seed)
    x = torch.randn(3, *shape)
    graph, expected = trace(module, x), module(x)
    values, _ = run(graph, {"input": x.numpy()})
    for name, wanted in zip(
        graph.outputs, expected if isinstance(expected, tuple) else [expected], strict=True
    ):
        assert values[name].shape == wanted.shape
        np.testing.assert_allclose(values[name], wanted.numpy(), rtol=1e-4, atol=2e-5)
    return graph


def same_over_time(module, *shape, steps=12, gain=2.0):
    """As `same`, over time, for each sample of a batch."""
    torch.manual_seed(1)
    x = gain * torch.randn(steps, 2, *shape)
    graph, (expected, _) = trace(module, x), module(x)
    for sample in range(2):
        values, _ = run(graph, {"input": x[:, sample].numpy()})
        result = values[graph.outputs[0]]
        np.testing.assert_allclose(result, expected[:, sample].numpy(), rtol=1e-4, atol=1e-5)
    assert expected.any()
    return graph


@SMALL
@given(
    dims=st.integers(1, 2),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.sampled_from([0, 1, 2, "same", "valid"]),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
)
def test_convolutions(dims, size, stride, padding, dilation, groups, bias, mode):
    assume(padding != "same" or stride == 1)
    kind, options = (nn.Conv1d, nn.Conv2d)[dims - 1], {"padding": padding, "padding_mode": mode}
    options |= {"dilation": dilation, "groups": groups, "bias": bias, "stride": stride}
    torch.manual_seed(0)
    layer = kind(4, 6, size, **options)
    graph = same(layer, 4, *(7, 6)[:dims])
    assert ("conv1d.bias" in graph.nodes or "conv2d.bias" in graph.nodes) == bias
    functional = (F.conv1d, F.conv2d)[dims - 1]
    if mode == "zeros":
        how = stride, padding, dilation, groups
        functional = (F.conv1d, F.conv2d)[dims - 1]
        net = Net(lambda m, x: functional(x, m.layer.weight, m.layer.bias, *how), layer=layer)
        same(net, 4, *(7, 6)[:dims])


@SMALL
@given(
    dims=st.integers(1, 2),
    size=st.integers(1, 3),
    stride=st.none() | st.integers(1, 3),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
    counted=st.booleans(),
    divisor=st.none() | st.integers(1, 5),
)
def test_average_pools(dims, size, stride, padding, ceil, counted, divisor):
    assume(padding <= size // 2)
    options = {"kernel_size": size, "stride": stride, "padding": padding, "ceil_mode": ceil}
    options |= {"count_include_pad": counted}
    if dims == 2:
        same(nn.AvgPool2d(**options, divisor_override=divisor), 3, 5, 6)
        same(Net(lambda m, x: F.avg_pool2d(x, **options)), 3, 5, 6)
    else:
        same(nn.AvgPool1d(**options), 3, 7)


@SMALL
@given(
    pads=st.lists(st.integers(-2, 3), min_size=1, max_size=2).map(lambda p: [*p, *p[::-1]]),
    mode=st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"]),
    shape=st.sampled_from([(2, 6), (2, 5, 6)]),
)
def test_padding(pads, mode, shape):
    assume(mode == "constant" or (min(pads) >= 0 and len(pads) == 2 * (len(shape) - 1)))
    remaining = [sum(min(p, 0) for p in pads[i : i + 2]) for i in range(0, len(pads), 2)]
    assume(all(n + cut > 0 for n, cut in zip(shape[::-1], remaining, strict=False)))
    same(Net(lambda m, x: F.pad(x, pads, mode)), *shape)


@SMALL
@given(
    mode=st.sampled_from(["nearest", "nearest-exact", "bilinear", "linear"]),
    factor=st.integers(1, 3) | st.floats(0.4, 3.3),
    sized=st.booleans(),
    aligned=st.booleans(),
)
def test_resizing(mode, factor, sized, aligned):
    shape = (2, 5) if mode == "linear" else (2, 5, 6)
    how = {"size": tuple(int(n * factor) for n in shape[1:])} if sized else {}
    how = how or {"scale_factor": float(factor)}
    how |= {} if "nearest" in mode else {"align_corners": aligned}
    same(nn.Upsample(**how, mode=mode), *shape)
    same(Net(lambda m, x: F.interpolate(x, **how, mode=mode)), *shape)


@SMALL
@given(
    dims=st.integers(1, 2),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    extra=st.integers(0, 1),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
def test_transposed_convolutions(dims, size, stride, padding, extra, dilation, groups):
    assume(extra < max(stride, dilation) and padding <= dilation * (size - 1))
    kind = nn.ConvTranspose1d if dims == 1 else nn.ConvTranspose2d
    layer = kind(4, 6, size, stride, padding, extra, groups, dilation=dilation)
    same(layer, *(4, 5, 3)[: dims + 1])


LAYERS = {
    "linear": (nn.Linear(4, 3), (4,)),
    "linear without bias": (nn.Linear(4, 3, bias=False), (4,)),
    "linear of channels": (nn.Linear(4, 3), (2, 4)),
    "linear of images": (nn.Linear(4, 3), (2, 5, 4)),
    "batch norm 1d": (nn.BatchNorm1d(3), (3,)),
    "batch norm of sequences": (nn.BatchNorm1d(3), (3, 4)),
    "batch norm 2d": (nn.BatchNorm2d(3, affine=False), (3, 4, 5)),
    "adaptive 1d": (nn.AdaptiveAvgPool1d(3), (2, 6)),
    "adaptive 2d": (nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 6)),
    "flatten": (nn.Flatten(), (2, 3, 4)),
    "flatten some": (nn.Flatten(2), (2, 3, 4)),
    "unflatten": (nn.Unflatten(1, (2, 3)), (6,)),
    "shuffle": (nn.PixelShuffle(2), (8, 3, 2)),
    "unshuffle": (nn.PixelUnshuffle(2), (2, 4, 6)),
    "zero pad": (nn.ZeroPad2d((1, 0, 2, 1)), (2, 3, 4)),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Identity(), nn.Linear(3, 2)), (3,)),
    "identity": (nn.Identity(), (3,)),
    "convolution by events": (nn.Sequential(Conv2d(2, 3, 3)), (2, 4, 5)),
    "parametrised": (
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        (4,),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    module, shape = LAYERS[name]
    same(shaken(module), *shape)


FUNCTIONS = {
    "view": (lambda m, x: x.view(x.size(0), -1), (2, 3, 4)),
    "reshape by shape": (lambda m, x: x.reshape(x.shape[0], -1, 2), (2, 3, 4)),
    "shuffle by hand": (
        lambda m, x: x.view(-1, 2, 2, 2, 3, 4).permute(0, 1, 4, 2, 5, 3).reshape(-1, 2, 6, 8),
        (8, 3, 4),
    ),
    "slices": (lambda m, x: x[:, 1:, ..., ::2], (3, 4, 5)),
    "one channel": (lambda m, x: x[:, 1], (3, 4, 5)),
    "reversed": (lambda m, x: torch.flip(x, (1,)).roll(1, -1), (3, 4)),
    "chunks": (lambda m, x: x.chunk(2, 1)[1] - x.chunk(2, 1)[0], (4, 5)),
    "splits": (lambda m, x: torch.cat(x.split(2, 1)[::-1], -1), (4, 5)),
    "squeezed": (lambda m, x: x.unsqueeze(1).transpose(2, -1).squeeze(1), (4, 5)),
    "functional shuffle": (lambda m, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), (4, 3, 2)),
    "sums": (lambda m, x: x + 0.5 - x * 2 + (1 - x) / 3, (4, 5)),
    "twice": (lambda m, x: x + x, (4,)),
    "negative": (lambda m, x: -x + 1, (4,)),
    "parameters": (lambda m, x: m.gain * x - m.shift + 2 * m.gain, (3, 2, 2)),
    "broadcast": (lambda m, x: x[:, :1] + x * m.gain[0], (3, 2, 2)),
    "spread": (lambda m, x: x[:, :1] * m.gain, (3, 2, 2)),
    "matrix": (lambda m, x: x @ m.matrix + torch.matmul(x, m.matrix), (3,)),
    "mean": (lambda m, x: x - x.mean((1, 3), keepdim=True), (3, 4, 5)),
    "sum": (lambda m, x: torch.sum(x, -1), (3, 4)),
    "global pool": (lambda m, x: x.mean(dim=(2, 3)), (3, 4, 5)),
    "concatenated": (lambda m, x: torch.cat([x, 2 * x, x[:, :1]], 1), (3, 4, 5)),
    "dropout": (lambda m, x: F.dropout(x, 0.5, m.training) + 1, (3,)),
    "linear": (lambda m, x: F.linear(x, m.matrix.T), (3,)),
    "norm": (lambda m, x: F.batch_norm(x, m.shift[:, 0, 0], m.gain[0, :, 0, 0]), (3, 4)),
    "adaptive": (lambda m, x: F.adaptive_avg_pool2d(x, 2), (3, 4, 6)),
    "two results": (lambda m, x: (x * 2, x + 1), (3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    torch.manual_seed(2)
    parts = {"gain": (1, 3, 1, 1), "shift": (3, 1, 1), "matrix": (3, 2)}
    parts = {key: nn.Parameter(torch.rand(shape)) for key, shape in parts.items()}
    run, shape = FUNCTIONS[name]
    same(Net(run, **parts).eval(), *shape)


def test_many_moves_are_one_node():
    graph = same(Net(FUNCTIONS["shuffle by hand"][0]), 8, 3, 4)
    assert [type(node.op) for node in graph] == [ops.Input, ops.Select]


def test_padding_becomes_the_convolutions_own():
    net = nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 3, 3, padding=1, bias=False))
    graph = same(net, 2, 4, 5)
    assert list(graph.nodes) == ["input", "1"]
    assert graph.nodes["1"].op.padding == ((1, 2), (2, 3))


def test_names_are_the_paths_of_modules():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return x + self.conv(self.conv(x))

    net = nn.Sequential()
    net.add_module("input", nn.Conv2d(2, 2, 1, bias=False))
    net.add_module("blocks", nn.ModuleList([Residual()])[0])
    graph = same(net, 2, 4, 4)
    names = ["input", "input_1", "blocks.conv", "blocks.conv.bias", "blocks.conv_1"]
    assert list(graph.nodes) == [*names, "blocks.conv_1.bias", "add"]
    spiking = trace(Sequential(net, LIF(), Residual(), LIF()), torch.zeros(1, 1, 2, 4, 4))
    assert {"0.blocks.conv", "0.add", "1", "2.conv.bias", "2.add", "3"} <= set(spiking.nodes)


def test_weights_are_copied():
    net = nn.Linear(2, 2)
    graph = trace(net, torch.zeros(1, 2))
    before = graph.nodes["linear"].op.weight.copy()
    net.weight.add_(1)
    assert np.array_equal(graph.nodes["linear"].op.weight, before) and before.dtype == np.float32


NEURONS = {
    "IF": lambda: IF(reset="zero"),
    "LIF": LIF,
    "integer": lambda: IntegerLIF(3, 0.5),
    "late": lambda: Neuron(Leaky(reset="late", decay=0.8)),
    "current": lambda: Neuron(Current(refractory=2)),
    "adaptive": lambda: Neuron(AdaptiveThreshold()),
    "channels": lambda: Neuron(
        Leaky(), values={"decay": torch.rand(6), "threshold": torch.rand(6) + 0.2}
    ),
    "learned": lambda: Neuron(
        Leaky(decay=0.7),
        values={"threshold": torch.tensor([0.5, 1, 1, 0.3, 1, 2])},
        learn=("decay", "threshold"),
    ),
    "delta": lambda: SigmaDelta(torch.tensor(0.3)),
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_over_time(name):
    torch.manual_seed(0)
    net = Sequential(nn.Linear(4, 6), NEURONS[name](), Sequential(nn.Linear(6, 6), NEURONS[name]()))
    graph = same_over_time(net, 4)
    assert list(graph.neurons) == ["1", "2.1"]
    for values in (population.values.values() for population in graph.neurons.values()):
        assert all(value.dtype == np.float32 for value in values)


def test_images_over_time():
    torch.manual_seed(0)
    per_channel = Neuron(Leaky(), values={"decay": torch.rand(3, 1, 1)})
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), per_channel, nn.AvgPool2d(2)]
    net = Sequential(*layers, nn.Flatten(), nn.Linear(12, 4), nn.Dropout(), LIF())
    same_over_time(shaken(net), 2, 4, 4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inner", [LIF, IntegerLIF])
def test_recurrent(bias, inner):
    torch.manual_seed(3)
    recurrent = Recurrent(inner(threshold=0.5), nn.Linear(5, 5, bias=bias))
    graph = same_over_time(Sequential(nn.Linear(3, 5), recurrent, nn.Linear(5, 2)), 3)
    assert "1.neuron" in graph.neurons and graph.nodes["1.delay"].inputs == ("1.neuron",)


def test_recurrent_images_alone():
    torch.manual_seed(3)
    graph = same_over_time(Recurrent(LIF(), nn.Conv2d(2, 2, 3, padding=1)), 2, 3, 3)
    assert set(graph.nodes) == {
        *("input", "delay", "connection", "connection.bias", "sum", "neuron")
    }


@pytest.mark.parametrize(
    ("delay", "shape"),
    [
        (0, (4,)),
        (3, (4,)),
        (2, (4, 2, 2)),
        (torch.tensor([0.0, 1.4, 2.6, 5.0]), (4,)),
        (torch.tensor([0.0, 0.5, 1.5, 3.0]), (4, 2, 2)),
    ],
)
def test_delays(delay, shape):
    same_over_time(Sequential(Delay(delay), IF()), *shape)
    same_over_time(Delay(torch.as_tensor(delay).float(), most=6, learn=True), *shape)


@pytest.mark.parametrize("most", [0, 1, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_delayed_maps(most, bias):
    torch.manual_seed(4)
    net = Sequential(DelayedLinear(4, 3, most, width=0.0, bias=bias), LIF())
    graph = same_over_time(net, 4)
    assert ("0.bias" in graph.nodes) == bias


class Residual(Stateful):
    """Layers of one's own over time: branches, and time folded by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.fire = nn.Conv2d(2, 3, 3, padding=1), IF()
        self.inner = Sequential(nn.Conv2d(3, 3, 1), LIF())
        self.out = nn.Linear(48, 2)

    def forward(self, x, state=None):
        first, inner = state if state is not None else (None, None)
        h = self.first(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        h, first = self.fire(h, first)
        y, inner = self.inner(h, inner)
        return self.out((h + y).flatten(2)), (first, inner)


def test_a_module_of_ones_own_over_time():
    torch.manual_seed(5)
    same_over_time(Residual(), 2, 4, 4)
    graph = same_over_time(Sequential(Residual(), LIF()), 2, 4, 4)
    assert list(graph.neurons) == ["0.fire", "0.inner.1", "1"]


@pytest.mark.parametrize(
    "neuron", [IntegerLIF(4, 0.25), IF(), Neuron(Leaky(reset="late", gain=0.5, refractory=3))]
)
def test_one_step_of_a_neuron_forgets(neuron):
    torch.manual_seed(6)
    graph = same(nn.Sequential(nn.Linear(4, 6), OneStep(neuron), nn.Linear(6, 2)), 4)
    assert list(graph.neurons) == ["1"]


def test_the_spiking_generator():
    torch.manual_seed(7)
    conv = FlowUNet(FlowConfig(size=8, patch=2, widths=(4,), depths=(2,), core="spiking"))
    conv.act = OneStep(IF())
    net, x, label = shaken(conv), torch.randn(1, 1, 8, 8), torch.tensor([3])
    graph = trace(net, x, label)
    values, _ = run(
        graph, {"input": x.numpy(), "label": np.eye(10, dtype=np.float32)[label.numpy()]}
    )
    np.testing.assert_allclose(values[graph.outputs[0]], net(x, label).numpy(), atol=1e-5)


def conv(inside, outside, **options):
    return nn.Conv2d(inside, outside, 3, **{"padding": 1} | options)


def middle(run, **parts):
    """conv - ReLU - `run` - conv, where `run` maps 4 channels to 4."""
    return Net(
        lambda m, x: m.last(run(m, m.act(m.first(x)))),
        **({"first": conv(2, 4), "act": nn.ReLU(), "last": conv(4, 2)} | parts),
    )


class Still(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = conv(2, 2), conv(2, 3), nn.ReLU()

    def forward(self, x, still):
        return self.b(self.act(self.a(still - x) + still)) - x.sum(1, keepdim=True)


def plain():
    layers = [conv(2, 4, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.AvgPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(16, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3)
    )


def unet(**sizes):
    options = {"size": 8, "patch": 1, "widths": (4, 8), "depths": (1, 1), "classes": 3}
    return FlowUNet(FlowConfig(**options | sizes))


NETWORKS = {
    "unet": unet,
    "deep unet": lambda: unet(patch=2, widths=(3, 4, 5), depths=(1, 0, 2)),
    "plain": plain,
    "still": Still,
    "cat": lambda: middle(
        lambda m, h: m.merge(torch.cat([h, F.relu(m.inner(h))], 1)) + h,
        inner=conv(4, 4),
        merge=conv(8, 4),
    ),
    "constants": lambda: middle(
        lambda m, h: (1 - h * 2) / 3 + m.shift, shift=nn.Parameter(torch.ones(4, 1, 1))
    ),
    "resized": lambda: middle(lambda m, h: F.interpolate(h, scale_factor=2.0, mode="bilinear")),
    "one ReLU twice": lambda: middle(lambda m, h: m.act(m.inner(h)), inner=conv(4, 4)),
    "names": lambda: middle(lambda m, h: m.start(h), start=conv(4, 4), act=nn.ReLU()),
}


def changing(name, factor):
    """A sigma-delta network at `factor` standard deviations, its graph, a walk, and what stands."""
    network = shaken(NETWORKS[name]())
    walk = torch.randn(6, 1, 1 if "unet" in name else 2, 8, 8).cumsum(0) / 3
    still = {"still": {"still": torch.randn(1, 2, 8, 8)}}.get(name, {})
    still = {"label": torch.tensor([2])} if "unet" in name else still
    network = sigma_delta(network, walk[0], *still.values())
    start = network.start(*still.values())
    spread = network.spread(lambda: network(walk, start))
    network.set_thresholds({key: factor * value for key, value in spread.items()})
    fed = {key: value.numpy() for key, value in still.items()}
    if "label" in fed:
        fed["label"] = np.eye(3, dtype=np.float32)[fed["label"]]
    return network, trace_changes(network), walk, start, fed


def begun(graph, fed):
    """The first step: what stands still and the biases, at once."""
    silence = np.zeros((1, *graph.shapes["input"]), np.float32)
    inputs = {"input": silence, "start": np.ones((1, 1), np.float32)} | fed
    values, state = run(graph, inputs, scale=0.0)
    return values[graph.outputs[0]][0], state


@pytest.mark.parametrize("name", NETWORKS)
def test_one_step_of_changes_is_the_start(name):
    network, graph, _, start, fed = changing(name, 0.1)
    assert list(graph.inputs) == ["input", "start", *fed]
    assert {*graph.neurons} == {"input neurons", *network.neurons} - {"input"}
    output, state = begun(graph, fed)
    np.testing.assert_allclose(output, start["(output)"][0, 0].numpy(), atol=1e-4)
    for key in network.neurons:
        result = state["input neurons" if key == "input" else key]
        np.testing.assert_allclose(result, start[key][:, 0].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("factor", [0.0, 0.2])
def test_changes_over_steps_are_the_networks(name, factor):
    network, graph, walk, start, fed = changing(name, factor)
    output, state = begun(graph, fed)
    moves = np.diff(walk[:, 0].numpy(), axis=0, prepend=0)
    values, state = run(graph, {"input": moves}, state)
    expected, after = network(walk, start)
    result = output + values[graph.outputs[0]].cumsum(0)
    np.testing.assert_allclose(result, expected[:, 0].numpy(), rtol=1e-4, atol=1e-4)
    for key in network.neurons:
        at = "input neurons" if key == "input" else key
        np.testing.assert_allclose(state[at], after[key][:, 0].numpy(), rtol=1e-4, atol=1e-4)
    if factor:  # some changes are held back, or nothing was tested
        assert any((values[key] == 0).any() for key in graph.neurons)


def test_thresholds_of_changes_are_the_neurons():
    network, *_ = changing("plain", 0.0)
    network.set_thresholds({"_2": torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None], "input": 0.5})
    graph = trace_changes(network)
    assert graph.neurons["_2"].values["threshold"].shape == (4, 1, 1)
    assert graph.neurons["input neurons"].values["threshold"] == np.float32(0.5)
    assert graph.neurons["_7"].dynamics.negative_slope == 0.2


class Softmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return torch.softmax(self.layer(x), 1)  # the line that the message names


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda m: m], ids=["nested", "alone"])
def test_the_line_of_an_operation_without_a_rule_is_named(wrap):
    line = Softmax.forward.__code__.co_firstlineno + 1
    message = rf"softmax' \(softmax\) at File \".*{__file__}\", line {line},.*no rule.* the host"
    with pytest.raises(InputError, match=message):
        trace(wrap(Softmax()), torch.zeros(1, 2))
    with pytest.raises(InputError, match=message):
        trace(Sequential(Softmax(), LIF()), torch.zeros(1, 1, 2))


@pytest.mark.parametrize(
    ("run", "parts", "message"),
    [
        (lambda m, x: m.pool(x), {"pool": nn.MaxPool2d(2)}, r"'pool' \(MaxPool2d\) at .* average"),
        (lambda m, x: F.max_pool2d(x, 2), {}, "use average pooling"),
        (lambda m, x: m.act(x), {"act": nn.ReLU()}, r"'act' \(ReLU\) at .*neurons"),
        (lambda m, x: x.relu(), {}, r"'relu' \(relu\) at .* sigma-delta"),
        (lambda m, x: m.norm(x), {"norm": nn.LayerNorm(4)}, "'norm' .LayerNorm. .*no rule"),
        (lambda m, x: m.deep(x[:, None]), {"deep": nn.Conv3d(1, 1, 1)}, "Conv3d.*no rule.*axes"),
        (lambda m, x: x * x, {}, r"\(mul\).*two values that move"),
        (lambda m, x: 1 / x, {}, r"\(truediv\).*divides by a value that moves"),
        (lambda m, x: x @ x, {}, r"\(matmul\)"),
        (lambda m, x: torch.add(x, x, alpha=2), {}, r"\(add\).*alpha"),
        (lambda m, x: x.mean(0), {}, r"\(mean\).*samples"),
        (lambda m, x: x - x.mean(), {}, r"\(mean\).*samples"),
        (lambda m, x: x.transpose(0, 1), {}, r"\(transpose\).*mixes samples"),
        (lambda m, x: x[0], {}, r"\(getitem\).*mixes samples"),
        (lambda m, x: torch.cat([x, x]), {}, r"\(cat\).*joins samples"),
        (lambda m, x: x.view(3, -1), {}, r"\(view\)"),
        (lambda m, x: x.mean((1, 2, 3)), {}, "1 to 3 axes"),
        (lambda m, x: F.pad(x, (1, 1), value=1.0), {}, r"\(pad\).*only zeros"),
        (lambda m, x: F.pad(x, (1,) * 6), {}, r"\(pad\).*channels"),
        (lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic"), {}, "bicubic; use nearest"),
        (lambda m, x: F.adaptive_avg_pool2d(x, 3), {}, "does not divide"),
        (lambda m, x: m.norm(x), {"norm": nn.BatchNorm2d(4, track_running_stats=False)}, "stat"),
        (lambda m, x: x + m.big, {"big": nn.Parameter(torch.ones(3, 4, 1, 1))}, "constant of"),
        (lambda m, x: m.lif(x)[0], {"lif": LIF()}, r"'lif' \(LIF\).*needs time.*Sequential"),
        (lambda m, x: x if x.sum() > 0 else -x, {}, "can't trace Net"),
        (lambda m, x: {"y": x}, {}, "must return tensors"),
        (lambda m, x: 1.0, {}, "must return tensors"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused_by_name(run, parts, message):
    with pytest.raises(InputError, match=message):
        trace(Net(run, **parts), torch.zeros(2, 4, 4, 4))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Noise(0.1), r"'1' \(Noise\).*training"),
        (Delay(2, width=0.5), r"'1' \(Delay\).*set width to 0"),
        (DelayedLinear(4, 2, 3), r"'1' \(DelayedLinear\).*set width to 0"),
        (OneStep(Neuron(Current())), r"'1' \(OneStep\): Current remembers"),
        (Recurrent(LIF(), nn.Linear(4, 3)), r"'1' \(Recurrent\): Add"),
        (nn.Sequential(nn.Linear(4, 4), LIF()), r"'1.1' \(LIF\).*needs time"),
        (nn.MaxPool1d(2), r"'1' \(MaxPool1d\): there is no rule"),
        (nn.Conv1d(4, 4, 1), r"'1' \(Conv1d\): it reads \['B', 4\]; give \[B, C, L\]"),
    ],
)
def test_layers_over_time_that_are_refused(module, message):
    with pytest.raises(InputError, match=message):
        trace(Sequential(nn.Linear(3, 4), module), torch.zeros(1, 1, 3))


def test_states_of_ones_own_are_refused():
    class Begun(Stateful):
        def __init__(self):
            super().__init__()
            self.lif, self.first = LIF(), nn.Parameter(torch.ones(1, 3))

        def forward(self, x, state=None):
            return self.lif(x, self.first)

    with pytest.raises(InputError, match="graphs begin at rest"):
        trace(Begun(), torch.zeros(1, 1, 3))


def test_neurons_with_a_forward_of_their_own_are_refused():
    class Twice(LIF):
        def forward(self, x, state=None):
            return super().forward(2 * x, state)

    with pytest.raises(InputError, match="Twice has a forward of its own"):
        trace(Recurrent(Twice(), nn.Linear(3, 3)), torch.zeros(1, 1, 3))


@pytest.mark.parametrize(
    ("module", "examples", "message"),
    [
        (nn.Linear(2, 2), (), "0 examples"),
        (nn.Linear(2, 2), (torch.zeros(1, 2),) * 2, "2 examples"),
        (Sequential(LIF()), (torch.zeros(1, 1, 2), None), "2 examples"),
        (nn.Linear(2, 2), (torch.zeros(2),), r"like \[2\]; give \[B, ...\]"),
        (Sequential(LIF()), (torch.zeros(1, 2),), r"give \[T, B, ...\]"),
        (Sequential(LIF()), (torch.zeros(1, 1, 1, 2, 3, 4),), r"must be \[N\]"),
        (Still(), (torch.zeros(1, 2, 4, 4),), "give an example of 'still' too"),
        (nn.Linear(2, 2), (torch.zeros(1, 3),), r"'linear' \(Linear\): Dense: weight"),
        (nn.Linear(2, 2), (torch.zeros(1).long(),), "integers .B. go into embeddings alone"),
    ],
)
def test_examples_that_do_not_fit_are_refused(module, examples, message):
    with pytest.raises(InputError, match=message):
        trace(module, *examples)


def test_labels_are_for_embeddings_alone():
    class Two(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.run, self.row = run, nn.Embedding(3, 4)

        def forward(self, x, label):
            return self.run(self, x, label)

    examples = torch.zeros(2, 4), torch.zeros(2).long()
    graph = trace(Two(lambda m, x, label: x + m.row(label) + m.row(label)), *examples)
    assert graph.inputs == ("input", "label") and graph.shapes["label"] == (3,)
    for run_ in (lambda m, x, label: x + label, lambda m, x, label: m.row(label[:, None]) + x):
        with pytest.raises(InputError, match=r"embeddings alone"):
            trace(Two(run_), *examples)


def test_a_change_without_a_rule_is_refused_by_name():
    network = sigma_delta(
        middle(lambda m, h: F.adaptive_avg_pool2d(h, 3)),
        torch.zeros(1, 2, 4, 4),
    )
    with pytest.raises(InputError, match=r"\(adaptive_avg_pool2d\) at File .*does not divide"):
        trace_changes(network)


def test_large_moves_stay_exact():
    graph = same(nn.Flatten(), 3, 64, 64)
    assert graph.nodes["flatten"].op.reshapes and graph.size("flatten") == math.prod((3, 64, 64))
