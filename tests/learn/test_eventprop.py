import copy
import itertools
import math

import pytest
import torch
from torch import nn

from axonal.core.errors import InputError
from axonal.core.neurons import Current, Leaky
from axonal.learn.rules.eventprop import eventprop
from axonal.nn import IF, Neuron, Sequential
from axonal.ops.scan import scan

STEPS = 20
TAUS = {"unequal": (0.9, 0.8), "equal": (0.85, 0.85), "nearly equal": (0.85, 0.85 + 1e-9)}
TAUS |= {"slow synapses": (0.6, 0.9), "no leak": (1.0, 0.8), "a lasting current": (0.9, 1.0)}
CASES = pytest.mark.parametrize(("decay", "synapse"), TAUS.values(), ids=TAUS)


def network(neuron, *sizes, low=-0.3, high=1.0):
    torch.manual_seed(0)
    layers = []
    for n, m in itertools.pairwise(sizes):
        linear = nn.Linear(n, m, bias=False, dtype=torch.float64)
        nn.init.uniform_(linear.weight, low, high)
        layers += [linear, copy.deepcopy(neuron)]
    return Sequential(*layers)


def spikes(steps, batch, n):
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(steps, batch, n, generator=generator) < 0.15).double()


def weighed(y):
    return (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def differences(rule, net, x, step):
    """Central differences of the rule's loss by every weight."""
    slopes = []
    for p in net.parameters():
        grad = torch.zeros_like(p)
        for place in range(p.numel()):
            ends = []
            for way in (step, -step):
                with torch.no_grad():
                    p.view(-1)[place] += way
                    ends.append(rule(net, x, weighed)[0].item())
                    p.view(-1)[place] -= way
            grad.view(-1)[place] = (ends[0] - ends[1]) / (2 * step)
        slopes.append(grad)
    return slopes


def gradients(rule, net, x):
    loss, outputs = rule(net, x, weighed)
    assert not outputs.requires_grad
    return torch.autograd.grad(loss, list(net.parameters())), outputs


@CASES
def test_eventprop_is_the_derivative_of_spike_times(decay, synapse):
    dynamics = Current(decay=decay, synapse=synapse, drive=0.4, gain=0.9, reset="zero")
    net, x = network(Neuron(dynamics), 6, 5, 5, 4, low=-0.6), spikes(STEPS, 4, 6)
    x[:, 3] = 0
    grads, times = gradients(eventprop(), net, x)
    assert (times[3] == STEPS).all() and (times[:3] < STEPS).any()
    assert not any(grad.any() for grad in gradients(eventprop(), net, 0 * x)[0])
    for grad, slope in zip(grads, differences(eventprop(), net, x, 1e-6), strict=True):
        assert grad.abs().max() > 0.1
        torch.testing.assert_close(grad, slope, rtol=1e-5, atol=1e-5 * slope.abs().max().item())


@pytest.mark.parametrize("threads", [1, 2])
def test_spikes_of_any_size_drive_neurons_on_any_number_of_threads(threads):
    net, x = network(Neuron(Current(reset="zero")), 6, 5, 4, low=-0.6), spikes(STEPS, 3, 6)
    x = x * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).reshape(x.shape)
    expected = differences(eventprop(), net, x, 1e-6)
    torch.set_num_threads(threads)
    grads, times = gradients(eventprop(), net, x)
    single, _ = gradients(eventprop(), copy.deepcopy(net).float(), x.float())
    torch.set_num_threads(1)
    assert (times < STEPS).any()
    torch.testing.assert_close(list(grads), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close([g.double() for g in single], expected, rtol=1e-2, atol=1e-2)


@CASES
def test_the_scan_of_fine_steps_comes_to_the_times_of_eventprop(decay, synapse):
    options = {"gain": 0.9, "reset": "zero"}
    net = network(Neuron(Current(decay=decay, synapse=synapse, drive=0.4, **options)), 6, 8, 5)
    x, far = spikes(STEPS, 3, 6), []
    _, times = eventprop()(net, x, weighed)

    def rise(dt):  # a unit of input, dt later, for a drive of 1 a step
        a, b = -math.log(decay), -math.log(synapse)
        return (
            dt if a == b == 0 else (decay**dt - synapse**dt) / (b - a) if a != b else dt * decay**dt
        )

    for fine in (16, 128):
        dt = 1 / fine
        drive = 0.4 * rise(dt) / rise(1.0)
        dynamics = Current(decay=decay**dt, synapse=synapse**dt, drive=drive, **options)
        dense = torch.zeros(STEPS * fine, *x.shape[1:], dtype=x.dtype)
        dense[::fine] = x
        s, _ = Sequential(net[0], Neuron(dynamics), net[2], Neuron(dynamics))(dense)
        first = torch.where(s.any(0), (s.argmax(0) + 1) * dt, float(STEPS))
        far.append((first - times).abs().max().item())
    assert far[0] < 1 and far[1] < far[0] / 3


def test_without_spikes_the_scan_is_continuous_time_seen_at_full_steps():
    dynamics = Current(decay=0.9, synapse=0.7, drive=0.4, gain=0.8, reset="zero")
    x = torch.zeros(STEPS, 1, 1, dtype=torch.float64)
    x[0] = 1
    silent = Current(**{**dynamics.constants(), "threshold": 1e9}, reset="zero")
    membranes = torch.cat([scan(x[: n + 1], None, silent)[1][0] for n in range(STEPS)]).flatten()
    for n, h in enumerate(membranes[:4].tolist()):  # rising: a threshold of h is met at n + 1
        exact = Current(**{**dynamics.constants(), "threshold": h}, reset="zero")
        net = network(Neuron(exact), 1, 1, low=1.0, high=1.0)
        assert eventprop()(net, x, weighed)[1].item() == pytest.approx(n + 1, abs=1e-9)


def test_neurons_that_run_away_and_weights_that_are_broken_are_refused():
    net = network(Neuron(Current(reset="zero")), 3, 2, low=1e6, high=1e6)
    with pytest.raises(InputError, match="fires twice within"):
        eventprop()(net, torch.ones(5, 2, 3).double(), weighed)
    nn.init.constant_(net[0].weight, math.nan)
    with pytest.raises(InputError, match="not finite"):
        eventprop()(net, torch.ones(5, 2, 3).double(), weighed)


def test_other_networks_are_refused_with_the_layer():
    x, good, fits = torch.ones(3, 2, 4), nn.Linear(4, 4, bias=False), Neuron(Current(reset="zero"))
    rule = eventprop()
    for layers, said in (
        ([nn.Linear(4, 4), IF()], "layer 0: .*bias=True"),
        ([good, nn.ReLU()], "layer 0: .*ReLU"),
        ([good, Neuron(Leaky(reset="zero"), learn=["threshold"])], r"layer 0: .*Neuron"),
        ([nn.Conv1d(4, 4, 1), IF()], "layer 0: Conv1d"),
        ([nn.Flatten(), nn.Linear(5, 4, bias=False), IF()], r"\[3, 2, 4\], layer 1: .*=5"),
        ([good, fits, nn.Linear(5, 4, bias=False), fits], "layer 2: .*=5"),
        ([good], "layer 0: .* and None"),
        ([IF()], "layer 0: IF"),
    ):
        with pytest.raises(InputError, match=said):
            rule(nn.Sequential(*layers), x, weighed)
    with pytest.raises(InputError, match="layer 0: IF"):
        rule(IF(), x, weighed)
