"""Layers one after another, over time, with their state handed in and out."""

from typing import Any

from torch import Tensor, nn

from ..core.errors import InputError
from .neurons import Neuron

State = tuple[Any, ...]


class Sequential(nn.Sequential):
    """`y, state = net(x, state)`: neurons run over time, other layers on every step at once.

    A layer with state is a `Neuron` or another `Sequential`; any other takes [T x B, ...], as it
    would a batch. The state is a tuple with one entry for each layer, None for those without.
    """

    def forward(self, input: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """input [T, B, ...] and the state of an earlier call (None: rest) -> output, state.

        Raises:
            InputError: no batch behind time, or a state that belongs to other layers.
        """
        if input.dim() < 2:
            raise InputError(f"Sequential: input {list(input.shape)} must be [T, B, ...]")
        state = (None,) * len(self) if state is None else state
        if not isinstance(state, tuple) or len(state) != len(self):
            raise InputError(
                f"Sequential: the state must be a tuple of {len(self)} entries, one a layer; "
                "pass back what the last call returned, or None"
            )
        y, after = input, []
        for index, (layer, before) in enumerate(zip(self, state, strict=True)):
            if isinstance(layer, Neuron | Sequential):
                y, before = layer(y, before)
            elif before is None:
                y = layer(y.flatten(0, 1)).unflatten(0, y.shape[:2])
            else:
                raise InputError(f"Sequential: layer {index} keeps no state; its entry is None")
            after.append(before)
        return y, tuple(after)
