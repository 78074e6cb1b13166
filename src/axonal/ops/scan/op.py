"""The scan as torch operators: what autograd, `torch.compile` and users see of the kernels."""

import math

import torch
from torch import Tensor

from ...core.errors import InputError, NotFinite
from ...core.neuron import Dynamics
from ..program import new_marks
from ..surrogate import surrogate_named
from . import cpu, parallel, reference, triton

FUSED = {
    "cpu": (torch.float64, torch.float32, torch.bfloat16),
    "cuda": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
}


@torch.library.custom_op("axonal::scan", mutates_args=(), device_types="cpu")
def fused(
    x: Tensor,
    state: Tensor,
    varying: Tensor,
    steps: int,
    dynamics: str,
    names: str,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T or 1, B, N], state [K, B, N], constants that vary [P, N], T, `Rules` -> spikes, state,
    marks."""
    rules = dynamics, names, surrogate, slope
    spikes, final, marks = cpu.forward(rules, x, state, varying, steps)
    if bad := int(final.isnan().any(0).sum()):  # what was ever NaN stays NaN
        tensors = {"x": x, "the state": state, "a parameter": varying}
        found = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        raise NotFinite(
            f"scan: {bad} neurons turned NaN, from {' and '.join(found) or 'an overflow'}; "
            "look for the first layer whose output is not finite"
        )
    return spikes, final, marks


@fused.register_kernel("cuda")
def _(x, state, varying, steps, *rules):
    return triton.forward(rules, x, state, varying, steps)


@fused.register_fake
def _(x, state, varying, steps, *_):
    spikes = x.new_empty(steps, *x.shape[1:])
    return spikes, state.new_empty(state.shape), new_marks(steps, state)


@torch.library.custom_op("axonal::scan_backward", mutates_args=(), device_types="cpu")
def fused_backward(
    grad_spikes: Tensor,
    grad_final: Tensor,
    x: Tensor,
    marks: Tensor,
    varying: Tensor,
    dynamics: str,
    names: str,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, state and varying, given those of `fused`'s spikes and state."""
    rules = dynamics, names, surrogate, slope
    return cpu.backward(rules, grad_spikes, grad_final, x, marks, varying)


@fused_backward.register_kernel("cuda")
def _(grad_spikes, grad_final, x, marks, varying, *rules):
    return triton.backward(rules, grad_spikes, grad_final, x, marks, varying)


@fused_backward.register_fake
def _(grad_spikes, grad_final, x, marks, varying, *_):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, grad_final, varying))


def _keep(ctx, inputs, output):
    x, _, varying, _, *ctx.rules = inputs
    marks = output[2]
    ctx.mark_non_differentiable(marks)
    ctx.save_for_backward(x, marks, varying)


def _differentiate(ctx, grad_spikes, grad_final, _):
    grads = fused_backward(grad_spikes, grad_final, *ctx.saved_tensors, *ctx.rules)
    return *grads, None, *(None for _ in ctx.rules)


fused.register_autograd(_differentiate, setup_context=_keep)


def scan(
    x: Tensor,
    state: Tensor | None,
    dynamics: Dynamics,
    *,
    surrogate: str = "atan",
    slope: float | None = None,
    steps: int | None = None,
    **parameters: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a population of neurons over time: charge, fire, reset (see `Dynamics`).

    Gradients reach x, state and the parameters; `Dynamics` says what stands in for a spike's.

    float64, float32 and bfloat16 run fused on CPUs, all of them and float16 on CUDA devices with
    Triton; anything else runs the reference, or `parallel` where that suits. Membranes sum many
    small terms: for inputs of half precision, states and parameters are float32, and spikes have
    the dtype of the input.

    Args:
        x: input, [T, B, ...], floating.
        state: [K, B, ...] as an earlier call returned it, or None for the neurons' rest.
        dynamics: the equations and their constants.
        surrogate: a row of `SURROGATES`; only binary and ternary spikes use it.
        slope: its parameter, > 0; None for the row's default.
        steps: T, if x [1, B, ...] stays the same in all of them.
        parameters: tensors that replace constants of `dynamics` by name; broadcastable to the
            shape of one sample's neurons, x.shape[2:]. Their range is the caller's to keep.

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
    if steps is not None and (len(x) != 1 or steps < 1):
        raise InputError(f"scan: x {list(x.shape)} has no one step that stays for {steps}")
    steps = steps or len(x)
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    state = _checked_state(state, x, dynamics, work)
    constants = dynamics.constants()
    if unknown := [name for name in parameters if name not in constants]:
        raise InputError(f"scan: no parameter {unknown[0]!r}; there are {', '.join(constants)}")
    given = {
        name: _spread(name, value, x, work)
        for name in constants
        if (value := parameters.get(name)) is not None
    }
    if not _fused(x):
        form = parallel if parallel.suits(dynamics) else reference
        x = x.expand(steps, *x.shape[1:])
        spikes, final = form.scan(x.to(work), state, given, dynamics, surrogate, slope)
        return spikes.to(x.dtype), final
    order = _order(x)
    ordered = [value.permute([d - 2 for d in order[2:]]).reshape(-1) for value in given.values()]
    varying = torch.stack(ordered) if ordered else state.new_empty(0, math.prod(x.shape[2:]))
    rules = dynamics.text, ",".join(given), surrogate, slope
    x, state = x.permute(order), state.permute(order)
    spikes, final, _ = fused(_in_rows(x), _in_rows(state), varying, steps, *rules)
    back = [order.index(d) for d in range(len(order))]
    spikes = spikes.reshape(steps, *x.shape[1:]).permute(back)
    return spikes, final.reshape(state.shape).permute(back)


def _fused(x: Tensor) -> bool:
    known = x.dtype in FUSED.get(x.device.type, ())
    return known and (x.device.type == "cpu" or triton.available())


def _order(x: Tensor) -> list[int]:
    """The dimensions of x in the order in which a sample lies in memory: what is channels last
    stays so, and no layer before or after has to move it."""
    return [0, 1, *sorted(range(2, x.dim()), key=lambda d: -x.stride(d))]


def _in_rows(tensor: Tensor) -> Tensor:
    """[T, B, ...] -> [T, B, N], all neurons of a sample in one row."""
    return tensor.flatten(2) if tensor.dim() > 2 else tensor[..., None]


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def _checked_state(
    state: Tensor | None, x: Tensor, dynamics: Dynamics, work: torch.dtype
) -> Tensor:
    shape = (dynamics.state_size, *x.shape[1:])
    if state is None:
        if not any(dynamics.rest):
            return x.new_zeros(shape, dtype=work)
        rest = x.new_tensor(dynamics.rest, dtype=work)
        return rest.reshape(-1, *(1 for _ in shape[1:])).expand(shape)
    if state.shape != shape or state.dtype != work or state.device != x.device:
        raise InputError(
            f"scan: the state is {_describe(state)} but {list(shape)} in {work} is needed for x "
            f"of {_describe(x)}; pass back the state of the same layer and batch, or None"
        )
    return state


def _spread(name: str, value: Tensor, x: Tensor, work: torch.dtype) -> Tensor:
    """The parameter for each neuron, in the shape of one sample."""
    shape = x.shape[2:]
    fits = len(value.shape) <= len(shape) and all(
        mine in (1, full) for mine, full in zip(value.shape[::-1], shape[::-1], strict=False)
    )
    if not fits or value.dtype not in (work, x.dtype) or value.device != x.device:
        raise InputError(
            f"scan: {name} is {_describe(value)}; it must broadcast to {list(shape)}, the neurons "
            f"of one sample, in {work} and on {x.device}"
        )
    return value.to(work).expand(shape)
