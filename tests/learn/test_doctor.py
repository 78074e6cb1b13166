import pytest
import torch
from torch import nn

from axonal.core.errors import InputError
from axonal.core.neurons import Leaky
from axonal.learn.doctor import examine
from axonal.nn import Neuron, Sequential


@pytest.mark.parametrize(
    ("reset", "h"),
    [("subtract", [0.4, 0.6, 0.7, 1.2, 1.4, 0.4]), ("late", [0.4, 0.6, 0.7, 1.2, 0.9, 0.65])],
)
def test_figures_are_those_of_the_membranes(reset, h):
    net = Sequential(Neuron(Leaky(decay=0.5, reset=reset), "triangle"))
    # Three steps of two neurons, of which one fires.
    x = torch.tensor([[0.4, 0.4, 0.4], [1.2, 1.3, 0.2]], requires_grad=True)

    def loss(network, batch, generator):
        return network(batch["x"].T[..., None].expand(-1, -1, 2))[0].sum(), {}

    (figures,) = examine(net, {"x": x}, loss).figures.values()
    h = torch.tensor(h)
    assert figures["rate"] == pytest.approx(float((h >= 1).float().mean()))
    assert figures["spread"] == pytest.approx(float(h.repeat(2).std() / (1 - h.mean())), rel=1e-5)
    assert figures["support"] == 1.0 and figures["silent"] == 0.0
    assert figures["memory"] == 0.5 and figures["sharpness"] == 1.0


def test_a_network_without_neurons_is_refused():
    with pytest.raises(InputError, match="no spiking neurons"):
        examine(Sequential(nn.Linear(40, 5)), {"x": torch.zeros(2, 40)}, None)
