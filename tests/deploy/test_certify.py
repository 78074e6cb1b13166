import pytest
import torch

from axonal.core.errors import InputError
from axonal.deploy.certify import certify
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.nn import LIF, Recurrent, Sequential


def network():
    torch.manual_seed(0)
    return Sequential(
        torch.nn.Linear(12, 20),
        LIF(0.9, threshold=0.4),
        torch.nn.Linear(20, 8, bias=False),
        Recurrent(LIF(0.8, threshold=0.3), torch.nn.Linear(8, 8, bias=False)),
    )


def test_the_engine_fires_as_torch():
    x = (torch.rand(30, 3, 12) < 0.3).float()
    result = certify(network(), x)
    assert result.compared == {"1": 30 * 3 * 20, "3.neuron": 30 * 3 * 8}
    assert result.share == 1 and not result.first
    assert "spike for spike the same: 2,520 values" in str(result)


def test_the_first_difference_is_named():
    x = (torch.rand(30, 2, 12) < 0.3).float()
    one, other = network(), network()
    with torch.no_grad():
        other[0].weight[5] += 0.2
    result = certify(one, x, Engine(trace(other, x[:1])))
    assert 0 < result.share < 1
    step, sample, neuron, torch_sent, engine_sent = result.first["1"]
    assert neuron == 5 and (torch_sent, engine_sent) == (0, 1) and sample in (0, 1)
    assert f"in step {step} of sample {sample}: neuron 5 sends 1 in the engine" in str(result)


def test_without_neurons_there_is_nothing_to_compare():
    with pytest.raises(InputError, match="no neurons"):
        certify(Sequential(torch.nn.Linear(3, 2)), torch.zeros(2, 1, 3))
