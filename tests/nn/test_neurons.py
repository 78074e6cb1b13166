import math

import pytest
import torch
from torch import fx, nn

from axonal.core.errors import InputError
from axonal.core.neuron import Dynamics
from axonal.nn import IF, LIF, IntegerLIF, Neuron, OneStep, SigmaDelta
from axonal.testing import check_neuron

NEURONS = [
    IF(),
    IF(reset="zero", surrogate="triangle"),
    LIF(0.9),
    LIF.from_tau(20.0, dt=5.0, gain=0.5, reset="none"),
    IntegerLIF(levels=3),
    SigmaDelta(0.3),
    SigmaDelta(torch.rand(4), negative_slope=1.0),
    SigmaDelta(torch.rand(3, 1)),
]


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_conformance(neuron):
    torch.manual_seed(0)
    check_neuron(neuron, torch.randn(9, 3, 3, 4))


class Forgetful(Neuron):
    """Breaks the contract: remembers its state in a hidden membrane."""

    hidden = None

    def forward(self, x, state=None):
        y, self.hidden = super().forward(x, self.hidden if state is None else state)
        return y, self.hidden


def test_conformance_catches_a_hidden_state():
    with pytest.raises(AssertionError, match="differs"):
        check_neuron(Forgetful(Dynamics(decay=0.9)), torch.rand(6, 2, 3))


def test_decay_from_tau():
    assert LIF.from_tau(2.0).dynamics.decay == pytest.approx(math.exp(-0.5))
    with pytest.raises(InputError, match="tau"):
        LIF.from_tau(0.0)


def test_options_reach_the_scan():
    x = torch.full((1, 1, 1), 0.9, requires_grad=True)
    for neuron, expected in ((LIF(surrogate="boxcar", slope=0.1), 0), (IF(1.0, slope=4.0), 1.434)):
        (grad,) = torch.autograd.grad(neuron(x)[0].sum(), x)
        assert grad.item() == pytest.approx(expected, abs=1e-3)


def test_a_threshold_of_zero_hands_on_the_activation():
    x = torch.randn(6, 2, 5)
    spikes, _ = SigmaDelta(0.0)(x)
    torch.testing.assert_close(spikes.cumsum(0), x.cumsum(0).relu())


def test_thresholds_are_saved_and_follow_the_module():
    neuron = SigmaDelta(torch.rand(3, 1, 1))
    assert list(neuron.state_dict()) == ["threshold"]
    assert neuron.double().threshold.dtype == torch.float64
    assert SigmaDelta(0.5).threshold.item() == SigmaDelta(0.5).dynamics.threshold == 0.5
    assert not LIF().state_dict()


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf, torch.tensor([0.1, -1.0])])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(InputError, match="threshold"):
        SigmaDelta(threshold)


def test_an_unknown_surrogate():
    with pytest.raises(InputError, match="choose one of"):
        LIF(surrogate="step")


class Leaves(fx.Tracer):
    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, OneStep) or super().is_leaf_module(m, module_qualified_name)


def test_one_step_stands_where_an_activation_stood_and_is_traced_as_a_leaf():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), OneStep(IntegerLIF(levels=4)), nn.Conv2d(2, 1, 3))
    x = torch.randn(2, 1, 8, 8)
    traced = fx.GraphModule(net, Leaves().trace(net))
    torch.testing.assert_close(traced(x), net(x))
    spikes = net[1](3 * x)
    torch.testing.assert_close(spikes, torch.floor(3 * x + 0.5).clamp(0, 4))
