import math

import pytest
import torch
from torch import fx, nn

from axonal.core.errors import InputError
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.nn import LIF, Difference, GraphModule, Sequential
from benchmarks.convert.information import BATCH, fisher_information


def inputs(steps=5, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(steps, batch, 6, generator=generator)
    return x, torch.randint(3, (batch,), generator=generator)


def linear():
    torch.manual_seed(0)
    return Sequential(nn.Linear(6, 3).double())


def spiking(**options):
    torch.manual_seed(0)
    network = Sequential(nn.Linear(6, 8), LIF(0.8), nn.Linear(8, 3), **options)
    with torch.no_grad():
        network[0].weight *= 3
    return network


def branched():
    """A branched network with a state and a function of rates, as conversions make them."""
    torch.manual_seed(0)
    parts = {"map": nn.Linear(6, 6), "spikes": LIF(0.9), "norm": Difference(nn.LayerNorm(6))}
    graph = fx.Graph()
    x = graph.placeholder("x")
    values = [x]
    for name in parts:
        values.append(graph.call_module(name, (values[-1],)))
    graph.output(graph.call_module("read", (graph.call_function(torch.add, (values[-1], x)),)))
    network = GraphModule(fx.GraphModule(parts | {"read": nn.Linear(6, 3)}, graph))
    with torch.no_grad():
        parts["map"].weight *= 4
    return network.requires_grad_(False)


def by_truncation(network, x, labels, batch=1):
    """The information of each step from a run that ends there."""
    network = network.eval().requires_grad_(True)
    information = torch.zeros(len(x), dtype=torch.float64)
    for first in range(0, len(labels), batch):
        for t in range(len(x)):
            network.zero_grad()
            some = x[: t + 1, first : first + batch]
            logits = network(some)[0].double().mean(0)
            nn.functional.cross_entropy(logits, labels[first : first + batch]).backward()
            information[t] += sum(p.grad.double().square().sum() for p in network.parameters())
    return information * batch / len(labels)


@pytest.mark.parametrize("per_sample", [True, False])
def test_information_of_a_linear_read_out_is_known(per_sample):
    x, labels = inputs(batch=2 * BATCH)
    network, x = linear(), x.double()
    information = fisher_information(network, x, labels, per_sample)
    # d log p(y | W m + b) / d(W, b) = (e_y - p) (m, 1)^T with m the running mean of x.
    m = x.cumsum(0) / torch.arange(1, 6)[:, None, None]
    error = nn.functional.one_hot(labels, 3) - network[0](m).softmax(-1)
    gradients = error[..., None] * torch.cat([m, torch.ones(5, 2 * BATCH, 1)], -1)[:, :, None]
    if not per_sample:
        gradients = gradients.unflatten(1, (2, BATCH)).mean(2)
    torch.testing.assert_close(information.total, gradients.square().sum((2, 3)).mean(1))


@pytest.mark.parametrize("network", [spiking, branched, lambda: spiking(recompute=True)])
def test_information_is_that_of_runs_which_end_early(network):
    x, labels = inputs(batch=BATCH)
    network = network()
    information = fisher_information(network, x, labels)
    expected = by_truncation(network, x, labels)
    assert (expected > 0).all()
    torch.testing.assert_close(information.total, expected, rtol=1e-4, atol=0)
    batches = fisher_information(network, x, labels, per_sample=False).total
    torch.testing.assert_close(batches, by_truncation(network, x, labels, BATCH), rtol=1e-4, atol=0)
    assert (batches <= information.total).all(), (
        "a mean's square is no more than the mean of squares"
    )


def test_information_comes_by_layer_and_adds_up():
    config = SpikingConfig(shape=(1, 6, 6), layers=("3c3", "5"), classes=3, steps=4)
    torch.manual_seed(1)
    model = SpikingClassifier(config)
    x = model.encode(torch.rand(2, 1, 6, 6) * 2 - 1)
    information = fisher_information(model.network, x, torch.tensor([0, 2]))
    assert [*information.layers] == ["0", "3", "5"]
    assert all(values.shape == (4,) for values in information.layers.values())
    torch.testing.assert_close(sum(information.layers.values()), information.total)
    nodes = fisher_information(branched(), *inputs()).layers
    assert [*nodes] == ["graph.map", "graph.norm.function", "graph.read"]


def test_samples_are_independent():
    network, (x, labels) = spiking(), inputs()
    each = [fisher_information(network, x[:, [b]], labels[[b]]).total for b in range(4)]
    information = fisher_information(network, x, labels).total
    torch.testing.assert_close(information, torch.stack(each).mean(0))


def test_the_network_is_left_as_it_was():
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), LIF(0.8), nn.Dropout(), nn.Linear(8, 3)
    network = Sequential(*layers)
    network[0].requires_grad_(False)
    network[1].eval()
    network.unused = nn.Parameter(torch.ones(2, dtype=torch.long), requires_grad=False)
    modes = [m.training for m in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, labels = inputs()
    with torch.no_grad():
        information, again = (fisher_information(network, x, labels).total for _ in range(2))
    torch.testing.assert_close(information, again, rtol=0, atol=0)
    assert [m.training for m in network.modules()] == modes
    assert not network[0].weight.requires_grad and network[4].weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(InputError):
        fisher_information(network, x, labels + 3)
    assert [m.training for m in network.modules()] == modes


def test_layers_that_nothing_depends_on_have_no_information():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.read(x), None

    information = fisher_information(Beside(), *inputs())
    assert not information.layers["other"].any() and information.layers["read"].all()


class Lost(nn.Linear):
    def forward(self, input):
        return super().forward(input).detach(), None


class Steep(nn.Linear):
    def forward(self, input):
        y = super().forward(input)
        return y.sign() * (y.abs() - y.abs().detach()).sqrt(), None


@pytest.mark.parametrize(
    ("network", "x", "labels", "message"),
    [
        (spiking, torch.ones(5, 0, 6), torch.zeros(0).long(), "with samples"),
        (spiking, torch.ones(0, 2, 6), torch.zeros(2).long(), "with samples"),
        (spiking, torch.ones(5, 2, 6), torch.zeros(3).long(), r"labels \[3\] must be"),
        (spiking, torch.ones(5), torch.zeros(5).long(), "must be"),
        (spiking, torch.ones(5, 2, 6), torch.tensor([0, 3]), "labels run from 3 to 3"),
        (spiking, torch.ones(5, 2, 6), torch.zeros(2), "give classes"),
        (spiking, torch.full((5, 2, 6), math.nan), torch.zeros(2).long(), "NaN"),
        (linear, torch.full((5, 2, 6), math.nan).double(), torch.zeros(2).long(), "not finite"),
        (Sequential, torch.ones(5, 2, 6), torch.zeros(2).long(), "no gradient"),
        (lambda: Lost(6, 3), torch.ones(5, 2, 6), torch.zeros(2).long(), "no gradient"),
        (lambda: Steep(6, 3), torch.ones(5, 2, 6), torch.zeros(2).long(), "gradient of weight"),
    ],
)
def test_what_has_no_information_is_refused(network, x, labels, message):
    with pytest.raises(InputError, match=message):
        fisher_information(network(), x, labels)
    with pytest.raises(InputError, match="a multiple of 16"):
        fisher_information(spiking(), *inputs(batch=BATCH + 1), per_sample=False)
