"""The convolution as torch operators, which follow events or compute densely, call by call.

There is no kernel for GPUs: dense tensor cores are faster there, and `convolution` is torch's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ..modes import transformed
from . import cpu

# All of these were measured on two cores with AVX-512, against oneDNN, with kernels of 3 x 3 and
# 5 x 5, 4 to 128 channels, and events at random places.
NARROWEST = 2**14  # products of a place of the output; below, events are too short
LARGEST = 2**18  # weights: what stays in a core's L2 cache
SMALLEST = 2**28  # products of a pass; below, starting the kernels takes too long
# The shares of values that are not zero up to which events are faster.
GATHER, SCATTER, OUTER = 0.2, 0.3, 0.26


@torch.library.custom_op("axonal::convolution", mutates_args=(), device_types="cpu")
def fused(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    """Convolve x [N, C, H, W] with weight [O, C, rows, columns] and bias [O], channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    if cpu.share(x) <= GATHER and _finite(weight):
        return cpu.forward(x, weight, bias, _pair(padding))
    y = conv2d(x, weight, bias, padding=_pair(padding))
    return y.contiguous(memory_format=torch.channels_last)


@fused.register_fake
def _(x, weight, bias, padding):
    shape = (len(x), len(weight), *cpu.places(x, weight, padding))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op("axonal::convolution_backward", mutates_args=(), device_types="cpu")
def fused_backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias as far as `wanted`; others are empty."""
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    grads = _gradients(grad, x, weight, _pair(padding), wanted)
    to_x, to_weight, to_bias = (
        room if g is None else g if g.stride() == room.stride() else room.copy_(g)
        for room, g in zip(_rooms(x, weight, wanted), grads, strict=True)
    )
    return to_x, to_weight, to_bias


@fused_backward.register_fake
def _(grad, x, weight, padding, wanted):
    return _rooms(x, weight, wanted)


def _rooms(x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients of x, weight and bias; empty for those not wanted."""
    x, other = x if wanted[0] else x[:0], weight if wanted[1] else weight[:0]
    to_x = torch.empty_like(x, memory_format=torch.channels_last)
    return to_x, torch.empty_like(other), weight.new_empty(len(weight) if wanted[2] else 0)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of x, weight and bias, each the faster way; None for those not wanted."""
    share = cpu.share(grad)
    results: list[Tensor | None] = [None, None, None]
    to_weight = any(wanted[1:]) and share <= OUTER
    do = wanted[0] and share <= SCATTER and _finite(weight), to_weight
    if any(do) and (grads := cpu.backward(grad, x, weight, padding, do)):
        done = do[0], to_weight and wanted[1], to_weight and wanted[2]
        results = [g if did else None for g, did in zip(grads, done, strict=True)]
    left = [want and mine is None for want, mine in zip(wanted, results, strict=True)]
    if not any(left):
        return results
    dense = _dense(grad, x, weight, padding, left)
    return [g if mine is None else mine for mine, g in zip(results, dense, strict=True)]


def _dense(
    grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias as torch computes them; None for those not wanted."""
    how = [1, 1], padding, [1, 1], False, [0, 0], 1  # stride, dilation, transposed, groups
    return torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *how, wanted)


def _finite(weight: Tensor) -> bool:
    return bool(weight.isfinite().all())


def _pair(padding: Sequence[int]) -> tuple[int, int]:
    rows, columns = padding
    return rows, columns


def _keep(ctx, inputs, output):
    x, weight, _, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad):
    (x, weight), wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():  # gradients of the gradients are wanted, which torch's own has
        grads = _dense(grad, x, weight, ctx.padding, wanted)
    else:
        grads = fused_backward(grad, x, weight, ctx.padding, wanted)
    return *(g if want else None for g, want in zip(grads, wanted, strict=True)), None


fused.register_autograd(_differentiate, setup_context=_keep)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """As `torch.nn.functional.conv2d` with stride 1; faster where there is little to multiply.

    On CPUs, for float32 that lies channels last, each pass follows events where that is faster:
    the forward pass those of x (spikes, or values that are mostly zero), the gradient of x those
    of the output's gradient (mostly zero behind a maximum), as does that of the weights.
    They are the same sums in another order, the same on any number of threads. Whatever else is
    given, and whatever isn't finite, goes through torch's own passes; so do autocast regions, the
    transforms of `torch.func`, forward-mode differentiation and gradients of gradients.

    Args:
        x: [N, C, H, W].
        weight: [O, C, rows, columns].
        bias: [O], or None.
        padding: rows and columns of zeros on each side.

    Returns:
        [N, O, H', W'] with H' = H + 2 padding[0] - rows + 1, and W' alike.
    """
    if _suits(x, weight, bias, padding):
        return fused(x, weight, bias, padding)
    return conv2d(x, weight, bias, padding=padding)


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> bool:
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
        return False
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1]:
        return False  # torch takes it, or says what is wrong
    height, width = cpu.places(x, weight, padding)
    products = height * width * weight.numel()  # of a sample
    return (
        min(height, width) > 0 <= min(padding)
        and NARROWEST <= weight.numel() <= LARGEST
        and len(x) * products >= SMALLEST
        and x.is_contiguous(memory_format=torch.channels_last)
        and not (torch.is_autocast_enabled("cpu") or transformed())
    )
