"""Networks whose sums are exact: the same spikes in torch and in the engine, in any order."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net
from torch import nn

from axonal.convert import convert
from axonal.convert.exact_sums import INPUT, SUM, units
from axonal.convert.plan import Plan, Population, assemble
from axonal.convert.tracing import prepared, rectifiers
from axonal.core.errors import InputError
from axonal.deploy.certify import certify, sent
from axonal.deploy.engine import reference
from axonal.deploy.from_torch import trace
from axonal.graph.graph import Graph
from axonal.nn.hooks import watch_reads

T = 5


def conv(inside, outside, size=3, **options):
    return nn.Conv2d(inside, outside, size, padding=size // 2, **options)


def pools():
    """Averages over 3 x 3 and 5 x 5 places, and over all, and a scaled sum of two branches."""

    def run(m, x):
        x = m.act1(m.a((x * 0.25 - m.shift) / 0.3))
        x = m.act2(0.7 * m.b(F.avg_pool2d(x, 3, 1, 1)) + x * m.scale)
        x = m.act3(m.c(m.pool(x)) - 0.1)
        return m.head(x.mean((2, 3)))

    parts = {"a": conv(2, 6), "b": conv(6, 6), "c": conv(6, 8), "pool": nn.AvgPool2d(5, 3, 2)}
    parts |= {f"act{i}": nn.ReLU() for i in (1, 2, 3)} | {"head": nn.Linear(8, 5)}
    parts |= {
        "shift": nn.Parameter(torch.rand(2, 1, 1)),
        "scale": nn.Parameter(torch.rand(6, 1, 1)),
    }
    return Net(run, **parts)


def norms():
    """Batch norms before rectifiers and behind concatenations, as in DenseNets."""

    def run(m, x):
        x = m.stem(x)
        x = torch.cat([x, m.a(m.act1(m.norm1(x)))], 1)
        x = torch.cat([x, m.b(m.act2(m.norm2(x)))], 1)
        return m.head(F.adaptive_avg_pool2d(m.act3(m.norm3(x)), 1).flatten(1))

    parts = {"stem": conv(2, 4), "a": conv(4, 4), "b": conv(8, 4), "head": nn.Linear(12, 5)}
    parts |= {f"norm{i}": nn.BatchNorm2d(4 * i) for i in (1, 2, 3)}
    parts |= {f"act{i}": nn.ReLU() for i in (1, 2, 3)}
    model = Net(run, **parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(1)
    return model


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, width)
        )

    def forward(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    """A transformer as it is usually written: a class token and learned places."""

    def __init__(self, width=16, tokens=4):
        super().__init__()
        self.patches = nn.Conv2d(2, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, tokens + 1, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        n = x.shape[0]
        x = self.patches(x).reshape(n, 16, -1).permute(0, 2, 1)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1)
        x = self.blocks(x + self.places[:, : x.size(1)])
        return self.head(self.norm(x)[:, 0])


NETWORKS = {"pools": pools, "norms": norms, "class token": ViT}
WAYS = {
    "8 bits": ("residual", {"method": "graded"}),
    "4 bits": ("residual", {"method": "graded", "bits": 4}),
    "binary": ("residual", {"method": "qcfs"}),
    "maxima that wait": ("pooled", {"method": "qcfs"}),
    "maxima": ("pooled", {"method": "graded"}),
    "offsets": ("leaky", {"method": "corrected"}),
    "both signs": ("leaky", {"method": "signed"}),
    "odd averages": ("pools", {"method": "graded"}),
    "norms": ("norms", {"method": "graded"}),
    "mean token": ("transformer", {"method": "transformer"}),
    "class token": ("class token", {"method": "transformer"}),
}


COMPILED = ("8 bits", "odd averages", "class token")


@pytest.fixture(scope="module", autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def converted(network, images):
    """`converted(way)`: a network of one of the ways."""

    def make(way, x=None):
        kind, options = WAYS[way]
        torch.manual_seed(0)
        model = (
            NETWORKS[kind]().eval()
            if kind in NETWORKS
            else network(kind, 4 * ("qcfs" in options.values()))
        )
        x = images(60) if x is None else x
        return convert(model, x, T=T, held_out=x[:5], **options)[0]

    return make


def test_spikes_in_the_engine_are_those_in_torch(converted, images):
    for way in COMPILED:
        network = converted(way)
        agreement = certify(network, network.fed(images(3, seed=2)))
        assert str(agreement).startswith("spike for spike the same"), (way, str(agreement))
        assert len(agreement.compared) > len(network.plan.populations)


@pytest.mark.parametrize("way", WAYS)
def test_spikes_of_the_graph_in_numpy_are_those_in_torch(way, converted, images):
    network = converted(way)
    x = network.fed(images(2, seed=2))
    expected, graph = sent(network, x), trace(network, x[:1])
    total = Graph([*graph], [*graph.neurons])
    for sample in range(2):
        result, _ = reference.run(total, {"input": x[:, sample].numpy()})
        for name in graph.neurons:
            assert (result[name] == expected[name][:, sample]).all(), name
    assert {f"graph.{path}" for path in network.paths().values()} < {*expected}


@pytest.mark.parametrize("way", WAYS)
def test_chunks_and_other_samples_change_nothing(way, converted, images):
    network, x = converted(way), images(4, seed=2)
    fed = network.fed(x)
    total, last = network(fed)
    first, state = network(fed[:3])
    second, after = network(fed[3:], state)
    assert torch.equal(torch.cat([first, second]), total)
    assert all(torch.equal(a, b) for a, b in zip(flat(after), flat(last), strict=True))
    assert torch.equal(network(fed[:, 1:2])[0], total[:, 1:2])


def flat(state):
    for part in state.values() if isinstance(state, dict) else state:
        yield from [torch.as_tensor(part)] if not isinstance(part, tuple | dict) else flat(part)


@settings(max_examples=10)
@given(st.integers(0, 100), st.sampled_from([(1, 0), (4, 0), (8, 0), (8, 1)]))
def test_channels_in_another_order_send_the_same(seed, form):
    """Sums in another order are the same, and so is every spike."""
    bits, slope = form
    torch.manual_seed(seed)
    act = lambda: nn.LeakyReLU(0.25) if slope else nn.ReLU()  # noqa: E731
    parts = [conv(2, 12), act(), conv(12, 9), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, x = nn.Sequential(*parts), torch.randn(40, 2, 6, 6)
    one = convert(model, x, T=T, held_out=x[:2], bits=bits)[0]
    order, first, second = torch.randperm(12), parts[0], parts[2]
    first.weight[:], first.bias[:] = first.weight[order], first.bias[order]
    second.weight[:] = second.weight[:, order]
    inner = one.plan.populations["_1"]
    moved = {"_1": replace(inner, threshold=inner.threshold[order])}
    plan = replace(one.plan, populations=one.plan.populations | moved)
    other = assemble(prepared(model), plan)
    (y, state), (z, last) = (n(n.fed(x[:8])) for n in (one, other))
    assert torch.equal(state["_1"][:, :, order], last["_1"])
    assert torch.equal(state["_3"], last["_3"]) and torch.equal(y, z)


@pytest.mark.parametrize("way", ["8 bits", "odd averages", "norms"])
def test_no_part_of_a_sum_goes_beyond_what_floats_hold(way, converted, images):
    """A row's weights are so few units that the largest inputs fit, of one sign or the other."""
    network, x = converted(way), images(2)
    with watch_reads(network) as read:
        network(network.fed(x))
    for name, (seen, *_) in read.items():
        weight = network.get_submodule(name).weight.double().flatten(1)
        unit = 2.0 ** torch.arange(-40, 20, dtype=torch.float64)[:, None, None]
        total = (torch.remainder(weight, unit) == 0).all(2)  # [60, rows], the first ones true
        unit = 2.0 ** (total.sum(0) - 41).double()
        assert total[0].all() and torch.equal(seen, seen.round())
        inputs = 2 ** (INPUT + 1) if "first" in name else float(seen.abs().max())
        parts = torch.stack([weight.relu().sum(1), (-weight).relu().sum(1)])
        assert (parts.amax(0) * inputs / unit).max() <= 2**SUM


def test_weights_beyond_float32_are_refused():
    dense = prepared(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    dense.get_submodule("2").weight.fill_(2.0)
    name = next(iter(rectifiers(dense)))
    plan = Plan("x", T, (2,), {name: Population(torch.tensor(3e38))}, units={"input_1": 0.5})
    with pytest.raises(InputError, match="_2: its weights times thresholds are beyond float32"):
        assemble(dense, plan)


def test_units_are_powers_of_two_below_the_largest_value(network, images):
    x = images(20)
    result = units(prepared(network("transformer")), 3 * x)
    assert all(math.frexp(unit)[0] == 0.5 for unit in result.values())
    assert 2 ** (INPUT - 1) < float(3 * x.abs().max()) / result["x"] <= 2**INPUT
    assert {"softmax", "norm"} < {*result} and result["softmax"] == 2.0**-12
