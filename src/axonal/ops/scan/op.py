"""The scan as torch operators: what autograd, `torch.compile` and users see of the kernels."""

import math

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.neuron import Dynamics
from ..surrogate import surrogate_named
from . import cpu, reference

FUSED = (torch.float32, torch.float64)


@torch.library.custom_op("axonal::scan", mutates_args=(), device_types="cpu")
def fused(
    x: Tensor,
    state: Tensor,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    emit: str,
    reset: str,
    levels: int,
    negative_slope: float,
    detach_reset: bool,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """x [T, B, N], state [K, B, N], parameters [N], then `cpu.Rules` -> (spikes, state)."""
    rules = cpu.Rules.of(emit, reset, levels, negative_slope, detach_reset, surrogate, slope)
    spikes, final = cpu.forward(rules, x, state, decay, gain, threshold)
    if bad := int(final.isnan().sum()):  # a membrane that was ever NaN stays NaN
        names = ("x", "the state", "decay", "gain", "threshold")
        tensors = (x, state, decay, gain, threshold)
        found = [n for n, t in zip(names, tensors, strict=True) if not t.isfinite().all()]
        raise InputError(
            f"scan: {bad} membranes turned NaN, from {' and '.join(found) or 'an overflow'}; "
            "look for the first layer whose output is not finite"
        )
    return spikes, final


@fused.register_fake
def _(x, state, *_):
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op("axonal::scan_backward", mutates_args=(), device_types="cpu")
def fused_backward(
    grad_spikes: Tensor,
    grad_final: Tensor,
    x: Tensor,
    state: Tensor,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    emit: str,
    reset: str,
    levels: int,
    negative_slope: float,
    detach_reset: bool,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, state, decay, gain and threshold, given those of `fused`'s outputs."""
    rules = cpu.Rules.of(emit, reset, levels, negative_slope, detach_reset, surrogate, slope)
    return cpu.backward(rules, grad_spikes, grad_final, x, state, decay, gain, threshold)


@fused_backward.register_fake
def _(grad_spikes, grad_final, *inputs):
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:5])


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:5])
    ctx.rules = inputs[5:]


def _differentiate(ctx, grad_spikes, grad_final):
    grads = fused_backward(grad_spikes, grad_final, *ctx.saved_tensors, *ctx.rules)
    return *grads, *(None for _ in ctx.rules)


fused.register_autograd(_differentiate, setup_context=_keep)


def scan(
    x: Tensor,
    state: Tensor | None,
    dynamics: Dynamics,
    *,
    decay: Tensor | None = None,
    gain: Tensor | None = None,
    threshold: Tensor | None = None,
    surrogate: str = "atan",
    slope: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a population of neurons over time: charge, fire, reset (see `Dynamics`).

    Gradients reach x, state, decay, gain and threshold. Through a spike they follow a stand-in:

        binary    ds/dh = g(h - threshold) = -ds/dthreshold, g the surrogate
        integer   ds/dh = 1/threshold, ds/dthreshold = -h/threshold^2 where
                  -1/2 < h/threshold < levels + 1/2, else 0 (rectangular straight-through)
        delta     that of d = a(h) - r, as if always sent; ds/dthreshold = 0; da/dh = 1 if h > 0,
                  else `negative_slope`

    "subtract" gives threshold its direct gradient -s besides. With `detach_reset` the s in the
    reset is a constant; without it, "zero" is h (1 - min(s, 1)), with gradient where s <= 1.

    float32 and float64 on CPUs run fused; anything else runs the reference, on its device and in
    its dtype. Under autocast the scan is float32: membranes sum many small terms.

    Args:
        x: input, [T, B, ...], floating.
        state: [K, B, ...] as an earlier call returned it, or None for zeros.
        dynamics: the equations and their constants.
        decay, gain, threshold: replace the constant in `dynamics`; broadcastable to the shape of
            one sample's neurons, x.shape[2:]. Their range is the caller's to keep.
        surrogate: a row of `SURROGATES`; only binary spikes use it.
        slope: its parameter, > 0; None for the row's default.

    Returns:
        Spikes [T, B, ...] and the state [K, B, ...] to hand to the next call.

    Raises:
        InputError: a shape, dtype, device or name that doesn't fit, or no time steps; on the
            fused path also NaN, found in the last state (elsewhere looking would cost a wait).
    """
    row = surrogate_named(surrogate)
    slope = row.slope if slope is None else float(slope)
    if not (slope > 0 and math.isfinite(slope)):
        raise InputError(f"scan: slope {slope} must be finite and above 0")
    if x.dim() < 2 or not x.is_floating_point() or x.shape[0] == 0:
        raise InputError(
            f"scan: x is {_describe(x)}; it must be floating, [T, B, ...], with at least one step"
        )
    if torch.is_autocast_enabled(x.device.type) and x.dtype not in FUSED:
        x = x.float()
    state = _checked_state(state, x, dynamics)
    parameters = (
        _spread("decay", decay, dynamics.decay, x),
        _spread("gain", gain, dynamics.gain, x),
        _spread("threshold", threshold, dynamics.threshold, x),
    )
    if x.device.type != "cpu" or x.dtype not in FUSED:
        return reference.scan(x, state, *parameters, dynamics, surrogate, slope)
    d = dynamics
    rules = (d.emit, d.reset, d.levels, d.negative_slope, d.detach_reset, surrogate, slope)
    flat = (p.reshape(-1) for p in parameters)
    spikes, final = fused(_in_rows(x), _in_rows(state), *flat, *rules)
    return spikes.reshape(x.shape), final.reshape(state.shape)


def _in_rows(tensor: Tensor) -> Tensor:
    """[T, B, ...] -> [T, B, N], all neurons of a sample in one row."""
    return tensor.flatten(2) if tensor.dim() > 2 else tensor[..., None]


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def _checked_state(state: Tensor | None, x: Tensor, dynamics: Dynamics) -> Tensor:
    shape = (dynamics.state_size, *x.shape[1:])
    if state is None:
        return x.new_zeros(shape)
    if state.shape != shape or state.dtype != x.dtype or state.device != x.device:
        raise InputError(
            f"scan: the state is {_describe(state)} but {list(shape)} is needed for x of "
            f"{_describe(x)}; pass back the state of the same layer and batch, or None"
        )
    return state


def _spread(name: str, value: Tensor | None, constant: float, x: Tensor) -> Tensor:
    """The parameter for each neuron, in the shape of one sample."""
    shape = x.shape[2:]
    if value is None:
        return x.new_full(shape, constant)
    fits = len(value.shape) <= len(shape) and all(
        mine in (1, full) for mine, full in zip(value.shape[::-1], shape[::-1], strict=False)
    )
    if not fits or value.dtype != x.dtype or value.device != x.device:
        raise InputError(
            f"scan: {name} is {_describe(value)}; it must broadcast to {list(shape)}, the neurons "
            f"of one sample, in x's dtype {x.dtype} and on {x.device}"
        )
    return value.expand(shape)
