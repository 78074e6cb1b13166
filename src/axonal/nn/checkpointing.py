"""Training in less memory: layers keep one bit for each spike that they are fed, and run again.

Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of packed spikes: between two layers of
neurons runs nothing else, so that a bit each is all that a second run needs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..ops.modes import transformed
from .neurons import Neuron

CHUNKS = 8  # of time, in which layers run: what is between them is never there for all steps


class Packed:
    """A tensor of 0 and 1 on a CPU in a bit for each entry, any other as it is."""

    def __init__(self, tensor: Tensor):
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.data: np.ndarray | Tensor = tensor
        if tensor.device.type == "cpu" and bool(((tensor == 0) | (tensor == 1)).all()):
            self.data = np.packbits(tensor.to(torch.uint8).numpy())

    def open(self) -> Tensor:
        """The tensor."""
        if isinstance(self.data, Tensor):
            return self.data
        bits = torch.from_numpy(np.unpackbits(self.data, count=self.shape.numel()))
        return bits.to(self.dtype).reshape(self.shape)


class Segment:
    """Layers without state, then neurons: what runs again as one.

    Args:
        layers: run on every step at once.
        neuron: behind them; chunks of time equal one run.
    """

    def __init__(self, layers: Sequence[nn.Module], neuron: Neuron):
        self.layers, self.neuron = layers, neuron
        modules = nn.ModuleList([*layers, neuron])
        self.parameters = [p for p in modules.parameters() if p.requires_grad]

    def __call__(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [T, B, ...] and the neurons' state -> spikes and the state."""
        return self.neuron(each_step(self.layers, x), state)


def each_step(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """x [T, B, ...] through layers without state, once if it is the same in every step."""
    if not layers:
        return x
    steps, same = x.shape[:2], x.stride(0) == 0
    x = x[0] if same else x.flatten(0, 1)
    for layer in layers:
        x = layer(x)
    return x.expand(*steps, *x.shape[1:]) if same else x.unflatten(0, steps)


class _Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segment: Segment, x: Tensor, state: Tensor | None, *parameters: Tensor):
        ctx.segment, ctx.chunks = segment, []
        y, done = x.new_empty(0), 0
        with torch.no_grad():
            for part in x.detach().split(max(1, -(-len(x) // CHUNKS))):
                ctx.chunks.append((Packed(part), state))
                spikes, state = segment(part, state)
                if not done:
                    y = spikes.new_empty(len(x), *spikes.shape[1:])
                y[done : (done := done + len(spikes))] = spikes
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Any):
        parameters = ctx.segment.parameters
        sums: list[Tensor | None] = [None] * len(parameters)
        grad_x, end = None, len(grad_y)
        for packed, before in reversed(ctx.chunks):
            x = packed.open().requires_grad_(ctx.needs_input_grad[1])
            state = None if before is None else before.detach().requires_grad_()
            with torch.enable_grad():
                outputs = ctx.segment(x, state)
            begin = end - len(x)
            reached = grad_y[begin:end], grad_state
            to_x, grad_state, *grads = _gradients(outputs, reached, (x, state, *parameters))
            if to_x is not None:
                grad_x = x.new_empty(len(grad_y), *x.shape[1:]) if grad_x is None else grad_x
                grad_x[begin:end] = to_x
            end = begin
            sums = [_sum(a, b) for a, b in zip(sums, grads, strict=True)]
        return None, grad_x, grad_state, *sums


def _gradients(
    outputs: tuple[Tensor, ...], reached: tuple[Tensor, ...], inputs: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradient of each of `inputs`, None for those that need none."""
    pairs = [(o, g) for o, g in zip(outputs, reached, strict=True) if o.requires_grad]
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    ends, grads = zip(*pairs, strict=True)
    results = iter(torch.autograd.grad(ends, wanted, grads, allow_unused=True))
    return [next(results) if t is not None and t.requires_grad else None for t in inputs]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def checkpoint(segment: Segment, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """`segment(x, state)` in chunks of time, of which x stays packed until they run again.

    Under the transforms of `torch.func` and in forward mode nothing is packed.

    Args:
        segment: what runs.
        x: [T, ...], spikes, or anything at the price of its size.
        state: of the neurons, None for rest.
    """
    if transformed():
        return segment(x, state)
    return _Checkpoint.apply(segment, x, state, *segment.parameters)
