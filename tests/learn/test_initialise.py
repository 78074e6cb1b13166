import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.learn.initialise import fluctuation_driven, kernel, membranes, rescale
from axonal.nn import (
    LI,
    LIF,
    AdaptiveThreshold,
    Current,
    Izhikevich,
    Neuron,
    Recurrent,
    Sequential,
    ThresholdBatchNorm,
    standardise,
)


def events(rate, *shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def spread(neuron, x):
    return float(membranes(neuron, x).std())


@given(decay=st.floats(0, 1), gain=st.floats(0.1, 3), steps=st.integers(1, 20))
def test_the_kernel_of_a_leaky_membrane_is_its_decay(decay, gain, steps):
    expected = gain * decay ** torch.arange(steps, dtype=torch.float64)
    torch.testing.assert_close(kernel(LIF(decay, gain=gain), steps), expected)


def test_the_kernel_of_a_current_is_a_difference_of_exponentials():
    t = torch.arange(1, 13, dtype=torch.float64)
    expected = (0.9**t - 0.6**t) / (0.9 - 0.6)
    response = kernel(Neuron(Current(decay=0.9, synapse=0.6, threshold=5.0)), 12)
    torch.testing.assert_close(response, expected)


@settings(max_examples=15)
@given(rate=st.floats(0.01, 0.1), xi=st.floats(0.5, 2))
def test_drawn_weights_bring_the_fluctuations_they_promise(rate, xi):
    net = Sequential(nn.Linear(400, 300), LIF(0.8, threshold=2.0))
    fluctuation_driven(net, [rate, rate], 40, xi=xi, generator=torch.Generator().manual_seed(0))
    h = membranes(net[1], net[0](events(rate, 40, 8, 400)))[20:]  # past the first rise
    assert abs(float(h.mean())) < 0.15 * 2.0 / xi
    in_time = h.flatten(0, 1).var(0).mean().sqrt()
    # Bernoulli inputs vary by 1 - rate less than the Poisson inputs of the formula.
    assert float(in_time) == pytest.approx(2.0 / xi * (1 - rate) ** 0.5, rel=0.1)


def test_every_population_of_nested_layers_is_drawn_and_recurrent_ones_share():
    torch.manual_seed(0)
    loop = Recurrent(Neuron(AdaptiveThreshold()), nn.Linear(200, 200))
    inner = Sequential(nn.Linear(200, 200), loop)
    net = Sequential(nn.Conv2d(2, 8, 5), LIF(), nn.Flatten(), nn.Linear(128, 200), LIF(0.7), inner)
    readout = nn.Linear(200, 3)
    weight = readout.weight.clone()
    net.append(readout)
    fluctuation_driven(net, [0.1, 0.05, 0.05, 0.05], 30)
    assert torch.equal(readout.weight, weight) and not loop.connection.bias.any()
    shares = [
        spread(loop.neuron, f(events(0.05, 200, 4, 200))) ** 2 for f in (inner[0], loop.connection)
    ]
    assert shares[1] / sum(shares) == pytest.approx(0.1, abs=0.02)
    assert 0.01 < net[:2](events(0.1, 30, 4, 2, 8, 8))[0].mean() < 0.2


@pytest.mark.parametrize("rates", [[0.1], [0.1, 0.0]])
def test_rates_that_cannot_be_are_refused(rates):
    with pytest.raises(InputError, match="need 2 rates above 0"):
        fluctuation_driven(Sequential(nn.Linear(4, 4), LIF()), rates, 5)


@settings(max_examples=15)
@given(scale=st.floats(1e-3, 1e3), xi=st.floats(0.5, 3), threshold=st.floats(0.1, 5))
def test_rescaling_reaches_the_spread_whatever_the_scale(scale, xi, threshold):
    torch.manual_seed(0)
    net = Sequential(
        nn.Conv2d(1, 6, 3), LIF(0.7), nn.Flatten(), nn.Linear(96, 40), LIF(threshold=threshold),
        nn.Linear(40, 2),
    )  # fmt: skip
    with torch.no_grad():
        for index in (0, 3):
            net[index].weight.mul_(scale)
    last, x = net[5].weight.clone(), torch.randn(8, 16, 1, 6, 6)
    assert set(rescale(net, lambda: net(x), xi)) == {"0", "3"}
    assert torch.equal(net[5].weight, last)
    for end in (2, 5):
        h = membranes(net[end - 1], net[: end - 1](x)[0])
        level = net[end - 1].dynamics.threshold
        reached = xi * h.std() + h.mean().clamp_min(0)
        assert float(reached) == pytest.approx(level, rel=1e-3)
    again = rescale(net, lambda: net(x), xi)
    assert all(factor == pytest.approx(1, rel=1e-3) for factor in again.values())


def test_an_input_that_stays_the_same_counts_in_every_step():
    torch.manual_seed(0)
    nets = [Sequential(nn.Linear(20, 30), LIF(), nn.Linear(30, 30), LIF()) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    constant = torch.randn(16, 20).expand(8, -1, -1)
    expected, factors = (
        rescale(net, lambda net=net, x=x: net(x))
        for net, x in zip(nets, (constant.contiguous(), constant), strict=True)
    )
    assert list(factors.values()) == pytest.approx(list(expected.values()))


def test_norms_standardised_weights_and_recurrent_connections_are_rescaled_by_their_own_scale():
    torch.manual_seed(0)
    norm, loop = ThresholdBatchNorm(50), Recurrent(LIF(), nn.Linear(50, 50))
    net = Sequential(nn.Linear(30, 50), norm, LIF(), standardise(nn.Linear(50, 50)), loop)
    weight = net[0].weight.clone()
    with torch.no_grad():
        norm.weight.fill_(1e-3)
    x = torch.randn(20, 32, 30)
    assert set(rescale(net, lambda: net(x))) == {"1", "3", "4.connection"}
    assert torch.equal(net[0].weight, weight)
    assert 0.01 < net(x)[0].mean() < 0.3
    parts = [spread(loop.neuron, net[:4](x)[0]), spread(loop.neuron, loop.connection(net(x)[0]))]
    assert parts[0] == pytest.approx(math.sqrt(0.9), rel=0.1)
    assert parts[1] == pytest.approx(math.sqrt(0.1), rel=0.5)


def test_what_nothing_drives_what_reads_out_and_what_two_maps_drive_is_left_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.lif = nn.Linear(3, 4), nn.Linear(3, 4), LIF()

        def forward(self, x):
            return self.lif(self.one(x) + self.other(x))[0]

    def factors(net, x):
        return rescale(net, lambda: net(x))

    x = torch.ones(2, 1, 3)
    for net in (Two(), Sequential(LIF()), Sequential(nn.Linear(3, 4), LI())):
        assert factors(net, x) == {}
    dark = Sequential(nn.Linear(3, 4, bias=False), LIF())
    assert factors(dark, 0 * x) == {"0": 1.0}
    with pytest.raises(InputError, match="none"):
        factors(Sequential(nn.Linear(3, 4), Neuron(Izhikevich())), x)
