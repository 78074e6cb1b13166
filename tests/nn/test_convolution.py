import copy
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from axonal.nn import LIF, Conv2d, Sequential
from axonal.nn.meter import Meter
from axonal.ops.convolution import op

ALL = dict.fromkeys(("GATHER", "SCATTER", "OUTER"), 1.0) | {"NARROWEST": 0, "SMALLEST": 0}


def twins(*options, **named):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, *options, **named)
    ours = Conv2d(4, 6, *options, **named)
    ours.load_state_dict(load(save(plain.state_dict())))
    return plain, ours


def spikes(*shape):
    torch.manual_seed(1)
    return (torch.rand(*shape) < 0.2).float().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", [0, 2, (1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_events_yield_the_layer_of_torch(padding, bias):
    x, results = spikes(9, 4, 7, 8), []
    with patch.multiple(op, **ALL), patch.object(op, "fused", wraps=op.fused) as fused:
        for layer in twins(3, padding=padding, bias=bias):
            x = x.detach().requires_grad_()
            y = layer(x)
            y.square().sum().backward()
            results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    assert fused.call_count == 1
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": (0, 2), "padding_mode": "circular"},
    ],
    ids=str,
)
def test_what_kernels_do_not_do_is_left_to_torch(options):
    plain, ours = twins(3, **options)
    x = spikes(9, 4, 7, 8)
    with patch.multiple(op, **ALL, fused=None):
        torch.testing.assert_close(ours(x), plain(x))


def test_hooks_meters_and_copies_see_a_convolution():
    plain, ours = twins(3)
    seen: list[torch.Size] = []
    ours.register_forward_hook(lambda layer, inputs, y: seen.append(y.shape))
    x, counts = spikes(10, 4, 7, 8).unflatten(0, (5, 2)), []
    for layer in (plain, copy.deepcopy(ours)):
        net = Sequential(layer, LIF(0.9))
        with torch.no_grad(), Meter(net) as meter:
            y, _ = net(x)
        counts.append((y, meter.counts()))
    (plain_y, plain_counts), (y, ours_counts) = counts
    assert torch.equal(plain_y, y) and repr(plain_counts) == repr(ours_counts)
    assert seen == [(10, 6, 5, 6)]
