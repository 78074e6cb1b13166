"""Layers one after another, over time, with their state handed in and out."""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .checkpointing import Segment, checkpoint, each_step
from .neurons import Neuron
from .stateful import State, Stateful

# What would not be the same when it runs a second time.
UNSTEADY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class Sequential(nn.Sequential, Stateful):
    """Layers in sequence over time: `y, state = net(x, state)`.

    `Stateful` layers (neurons, delays, another `Sequential`) run over time and are handed their
    state; any other takes all steps at once, [T x B, ...], as it would a batch. The state is a
    tuple with one entry for each layer, None for those without. An input that is the same in every
    step (`image.expand(T, ...)`) runs once through the layers before the first state; dropout among
    these then has one mask.

    Args:
        layers: as of `torch.nn.Sequential`.
        recompute: train in little memory: between neurons keep one bit for each spike (on CPUs;
            elsewhere the spikes), and run the layers from one neuron to the next again in the
            backward pass.

    Raises:
        InputError: `recompute` with layers that a second run changes.
    """

    def __init__(self, *layers: Any, recompute: bool = False):
        super().__init__(*layers)
        self.recompute = recompute
        if recompute and (unsteady := [m for m in self.modules() if isinstance(m, UNSTEADY)]):
            raise InputError(
                f"Sequential: {type(unsteady[0]).__name__} differs when it runs again; "
                "leave out recompute"
            )

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
        y, after, waiting = input, [], []
        recompute = self.recompute and torch.is_grad_enabled()
        for index, (layer, before) in enumerate(zip(self, state, strict=True)):
            if isinstance(layer, Neuron) and recompute:
                y, before = checkpoint(Segment(waiting, layer), y, before)
                waiting = []
            elif type(layer).forward is Neuron.forward and len(y) > 1 and not y.stride(0):
                y, before = layer(each_step(waiting, y[:1]), before, steps=len(y))
                waiting = []
            elif isinstance(layer, Stateful):
                y, before = layer(each_step(waiting, y), before)
                waiting = []
            elif before is None:
                waiting.append(layer)
            else:
                raise InputError(f"Sequential: layer {index} keeps no state; its entry is None")
            after.append(before)
        return each_step(waiting, y), tuple(after)
