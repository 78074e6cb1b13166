"""Spike trains of other frameworks' neurons, as their code was read and run: decay 0.9,
threshold 1, an effective drive of 0.45 a step; steps count from 1."""

import math

import pytest
import torch

from axonal.core.errors import InputError
from axonal.nn import presets

SOFT = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40]
HARD = list(range(3, 41, 3))
LATE = [3, 6, 8, 11, 14, 17, 19, 22, 25, 28, 30, 33, 36, 39]
TAU = -1 / math.log(0.9)

GOLDEN = {
    "SpikingJelly, soft": (presets.spikingjelly_lif(10.0, v_reset=None), 4.5, SOFT),
    "SpikingJelly, hard": (presets.spikingjelly_lif(10.0), 4.5, HARD),
    "SpikingJelly, input not decayed": (presets.spikingjelly_lif(10.0, False), 0.45, HARD),
    "snnTorch, subtract": (presets.snntorch_leaky(0.9), 0.45, LATE),
    "snnTorch, zero": (presets.snntorch_leaky(0.9, reset_mechanism="zero"), 0.45, HARD),
    "Norse, LIFBox": (presets.norse_lif_box(), 4.5, HARD),
    "Spyx": (presets.spyx_lif(0.9), 0.45, [t + 1 for t in LATE]),
    "Sinabs": (presets.sinabs_lif(TAU), 4.5, SOFT),
    "Lava": (presets.lava_cuba(1.0, 0.1), 0.45, HARD),
}


@pytest.mark.parametrize(("neuron", "drive", "train"), GOLDEN.values(), ids=GOLDEN)
def test_golden_train(neuron, drive, train):
    spikes, _ = neuron(torch.full((40, 1, 1), drive, dtype=torch.float64))
    assert (spikes.flatten().nonzero().flatten() + 1).tolist() == train


def loop(update, x):
    """The train of a framework's own update, written out over plain numbers."""
    state, train = (0.0, 0.0), []
    for value in x.tolist():
        spike, state = update(value, state)
        train.append(spike)
    return train


def norse(x, state):
    v, i = state
    i = i + x
    v = v + 0.1 * (0.0 - v + i)
    i = i - 0.2 * i
    return (1.0, (0.0, i)) if v > 1 else (0.0, (v, i))


def synaptic(x, state):
    mem, syn = state
    late = 1.0 if mem > 1 else 0.0
    syn = 0.8 * syn + x
    mem = 0.9 * mem + syn - late
    return float(mem > 1), (mem, syn)


def rockpool(x, state):
    v, i = state
    i = (i + x) * math.exp(-1 / 20)
    v = v * math.exp(-1 / 20) + i
    n = max(0.0, math.floor(v))
    return n, (v - n, i)


def sinabs(x, state):
    v, i = state
    a, b = math.exp(-1 / 10), math.exp(-1 / 5)
    i = b * (i + x)
    v = a * v + (1 - a) * i
    n = max(0.0, math.floor(v))
    return n, (v - n, i)


@pytest.mark.parametrize(
    ("neuron", "update", "scale"),
    [
        (presets.norse_lif(), norse, 2.0),
        (presets.snntorch_synaptic(0.8, 0.9), synaptic, 0.3),
        (presets.rockpool_lif(), rockpool, 0.5),
        (presets.sinabs_lif(10.0, 5.0), sinabs, 4.0),
    ],
    ids=["norse", "snntorch", "rockpool", "sinabs"],
)
def test_neurons_with_a_current_equal_their_updates_written_out(neuron, update, scale):
    torch.manual_seed(0)
    x = scale * torch.randn(400, dtype=torch.float64) + scale / 2
    spikes, _ = neuron(x[:, None, None])
    assert spikes.flatten().tolist() == loop(update, x) and spikes.any()


def test_what_has_no_preset_is_refused():
    with pytest.raises(InputError, match="tau"):
        presets.spikingjelly_lif(1.0)
    with pytest.raises(InputError, match="v_reset"):
        presets.spikingjelly_lif(v_reset=-1.0)
