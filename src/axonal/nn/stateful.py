"""What every layer with a state has in common."""

from torch import nn


class Stateful(nn.Module):
    """A layer called as `y, state = layer(x, state)`, time first, with nothing kept inside.

    x and y are [T, B, ...]; the state is what an earlier call returned, or None for rest.
    `Sequential` hands such layers their state; all others run on every step at once.
    """
