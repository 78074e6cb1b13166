"""Which operations have a rule for changes, and which are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from axonal.convert import sigma_delta
from axonal.core.errors import InputError


class Calls(nn.Module):
    """A network whose middle is the function under test."""

    def __init__(self, middle):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.gain, self.middle = nn.Parameter(torch.rand(6)), middle

    def forward(self, x):
        return self.last(torch.relu(self.middle(self, self.first(x))))


def equal(net):
    delta, x = sigma_delta(net, torch.zeros(1, 4)), torch.randn(5, 3, 4)
    y, _ = delta(x, delta.start(batch=3))
    expected = net(x.flatten(0, 1)).unflatten(0, (5, 3))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "middle",
    [
        lambda net, h: 2 * h,
        lambda net, h: h / 2,
        lambda net, h: h * net.gain,
        lambda net, h: net.gain * h,
        lambda net, h: h + net.gain,
        lambda net, h: net.gain - h,
        lambda net, h: h.relu(),
        lambda net, h: F.leaky_relu(h, 0.3),
        lambda net, h: F.leaky_relu(h, negative_slope=0.3),
        lambda net, h: h - h.mean(1, keepdim=True),
    ],
    ids=[str(i) for i in range(10)],
)
def test_linear_forms(middle):
    torch.manual_seed(0)
    equal(Calls(middle))


@pytest.mark.parametrize(
    "middle",
    [
        lambda net, h: h * h,
        lambda net, h: 1 / (h + 3),
        lambda net, h: h - h.mean(),
        lambda net, h: h - h.mean(0),
        lambda net, h: h - h.sum((0, 1)),
        lambda net, h: torch.sigmoid(h),
    ],
    ids=[str(i) for i in range(6)],
)
def test_what_is_not_linear_in_each_sample_is_refused(middle):
    with pytest.raises(InputError, match=r"no rule to send changes through .* at File"):
        sigma_delta(Calls(middle), torch.zeros(1, 4))


def test_activations_may_have_any_name():
    torch.manual_seed(0)
    parts = {"input": nn.Linear(4, 6), "output": nn.ReLU(), "state": nn.Linear(6, 2)}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    equal(net)


def test_deep_residual_chains_are_followed_once():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.last = nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x):
            h = self.act(x)
            for _ in range(60):
                h = h + h
            return self.last(h)

    delta = sigma_delta(Deep(), torch.zeros(1, 4))
    assert delta.fanouts()["act"] == 2
