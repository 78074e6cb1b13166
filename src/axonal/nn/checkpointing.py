"""Training in less memory: layers keep one bit for each spike that they are fed, and run again.

Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) with what is kept packed: between two
layers of neurons runs nothing but spikes, so that a bit each is all that a second run needs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Run = Callable[[Tensor, tuple], tuple[Tensor, tuple]]
CHUNKS = 8  # of time, in which layers run: what is between them is never there for all steps


class Packed:
    """A tensor of 0 and 1 on a CPU in a bit for each entry, any other as it is."""

    def __init__(self, tensor: Tensor):
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.kept: np.ndarray | Tensor = tensor
        if tensor.device.type == "cpu" and bool(((tensor == 0) | (tensor == 1)).all()):
            self.kept = np.packbits(tensor.to(torch.uint8).numpy())

    def open(self) -> Tensor:
        """The tensor."""
        if isinstance(self.kept, Tensor):
            return self.kept
        bits = torch.from_numpy(np.unpackbits(self.kept, count=self.shape.numel()))
        return bits.to(self.dtype).reshape(self.shape)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, count: int, x: Tensor, *tensors: Tensor):
        ctx.run, ctx.count, ctx.chunks = run, count, []
        state, whole, done = tensors[:count], x.new_empty(0), 0
        with torch.no_grad():
            for part in x.detach().split(max(1, -(-len(x) // CHUNKS))):
                ctx.chunks.append((Packed(part), state))
                y, state = run(part, state)
                if not done:
                    whole = y.new_empty(len(x), *y.shape[1:])
                whole[done : (done := done + len(y))] = y
        return whole, *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *reached: Any):
        needed = ctx.needs_input_grad[2:]
        sums: list[Tensor | None] = [None] * (len(needed) - 1 - ctx.count)
        grad_x, end = None, len(grad_y)
        for packed, before in reversed(ctx.chunks):
            x = packed.open().requires_grad_(needed[0])
            state = tuple(tensor.detach().requires_grad_() for tensor in before)
            with torch.enable_grad():
                outputs, after = ctx.run(x, state)
            begin = end - len(x)
            reaching = (grad_y[begin:end], *reached)
            found = _gradients((outputs, *after), reaching, (x, *state, *ctx.run.parameters))
            if found[0] is not None:
                grad_x = x.new_empty(len(grad_y), *x.shape[1:]) if grad_x is None else grad_x
                grad_x[begin:end] = found[0]
            end = begin
            reached = tuple(found[1 : 1 + len(state)])
            sums = [_sum(a, b) for a, b in zip(sums, found[1 + len(state) :], strict=True)]
        return None, None, grad_x, *reached[: ctx.count], *sums


def _gradients(
    outputs: tuple[Tensor, ...], reached: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """What reaches each of `inputs`, None for those that need no gradient."""
    pairs = [(o, g) for o, g in zip(outputs, reached, strict=True) if o.requires_grad]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    ends, grads = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, grads, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def again(run: Any, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`run(x, state)` in chunks of time, of which x is kept packed until they run again.

    Args:
        run: a function of x and a tuple of tensors, returning the same, with an attribute
            `parameters`, the tensors that it uses beside; chunks equal the whole.
        x: [T, ...], spikes, or anything at the price of its size.
        state: tensors.
    """
    y, *after = _Again.apply(run, len(state), x, *state, *run.parameters)
    return y, tuple(after)
