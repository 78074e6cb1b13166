import pytest
import torch
from torch import nn

from axonal.nn import LI, LIF, Recurrent, Sequential, watch
from axonal.nn.hooks import rates, tally, watch_reads


def network():
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(4, 5), LIF(0.5), Recurrent(LIF(0.9), nn.Linear(5, 5)), nn.Linear(5, 3), LI()
    )


def test_what_neurons_send_is_seen_once_for_each_call_and_not_after():
    net, x = network(), torch.rand(6, 2, 4) * 4
    with watch(net) as sent:
        y, _ = net(x)
    net(x)
    assert list(sent) == ["1", "2.neuron"]
    assert [len(parts) for parts in sent.values()] == [1, 6]
    expected, _ = net[0:2](x)
    torch.testing.assert_close(sent["1"][0], expected)
    y.sum().backward()
    assert sent["1"][0].grad_fn is not None
    with tally(net) as counted:
        net(x)
    shares = rates(counted)
    assert shares["1"] == pytest.approx(float(expected.detach().mean()))
    assert shares["2.neuron"] == pytest.approx(float(torch.cat(sent["2.neuron"]).detach().mean()))
    with watch(net, readouts=True) as sent:
        y, _ = net(x)
    torch.testing.assert_close(sent["4"][0], y)
    with watch({"mine": net[1]}) as sent:
        net(x)
    assert list(sent) == ["mine"]


def test_the_inputs_of_maps_are_seen():
    net, x = network(), torch.rand(6, 2, 4)
    with watch_reads(net) as read:
        net(x)
    assert list(read) == ["0", "2.connection", "3"]
    torch.testing.assert_close(read["0"][0], x.flatten(0, 1))
