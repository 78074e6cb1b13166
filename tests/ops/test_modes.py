"""Every way in which torch differentiates gives the gradients of the reference, or refuses."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from axonal.core.errors import InputError
from axonal.core.neurons import Current, Dynamics, Leaky
from axonal.learn.rules.eventprop import eventprop
from axonal.nn import LIF, Conv2d, Neuron, Recurrent, Sequential
from axonal.ops.convolution import op
from axonal.ops.scan import reference, scan

# torch's own, when its rules of forward mode are loaded
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
KINDS = pytest.mark.parametrize(
    "dynamics",
    [*(kind() for kind in Dynamics.KINDS.values()), Leaky(emit="integer", levels=3)],
    ids=lambda dynamics: f"{type(dynamics).__name__} {dynamics.emit}",
)


def drawn(dynamics, steps=4, batch=2, neurons=3):
    torch.manual_seed(0)
    rest = torch.tensor(dynamics.rest, dtype=torch.float64)[:, None, None]
    state = rest + torch.rand(dynamics.state_size, batch, neurons, dtype=torch.float64)
    return 3 * torch.rand(steps, batch, neurons, dtype=torch.float64), state


def plain(x, state, dynamics):
    """The scan as the definition has it."""
    return reference.scan(x, state, {}, dynamics, "atan", 2.0)


def joined(run, state, dynamics):
    """A function of x alone: spikes and the last state, in one row."""
    return lambda x: torch.cat([part.flatten() for part in run(x, state, dynamics)])


@KINDS
def test_forward_mode_and_functional_reverse_mode(dynamics):
    x, state = drawn(dynamics)
    expected = torch.autograd.functional.jacobian(joined(plain, state, dynamics), x)
    assert expected.any(), "a test without gradients shows nothing"
    f = joined(scan, state, dynamics)
    torch.testing.assert_close(jacfwd(f)(x), expected)
    torch.testing.assert_close(jacrev(f)(x), expected)
    change = torch.rand_like(x)
    torch.testing.assert_close(jvp(f, (x,), (change,))[1], (expected * change).sum((1, 2, 3)))
    with torch.autograd.forward_ad.dual_level():
        y = f(torch.autograd.forward_ad.make_dual(x, change))
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(tangent, (expected * change).sum((1, 2, 3)))


@KINDS
def test_gradients_of_gradients(dynamics):
    x, state = drawn(dynamics)
    results = []
    for run in (scan, plain):
        leaves = [t.clone().requires_grad_() for t in (x, state)]
        loss = (joined(run, leaves[1], dynamics)(leaves[0]) ** 2).sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves)
        results.append([*first, *second])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert results[0][2].any(), "a test without gradients shows nothing"


def test_gradients_of_gradients_by_constants_and_in_half_precision():
    dynamics = Leaky(decay=0.9)
    x = torch.rand(1, 2, 3, dtype=torch.bfloat16, requires_grad=True)
    decay = torch.full((3,), 0.8, requires_grad=True)
    y, state = scan(x, None, dynamics, steps=5, decay=decay)
    to_x, to_decay = torch.autograd.grad(y.sum() + state.sum(), (x, decay), create_graph=True)
    again = torch.autograd.grad(to_decay.sum(), (x, decay))
    assert to_x.dtype == again[0].dtype == torch.bfloat16 and all(g.any() for g in again)


def test_a_hessian():
    dynamics = Leaky(decay=0.9, reset="none")
    x, state = drawn(dynamics, 3, 1, 1)

    def f(x):
        return scan(x, state, dynamics)[1].square().sum()

    powers = 0.9 ** torch.arange(2, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(hessian(f)(x).reshape(3, 3), 2 * torch.outer(powers, powers))


def network(recompute=False):
    torch.manual_seed(0)
    layers = [Conv2d(2, 4, 3, padding=1), LIF(0.9), nn.Flatten(1), nn.Linear(64, 5), LIF(0.8)]
    return Sequential(*layers, recompute=recompute)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_each_sample(recompute, monkeypatch):
    monkeypatch.setattr(op, "NARROWEST", 0)
    monkeypatch.setattr(op, "SMALLEST", 0)
    net = network(recompute)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    x = (torch.rand(6, 3, 2, 4, 4) < 0.2).float()

    def loss(weights, sample):
        return (functional_call(net, weights, (sample[:, None],))[0] - 1).square().sum()

    each = vmap(grad(loss), in_dims=(None, 1))(weights, x)
    for i in range(3):
        net.zero_grad()
        (net(x[:, i : i + 1])[0] - 1).square().sum().backward()
        for name, p in net.named_parameters():
            assert p.grad.any()
            torch.testing.assert_close(each[name][i], p.grad, rtol=1e-4, atol=1e-5)


def test_a_gradient_penalty_reaches_the_weights(monkeypatch):
    gradients = []
    for smallest in (0, 2**60):  # by events, and by torch alone
        monkeypatch.setattr(op, "NARROWEST", 0)
        monkeypatch.setattr(op, "SMALLEST", smallest)
        net = network()
        torch.manual_seed(1)
        x = torch.rand(6, 3, 2, 4, 4).requires_grad_()
        (to_x,) = torch.autograd.grad(net(x)[0].sum(), x, create_graph=True)
        to_x.square().sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
        assert len(gradients[-1]) >= 2 and all(g.any() for g in gradients[-1][:1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_recurrent_networks_in_forward_mode():
    torch.manual_seed(0)
    net = Recurrent(Neuron(Leaky(decay=0.9)), nn.Linear(3, 3, dtype=torch.float64))
    x = 2 * torch.rand(4, 2, 3, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda x: net(x)[0], x)
    torch.testing.assert_close(jacfwd(lambda x: net(x)[0])(x), expected)


def test_a_compiled_forward_mode():
    x, state = drawn(Leaky())
    f, change = joined(scan, state, Leaky(decay=0.9)), torch.ones_like(x)
    expected = jvp(f, (x,), (change,))[1]
    assert expected.any()
    compiled = torch.compile(lambda x: jvp(f, (x,), (change,))[1], backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)


def test_event_prop_refuses_transforms():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), Neuron(Current(reset="zero")))
    x = torch.zeros(4, 1, 3)
    with pytest.raises(InputError, match=r"torch\.func"):
        grad(lambda x: eventprop()(net, x, torch.sum)[0])(x)
