"""Every count against loops that go through all samples, places and weights one by one."""

from itertools import product

import pytest
import torch
from torch import nn

from axonal.convert.methods.sigma_delta import sigma_delta
from axonal.core.errors import InputError
from axonal.core.meter import Counts
from axonal.nn import IF, LIF, IntegerLIF, OneStep, SigmaDelta
from axonal.nn.meter import Meter
from axonal.nn.sequential import Sequential

LAYERS = {
    "conv": (nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "padding": (nn.Conv2d(2, 3, 3, padding=(1, 2)), (2, 4, 5)),
    "stride": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 6)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 4, 4)),
    "dilation": (nn.Conv2d(1, 2, 3, dilation=2, padding=2), (1, 6, 5)),
    "one dimension": (nn.Conv1d(3, 2, 4, stride=3, padding=2), (3, 9)),
    "linear": (nn.Linear(7, 3), (7,)),
    "linear over places": (nn.Linear(3, 2), (4, 3)),
    "double": (nn.Linear(7, 3).double(), (7,)),
}


def sparse(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return values * (torch.rand(shape, generator=generator) < 0.4)


def uses(layer, shape):
    """Each input place of one sample, as often as a weight meets it."""
    if isinstance(layer, nn.Linear):
        for place in product(*map(range, shape)):
            yield from [place] * layer.out_features
        return
    k, s, p, d = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    sides = range(len(k))
    out = [(shape[i + 1] + 2 * p[i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in sides]
    inside, outside = (c // layer.groups for c in (layer.in_channels, layer.out_channels))
    for group, _, channel in product(range(layer.groups), range(outside), range(inside)):
        for at, tap in product(product(*map(range, out)), product(*map(range, k))):
            place = [at[i] * s[i] - p[i] + tap[i] * d[i] for i in sides]
            if all(0 <= place[i] < shape[i + 1] for i in sides):
                yield (group * inside + channel, *place)


def metered(network, x, mode="dense", batch_dim=0) -> Counts:
    with torch.no_grad(), Meter(network, mode, batch_dim) as meter:
        network(x)
    return meter.counts()


@pytest.mark.parametrize("name", LAYERS)
def test_dense_work_is_every_weight_at_every_place(name):
    layer, shape = LAYERS[name]
    x = sparse((3, *shape)).to(layer.weight.dtype)
    counts, work = metered(layer, x), len(list(uses(layer, shape)))
    totals = counts.totals()
    assert [totals[k] for k in ("synops", "multiplies", "adds", "weight_reads")] == [work] * 4
    assert totals["state_reads"] == totals["spikes"] == totals["sites"] == x[0].numel()
    assert totals["state_writes"] == layer(x)[0].numel() and counts.samples == 3


@pytest.mark.parametrize("mode", ["zeros", "events"])
@pytest.mark.parametrize("name", LAYERS)
def test_zeros_and_events_spend_nothing_on_zeros(name, mode):
    layer, shape = LAYERS[name]
    x, meets = sparse((3, *shape)).to(layer.weight.dtype), list(uses(layer, shape))
    work = sum(bool(sample[place]) for sample in x for place in meets) / 3
    totals = metered(layer, x, mode).totals()
    spent = ("synops", "multiplies", "adds", "weight_reads")
    assert [totals[k] for k in spent] == pytest.approx([work] * 4)
    if mode == "zeros":
        assert totals["spikes"] == pytest.approx(int(x.count_nonzero()) / 3)
        assert (totals["sites"], totals["state_reads"]) == (x[0].numel(), x[0].numel())
    else:
        assert totals["state_reads"] == totals["state_writes"] == pytest.approx(work)
        assert totals["spikes"] == totals["sites"] == 0


def test_zeros_cost_the_same_if_none_is_skipped():
    layer, shape = LAYERS["padding"]
    silent, dense = torch.zeros(2, *shape), torch.ones(2, *shape)
    assert metered(layer, silent).totals() == metered(layer, dense).totals()
    assert metered(layer, silent, "zeros").total("synops") == 0
    assert metered(layer, dense, "zeros").total("synops") == metered(layer, dense).total("synops")


@pytest.mark.parametrize("mode", ["dense", "zeros"])
def test_integer_spikes_are_so_many_additions(mode):
    net = nn.Sequential(nn.Linear(4, 5), OneStep(IntegerLIF(4, 0.25)), nn.Linear(5, 3))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        spikes = float(net[:2](x).sum())
    assert spikes > len(x)
    counts = metered(net, x, mode)
    assert counts.by_layer("synops") == pytest.approx({"0": 20, "1.neuron": 0, "2": spikes * 3 / 6})
    assert counts.by_layer("multiplies") == pytest.approx({"0": 20, "1.neuron": 0, "2": 0})
    assert counts.by_layer("spikes")["1.neuron"] == pytest.approx(spikes / 6)
    assert counts.by_layer("sites")["1.neuron"] == 5 * 4
    neuron = {k: counts.by_layer(k)["1.neuron"] for k in ("adds", "state_reads", "state_writes")}
    assert neuron == pytest.approx({"adds": 10, "state_reads": 10, "state_writes": spikes / 6})


def test_binary_spikes_over_time():
    net = Sequential(IF(), nn.Linear(3, 2))
    x = torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 0.0]]])
    with torch.no_grad(), Meter(net, batch_dim=1) as meter:
        net(x)
    counts = meter.counts()
    # 1.0 fires at once, 0.5 after the second step, and 3 inputs were not zero.
    assert counts.samples == 1 and counts.by_layer("spikes")["0"] == 2
    assert counts.by_layer("synops")["1"] == 4 and counts.by_layer("adds")["0"] == 6


def test_calls_are_steps():
    net = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    with Meter(net, "zeros") as meter:
        for x in (torch.ones(5, 4), torch.zeros(5, 4)):
            net(x)
        net[0](torch.ones(5, 4))  # outside a call of the network: not counted
    counts = meter.counts()
    assert counts.samples == 5 and counts.layers == ("0", "2")
    assert counts.table[:, 0, 0].tolist() == [40, 0]


def test_a_layer_that_is_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x):
            return self.line(self.line(x))

    assert metered(Twice(), torch.ones(2, 3)).total("synops") == 18


def test_nothing_run_is_an_error():
    with Meter(nn.Linear(2, 2)) as meter:
        pass
    with pytest.raises(InputError, match="has not run"):
        meter.counts()


def test_steps_of_other_layers_are_an_error():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(2, 2)

        def forward(self, x, skip):
            return x if skip else self.line(x)

    net = Sometimes()
    with Meter(net) as meter:
        net(torch.ones(1, 2), False)
        net(torch.ones(1, 2), True)
    with pytest.raises(InputError, match="different layers"):
        meter.counts()


def test_the_meter_leaves_no_trace():
    net = nn.Sequential(nn.Linear(2, 2), OneStep(IF()))
    with pytest.raises(RuntimeError), Meter(net):
        net(torch.ones(1, 3))
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
    assert not any(getattr(module, hook) for module in net.modules() for hook in hooks)


def test_metering_changes_no_result():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), OneStep(IntegerLIF()), nn.Conv2d(2, 1, 3))
    x = sparse((2, 1, 8, 8))
    before = net(x)
    with Meter(net):
        assert torch.equal(net(x), before)


@pytest.mark.parametrize("run", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_gradient_mode_counts_the_same(run):
    layer, shape = LAYERS["padding"]
    with run(), Meter(layer) as meter:
        layer(torch.ones(2, *shape))
    assert meter.counts().total("synops") == len(list(uses(layer, shape)))


def test_a_sigma_delta_network_spends_its_changes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2))
    twin, x = sigma_delta(net, torch.zeros(1, 1, 6, 6)), sparse((1, 2, 1, 6, 6))
    with torch.no_grad():
        rest, now = net[:2](torch.zeros(1, 1, 6, 6)), net[:2](x[0])
        with Meter(twin, "events", batch_dim=1) as meter:
            twin(x, twin.start(batch=2))
    moved = (now - rest).abs() > 1e-6
    expected = {}
    for name, layer, events in (("delta.0", net[0], x[0]), ("delta.2", net[2], moved)):
        meets = list(uses(layer, tuple(events.shape[1:])))
        expected[name] = sum(bool(e[place]) for e in events for place in meets) / 2
    counts = meter.counts()
    synops = counts.by_layer("synops")
    assert {k: synops[k] for k in expected} == expected and counts.total("synops") == sum(
        expected.values()
    )
    assert counts.by_layer("spikes")["delta._1"] == int(moved.sum()) / 2
    assert counts.by_layer("sites")["delta._1"] == 3 * 36


def test_negative_changes_are_events_too():
    net = Sequential(SigmaDelta(0.0, negative_slope=1.0), nn.Linear(2, 3))
    with torch.no_grad(), Meter(net, "events", batch_dim=1) as meter:
        net(torch.tensor([[[1.0, -1.0]]]))
    assert meter.counts().total("synops") == 6


def test_neurons_that_are_handed_a_constant_drive_once_are_counted_in_every_step():
    torch.manual_seed(0)
    net, x = Sequential(nn.Linear(4, 5), LIF(0.9)), torch.rand(1, 3, 4).expand(6, 3, 4)
    runs = []
    for drive in (x, x.contiguous()):
        with Meter(net, batch_dim=1) as meter:
            net(drive)
        runs.append(meter.counts())
    for field in ("adds", "state_reads", "state_writes", "spikes", "sites"):
        once, each = (counts.by_layer(field) for counts in runs)
        assert once["1"] == each["1"] > 0
    # The map itself is executed once, and counted so.
    assert 6 * runs[0].by_layer("synops")["0"] == runs[1].by_layer("synops")["0"]


def test_counting_leaves_the_threads_of_torch_alone():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        net = Sequential(torch.nn.Linear(6, 5), LIF(0.5), torch.nn.Linear(5, 4))
        with Meter(net) as meter:
            net(torch.rand(3, 2, 6))
        assert meter.counts().total("synops") > 0 and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
