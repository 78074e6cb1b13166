import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.nn import QCFS, Leaky, Neuron, rectifier


@given(st.integers(1, 16), st.floats(0.01, 100), st.integers(0, 1000))
def test_it_clips_and_rounds(levels, ceiling, seed):
    x = ceiling * torch.randn(50, generator=torch.Generator().manual_seed(seed)).double()
    layer = QCFS(levels, ceiling).double()
    y = layer(x).detach()
    unit = float(layer.ceiling.detach()) / levels
    expected = unit * (x / unit + 0.5).floor().clamp(0, levels)
    torch.testing.assert_close(y, expected)
    inside = (x > 0) & (x < ceiling)
    assert ((y - x)[inside].abs() <= unit / 2 + 1e-9).all()


def test_gradients_pass_straight_through():
    layer = QCFS(4, 2.0)
    x = torch.tensor([-1.0, 0.6, 1.3, 5.0], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [0, 0.5, 1.5, 2]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    # Of what lies inside the difference to the rounded value, of what is clipped all.
    assert layer.ceiling.grad.item() == pytest.approx((0.5 - 0.6 + 1.5 - 1.3) / 2 + 1)


def test_the_ceiling_learns():
    layer, x = QCFS(8, 1.0), torch.rand(1000) * 3
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(x) - x).square().mean().backward()
        optimiser.step()
    assert 2.5 < float(layer.ceiling.detach()) < 3.5


@given(st.integers(1, 8), st.integers(0, 100))
def test_a_neuron_sends_the_same_in_as_many_steps(levels, seed):
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    layer = QCFS(levels, 1.5)
    neuron = Neuron(Leaky(emit="integer", threshold=1.5))
    with torch.no_grad():
        spikes, _ = neuron(x.expand(levels, 1, 64))
        torch.testing.assert_close(1.5 * spikes.mean(0)[0], layer(x))


@pytest.mark.parametrize(
    ("levels", "ceiling"),
    [(0, 1.0), (-1, 1.0), (2.5, 1.0), (4, 0.0), (4, -1.0), (4, float("nan")), (4, 1e400)],
)
def test_what_it_cannot_be_is_refused(levels, ceiling):
    with pytest.raises(InputError, match="QCFS"):
        QCFS(levels, ceiling)


def test_a_rectifier_has_levels_or_none():
    assert type(rectifier(0)) is nn.ReLU
    assert rectifier(4).levels == 4 and "4 levels up to 4" in str(rectifier(4))
