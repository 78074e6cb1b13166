import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net
from torch import nn

from axonal.convert.methods.sigma_delta import INPUT, sigma_delta
from axonal.core.errors import InputError
from axonal.models.flow import FlowConfig, FlowUNet


class StillLabel(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(2, 2), conv(2, 3)
        self.act = nn.ReLU()

    def forward(self, x, still):
        return self.b(self.act(self.a(still - x) + still)) - x.sum(1, keepdim=True)


def conv(inside, outside, **options):
    return nn.Conv2d(inside, outside, 3, **{"padding": 1} | options)


def unet(**sizes):
    options = {"size": 8, "patch": 1, "widths": (4, 8), "depths": (1, 1), "classes": 3}
    return FlowUNet(FlowConfig(**options | sizes))


def middle(run, **parts):
    """conv - ReLU - `run` - conv, where `run` maps 4 channels to 4."""
    return Net(
        lambda m, x: m.last(run(m, m.act(m.first(x)))),
        first=conv(2, 4),
        act=nn.ReLU(),
        last=conv(4, 2),
        **parts,
    )


def plain():
    layers = [conv(2, 4, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))


def cat_residual():
    def run(m, h):
        return m.merge(torch.cat([h, m.act2(m.inner(h))], 1)) + h

    return middle(run, inner=conv(4, 4), act2=nn.ReLU(), merge=conv(8, 4))


NETWORKS = {
    "unet": unet,
    "deep unet": lambda: unet(patch=2, widths=(3, 4, 5), depths=(1, 0, 2)),
    "plain": plain,
    "cat": cat_residual,
    "functional": lambda: Net(lambda m, x: m.b(F.relu(m.a(x))), a=conv(2, 3), b=conv(3, 1)),
    "torch.relu": lambda: Net(lambda m, x: torch.relu(m.a(x)), a=conv(2, 3)),
    "still": StillLabel,
    "constants": lambda: middle(lambda m, h: (1 - h * 2) / 3 + 0.5),
    "shuffle": lambda: middle(lambda m, h: torch.pixel_unshuffle(F.pixel_shuffle(h, 2), 2)),
    "nearest": lambda: middle(lambda m, h: F.interpolate(h, scale_factor=2.0)),
    "bilinear": lambda: middle(lambda m, h: F.interpolate(h, scale_factor=1.5, mode="bilinear")),
    "pad and slice": lambda: middle(lambda m, h: F.pad(h, (1, 0))[..., :-1]),
    "in place": lambda: Net(
        lambda m, x: (lambda h: h + m.b(m.act(h)))(m.a(x)),
        a=conv(2, 3),
        b=conv(3, 3),
        act=nn.ReLU(inplace=True),
    ),
    "one ReLU twice": lambda: Net(
        lambda m, x: m.act(m.b(m.act(m.a(x)))), a=conv(2, 3), b=conv(3, 3), act=nn.ReLU()
    ),
    "sizes": lambda: Net(
        lambda m, x: m.l(m.act(m.a(x)).view(x.size(0), -1)),
        a=conv(2, 3),
        l=nn.Linear(192, 2),
        act=nn.ReLU(),
    ),
}


def trained(name, seed=0):
    """The network with every parameter and statistic away from its start, and a walk for it."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().eval()
    shape = (1 if isinstance(model, FlowUNet) else 2, 8, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
        for key, value in model.named_buffers():
            if "running" in key:
                value.add_(torch.rand_like(value))
    walk = torch.randn(5, 3, *shape).cumsum(0) / 3
    if isinstance(model, FlowUNet):
        return model, walk, (torch.tensor([0, 2, 1]),)
    return model, walk, (torch.randn(3, *shape),) if name == "still" else ()


def unfolded(name, factor=0.0):
    """The network, its sigma-delta twin at `factor` standard deviations, a walk and a start."""
    model, walk, still = trained(name)
    twin = sigma_delta(model, walk[0], *still)
    start = twin.start(*still, batch=walk.shape[1])
    spread = twin.spread(lambda: twin(walk, start))
    twin.set_thresholds({key: factor * value for key, value in spread.items()})
    return model, twin, walk, start, still


@torch.no_grad()
def dense(model, walk, still):
    return torch.stack([model(x, *still) for x in walk])


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def events(twin, run):
    """How many events `run` sends, by population, and the last state of each."""
    sent, handles = {}, []
    for name, neuron in twin.neurons.items():

        def keep(module, args, output, name=name):
            sent[name] = int(output[0].count_nonzero())

        handles.append(neuron.register_forward_hook(keep))
    result = run()
    for handle in handles:
        handle.remove()
    return sent, result


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", NETWORKS)
def test_without_thresholds_it_computes_what_the_network_does(name):
    model, twin, walk, start, still = unfolded(name)
    expected = dense(model, walk, still)
    torch.testing.assert_close(twin(walk, start)[0], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_equal_the_whole(name):
    _, twin, walk, state, _ = unfolded(name, 0.2)
    total, last = twin(walk, state)
    parts = []
    for x in walk:
        y, state = twin(x[None], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), total, rtol=1e-4, atol=1e-5)
    for key in last:
        torch.testing.assert_close(state[key], last[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_do_not_meet(name):
    _, twin, walk, start, _ = unfolded(name, 0.2)
    together, _ = twin(walk, start)
    for i in range(walk.shape[1]):
        alone, _ = twin(walk[:, i : i + 1], {k: v[:, i : i + 1] for k, v in start.items()})
        torch.testing.assert_close(alone, together[:, i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_silence_after_the_input_has_stopped(name):
    _, twin, walk, start, _ = unfolded(name, 0.1)
    _, state = twin(walk, start)
    first, state = twin(walk[-1:], state)
    sent, (then, _) = events(twin, lambda: twin(walk[-1:].expand(4, *walk.shape[1:]), state))
    assert not any(sent.values())
    assert torch.equal(then, first.expand_as(then))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_state_is_a_value(name):
    _, twin, walk, start, _ = unfolded(name, 0.2)
    remaining, x = {k: v.clone() for k, v in start.items()}, walk.clone()
    (once, after), (again, after2) = twin(walk, start), twin(walk, start)
    assert torch.equal(once, again) and same_state(after, after2)
    assert same_state(start, remaining) and torch.equal(walk, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_held_back_stays_below_the_threshold(name):
    _, twin, walk, start, _ = unfolded(name, 0.3)
    thresholds = twin.thresholds()
    for _, state in [twin(walk, start), twin(walk[:2], start)]:
        for key, neuron in twin.neurons.items():
            v, sent = state[key]
            held = torch.where(v > 0, v, neuron.dynamics.negative_slope * v) - sent
            assert held.abs().max() <= thresholds[key] + 1e-6, key


@pytest.mark.parametrize("name", NETWORKS)
def test_the_error_goes_with_the_thresholds(name):
    errors = []
    for factor in (0.5, 0.05, 0.005, 0.0005):
        model, twin, walk, start, still = unfolded(name, factor)
        errors.append(float((twin(walk, start)[0] - dense(model, walk, still)).abs().max()))
    assert errors[0] > 10 * errors[2] and errors[1] > 10 * errors[3] and errors[3] < 2e-3


@settings(max_examples=10)
@given(st.floats(0.1, 5), st.integers(0, 100))
def test_scale_multiplies_every_threshold(scale, seed):
    _, twin, walk, start, _ = unfolded("cat", 0.1)
    scaled, _ = twin(walk, start, scale)
    twin.set_thresholds({k: v * scale for k, v in twin.thresholds().items()})
    assert torch.equal(twin(walk, start)[0], scaled)


def test_a_threshold_can_differ_between_channels():
    _, twin, walk, start, _ = unfolded("cat")
    twin.set_thresholds({"act": torch.tensor([0.0, 1e6, 0.0, 0.0])[:, None, None]})
    v, sent = twin(walk, start)[1]["act"]
    held = (v.relu() - sent).abs().amax((0, 2, 3))
    assert held[1] > 0 and (held[[0, 2, 3]] < 1e-5).all()


def test_weights_are_shared():
    model, twin, walk, start, still = unfolded("plain")
    before = dense(model, walk, still)
    model[0].weight.mul_(2)
    start = twin.start(batch=3)
    after = dense(model, walk, still)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(twin(walk, start)[0], after, rtol=1e-4, atol=2e-5)
    own = {p.data_ptr() for p in twin.parameters()}
    assert {p.data_ptr() for p in model.parameters()} == own


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_stays_as_it_was(name):
    model, walk, still = trained(name)
    before, state = dense(model, walk, still), {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    sigma_delta(model, walk[0], *still)
    assert all(m.training for m in model.modules())
    assert same_state(state, model.state_dict())
    assert torch.equal(dense(model.eval(), walk, still), before)


def test_double_precision_is_kept():
    model, walk, _ = trained("cat")
    twin = sigma_delta(model.double(), walk[0].double())
    twin.set_thresholds({INPUT: 0.0})
    y, _ = twin(walk.double(), twin.start(batch=3))
    torch.testing.assert_close(y, dense(model, walk.double(), ()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"act9": 0.1}, "no neurons named 'act9'; there are input, act, act2"),
        ({"act": -0.1}, "threshold of act must be finite and at least 0"),
        ({"act": float("nan")}, "must be finite"),
        ({"input": float("inf")}, "must be finite"),
        ({"act": torch.tensor([0.1, -0.1, 0, 0])[:, None, None]}, "at least 0"),
    ],
)
def test_thresholds_without_meaning_are_refused(thresholds, message):
    _, twin, *_ = unfolded("cat")
    with pytest.raises(InputError, match=message):
        twin.set_thresholds(thresholds)


@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (5, 3, 2, 8, 7), (5, 3, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    _, twin, walk, start, _ = unfolded("cat")
    with pytest.raises(InputError, match=r"it must be \[T, B, \*\(2, 8, 8\)\]"):
        twin(torch.zeros(shape), start)
    with pytest.raises(InputError, match="x has batch 2 but the state 3; call start"):
        twin(walk[:, :2], start)


class Softmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return torch.softmax(self.act(x), 1)  # the line that the message names


def test_the_line_of_an_operation_without_a_rule_is_named():
    line = Softmax.forward.__code__.co_firstlineno + 1
    with pytest.raises(InputError, match=rf'softmax.* at File ".*{__file__}", line {line},'):
        sigma_delta(Softmax(), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("run", "parts", "message"),
    [
        (lambda m, h: h * h, {}, r"mul \(mul\)"),
        (lambda m, h: 1 / (h + 1), {}, "truediv"),
        (lambda m, h: m.norm(h), {"norm": nn.LayerNorm(8)}, "LayerNorm norm"),
        (lambda m, h: m.pool(h), {"pool": nn.MaxPool2d(3, 1, 1)}, "MaxPool2d pool"),
        (lambda m, h: m.gelu(h), {"gelu": nn.GELU()}, "GELU gelu"),
        (
            lambda m, h: m.norm(h),
            {"norm": nn.BatchNorm2d(4, track_running_stats=False)},
            "BatchNorm2d norm",
        ),
        (lambda m, h: F.pad(h, (1, 1), value=1.0), {}, "pad"),
        (lambda m, h: F.pad(h, (1, 1), "constant", 1.0), {}, "pad"),
        (lambda m, h: h.add(1, alpha=2), {}, "add"),
        (lambda m, h: torch.add(h, 1, alpha=2), {}, "add"),
        (lambda m, h: torch.div(h, 2, rounding_mode="floor"), {}, "div"),
    ],
)
def test_what_is_not_linear_is_refused_by_name(run, parts, message):
    with pytest.raises(InputError, match=rf"no rule to send changes through .*{message}.*test_sig"):
        sigma_delta(middle(run, **parts), torch.zeros(1, 2, 8, 8))


def test_a_network_without_activation_is_refused():
    with pytest.raises(InputError, match="Sequential has no activation"):
        sigma_delta(nn.Sequential(conv(2, 2)), torch.zeros(1, 2, 8, 8))


def test_control_flow_on_data_is_refused():
    model = Net(lambda m, x: m.act(x) if x.sum() > 0 else x, act=nn.ReLU())
    with pytest.raises(InputError, match="can't trace Net"):
        sigma_delta(model, torch.zeros(1, 2))


def test_an_output_that_is_no_tensor_is_refused():
    model = Net(lambda m, x: (m.act(x), None), act=nn.ReLU())
    with pytest.raises(InputError, match=r"Net must return tensors, and returns \['1'\]"):
        sigma_delta(model, torch.zeros(1, 2))


def test_sites_are_the_neurons_of_a_sample():
    assert unfolded("cat")[1].sites() == {"input": 128, "act": 256, "act2": 256}
    assert unfolded("plain")[1].sites() == {"input": 128, "_2": 64, "_7": 5}


def test_fanouts_count_the_synapses_up_to_the_edge():
    # A 3 x 3 kernel reaches 22 x 22 of 24 x 24 places of an 8 x 8 image padded by 1: 484 / 64.
    _, twin, *_ = unfolded("functional")
    edge = 484 / 64
    assert twin.fanouts() == pytest.approx({"input": edge * 3, "relu": edge * 1})
    model, walk, _ = trained("plain")
    # With stride 2 the rows 0..7 are read by 1, 2, 1, 2, 1, 2, 1, 1 of the 4 windows' rows.
    assert sigma_delta(model, walk[0]).fanouts() == pytest.approx(
        {"input": 11 * 11 / 64 * 4, "_2": 16 * 5 / 64, "_7": 3}
    )


def test_a_change_that_two_layers_read_meets_both():
    model = Net(
        lambda m, x: (lambda h: m.b(h) + m.c(h))(m.act(m.a(x))),
        a=nn.Linear(2, 3),
        b=nn.Linear(3, 5),
        c=nn.Linear(3, 5),
        act=nn.ReLU(),
    )
    assert sigma_delta(model, torch.zeros(1, 2)).fanouts() == {"input": 3, "act": 10}


def test_leaky_activations_keep_their_slope():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(0.2), nn.Linear(9, 2)).eval()
    delta, x = sigma_delta(net, torch.zeros(1, 4)), torch.randn(6, 3, 4)
    y, _ = delta(x, delta.start(batch=3))
    torch.testing.assert_close(y, net(x), atol=1e-5, rtol=0)
