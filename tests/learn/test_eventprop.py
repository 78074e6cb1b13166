import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.core.neurons import Current, Leaky
from axonal.learn.rules.eventprop import eventprop, mpd_ed, std_ed
from axonal.nn import IF, LI, LIF, Neuron, Sequential
from axonal.ops.scan import scan

STEPS = 20
TAUS = {"unequal": (0.9, 0.8), "equal": (0.85, 0.85), "nearly equal": (0.85, 0.85 + 1e-9)}
TAUS |= {"slow synapses": (0.6, 0.9), "no leak": (1.0, 0.8), "a lasting current": (0.9, 1.0)}
CASES = pytest.mark.parametrize(("decay", "synapse"), TAUS.values(), ids=TAUS)


def network(neuron, *sizes, low=-0.3, high=1.0, seed=0, tail=()):
    torch.manual_seed(seed)
    layers = []
    for n, m in itertools.pairwise(sizes):
        linear = nn.Linear(n, m, bias=False, dtype=torch.float64)
        nn.init.uniform_(linear.weight, low, high)
        layers += [linear, copy.deepcopy(neuron)]
    return Sequential(*layers, *tail)


def spikes(steps, batch, n, rate=0.15, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, n, generator=generator) < rate).double()


def weighed(y):
    return (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def differences(rule, net, x, step):
    """Central differences of the rule's loss by every weight."""
    found = []
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
        found.append(grad)
    return found


def gradients(rule, net, x, objective=weighed):
    loss, outputs = rule(net, x, objective)
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
    for grad, found in zip(grads, differences(eventprop(), net, x, 1e-6), strict=True):
        assert grad.abs().max() > 0.1
        torch.testing.assert_close(grad, found, rtol=1e-5, atol=1e-5 * found.abs().max().item())


@CASES
def test_the_scan_of_fine_steps_comes_to_the_times_of_eventprop(decay, synapse):
    given = {"gain": 0.9, "reset": "zero"}
    net = network(Neuron(Current(decay=decay, synapse=synapse, drive=0.4, **given)), 6, 8, 5)
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
        dynamics = Current(decay=decay**dt, synapse=synapse**dt, drive=drive, **given)
        dense = torch.zeros(STEPS * fine, *x.shape[1:], dtype=x.dtype)
        dense[::fine] = x
        s, _ = Sequential(net[0], Neuron(dynamics), net[2], Neuron(dynamics))(dense)
        first = torch.where(s.any(0), (s.argmax(0) + 1) * dt, float(STEPS))
        far.append((first - times).abs().max().item())
    assert far[0] < 1 and far[1] < far[0] / 3


def test_without_spikes_the_scan_is_continuous_time_seen_at_whole_steps():
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


@settings(max_examples=25)
@given(
    decay=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    gain=st.sampled_from([0.7, 1.0]),
    reset=st.sampled_from(["subtract", "none"]),
    tail=st.sampled_from(["", "linear", "bias", "membrane"]),
    graded=st.booleans(),
    rate=st.sampled_from([0.0, 0.05, 0.3]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_mpd_ed_is_bptt_with_a_one_sided_surrogate(
    decay, gain, reset, tail, graded, rate, threads, seed
):
    neuron = Neuron(
        Leaky(decay=decay, gain=gain, reset=reset, threshold=0.8), "masked_triangle", 1.3
    )
    last = [nn.Linear(5, 4, bias=tail == "bias", dtype=torch.float64)] if tail else []
    last += [LI(0.9)] if tail == "membrane" else []
    net = network(neuron, 6, 9, 8, 5, seed=seed, tail=last)
    x = spikes(STEPS, 3, 6, rate, seed)
    x = x * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).reshape(x.shape) if graded else x
    torch.set_num_threads(threads)
    grads, outputs = gradients(mpd_ed(wake=0), net, x)
    torch.set_num_threads(1)
    y, _ = net(x)
    torch.testing.assert_close(outputs, y)
    torch.testing.assert_close(grads, torch.autograd.grad(weighed(y), list(net.parameters())))


def test_mpd_ed_masks_any_surrogate_and_works_in_single_precision_and_autocast():
    net = network(LIF(0.9, surrogate="triangle"), 6, 9, 5).float()
    other = network(LIF(0.9, surrogate="masked_triangle"), 6, 9, 5).float()
    x = spikes(STEPS, 3, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        grads, _ = gradients(mpd_ed(wake=0), net, x)
    expected = torch.autograd.grad(weighed(other(x)[0]), list(other.parameters()))
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-4)


def test_a_bound_of_the_rate_wakes_silent_neurons():
    net, x = network(IF(), 6, 5, low=-0.01, high=0.01), spikes(STEPS, 3, 6)
    assert not gradients(mpd_ed(wake=0), net, x)[0][0].any()
    rule = mpd_ed(least=0.05, wake=2.0)
    assert rule(net, x, weighed)[0] == 0
    for _ in range(50):
        (grad,), _ = gradients(rule, net, x, lambda y: 0 * y.sum())
        with torch.no_grad():
            net[0].weight -= grad
    assert (net(x)[0].mean((0, 1)) >= 0.05).all()
    assert not gradients(rule, net, x, lambda y: 0 * y.sum())[0][0].any()


def test_std_ed_is_the_derivative_of_first_spikes_in_closed_form():
    net, x = network(IF(threshold=0.9), 6, 7, 5, low=-0.3, high=0.5, seed=3), spikes(STEPS, 8, 6)
    rule = std_ed(clip=math.inf)
    grads, times = gradients(rule, net, x)
    assert (times == STEPS).any() and ((times > 0) & (times < STEPS)).any()
    for grad, found in zip(grads, differences(rule, net, x, 1e-7), strict=True):
        assert grad.any()
        torch.testing.assert_close(grad, found, rtol=1e-5, atol=1e-5)


def test_first_spikes_of_std_ed_are_where_membranes_meet_the_falling_threshold():
    x, w = spikes(STEPS, 16, 6), torch.linspace(-0.4, 0.7, 6, dtype=torch.float64)
    net = network(IF(), 6, 1)
    net[0].weight.data[:] = w
    _, times = std_ed()(net, x, weighed)
    for b in range(16):
        sent = torch.where(x[:, b].any(0), x[:, b].argmax(0) / STEPS, math.inf)
        t = torch.linspace(1, 2, 20001, dtype=torch.float64)  # the window after the input's
        v = (w * (t[:, None] - sent).clamp_min(0)).sum(1)
        over = (v >= 2 - t) & (t < 2)
        expected = t[over.int().argmax()] - 1 if over.any() else torch.ones(())
        assert times[b].item() / STEPS == pytest.approx(expected.item(), abs=1e-4)


def test_std_ed_clips_its_factors_and_leaves_silent_rows_alone():
    net, x = network(IF(), 2, 3, 1), torch.zeros(10, 1, 2, dtype=torch.float64)
    x[0], x[1] = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    net[0].weight.data = torch.tensor([[0.5, -0.4], [-3.0, 1.0], [-0.9, -0.05]]).double()
    net[2].weight.data = torch.tensor([[0.2, 0.2, 0.2]]).double()
    free, _ = gradients(std_ed(math.inf), net, x)
    assert free[0][0].all() and not free[0][1:].any()
    tight, _ = gradients(std_ed(0.1), net, x)
    assert tight[0].abs().max() <= 10 * 2 * 0.1**2 + 1e-12 < free[0].abs().max()
    silent, _ = gradients(std_ed(), net, torch.zeros_like(x))
    assert not any(grad.any() for grad in silent)


def test_std_ed_reads_potentials_out():
    net = network(IF(), 6, 7, low=0.0, tail=[nn.Linear(7, 3, dtype=torch.float64)])
    grads, outputs = gradients(std_ed(math.inf), net, x := spikes(STEPS, 4, 6))
    assert outputs.shape == (1, 4, 3)
    for grad, found in zip(grads, differences(std_ed(), net, x, 1e-6), strict=True):
        torch.testing.assert_close(grad, found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "fits"),
    [(eventprop(), Neuron(Current(reset="zero"))), (mpd_ed(), IF()), (std_ed(), IF())],
    ids=["eventprop", "mpd-ed", "std-ed"],
)
def test_other_networks_are_refused_with_the_layer(rule, fits):
    x, good = torch.ones(3, 2, 4), nn.Linear(4, 4, bias=False)
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
