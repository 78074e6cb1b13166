"""Plans put together, and thresholds that move into the weights that read them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net
from torch import nn

from axonal.convert import plan as plans
from axonal.convert.activations import values_of
from axonal.convert.plan import LARGEST, Plan, Population, assemble
from axonal.convert.tracing import prepared, rectifiers
from axonal.core.errors import InputError
from axonal.nn import QCFS, Delay

T = 4


@pytest.fixture(autouse=True)
def double():
    """In float64 no membrane comes so near its threshold that the order of sums matters."""
    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        yield
    torch.set_default_dtype(torch.float32)


def conv(inside, outside, **options):
    return nn.Conv2d(inside, outside, 3, **{"padding": 1} | options)


def middle(run, act=nn.ReLU, **parts):
    """conv - rectifier - `run` - rectifier - linear, where `run` is given [B, 4, 8, 8]."""
    return Net(
        lambda m, x: m.head(m.act2(run(m, m.act(m.first(x)))).flatten(1)),
        first=conv(2, 4),
        act=act(),
        act2=act(),
        head=nn.LazyLinear(3),
        **parts,
    )


INSIDE = {
    "convolution": lambda: middle(lambda m, h: m.c(h), c=conv(4, 6)),
    "stride": lambda: middle(lambda m, h: m.c(h), c=conv(4, 6, stride=2, padding=0)),
    "groups": lambda: middle(lambda m, h: m.c(h), c=conv(4, 6, groups=2)),
    "depthwise": lambda: middle(lambda m, h: m.c(h), c=conv(4, 8, groups=4, dilation=2)),
    "reflected": lambda: middle(lambda m, h: m.c(h), c=conv(4, 4, padding_mode="reflect")),
    "linear": lambda: middle(lambda m, h: m.c(h.flatten(1)), c=nn.Linear(256, 5)),
    "average": lambda: middle(lambda m, h: m.c(m.p(h)), c=conv(4, 4), p=nn.AvgPool2d(3, 2, 1)),
    "part": lambda: middle(lambda m, h: m.c(h[:, 1:3, ::2]), c=conv(2, 4)),
    "mean": lambda: middle(lambda m, h: m.c(h.mean((2, 3))), c=nn.Linear(4, 5)),
    "adaptive": lambda: middle(
        lambda m, h: m.c(m.p(h).flatten(1)), c=nn.Linear(16, 5), p=nn.AdaptiveAvgPool2d(2)
    ),
    "upsample": lambda: middle(
        lambda m, h: m.c(m.u(h)), c=conv(4, 4), u=nn.Upsample(scale_factor=1.5, mode="bilinear")
    ),
    "concatenation": lambda: middle(
        lambda m, h: m.c(torch.cat([h, m.act3(m.b(h))], 1)),
        b=conv(4, 3),
        act3=nn.ReLU(),
        c=conv(7, 4),
    ),
}
BETWEEN = {
    "sum": lambda: middle(
        lambda m, h: m.c(h + m.act3(m.b(h))), b=conv(4, 4), act3=nn.ReLU(), c=conv(4, 4)
    ),
    "difference": lambda: middle(lambda m, h: m.c(h - h.mean((2, 3), True)), c=conv(4, 4)),
    "skip": lambda: middle(lambda m, h: m.b(h) + h, b=conv(4, 4)),
    "shuffle": lambda: middle(lambda m, h: m.c(F.pixel_shuffle(h, 2)), c=conv(1, 4)),
    "transposed": lambda: middle(lambda m, h: m.c(h), c=nn.ConvTranspose2d(4, 4, 2, 2)),
    "norm": lambda: middle(lambda m, h: m.c(m.n(h)), n=nn.BatchNorm2d(4), c=conv(4, 4)),
    "maximum": lambda: middle(lambda m, h: m.c(m.p(h + 1)), p=nn.MaxPool2d(3, 2, 1), c=conv(4, 4)),
    "product": lambda: middle(lambda m, h: m.c(h * h), c=conv(4, 4)),
    "parameters": lambda: middle(
        lambda m, h: m.c(h * (m.g + 1) + m.g), c=conv(4, 4), g=nn.Parameter(torch.rand(4, 1, 1))
    ),
    "columns": lambda: middle(lambda m, h: m.c(h), c=nn.Linear(8, 8)),
    "flat": lambda: middle(lambda m, h: m.c(h.flatten(1)[:, 3:]), c=nn.Linear(253, 5)),
}
NETWORKS = INSIDE | BETWEEN


def trained(make, seed=0):
    torch.manual_seed(seed)
    model = make().eval()
    model(torch.zeros(1, 2, 8, 8))
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.rand_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.num_batches_tracked.fill_(1)
    return model


def images(count=2, seed=1):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def planned(dense, seed=0, schedule="pipelined", levels=3):
    """Thresholds at random, of each channel where there are any."""
    draw = torch.Generator().manual_seed(seed)
    slopes = rectifiers(dense)
    values, _ = values_of(dense, [*slopes], images())
    populations = {}
    for name, slope in slopes.items():
        shape = values[name].shape[1:]
        shape = (shape[0], 1, 1) if len(shape) == 3 else ()
        threshold = 0.2 + torch.rand(shape, generator=draw)
        populations[name] = Population(threshold, levels, slope)
    return Plan("random", T, (2, 8, 8), populations, schedule)


def multiplied(graph, scales, shape):
    """What `fold` stands for: every spike times its threshold, as it is sent."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.target in scales:
            graph.register_buffer(f"{node.target}_worth", scales[node.target])
            with graph.graph.inserting_after(node):
                worth = graph.graph.get_attr(f"{node.target}_worth")
            with graph.graph.inserting_after(worth):
                product = graph.graph.call_function(torch.mul, (node, worth))
            node.replace_all_uses_with(product)
            product.args = (node, worth)


def both(dense, plan, monkeypatch):
    network = assemble(dense, plan)
    with monkeypatch.context() as patch:
        patch.setattr(plans, "fold", multiplied)
        return network, assemble(dense, plan)


def multiplies(network):
    return sum(node.target is torch.mul for node in network.graph.graph.nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_thresholds_in_weights_are_thresholds_beside_them(name, monkeypatch):
    dense = prepared(trained(NETWORKS[name]))
    network, reference = both(dense, planned(dense), monkeypatch)
    x = images()
    y = network.outputs(x)
    torch.testing.assert_close(y, reference.outputs(x), rtol=1e-9, atol=1e-9)
    assert y.shape[0] == T and y.std() > 0


@pytest.mark.parametrize("name", INSIDE)
def test_where_weights_can_hold_them_nothing_else_multiplies(name):
    dense = prepared(trained(NETWORKS[name]))
    assert multiplies(assemble(dense, planned(dense))) == 0


def test_where_a_skip_reads_spikes_they_are_multiplied_on_the_way():
    dense = prepared(trained(NETWORKS["skip"]))
    assert multiplies(assemble(dense, planned(dense))) == 1


def test_tiny_thresholds_differ_as_large_ones_do(monkeypatch):
    dense = prepared(trained(NETWORKS["sum"]))
    plan = planned(dense)
    small = {n: Population(1e-9 * p.threshold) for n, p in plan.populations.items()}
    plan = Plan("tiny", T, plan.shape, small)
    network, reference = both(dense, plan, monkeypatch)
    x = images()
    torch.testing.assert_close(network.outputs(x), reference.outputs(x), rtol=1e-9, atol=1e-12)


OPERATIONS = ("conv", "groups", "relu", "leaky", "average", "maximum", "skip", "cat", "sum", "up")


class Drawn(nn.Module):
    """One operation after another on [B, 4, h, w]."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        self.first, self.act, self.head = conv(2, 4), nn.ReLU(), conv(4, 2)
        make = {"conv": lambda: conv(4, 4), "groups": lambda: conv(4, 4, groups=2)}
        make |= {"skip": make["conv"], "sum": make["conv"], "cat": lambda: conv(8, 4)}
        make |= {"average": lambda: nn.AvgPool2d(2, 1, 1), "maximum": lambda: nn.MaxPool2d(3, 1, 1)}
        make |= {"leaky": lambda: nn.LeakyReLU(0.25), "relu": nn.ReLU, "up": lambda: nn.Upsample(6)}
        self.parts = nn.ModuleList(make[name]() for name in names)
        self.acts = nn.ModuleList(nn.ReLU() for _ in names)

    def forward(self, x):
        h = self.act(self.first(x))
        for name, part, act in zip(self.names, self.parts, self.acts, strict=True):
            if name == "skip":
                h = h + part(h)
            elif name == "sum":
                h = h + act(part(h))
            elif name == "cat":
                h = part(torch.cat([h, act(h - 0.5)], 1))
            else:
                h = part(h)
        return self.head(h)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=6), st.integers(0, 100))
def test_networks_drawn_at_random(names, seed):
    torch.manual_seed(seed)
    dense = prepared(Drawn(names).eval())
    plan, x = planned(dense, seed), images(seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        network, reference = both(dense, plan, patch)
    torch.testing.assert_close(network.outputs(x), reference.outputs(x), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(network.answer(x[1:]), network.answer(x)[1:], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_many_steps_of_fine_spikes_are_the_network_itself(name):
    model = trained(NETWORKS[name])
    dense = prepared(model)
    slopes, x = rectifiers(dense), images()
    fine = {n: Population(torch.tensor(0.01), 100_000, s) for n, s in slopes.items()}
    answer = assemble(dense, Plan("fine", 8, (2, 8, 8), fine)).answer(x)
    torch.testing.assert_close(answer, model(x), rtol=0, atol=0.02 * float(model(x).abs().max()))


@pytest.mark.parametrize("name", ["skip", "concatenation", "maximum"])
def test_steps_may_come_in_chunks(name):
    dense = prepared(trained(NETWORKS[name]))
    network, x = assemble(dense, planned(dense)), torch.randn(6, 2, 2, 8, 8)
    total, _ = network(x)
    first, state = network(x[:2])
    second, _ = network(x[2:], state)
    torch.testing.assert_close(torch.cat([first, second]), total)


def test_a_picture_that_stands_still_is_one_in_every_step():
    dense = prepared(trained(NETWORKS["skip"]))
    network, x = assemble(dense, planned(dense)), images()
    moving, _ = network(x.expand(T, *x.shape).contiguous())
    torch.testing.assert_close(network.outputs(x), moving)
    torch.testing.assert_close(network.answer(x), moving.mean(0))


def test_offsets_are_added_in_every_step(monkeypatch):
    dense = prepared(trained(NETWORKS["convolution"]))
    plan, shift = planned(dense), torch.tensor([0.1, -0.2, 0.3, 0.4]).reshape(4, 1, 1)
    before = plan.populations["act"]
    moved = plan.populations | {"act": Population(before.threshold, 3, offset=shift)}
    network, reference = both(dense, Plan("moved", T, plan.shape, moved), monkeypatch)
    result = [n.outputs(images()) for n in (network, reference)]
    dense.get_submodule("first").bias += shift.flatten()
    expected = assemble(dense, plan).outputs(images())
    for y in result:
        torch.testing.assert_close(y, expected)


def test_neurons_may_stand_behind_any_value():
    dense = prepared(trained(NETWORKS["linear"]))
    plan = planned(dense)
    signed = plan.populations | {"c": Population(torch.tensor(0.3), 7, 1.0)}
    network = assemble(dense, Plan("more", T, plan.shape, signed))
    assert network.paths() == {"act": "act", "act2": "act2", "c": "c_neurons"}
    assert [n.dynamics.negative_slope for n in network.populations().values()] == [0, 0, 1]
    assert network.answer(images()).isfinite().all()


def test_what_a_plan_says_of_time():
    dense = prepared(trained(NETWORKS["convolution"]))
    plan = planned(dense)
    late = Plan("late", T, plan.shape, plan.populations, delay=3)
    network = assemble(dense, late)
    assert (network.delay, network.latency, late.levels) == (3, T + 3, 3 * T)
    assert network.outputs(images()).shape == (T, 2, 3)


def waiting(make):
    dense = prepared(trained(make), "waiting")
    return assemble(dense, planned(dense, schedule="waiting", levels=1))


def delays(network):
    return [m.most for m in network.graph.modules() if isinstance(m, Delay)]


def test_layers_that_wait_have_windows_one_after_another():
    network = waiting(NETWORKS["skip"])
    opens = {name: neuron.dynamics.opens for name, neuron in network.populations().items()}
    assert opens == {"act": T, "act2": 2 * T} and (network.delay, network.latency) == (8, 12)
    assert delays(network) == []


def deep(m, h):
    h = m.c(h) + m.act4(m.b(m.act3(m.a(h))))
    return h * m.g


def test_branches_of_unlike_depth_are_brought_together():
    parts = {name: conv(4, 4) for name in "abc"} | {"act3": nn.ReLU(), "act4": nn.ReLU()}
    network = waiting(lambda: middle(deep, **parts, g=nn.Parameter(torch.rand(4, 1, 1))))
    assert delays(network) == [2 * T] and network.latency == 5 * T
    x = images()
    spikes = {}
    for name, neuron in network.populations().items():
        neuron.register_forward_hook(lambda m, a, y, name=name: spikes.update({name: y[0]}))
    network(network.fed(x))
    for i, name in enumerate(("act", "act3", "act4", "act2")):
        window = slice((i + 1) * T, (i + 2) * T)
        assert spikes[name][window].sum() == spikes[name].sum() > 0


def test_a_value_that_two_layers_wait_for_is_delayed_once():
    def run(m, h):
        late = m.act3(m.a(h))
        return torch.cat([m.b(late) + h, late - h], 1)

    parts = {name: conv(4, 4) for name in "ab"} | {"act3": nn.ReLU()}
    assert delays(waiting(lambda: middle(run, **parts))) == [T]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: middle(lambda m, h: h, act=lambda: nn.LeakyReLU(0.1)), "can wait"),
        (lambda: middle(lambda m, h: m.p(h + 1) + h, p=nn.MaxPool2d(3, 1, 1)), "p can't wait"),
        (lambda: middle(lambda m, h: F.max_pool2d(h, 2)), "choose schedule='pipelined'"),
        (lambda: middle(lambda m, h: torch.sigmoid(h)), 'wait for spikes at File ".*test_plan'),
        (lambda: middle(lambda m, h: m.p(h), p=nn.MaxPool2d(2, dilation=2)), "places apart"),
    ],
)  # fmt: skip
def test_what_cannot_wait_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        waiting(make)


def test_a_maximum_of_the_picture_itself_needs_no_waiting():
    model = trained(
        lambda: Net(
            lambda m, x: m.head(m.act(m.c(m.p(x))).flatten(1)),
            p=nn.MaxPool2d(2),
            c=conv(2, 4),
            act=QCFS(4, 2.0),
            head=nn.LazyLinear(3),
        )
    )
    dense = prepared(model, "waiting")
    plan = Plan("qcfs", 4, (2, 8, 8), {"act": Population(model.act.ceiling.detach())}, "waiting")
    torch.testing.assert_close(assemble(dense, plan).answer(images()), model(images()))


def test_plans_of_other_networks_are_refused():
    dense = prepared(trained(NETWORKS["convolution"]))
    plan = planned(dense)
    more = Plan("x", T, plan.shape, plan.populations | {"other": plan.populations["act"]})
    with pytest.raises(InputError, match="a plan for 'other', which Net lacks"):
        assemble(dense, more)
    units = Plan("x", T, plan.shape, plan.populations, units={"other": 0.5})
    with pytest.raises(InputError, match="a plan for 'other', which Net lacks"):
        assemble(dense, units)
    less = Plan("x", T, plan.shape, {"act": plan.populations["act"]})
    with pytest.raises(InputError, match="no population for act2"):
        assemble(dense, less)


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 2, 8, 7), (3, 1, 8, 8)])
def test_samples_of_another_shape_are_refused(shape):
    dense = prepared(trained(NETWORKS["convolution"]))
    with pytest.raises(InputError, match=r"must be \[B, \*\[2, 8, 8\]\]"):
        assemble(dense, planned(dense)).answer(torch.zeros(shape))


ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    "inputs",
    [
        {"threshold": torch.tensor(0.0)},
        {"threshold": torch.tensor([1.0, -1.0])},
        {"threshold": torch.tensor(float("nan"))},
        {"threshold": torch.tensor(float("inf"))},
        {"threshold": torch.tensor(1)},
        {"threshold": torch.zeros(0)},
        {"threshold": 1.0},
        {"threshold": ONE, "offset": torch.tensor(float("inf"))},
        {"threshold": ONE, "levels": 0},
        {"threshold": ONE, "levels": 2.0},
        {"threshold": ONE, "levels": True},
        {"threshold": ONE, "slope": -0.1},
        {"threshold": ONE, "slope": 2},
        {"threshold": ONE, "slope": float("nan")},
        {"threshold": ONE, "slope": "0"},
        {"threshold": ONE, "emit": "binary"},
        {"threshold": ONE, "emit": ["graded"]},
    ],
)
def test_populations_that_cannot_be_are_refused(inputs):
    with pytest.raises(InputError, match="Population"):
        Population(**inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        {"steps": 0},
        {"steps": True},
        {"steps": 2.0},
        {"steps": 10**9},
        {"shape": (0,)},
        {"shape": (2, -1)},
        {"shape": (2.0,)},
        {"shape": (LARGEST, 2)},
        {"delay": -1},
        {"delay": 10**9},
        {"schedule": "other"},
        {"schedule": []},
        {"method": 1},
        {"populations": {}},
        {"shape": ()},
        {"units": [1.0]},
        {"units": {"a": 3.0}},
        {"units": {"a": 0.0}},
        {"units": {"a": 2.0**200}},
        {"units": {"a": True}},
    ],
    ids=str,
)
def test_plans_that_cannot_be_are_refused(inputs):
    plain = {"method": "x", "steps": 4, "shape": (2,), "populations": {"a": Population(ONE)}}
    with pytest.raises(InputError, match="Plan"):
        Plan(**plain | inputs)
