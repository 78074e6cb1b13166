import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError
from axonal.nn import LIF, Delay, DelayedLinear, Noise, Recurrent, Sequential


def chunks_equal_one_run(layer, x, cut):
    y, final = layer(x)
    first, state = layer(x[:cut])
    second, state = layer(x[cut:], state)
    torch.testing.assert_close(torch.cat([first, second]), y)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize(
    "layer",
    [
        Delay(3),
        Delay(0),
        Delay(torch.tensor([0.0, 2.0, 5.0, 1.0])),
        Delay(torch.tensor([0.0, 2.5, 4.0, 1.0]), learn=True, width=0.7),
        DelayedLinear(4, 3, 5),
        DelayedLinear(4, 3, 5, learn=False, width=0.0),
        Recurrent(LIF(0.9), nn.Linear(4, 4)),
        Noise(0.5, seed=3),
        Sequential(Noise(0.3), DelayedLinear(4, 6, 2), Recurrent(LIF(), nn.Linear(6, 6)), Delay(2)),
    ],
    ids=list("abcdefghi"),
)
@given(cut=st.integers(1, 8))
def test_chunks_equal_one_run(layer, cut):
    torch.manual_seed(0)
    chunks_equal_one_run(layer, torch.randn(9, 2, 4), cut)


@given(st.integers(0, 6), st.integers(1, 5))
def test_a_delay_moves_in_time(steps, length):
    x = torch.randn(length, 2, 3)
    y, line = Delay(steps)(x)
    padded = torch.cat([torch.zeros(steps, 2, 3), x])
    assert torch.equal(y, padded[:length]) and torch.equal(line, padded[length:])


def test_each_channel_of_an_image_has_its_delay():
    x = torch.randn(4, 1, 2, 3, 3)
    y, _ = Delay(torch.tensor([0.0, 1.0]))(x)
    assert torch.equal(y[:, :, 0], x[:, :, 0]) and torch.equal(y[1:, :, 1], x[:-1, :, 1])


def test_a_synapse_delays_its_own_input():
    layer = DelayedLinear(2, 1, 3, width=0.0, bias=False)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([[0.0, 3.0]]))
        layer.linear.weight.copy_(torch.tensor([[1.0, 10.0]]))
    x = torch.arange(1.0, 11.0).reshape(5, 1, 2)
    y, _ = layer(x)
    assert y.flatten().tolist() == [1, 3, 5, 7 + 20, 9 + 40]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Delay(torch.tensor([1.0]), most=6, learn=True, width=1.5),
        lambda: DelayedLinear(1, 1, 6, width=1.5, bias=False),
    ],
    ids=["axonal", "synaptic"],
)
def test_a_delay_is_learned(make):
    torch.manual_seed(0)
    x = torch.randn(40, 4, 1)
    target, _ = Delay(4, most=6)(x)
    layer = make()
    if isinstance(layer, DelayedLinear):
        nn.init.ones_(layer.linear.weight)
    optimizer = torch.optim.Adam([layer.delay], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (layer(x)[0] - target).square().mean().backward()
        optimizer.step()
    assert layer.delay.item() == pytest.approx(4, abs=0.15)


def test_recurrence_is_the_loop_written_out():
    torch.manual_seed(0)
    neuron, connection = LIF(0.8), nn.Linear(4, 4)
    x = torch.randn(6, 2, 4)
    spikes, (inner, last) = Recurrent(neuron, connection)(x)
    state, back = None, torch.zeros(2, 4)
    for t in range(6):
        y, state = neuron((x[t] + connection(back))[None], state)
        back = y[0]
        assert torch.equal(spikes[t], back)
    assert torch.equal(inner, state) and torch.equal(last, back)
    spikes.sum().backward()
    assert connection.weight.grad.abs().sum() > 0


def test_noise_has_its_deviation_and_depends_on_the_seed_alone():
    x = torch.zeros(200, 4, 50)
    y, _ = Noise(0.5, seed=1)(x)
    assert y.std().item() == pytest.approx(0.5, rel=0.02) and abs(y.mean()) < 0.01
    assert torch.equal(y, Noise(0.5, seed=1)(x)[0])
    assert not torch.equal(y, Noise(0.5, seed=2)(x)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Delay(-1), "must lie in"),
        (lambda: Delay(torch.tensor([3.0]), most=2), r"must lie in \[0, 2\]"),
        (lambda: Delay(torch.tensor([torch.nan])), "delays must lie"),
        (lambda: Delay(1, width=-1.0), "width"),
        (lambda: Delay(torch.tensor([1.0, 2.0]))(torch.zeros(3, 1, 5)), "2 delays"),
        (lambda: Delay(1)(torch.zeros(3, 1, 5), torch.zeros(2, 1, 5)), "state of a delay"),
        (lambda: DelayedLinear(2, 2, 1)(torch.zeros(3, 1, 5)), "give"),
        (lambda: Noise(-1.0), "deviation"),
        (lambda: Recurrent(LIF(), nn.Identity())(torch.zeros(0, 1, 2)), "no time step"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
