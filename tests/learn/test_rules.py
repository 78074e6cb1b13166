from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.learn import rules
from axonal.learn.losses import activity, first_spike, membrane_cross_entropy, spiking
from axonal.learn.rules import RULES, rule_named
from axonal.nn import (
    LI,
    LIF,
    AdaptiveCurrent,
    AdaptiveThreshold,
    Current,
    Delay,
    DelayedLinear,
    IntegerLIF,
    Leaky,
    Neuron,
    Recurrent,
    Sequential,
    SigmaDelta,
)
from axonal.ops.scan.reference import Tensors, constants

T, B, N, J, C = 9, 4, 6, 7, 3
LABEL = torch.tensor([0, 1, 2, 1])
OPTIONS = {"truncated": {"steps": 4}, "sltt-k": {"k": 3}}
NAMES = ("bptt", "truncated", "sltt", "sltt-k", "ottt", "e-prop")
ONLINE = ("sltt", "sltt-k", "ottt", "e-prop")


@pytest.fixture(autouse=True)
def _exact():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def objective(y):
    return F.cross_entropy(y.flatten(0, 1), LABEL.repeat(len(y)))


def spikes(*shape, steps=T):
    return (torch.rand(steps, B, *shape or (N,)) < 0.5).double()


def hidden(neuron, *behind):
    return Sequential(nn.Linear(N, J), neuron, nn.Linear(J, C), *behind)


def gradients(rule, network, x, **options):
    """The gradient of each parameter under a rule, by name."""
    network.zero_grad()
    rule = rule_named(rule, **options) if isinstance(rule, str) else rule
    loss, outputs = rule(network, x, objective)
    assert all(p.grad is None for p in network.parameters()) and not outputs.requires_grad
    loss.backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def same(result, expected):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().sum() > 0, f"{name} has no gradient: a test of nothing"
        torch.testing.assert_close(result[name], value, rtol=1e-9, atol=1e-12, msg=name)


def differ(result, expected):
    return float((result - expected).norm() / expected.norm()) > 0.05


class Smooth(Neuron):
    """LIF whose spike is the sigmoid that its surrogate is the derivative of."""

    class Algebra(Tensors):
        def surrogate(self, x):
            return torch.sigmoid(self.slope * x) / x

        def straight_through(self, value, gradient):
            return gradient

    def forward(self, x, state=None):
        m, p = self.Algebra(x, "sigmoid", 4.0), constants(x, {}, self.dynamics)
        state = tuple(x.new_zeros(1, *x.shape[1:]) if state is None else state)
        sent = []
        for x_t in x:
            s, state = self.dynamics.step(m, x_t, state, p)
            sent.append(s)
        return torch.stack(sent), torch.stack(state)


def test_bptt_is_the_slope_of_the_loss():
    neurons = [Smooth(Leaky(decay=0.8, detach_reset=False)) for _ in range(2)]
    network = deep(Recurrent(neurons[0], nn.Linear(J, J)), neurons[1])
    x = spikes()
    grads = gradients("bptt", network, x)
    for name, parameter in network.named_parameters():
        direction, h = torch.randn_like(parameter), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * h * direction
                values.append(objective(network(x)[0]))
                parameter -= sign * h * direction
        slope = (values[0] - values[1]) / (2 * h)
        assert slope == pytest.approx(float((grads[name] * direction).sum()), rel=1e-6), name


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_hands_over_gradients_and_changes_nothing_else(name):
    network = hidden(LIF(0.9))
    network[0].bias.requires_grad_(False)
    x = spikes()[:1].expand(T, B, N)
    torch.manual_seed(1)
    grads = gradients(name, network, x, **OPTIONS.get(name, {}))
    assert set(grads) == {"0.weight", "2.weight", "2.bias"}
    torch.manual_seed(1)
    loss, outputs = rule_named(name, **OPTIONS.get(name, {}))(network, x, objective)
    torch.testing.assert_close(outputs, network(x)[0].detach())
    assert loss.item() == pytest.approx(objective(outputs).item())
    network.zero_grad()
    (-3 * loss).backward()
    same({n: p.grad for n, p in network.named_parameters() if n in grads}, scaled(grads, -3))
    with torch.no_grad():
        assert not rule_named(name, **OPTIONS.get(name, {}))(network, x, objective)[0].requires_grad


def scaled(grads, factor):
    return {name: factor * value for name, value in grads.items()}


@given(steps=st.integers(1, T), seed=st.integers(0, 99), reset=st.sampled_from(["zero", "none"]))
@settings(max_examples=8, deadline=None)
def test_truncated_is_bptt_with_the_state_cut(steps, seed, reset):
    torch.manual_seed(seed)
    first = Recurrent(LIF(0.9, reset=reset, threshold=0.2), nn.Linear(J, J))
    network, x = hidden(first, LI(0.8)), spikes()

    def cut(network, x, objective):
        state, loss = None, 0.0
        for part in x.split(steps):
            y, (_, (v, s), _, u) = network(part, state)
            loss = loss + objective(y) * len(part) / T
            state = None, (v.detach(), s.detach()), None, u.detach()
        return loss, network(x)[0].detach()

    same(gradients("truncated", network, x, steps=steps), gradients(cut, network, x))
    if steps == T:
        same(gradients("truncated", network, x, steps=T), gradients("bptt", network, x))


@pytest.mark.parametrize(("decay", "steps"), [(0.9, 1), (0.0, T)])
@pytest.mark.parametrize("name", ["sltt", "ottt", "e-prop"])
def test_without_memory_all_rules_are_bptt(name, decay, steps):
    network, x = Sequential(*hidden(LIF(decay)), LIF(decay)), spikes(steps=steps)
    same(gradients(name, network, x), gradients("bptt", network, x))


def test_sltt_k_is_sltt_at_k_steps():
    network, x = hidden(LIF(0.9)), spikes(steps=3)
    parts = {}
    for seed in range(20):
        first = int(torch.randperm(3, generator=torch.Generator().manual_seed(seed))[0])
        generator = torch.Generator().manual_seed(seed)
        parts[first] = gradients("sltt-k", network, x, k=1, generator=generator)
    total = {name: sum(parts[t][name] for t in range(3)) for name in parts[0]}
    same(total, gradients("sltt", network, x))
    same(gradients("sltt-k", network, x, k=5), total)


@given(
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    last=st.booleans(),
    reset=st.sampled_from(["subtract", "late", "none"]),
    depth=st.integers(0, 2),
)
@settings(max_examples=15, deadline=None)
def test_ottt_is_bptt_where_a_leak_is_all_memory(stride, groups, last, reset, depth):
    torch.manual_seed(stride)
    layers = (
        lambda: nn.Linear(5, 4),
        lambda: nn.Conv1d(2, 4, 3, stride),
        lambda: nn.Conv2d(2, 4, 3, stride, 1, groups=groups),
    )
    network = Sequential(layers[depth](), LIF(0.7, reset=reset, threshold=0.3), nn.Flatten())
    x = spikes(*(2, 5, 5)[: max(2, depth + 1)])
    network.append(nn.Linear(network(x)[0].shape[2], C))
    if last and depth == 2:
        network = network.to(memory_format=torch.channels_last)
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (T, B))
    same(gradients("ottt", network, x), gradients("bptt", network, x))


def deep(neuron, second):
    return Sequential(nn.Linear(N, J), neuron, nn.Linear(J, J), second, nn.Linear(J, C))


def in_space_then_time(network, x, objective):
    """Gradients that leave a layer within the step, and then go back through its own memory."""
    first, lower, second, upper, out = network
    s, _ = lower(first(x))
    own = objective(out(upper(second(s.detach()))[0]))
    state, within = None, 0.0
    for s_t in s.split(1):
        weights = {"weight": second.weight.detach(), "bias": second.bias.detach()}
        y, state = upper(torch.func.functional_call(second, weights, s_t), state)
        state = state.detach()
        y = F.linear(y, out.weight.detach(), out.bias.detach())
        within = within + objective(y) / T
    return own + within, s.detach()


@pytest.mark.parametrize("second", [LIF(0.8), None], ids=["another", "the same"])
@pytest.mark.parametrize("name", ["ottt", "e-prop"])
def test_deep_networks_learn_in_space_then_in_time(name, second):
    first = LIF(0.9, threshold=0.5)
    network, x = deep(first, second or first), spikes()
    grads, bptt = gradients(name, network, x), gradients("bptt", network, x)
    same(grads, gradients(in_space_then_time, network, x))
    assert differ(grads["0.weight"], bptt["0.weight"])


def test_ottt_differs_where_a_reset_cuts_memory_and_takes_a_trace_of_its_own():
    leaky = Neuron(Leaky(decay=0.9, reset="zero", threshold=0.4), learn=["decay"])
    network, x = hidden(leaky), spikes()
    bptt = gradients("bptt", network, x)
    assert differ(gradients("ottt", network, x)["0.weight"], bptt["0.weight"])
    same(gradients("ottt", network, x, trace=0.0), gradients("sltt", network, x))
    assert not network[0]._forward_hooks


@pytest.mark.parametrize("name", ["ottt", "e-prop"])
def test_traces_work_in_half_precision(name):
    torch.set_default_dtype(torch.float32)
    network, x = hidden(LIF(0.9)), spikes().float()
    with torch.autocast("cpu", torch.bfloat16):
        grad = gradients(name, network, x)["0.weight"]
        sltt = gradients("sltt", network, x)["0.weight"]
        expected = gradients("bptt", network, x)["0.weight"]
    assert (grad - expected).norm() < 0.05 * expected.norm() and differ(sltt, expected)


KINDS = {
    "leaky": lambda: LIF(0.9, threshold=0.5),
    "zero": lambda: LIF(0.9, reset="zero", threshold=0.5),
    "reset": lambda: LIF(0.9, threshold=0.5, detach_reset=False),
    "refractory": lambda: Neuron(Leaky(decay=0.9, refractory=2, threshold=0.5)),
    "current": lambda: Neuron(Current()),
    "adaptive": lambda: Neuron(AdaptiveThreshold(threshold=0.4)),
    "adaptive reset": lambda: Neuron(AdaptiveThreshold(threshold=0.4, detach_reset=False)),
    "adaptive current": lambda: Neuron(AdaptiveCurrent(threshold=0.05)),
    "integer": lambda: IntegerLIF(levels=3, threshold=0.4),
    "delta": lambda: SigmaDelta(torch.rand(J)),
    "learned": lambda: Neuron(
        AdaptiveThreshold(threshold=0.4),
        values={"threshold": torch.rand(J) + 0.1, "beta": torch.rand(1)},
        learn=["decay", "threshold", "beta"],
    ),
}


@pytest.mark.parametrize("behind", [(), (LI(0.7, gain=0.3),)], ids=["", "leaky readout"])
@pytest.mark.parametrize("kind", KINDS)
def test_e_prop_is_bptt_for_one_population(kind, behind):
    network, x = hidden(KINDS[kind](), *behind), spikes()
    same(gradients("e-prop", network, x), gradients("bptt", network, x))


class Unconnected(Recurrent):
    """Recurrent neurons that gradients don't leave through the connection."""

    def forward(self, x, state=None):
        inner, last, sent = None, torch.zeros_like(x[0]), []
        for x_t in x:
            y, inner = self.neuron((x_t + self.connection(last.detach()))[None], inner)
            last = y[0]
            sent.append(last)
        return torch.stack(sent), (inner, last)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ottt", "leaky"), *(("e-prop", k) for k in ("leaky", "adaptive", "learned"))],
)
def test_traces_leave_out_the_way_through_other_neurons(name, kind):
    behind = () if name == "ottt" else (LI(0.8),)
    network, x = hidden(Recurrent(KINDS[kind](), nn.Linear(J, J)), *behind), spikes()
    grads, bptt = gradients(name, network, x), gradients("bptt", network, x)
    network[1].__class__ = Unconnected
    same(grads, gradients("bptt", network, x))
    assert differ(grads["1.connection.weight"], bptt["1.connection.weight"])


def test_random_feedback_replaces_the_readout_in_the_signal():
    network, x = hidden(LIF(0.9, threshold=0.5)), spikes()
    grads = gradients("e-prop", network, x, feedback="random", seed=5)
    weights = torch.randn(C, J, generator=torch.Generator().manual_seed(5))

    def broadcast(network, x, objective):
        s, out = network[:2](x)[0], network[2]
        y = out(s.detach())
        (signal,) = torch.autograd.grad(objective(y), y, retain_graph=True)
        return objective(y) + (signal @ (weights / J**0.5) * s).sum(), y.detach()

    same(grads, gradients(broadcast, network, x))


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_do_not_learn_hand_errors_on(name):
    network, x = deep(LIF(0.0, threshold=0.3), LIF(0.0, threshold=0.3)), spikes()
    network[2].requires_grad_(False)
    grads, options = gradients("bptt", network, x), {"sltt-k": {"k": T}}.get(name)
    same(gradients(name, network, x, **(options or OPTIONS.get(name, {}))), grads)
    network[0].requires_grad_(False)
    assert set(gradients(name, network, x, **OPTIONS.get(name, {}))) == {"4.weight", "4.bias"}


@pytest.mark.parametrize("name", ["truncated", "sltt", "ottt"])
def test_delays_of_the_input_learn_online(name):
    first = DelayedLinear(N, J, 3), LIF(0.9), nn.Linear(J, C)
    grads = gradients(name, Sequential(*first), spikes(), **OPTIONS.get(name, {}))
    assert grads["0.delay"].any() and grads["0.linear.weight"].any()
    network = Sequential(nn.Linear(N, J), Delay(4), LIF(0.9), nn.Linear(J, C))
    with pytest.raises(InputError, match=r"Delay '1' hands on .* up to 4 steps ago"):
        gradients(name, network, spikes(), **OPTIONS.get(name, {}))
    assert gradients("truncated", network, spikes(), steps=5)["0.weight"].any()


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([nn.Conv1d(1, 1, 1), LIF()], "Conv1d '0'"),
        ([LIF(), nn.Linear(N, J), LIF()], "LIF '0'"),
        ([nn.Linear(N, J), nn.BatchNorm1d(J), LIF()], "BatchNorm1d '1'"),
        ([nn.LayerNorm(N), nn.Linear(N, J), LIF()], "LayerNorm '0'"),
        ([nn.Linear(N, J), Delay(2), LIF()], "Delay '1'"),
        ([nn.Linear(N, J), Recurrent(LIF(), nn.Bilinear(J, J, J))], "Recurrent '1'"),
        ([nn.Linear(N, J)], "no neurons behind an nn.Linear"),
        (hidden(LIF(), Neuron(Current(emit="membrane", reset="none"))), "one decay"),
    ],
)
def test_e_prop_names_what_it_has_no_place_for(layers, said):
    with pytest.raises(InputError, match=said):
        gradients("e-prop", Sequential(*layers), spikes())


def test_wrong_choices_are_refused():
    for name, options, said in [
        ("backprop", {}, "unknown; choose one of bptt"),
        ("truncated", {}, "missing .* 'steps'"),
        ("truncated", {"steps": 0}, "at least 1"),
        ("sltt-k", {"k": 0}, "at least 1"),
        ("ottt", {"trace": 2.0}, "outside"),
        ("sltt", {"k": 3}, "'k'"),
        ("e-prop", {"feedback": "none"}, "not symmetric or random"),
    ]:
        with pytest.raises(InputError, match=said):
            rule_named(name, **options)
    with pytest.raises(InputError, match=r"'1' \(AdaptiveThreshold\) have no one decay"):
        gradients("ottt", hidden(Neuron(AdaptiveThreshold())), spikes())
    with pytest.raises(InputError, match="leave out recompute"):
        gradients("ottt", Sequential(nn.Linear(N, J), LIF(), recompute=True), spikes())
    for name in NAMES:
        with pytest.raises(InputError, match="at least one step"):
            gradients(name, hidden(LIF()), spikes()[:0], **OPTIONS.get(name, {}))
    wide = Sequential(nn.Linear(N, J), LIF(), nn.Flatten(), nn.Linear(5 * J, C))
    with pytest.raises(InputError, match=r"it takes \[T, B, I\]"):
        gradients("e-prop", wide, spikes(5, N))


def peak_memory(name, steps):
    """Bytes that a rule allocates at its peak, beside the outputs."""
    network, x = deep(LIF(0.9), LIF(0.9)), spikes()[:1].expand(steps, B, N)
    rule = rule_named(name, **OPTIONS.get(name, {}))
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as profile:
        outputs = rule(network, x, objective)[1]
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most - outputs.nbytes


@pytest.mark.parametrize("name", ["truncated", *ONLINE])
def test_memory_does_not_grow_with_time(name):
    assert peak_memory(name, 12) == peak_memory(name, 60)


def test_memory_of_bptt_does():
    assert peak_memory("bptt", 48) > 4 * peak_memory("bptt", 8)


def classifier(name):
    """A model of neurons that the rule takes, and the objective that suits its outputs."""
    times = name == "eventprop"
    dynamics = Current(reset="zero") if times else Leaky(decay=1.0)
    layers = [nn.Linear(N, J, bias=False), Neuron(dynamics), nn.Linear(J, C, bias=False)]
    network = Sequential(*layers, *[Neuron(dynamics)] * times)
    for linear in network[::2]:
        linear.weight.data.abs_()
    model = SimpleNamespace(network=network, encode=lambda x: x.transpose(0, 1), training=True)
    return model, first_spike() if times else membrane_cross_entropy()


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, OPTIONS.get(name, {})) for name in RULES), ("e-prop", {"feedback": "random"})],
)
def test_every_rule_learns_a_classification(name, options):
    (model, goal), x = classifier(name), spikes(steps=1).expand(T, B, N)
    loss, losses = spiking(goal, rule=rule_named(name, **options)), []
    optimiser = torch.optim.Adam(model.network.parameters(), lr=0.1)
    batch = {"events": x.transpose(0, 1), "label": LABEL}
    for _ in range(20):
        value, _ = loss(model, batch, torch.Generator())
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    with torch.no_grad():
        value, figures = loss(model, batch, torch.Generator())
    assert value < 0.5 * losses[0] and not value.requires_grad and figures["accuracy"] == 1
    assert ("spikes" in figures) == (name != "eventprop")  # which runs no steps


TOY = """
def toy(scale=1.0):
    def rule(network, x, objective):
        outputs = network(x)[0]
        return scale * objective(outputs), outputs.detach()

    return rule
"""


def test_a_rule_is_one_file_and_one_row(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    monkeypatch.setitem(RULES, "toy", "toy:toy")
    network, x = hidden(LIF(0.9)), spikes()
    same(gradients("toy", network, x, scale=3.0), scaled(gradients("bptt", network, x), 3.0))
    with pytest.raises(InputError, match=r"rule 'toy': .*'speed'; its options are \(scale=1.0\)"):
        rule_named("toy", speed=2)
    with pytest.raises(InputError, match="e-prop, eventprop, toy"):
        rule_named("mpd-ed")


def test_penalties_are_for_bptt_alone():
    for name in RULES:
        options = {"penalties": [activity(0.1)], "rule": rule_named(name, **OPTIONS.get(name, {}))}
        if name == "bptt":
            assert spiking(membrane_cross_entropy(), **options)
            continue
        with pytest.raises(InputError, match="choose the rule bptt"):
            spiking(membrane_cross_entropy(), **options)
