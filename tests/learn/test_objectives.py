import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.learn import losses
from axonal.nn import LIF, Sequential
from axonal.nn.hooks import watch, watch_reads
from axonal.nn.meter import Meter

LABEL = torch.tensor([1, 0, 2])
CHUNKED = {
    "membrane": losses.membrane_cross_entropy(),
    "tet": losses.tet(0.1),
}


def outputs(steps=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, 3, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CHUNKED)
def test_objectives_of_each_step_are_the_mean_of_their_parts(name):
    y, objective = outputs(), CHUNKED[name]
    parts = [objective(part, LABEL) for part in y.split(2)]
    torch.testing.assert_close(objective(y, LABEL), torch.stack(parts).mean())


def test_cross_entropies_are_those_of_their_logits():
    y = outputs().float()
    expected = F.cross_entropy(2 * y.mean(0), LABEL)
    torch.testing.assert_close(losses.rate_cross_entropy(2.0)(y, LABEL), expected)
    value = losses.membrane_cross_entropy("maximum")(y, LABEL)
    torch.testing.assert_close(value, F.cross_entropy(y.amax(0), LABEL))


def test_tet_is_a_mixture():
    y = outputs().float()
    each = losses.membrane_cross_entropy()(y, LABEL)
    value = losses.tet(0.25, 2.0)(y, LABEL)
    torch.testing.assert_close(value, 0.75 * each + 0.25 * (y - 2).square().mean())


def test_counts_at_their_targets_cost_nothing():
    y = torch.full((10, 3, 4), 0.2)
    y[:, torch.arange(3), LABEL] = 0.8
    assert losses.spike_count()(y, LABEL) < 1e-12
    assert losses.spike_count()(1 - y, LABEL) > 0.1


@given(st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_first_times_are_the_first_steps_with_a_spike(times):
    y = torch.zeros(6, 1, 3)
    for place, t in enumerate(times):
        y[t : t + 1, 0, place] = 1.0  # 6: never
        y[t + 2 :: 2, 0, place] = 1.0  # later ones don't matter
    assert losses.first_times(y).tolist() == [[min(t, 6) for t in times]]
    assert int(losses.predict(losses.first_times(y))) == times.index(min(times))


def test_first_spike_asks_the_right_class_to_be_earlier():
    y = torch.zeros(5, 1, 3)
    y[2, 0, :] = 1
    y.requires_grad_()
    losses.first_spike()(y, torch.tensor([1])).backward()
    assert (y.grad[:3, 0, 1] < 0).all(), "more spikes of the right class up to its first"
    assert (y.grad[:3, 0, [0, 2]] > 0).all() and not y.grad[3:].any()
    times = torch.tensor([[3.0, 1.0, 2.0]])
    torch.testing.assert_close(
        losses.first_spike(2.0)(times, torch.tensor([1])),
        F.cross_entropy(-times / 2, torch.tensor([1])),
    )


def test_van_rossum_is_the_distance_of_filtered_trains():
    a, b = torch.zeros(8, 1, 1), torch.zeros(8, 1, 1)
    a[2], b[4] = 1, 1
    decay = torch.exp(torch.tensor(-1 / 3))
    steps = torch.arange(8.0)
    kernels = [torch.where(steps >= t, decay ** (steps - t), 0.0) for t in (2, 4)]
    expected = (kernels[0] - kernels[1]).square().mean() / 3
    distance = losses.van_rossum(3.0)
    torch.testing.assert_close(distance(a, b.transpose(0, 1)), expected)
    assert distance(a, a.transpose(0, 1)) == 0
    with pytest.raises(InputError, match="targets"):
        distance(a, b)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 4, 1]), "labels run from 0 to 4, but the network has 4 classes"),
        (torch.tensor([0, -1, 1]), "labels run from -1 to 1"),
        (torch.tensor([0.0, 1.0, 1.0]), "give classes"),
        (torch.tensor([[0], [1], [1]]), "give classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(label, message):
    for objective in (*CHUNKED.values(), losses.rate_cross_entropy(), losses.spike_count()):
        with pytest.raises(InputError, match=message):
            objective(outputs(), label)


def spiking(seed=0):
    torch.manual_seed(seed)
    network = Sequential(
        nn.Conv2d(1, 3, 3, padding=1), LIF(0.8), nn.AvgPool2d(2), nn.Conv2d(3, 2, 3, padding=1),
        LIF(0.8), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        network[3].weight *= 6
    return network


def run(network, x):
    with watch(network) as sent, watch_reads(network) as read:
        network(x)
    return sent, read


def test_activity_asks_for_more_below_and_less_above_its_bounds():
    network, x = spiking(), torch.rand(5, 2, 1, 4, 4) * 3
    sent, read = run(network, x)
    rate = sent["1"][0].mean((0, 1))
    assert 0 < rate.mean() < 1
    for low, high, sign in ((0.999, 1.0, 1), (0.0, 1e-3, -1)):
        penalty = losses.activity(low, high, 2.0)
        value = penalty(network, sent, read)
        rate = {name: parts[0].mean((0, 1)) for name, parts in sent.items()}
        outside = [(sign * ((low if sign > 0 else high) - r)).clamp_min(0) for r in rate.values()]
        expected = torch.stack([o.square().sum() for o in outside]).mean()
        torch.testing.assert_close(value, 2 * expected)
        (grad,) = torch.autograd.grad(value, sent["4"][0], retain_graph=True)
        assert (sign * grad <= 0).all() and grad.any()
    with pytest.raises(InputError, match="out of order"):
        losses.activity(0.3, 0.2)


def test_energy_prices_the_synapses_that_spikes_reach():
    network, x = spiking(), torch.rand(5, 2, 1, 4, 4) * 3
    sent, read = run(network, x)
    with Meter(network, mode="events", batch_dim=1) as meter, torch.no_grad():
        network(x)
    synops = meter.counts().by_layer("synops")
    one, two = (losses.energy(w)(network, sent, read) for w in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)
    # The second convolution reads averages of four spikes: a quarter of a spike's price each.
    spikes = sent["4"][0]
    fanout = float(spikes.detach().sum()) * 4 / 2
    assert synops["6"] == fanout
    only = losses.energy(1.0)(network, sent, {"6": read["6"]})
    pico = 1e3 * only.item() / fanout
    assert 0.03 < pico < 30, "picojoules of an addition and three words of memory"
    only.backward()
    assert network[0].weight.grad.abs().sum() > 0
