import pytest
import torch
from torch import nn

from axonal.core.errors import InputError
from axonal.nn import LIF, Current, Delay, Leaky, Neuron, Sequential
from axonal.nn.checkpointing import Packed


def network(recompute):
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(6, 12),
        Neuron(Leaky(decay=0.9), learn=["decay"]),
        Delay(1),
        nn.Linear(12, 9),
        nn.Tanh(),
        Neuron(Current(threshold=0.5)),
        Sequential(nn.Linear(9, 4), LIF(0.8)),
        nn.Linear(4, 2),
        recompute=recompute,
    )


def gradients(net, x, state=None):
    x = x.clone().requires_grad_()
    y, after = net(x, state)
    loss = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() + after[1].square().sum()
    return [y, after[1], after[5], *torch.autograd.grad(loss, [x, *net.parameters()])]


def test_the_same_outputs_and_gradients():
    x = 3 * torch.rand(7, 3, 6)
    torch.testing.assert_close(gradients(network(True), x), gradients(network(False), x))


def test_the_same_from_a_state_on():
    x = 3 * torch.rand(4, 3, 6)
    _, state = network(False)(x)
    state = tuple(s.detach() if isinstance(s, torch.Tensor) else s for s in state)
    state = (*state[:6], None, None)
    torch.testing.assert_close(
        gradients(network(True), x, state), gradients(network(False), x, state)
    )


def test_gradients_flow_from_one_chunk_to_the_chunk_before():
    x = 3 * torch.rand(6, 2, 6)
    results = []
    for recompute in (True, False):
        net = network(recompute)
        first, state = net(x[:3])
        second, _ = net(x[3:], state)
        results.append(torch.autograd.grad((first.sum() + second.sum()), list(net.parameters())))
    torch.testing.assert_close(*results)


def test_a_retained_graph_gives_its_gradients_again():
    net = network(True)
    loss = net(3 * torch.rand(6, 2, 6))[0].sum()
    first, second = (
        torch.autograd.grad(loss, list(net.parameters()), retain_graph=keep)
        for keep in (True, False)
    )
    assert all(map(torch.equal, first, second)) and any(g.any() for g in first)


@pytest.mark.parametrize("size", [1, 7, 8, 65])
def test_spikes_are_packed_into_bits_and_nothing_else(size):
    spikes = (torch.rand(size, 3) > 0.5).float()
    packed = Packed(spikes)
    assert not isinstance(packed.data, torch.Tensor) and packed.data.nbytes == -(-3 * size // 8)
    assert torch.equal(packed.open(), spikes)
    other = spikes + 0.5
    assert Packed(other).open() is other


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(3)])
def test_layers_that_a_second_run_changes_are_refused(layer):
    with pytest.raises(InputError, match="leave out recompute"):
        Sequential(nn.Linear(3, 3), layer, LIF(), recompute=True)
