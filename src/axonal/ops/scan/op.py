"""The scan as torch operators: what autograd, `torch.compile` and users see of the kernels."""

import json
import math

import torch
from torch import Tensor

from ...core.errors import InputError, NotFinite
from ...core.neurons import Dynamics
from ..modes import transformed
from ..surrogate import surrogate_named
from . import cpu, parallel, reference, triton
from .marks import new_marks

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
    """Scan x [T or 1, B, N] from state [K, B, N] with constants varying [P, N], by `Rules`.

    Returns:
        Spikes [T, B, N], the state and the marks.
    """
    rules = dynamics, names, surrogate, slope
    spikes, final, marks = cpu.forward(rules, x, state, varying, steps)
    # What was ever NaN stays NaN, and so is the sum; that of infinities may be.
    if math.isnan(final.sum()) and (bad := int(final.isnan().any(0).sum())):
        tensors = {"x": x, "the state": state, "a parameter": varying}
        causes = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        raise NotFinite(
            f"scan: {bad} neurons turned NaN, from {' and '.join(causes) or 'an overflow'}; "
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
    x, state, varying, ctx.steps, *ctx.rules = inputs
    spikes, final, marks = output
    ctx.mark_non_differentiable(marks)
    ctx.set_materialize_grads(False)  # nothing reaches the marks, and often not the state
    ctx.save_for_backward(x, state, varying, marks)
    ctx.shapes = spikes.shape, final.shape


def _differentiate(ctx, grad_spikes, grad_final, _):
    x, state, varying, marks = ctx.saved_tensors
    reached = [
        like.new_zeros(()).expand(shape) if grad is None else grad
        for grad, like, shape in zip((grad_spikes, grad_final), (x, marks), ctx.shapes, strict=True)
    ]
    if torch.is_grad_enabled():  # somebody wants gradients of the gradients: create_graph=True
        grads = _differentiable(ctx, reached, x, state, varying)
    else:
        grads = fused_backward(*reached, x, marks, varying, *ctx.rules)
    return *grads, None, *(None for _ in ctx.rules)


def _differentiable(
    ctx, reached: list[Tensor], x: Tensor, state: Tensor, varying: Tensor
) -> list[Tensor | None]:
    """The gradients as `fused_backward`'s, by the reference, whose gradients can be taken again."""
    text, names, surrogate, slope = ctx.rules
    values = dict(zip(filter(None, names.split(",")), varying, strict=True))
    dynamics, steps = Dynamics.from_dict(json.loads(text)), x.expand(ctx.steps, *x.shape[1:])
    spikes, final = reference.scan(steps.to(state), state, values, dynamics, surrogate, slope)
    outputs = spikes.to(x.dtype), final
    inputs = [tensor for tensor in (x, state, varying) if tensor.requires_grad]
    grads = iter(
        torch.autograd.grad(outputs, inputs, reached, create_graph=True, allow_unused=True)
    )
    return [next(grads) if t.requires_grad else None for t in (x, state, varying)]


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
    values = {
        name: _spread(name, value, x, work)
        for name in constants
        if (value := parameters.get(name)) is not None
    }
    if not _fused(x):
        form = parallel if parallel.suits(dynamics) else reference
        x = x.expand(steps, *x.shape[1:])
        spikes, final = form.scan(x.to(work), state, values, dynamics, surrogate, slope)
        return spikes.to(x.dtype), final
    order = _order(x)
    ordered = [value.permute([d - 2 for d in order[2:]]).reshape(-1) for value in values.values()]
    varying = torch.stack(ordered) if ordered else state.new_empty(0, math.prod(x.shape[2:]))
    rules = dynamics.text, ",".join(values), surrogate, slope
    spikes, final, _ = fused(_in_rows(x, order), _in_rows(state, order), varying, steps, *rules)
    return _from_rows(spikes, x, order), _from_rows(final, x, order)


def _fused(x: Tensor) -> bool:
    known = x.dtype in FUSED.get(x.device.type, ()) and not transformed()
    return known and (x.device.type == "cpu" or triton.available())


def _order(x: Tensor) -> list[int]:
    """The dimensions of x in the order in which a sample lies in memory.

    What is channels last stays so, and no layer before or after has to move it.
    """
    return [0, 1, *sorted(range(2, x.dim()), key=lambda d: -x.stride(d))]


def _in_rows(tensor: Tensor, order: list[int]) -> Tensor:
    """[T, B, ...] -> [T, B, N], all neurons of a sample in one row, in that order."""
    if len(order) == 3:  # they are: each view would cost a small scan more, there and back
        return tensor
    return tensor.permute(order).flatten(2) if len(order) > 3 else tensor[..., None]


def _from_rows(rows: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """[T, B, N] -> [T, B, ...], the dimensions as those of x."""
    if len(order) == 3:
        return rows
    back = [order.index(d) for d in range(len(order))]
    return rows.reshape(len(rows), *(x.shape[d] for d in order[1:])).permute(back)


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
