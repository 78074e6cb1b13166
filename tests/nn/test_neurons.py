import math

import pytest
import torch
from torch import fx, nn

from axonal.core.errors import InputError
from axonal.nn import (
    IF,
    LI,
    LIF,
    AdaptiveCurrent,
    AdaptiveThreshold,
    AdEx,
    BalancedResonate,
    Current,
    IntegerLIF,
    Izhikevich,
    Leaky,
    Neuron,
    OneStep,
    Resonate,
    SigmaDelta,
)
from axonal.testing import check_neuron

DRAW = torch.Generator().manual_seed(0)  # thresholds are in the names of tests
NEURONS = [
    IF(),
    LI(0.8, gain=0.2),
    IF(reset="zero", surrogate="triangle"),
    LIF(0.9),
    LIF.from_tau(20.0, dt=5.0, gain=0.5, reset="none"),
    IntegerLIF(levels=3),
    SigmaDelta(0.3),
    SigmaDelta(torch.rand(4, generator=DRAW), negative_slope=1.0),
    SigmaDelta(torch.rand(3, 1, generator=DRAW)),
    Neuron(Leaky(decay=0.9, emit="ternary", threshold=0.5)),
    Neuron(Leaky(decay=0.9, emit="multiple", levels=9)),
    Neuron(Leaky(decay=0.9, emit="graded", levels=4)),
    Neuron(Leaky(decay=0.9, reset="late", above=True)),
    Neuron(Leaky(decay=0.9, refractory=2)),
    Neuron(
        Leaky(decay=0.9), values={"threshold": torch.rand(4, generator=DRAW) + 0.2}, learn=["decay"]
    ),
    Neuron(Current(refractory=1)),
    Neuron(AdaptiveThreshold()),
    Neuron(AdaptiveCurrent(threshold=0.2)),
    Neuron(Resonate()),
    Neuron(BalancedResonate.at(5.0, dt=0.1, gain=20.0)),
    Neuron(Izhikevich(gain=100.0)),
    Neuron(AdEx(gain=2e5)),
]


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_conformance(neuron):
    torch.manual_seed(0)
    x = torch.randn(9, 3, 3, 4)
    check_neuron(neuron, x)
    assert neuron(x)[0].any(), "a test without spikes shows nothing"


class Forgetful(Neuron):
    """Breaks the contract: remembers its state in a hidden membrane."""

    hidden = None

    def forward(self, x, state=None):
        y, self.hidden = super().forward(x, self.hidden if state is None else state)
        return y, self.hidden


def test_conformance_catches_a_hidden_state():
    with pytest.raises(AssertionError, match="differs"):
        check_neuron(Forgetful(Leaky(decay=0.9)), torch.rand(6, 2, 3))


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


def test_weights_with_the_names_of_before_are_read():
    adaptive = Neuron(AdaptiveThreshold(rho=0.9), values={"beta": torch.rand(3)}, learn=["rho"])
    network = nn.Sequential(nn.Linear(2, 3), OneStep(adaptive))
    names = {"1.neuron.rho": "1.neuron.fade", "1.neuron.beta": "1.neuron.rise"}
    before = {names.get(name, name): value for name, value in network.state_dict().items()}
    fresh = Neuron(AdaptiveThreshold(), values={"beta": torch.zeros(3)}, learn=["rho"])
    nn.Sequential(nn.Linear(2, 3), OneStep(fresh)).load_state_dict(before)
    assert torch.equal(fresh.rho, adaptive.rho) and torch.equal(fresh.beta, adaptive.beta)
    with pytest.raises(RuntimeError, match="fade"):
        Neuron(Leaky(), learn=["gain"]).load_state_dict({"gain": torch.ones(()), "fade": before})


def test_learned_constants_are_parameters_in_their_range_and_get_gradients():
    torch.manual_seed(0)
    neuron = Neuron(Leaky(decay=0.9, threshold=0.7), learn=["decay", "threshold", "gain"])
    assert sorted(dict(neuron.named_parameters())) == ["decay", "gain", "threshold"]
    for name, value in {"decay": 0.9, "threshold": 0.7, "gain": 1.0}.items():
        assert neuron.value(name).item() == pytest.approx(value)
    spikes, _ = neuron(torch.rand(20, 3, 5))
    spikes.sum().backward()
    assert all(p.grad.abs().item() > 0 for p in neuron.parameters())
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter -= 100
    assert 0 <= neuron.value("decay").item() <= 1 and neuron.value("threshold").item() >= 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learn": ["tau"]}, "no constant 'tau'; there are gain, threshold, decay"),
        ({"values": {"decay": torch.tensor([0.5, 1.5])}}, r"lie in \[0, 1\]"),
        ({"values": {"threshold": torch.tensor([0.5, 0.0])}}, "above 0"),
        ({"values": {"gain": torch.tensor(math.inf)}}, "finite"),
        ({"values": {"decay": torch.ones(3)}, "learn": ["decay"]}, "learned from 0 or 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Neuron(Leaky(decay=0.9), **arguments)


def train_of(neuron, drive: float, steps: int) -> list[int]:
    spikes, _ = neuron(torch.full((steps, 1, 1), drive, dtype=torch.float64))
    return (spikes.flatten().nonzero().flatten() + 1).tolist()


def test_a_refractory_neuron_waits_and_holds_its_membrane():
    neuron = Neuron(Leaky(refractory=3, reset="zero"))
    assert train_of(neuron, 1.0, 12) == [1, 5, 9]
    _, state = neuron(torch.ones(2, 1, 1))
    assert state.flatten().tolist() == [0.0, 2.0]


def test_the_regular_spiking_cell_of_izhikevich_adapts():
    train = train_of(Neuron(Izhikevich()), 10.0, 2000)  # 1 s at 10, the published tonic drive
    intervals = torch.tensor(train).diff()
    assert 10 < len(train) < 60
    assert intervals[0] < intervals[-1] and intervals[-3:].diff().abs().max() <= 1


def test_adex_fires_tonically_above_rheobase_and_adapts():
    train = train_of(Neuron(AdEx()), 1000.0, 4000)  # 1 nA for 400 ms
    intervals = torch.tensor(train).diff()
    assert len(train) > 5 and intervals[0] < intervals[-1]
    assert train_of(Neuron(AdEx()), 100.0, 4000) == []


def test_a_resonator_answers_its_own_frequency_alone():
    omega, t = 0.5, torch.arange(400, dtype=torch.float64)
    neuron = Neuron(Resonate.at(omega, damping=0.02, threshold=3.0))
    spikes = [
        int(neuron(torch.cos(w * t)[:, None, None] * 0.2)[0].sum()) for w in (omega, 2 * omega)
    ]
    assert spikes[0] > 5 and spikes[1] == 0


def test_an_adaptive_threshold_slows_a_train_down():
    plain = train_of(LIF(0.9), 0.45, 60)
    adaptive = train_of(Neuron(AdaptiveThreshold(decay=0.9, beta=0.5)), 0.45, 60)
    assert plain[0] == adaptive[0] and len(adaptive) < len(plain) / 2


def test_graded_spikes_are_the_nearest_power_of_two():
    neuron = Neuron(Leaky(emit="graded", levels=3))
    drive = torch.tensor([0.1, 0.18, 0.2, 0.37, 0.4, 0.74, 0.8, 1.4, 5.0, -0.4, -3.0])
    spikes, state = neuron(drive.reshape(1, 1, -1))
    expected = [0, 0, 0.25, 0.25, 0.5, 0.5, 1, 1, 1, -0.5, -1]
    assert spikes.flatten().tolist() == expected
    torch.testing.assert_close(state.flatten(), drive - torch.tensor(expected))


def test_ternary_spikes_carry_a_sign():
    spikes, state = Neuron(Leaky(emit="ternary"))(torch.tensor([[[1.5, -1.5, 0.5, -1.0]]]))
    assert spikes.flatten().tolist() == [1, -1, 0, -1]
    assert state.flatten().tolist() == [0.5, -0.5, 0.5, 0.0]


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
