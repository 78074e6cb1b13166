import pytest
import torch
from torch import nn

from axonal.core.errors import InputError
from axonal.nn import IF, LIF, Sequential, SigmaDelta


def network() -> Sequential:
    torch.manual_seed(0)
    return Sequential(
        nn.Conv2d(1, 3, 3),
        LIF(0.9),
        nn.Flatten(),
        Sequential(nn.Linear(48, 5), IF(0.2)),
        nn.Linear(5, 2),
    )


def test_time_is_folded_into_the_batch_and_state_threaded():
    net, x = network(), torch.rand(4, 2, 1, 6, 6) * 3
    y, state = net(x)
    assert y.shape == (4, 2, 2) and len(state) == len(net)
    assert [entry is None for entry in state] == [True, False, True, False, True]
    spikes, _ = net[1](torch.stack([net[0](step) for step in x]))
    spikes, _ = net[3](spikes.flatten(2))
    torch.testing.assert_close(y, torch.stack([net[4](step) for step in spikes]))


def test_streaming_in_chunks_is_one_run():
    net, x = network(), torch.rand(6, 2, 1, 6, 6) * 3
    y, final = net(x)
    first, state = net(x[:2])
    second, state = net(x[2:], state)
    torch.testing.assert_close(torch.cat([first, second]), y)
    torch.testing.assert_close(state[1], final[1])
    torch.testing.assert_close(state[3][1], final[3][1])


def test_training_reaches_every_weight():
    net = network()
    net(torch.rand(4, 2, 1, 6, 6) * 3)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_sigma_delta_chain_sums_to_the_dense_answer():
    linear = nn.Linear(4, 3, bias=False)
    net = Sequential(SigmaDelta(0.0, negative_slope=1.0), linear, SigmaDelta(0.0))
    x = torch.randn(5, 2, 4)
    torch.testing.assert_close(net(x)[0].cumsum(0), linear(x.cumsum(0)).relu())


def test_slices_and_saved_weights_are_those_of_torch():
    net = network()
    assert isinstance(net[:2], Sequential) and isinstance(net[1], LIF)
    assert list(net.state_dict())[:2] == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (torch.zeros(3), None, "T, B"),
        (torch.zeros(3, 2, 4), (None,), "2 entries"),
        (torch.zeros(3, 2, 4), torch.zeros(2), "tuple of 2"),
        (torch.zeros(3, 2, 4), (torch.zeros(1), None), "layer 0 keeps no state"),
        (torch.zeros(3, 2, 4), (None, torch.zeros(1, 9, 4)), "pass back the state"),
    ],
)
def test_what_does_not_fit_is_refused(x, state, message):
    with pytest.raises(InputError, match=message):
        Sequential(nn.Linear(4, 4), IF())(x, state)
