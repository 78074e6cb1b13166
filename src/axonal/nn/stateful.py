"""What every layer with a state has in common."""

from typing import Any

from torch import nn


class Stateful(nn.Module):
    """A layer called as `y, state = layer(x, state)`, time first, with nothing kept inside.

    `Sequential` hands such layers their state; all others run on every step at once.
    """

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """x [T, B, ...] and the state of an earlier call (None: rest) -> y [T, B, ...], state."""
        raise NotImplementedError
