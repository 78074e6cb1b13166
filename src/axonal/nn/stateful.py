"""The contract of layers with a state."""

from typing import Any

from torch import nn

# What a layer hands out to be passed back: a tensor, a number, or a tuple or mapping of these.
State = Any


class Stateful(nn.Module):
    """A layer called as `y, state = layer(x, state)`, time first, with nothing kept inside.

    x and y are [T, B, ...]; the state is what an earlier call returned, or None for rest.
    `Sequential` hands such layers their state; all others run on every step at once.
    """
