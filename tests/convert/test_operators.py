"""The operator table: what a conversion accepts, the engine runs and the certificate counts."""

import operator

import pytest
import torch
import torch.nn.functional as F
from nets import Net
from torch import nn

from axonal.convert import convert
from axonal.convert.tracing import prepared, roles
from axonal.core.errors import InputError
from axonal.deploy.certify import certify, sent
from axonal.deploy.engine import reference
from axonal.deploy.from_torch import trace
from axonal.graph.graph import Graph
from axonal.graph.operators import OPERATORS, Operator
from axonal.nn import QCFS, ClippedReLU, Conv2d

PICTURE, ROW, TOKENS = (2, 6, 6), (2, 8), (4, 8)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def around(run, shape=PICTURE, **parts):
    """A layer, neurons, `run` and a read-out, for inputs of a shape."""
    first = {
        PICTURE: lambda: nn.Conv2d(2, 4, 3, padding=1),
        ROW: lambda: nn.Conv1d(2, 4, 3, padding=1),
        TOKENS: lambda: nn.Linear(8, 8),
    }[shape]()
    net = Net(
        lambda m, x: m.head(run(m, m.act(m.first(x))).flatten(1)),
        first=first,
        act=nn.ReLU(),
        **parts,
    )
    net.head = nn.Identity()
    net.head = nn.Linear(net(torch.zeros(1, *shape)).shape[1], 3)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(1)
    return net.eval()


def module(layer, shape=PICTURE):
    return lambda: around(lambda m, h: m.layer(h), shape, layer=layer())


def function(run, shape=PICTURE):
    return lambda: around(lambda m, h: run(h), shape)


def beside(run):
    """A function of two values, both through weights."""
    return lambda: around(
        lambda m, h: run(m.a(h), m.b(h)), TOKENS, a=nn.Linear(8, 8), b=nn.Linear(8, 8)
    )


CASES = {
    "linear": [module(lambda: nn.Linear(8, 5), TOKENS)],
    "conv1d": [module(lambda: nn.Conv1d(4, 3, 3), ROW)],
    "conv2d": [module(lambda: nn.Conv2d(4, 3, 3, 2, groups=1)), module(lambda: Conv2d(4, 4, 3))],
    "conv_transpose1d": [module(lambda: nn.ConvTranspose1d(4, 3, 3, 2, 1), ROW)],
    "conv_transpose2d": [module(lambda: nn.ConvTranspose2d(4, 4, 2, 2, groups=2))],
    "batch_norm": [
        module(lambda: nn.BatchNorm2d(4)),
        module(lambda: nn.BatchNorm1d(4), TOKENS),
    ],
    "avg_pool1d": [
        module(lambda: nn.AvgPool1d(2), ROW),
        function(lambda h: F.avg_pool1d(h, 2), ROW),
    ],
    "avg_pool2d": [module(lambda: nn.AvgPool2d(2)), function(lambda h: F.avg_pool2d(h, 3, 1, 1))],
    "adaptive_avg_pool1d": [module(lambda: nn.AdaptiveAvgPool1d(4), ROW)],
    "adaptive_avg_pool2d": [
        module(lambda: nn.AdaptiveAvgPool2d(3)),
        function(lambda h: F.adaptive_avg_pool2d(h, 1)),
    ],
    "mean": [function(lambda h: h.mean((2, 3))), function(lambda h: torch.mean(h, 1))],
    "sum": [function(lambda h: h.sum(1)), function(lambda h: torch.sum(h, (2, 3)))],
    "interpolate": [
        module(lambda: nn.Upsample(scale_factor=2)),
        function(lambda h: F.interpolate(h, size=(4, 4))),
        function(lambda h: F.interpolate(h, scale_factor=2.0, mode="bilinear")),
    ],
    "pad": [function(lambda h: F.pad(h, (1, 0, 2, 1)))],
    "constant_pad": [module(lambda: nn.ZeroPad2d(1)), module(lambda: nn.ConstantPad1d(1, 0), ROW)],
    "dropout": [module(nn.Dropout), function(lambda h: F.dropout(h, 0.5, False))],
    "dropout1d": [module(nn.Dropout1d, ROW)],
    "dropout2d": [module(nn.Dropout2d)],
    "add": [
        function(lambda h: h + h.flip(3)),
        function(lambda h: operator.iadd(h.clone(), h)),
        function(lambda h: h.add(0.5)),
    ],
    "sub": [function(lambda h: h - h.flip(3)), function(lambda h: h.sub(0.25))],
    "neg": [function(operator.neg), function(torch.neg)],
    "cat": [function(lambda h: torch.cat([h, h], 1)), function(lambda h: torch.concat([h, h], 2))],
    "mul": [function(lambda h: h * 0.75), beside(operator.mul), beside(torch.mul)],
    "div": [function(lambda h: h / 3), function(lambda h: torch.div(h, 2.0))],
    "matmul": [
        lambda: around(lambda m, h: h @ m.weight, TOKENS, weight=nn.Parameter(torch.randn(8, 5))),
        beside(lambda a, b: torch.matmul(a, b.transpose(1, 2))),
    ],
    "bmm": [beside(lambda a, b: torch.bmm(a, b.transpose(1, 2)))],
    "scaled_dot_product_attention": [
        beside(lambda a, b: F.scaled_dot_product_attention(a, b, a)),
        beside(lambda a, b: F.scaled_dot_product_attention(a, b, b, is_causal=True, scale=0.5)),
    ],
    "relu": [module(nn.ReLU), function(F.relu), function(lambda h: h.relu())],
    "leaky_relu": [
        module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU(0.25))),
        function(lambda h: F.leaky_relu(h - 0.5, 0.25)),
    ],
    "relu6": [module(nn.ReLU6), function(F.relu6)],
    "clipped_relu": [
        module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), ClippedReLU(0.5))),
        module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardtanh(0, 0.75))),
        function(lambda h: (2 * h).clamp(0, 1)),
    ],
    "prelu": [module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.PReLU()))],
    "qcfs": [module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), QCFS(4)))],
    "max_pool1d": [
        module(lambda: nn.MaxPool1d(2), ROW),
        function(lambda h: F.max_pool1d(h, 2), ROW),
    ],
    "max_pool2d": [
        module(lambda: nn.MaxPool2d(2)),
        module(lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
        function(lambda h: F.max_pool2d(h, 2)),
    ],
    "softmax": [
        module(lambda: nn.Softmax(-1), TOKENS),
        function(lambda h: h.softmax(-1)),
        function(lambda h: F.softmax(h, 1)),
        function(lambda h: torch.softmax(h, -1)),
    ],
    "layer_norm": [
        module(lambda: nn.LayerNorm(8), TOKENS),
        module(lambda: nn.LayerNorm((6, 6))),
        function(lambda h: F.layer_norm(h, (6,))),
    ],
    "group_norm": [
        module(lambda: nn.GroupNorm(2, 4)),
        function(lambda h: F.group_norm(h, 4)),
    ],
    "instance_norm": [
        module(lambda: nn.InstanceNorm2d(4, affine=True)),
        module(lambda: nn.InstanceNorm1d(4), ROW),
        function(lambda h: F.instance_norm(h)),
    ],
    "hardtanh": [module(nn.Hardtanh), function(lambda h: F.hardtanh(h, -0.5, 0.25))],
    "clamp": [function(lambda h: h.clamp(-1, 0.5)), function(lambda h: torch.clip(h, min=0.25))],
    "gelu": [module(nn.GELU), function(lambda h: F.gelu(h, approximate="tanh"))],
    "sigmoid": [module(nn.Sigmoid), function(torch.sigmoid), function(lambda h: h.sigmoid())],
    "tanh": [module(nn.Tanh), function(torch.tanh), function(lambda h: h.tanh())],
    "silu": [module(nn.SiLU), module(lambda: nn.SiLU(inplace=True)), function(F.silu)],
    "hardsigmoid": [module(nn.Hardsigmoid), function(F.hardsigmoid)],
    "hardswish": [module(nn.Hardswish), function(F.hardswish)],
    "elu": [module(lambda: nn.ELU(0.5)), function(F.elu)],
    "softplus": [module(nn.Softplus), function(lambda h: F.softplus(h, beta=2))],
    "flatten": [module(lambda: nn.Flatten(2)), function(lambda h: torch.flatten(h, 1))],
    "unflatten": [
        module(lambda: nn.Unflatten(1, (2, 2))),
        function(lambda h: h.unflatten(1, (2, 2))),
    ],
    "identity": [module(nn.Identity)],
    "pixel_shuffle": [module(lambda: nn.PixelShuffle(2))],
    "pixel_unshuffle": [module(lambda: nn.PixelUnshuffle(2))],
    "view": [function(lambda h: h.view(h.size(0), -1))],
    "reshape": [function(lambda h: torch.reshape(h, (h.shape[0], 8, -1)))],
    "squeeze": [function(lambda h: h.mean(1, keepdim=True).squeeze(1))],
    "unsqueeze": [function(lambda h: h.mean(1).unsqueeze(1))],
    "contiguous": [function(lambda h: h.transpose(1, 2).contiguous())],
    "permute": [function(lambda h: h.permute(0, 2, 3, 1))],
    "transpose": [function(lambda h: torch.transpose(h, 1, 2))],
    "swapaxes": [function(lambda h: h.swapaxes(1, 2))],
    "movedim": [function(lambda h: h.movedim(1, -1))],
    "clone": [function(lambda h: h.clone())],
    "detach": [function(lambda h: h.detach())],
    "expand": [function(lambda h: h.mean(1, keepdim=True).expand(-1, 2, -1, -1))],
    "repeat": [function(lambda h: h.repeat(1, 2, 1, 1))],
    "tile": [function(lambda h: h.tile(2))],
    "repeat_interleave": [function(lambda h: h.repeat_interleave(2, 1))],
    "narrow": [function(lambda h: h.narrow(1, 1, 2))],
    "select": [function(lambda h: h.select(1, 2))],
    "roll": [function(lambda h: torch.roll(h, 1, 2))],
    "flip": [function(lambda h: h.flip(2))],
    "channel_shuffle": [function(lambda h: F.channel_shuffle(h, 2))],
    "ravel": [],  # of all samples together
    "getitem": [function(lambda h: h[:, 1:, ::2])],
    "getattr": [function(lambda h: h.reshape(h.shape[0], -1, 6).mT)],
    "size": [function(lambda h: h.reshape(h.size(0), -1))],
    "dim": [function(lambda h: h.flatten(h.dim() - 2))],
}


def test_every_row_of_a_conversion_has_a_case():
    assert {name for name, row in OPERATORS.items() if row.role or row.joint} == {*CASES}


@pytest.mark.parametrize(
    ("name", "case"), [(name, i) for name, makes in CASES.items() for i in range(len(makes))]
)
def test_what_a_conversion_accepts_the_engine_runs_with_equal_spikes(name, case):
    _accepted_everywhere(CASES[name][case](), compiled=(name, case) in COMPILED)


# In the engine, compiled; all others as graphs in numpy, which it is proved equal to elsewhere.
COMPILED = {("silu", 0), ("scaled_dot_product_attention", 0), ("conv_transpose2d", 0)}


def _accepted_everywhere(model, compiled=False):
    shape = next(s for s in (PICTURE, ROW, TOKENS) if _fits(model, s))
    x = torch.randn(12, *shape)
    network, certificate = convert(model, x, method="transformer", bits=6, T=3, held_out=x[:4])
    steps = network.fed(x[:2]).contiguous()
    expected, graph = sent(network, steps), trace(network, steps[:1])
    spikes = Graph([*graph], [*graph.neurons])
    for sample in range(2):
        values, _ = reference.run(spikes, {"input": steps[:, sample].numpy()})
        for population in graph.neurons:
            assert (values[population] == expected[population][:, sample]).all(), population
    assert not compiled or certify(network, steps).share == 1
    assert certificate.synops > 0
    functions = {node for node, role in roles(prepared(model)).items() if role in FUNCTIONS}
    assert bool(certificate.functions) == bool(functions)


FUNCTIONS = ("nonlinear", "product")


def _fits(model, shape):
    try:
        model(torch.zeros(1, *shape))
    except RuntimeError:
        return False
    return True


class Softsign(nn.Softsign):
    """Of `axonal.nn` or `torch.nn` it is not; its forward is."""


def test_an_operator_is_added_by_one_row(monkeypatch):
    model = module(nn.Softsign)()
    with pytest.raises(InputError, match="no rule to convert"):
        convert(model, torch.randn(12, *PICTURE), method="transformer", T=3)
    row = Operator(
        "softsign",
        modules=("Softsign",),
        role="nonlinear",
        value=lambda x: x / (1 + abs(x)),
        cost=lambda options, result, inputs: (1.0, 1.0),
    )
    monkeypatch.setitem(OPERATORS, row.name, row)
    for case in (module(nn.Softsign), module(Softsign), function(F.softsign)):
        _accepted_everywhere(case())
