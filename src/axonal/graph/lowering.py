"""Rules of the operator table: what torch's functions add to a graph that is being built.

Each takes the `Builder`, a name, the tensors' `Value`s, and torch's arguments, in which weights and
other constants are arrays: no torch here.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..core.errors import InputError
from . import ops
from .builder import BATCH, Builder, Label, Value
from .ops import Shape

PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LINEAR = ("linear", "bilinear")
CONVERTED = "convert the network, which makes it an axonal.nn.Difference"
# What to do where a graph has no form for an operator.
RECURRENT = (
    "gates multiply states, step by step; train a recurrent spiking network (nn.Recurrent), or "
    "write the step as layers and run it over time yourself"
)
NEURONS = "the activations of a graph are neurons: use some, or convert it to sigma-delta"
POOLING = f"use average pooling or a stride, or {CONVERTED}"
CONVERT = f"{CONVERTED}, or leave this part to the host"
AXES = "samples of a graph have one to three axes; leave this part to the host"
ANYTHING = "build it of linear maps and neurons, or leave this part to the host"


def linear(g: Builder, name: str, x: Value, weight: Any, bias: Any = None) -> Value:
    """A map of the last axis; with others before it, a convolution of size 1 along those."""
    if len(x.shape) == 1:
        y = g.add(name, ops.Dense(_float(weight)), x)
    else:
        lead, rest = x.lead, x.shape[:-1]
        flat = g.move(f"{name}.in", x, lambda t: _swap(t.reshape(*lead, -1, x.shape[-1])))
        op = ops.Conv(_float(weight)[..., None], (1,), ((0, 0),), (1,))
        y = g.add(name, op, flat)
        y = g.move(f"{name}.out", y, lambda t: _swap(t).reshape(*lead, *rest, -1))
    return y if bias is None else g.bias(f"{y.node}.bias", y, bias)


def conv(
    g: Builder,
    name: str,
    x: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Value:
    """conv1d and conv2d, by the weight's dimensions; zeros padded before become its own."""
    dims = weight.ndim - 2
    _need_axes(x, dims)
    step, size = many(dilation, dims), weight.shape[2:]
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(step, size, strict=True)]
        pads = tuple((span // 2, span - span // 2) for span in spans)
    else:
        pads = tuple((p, p) for p in many(0 if padding == "valid" else padding, dims))
    if padding_mode != "zeros":
        x = pad(g, f"{name}.pad", x, [side for p in pads[::-1] for side in p], padding_mode)
        pads = ((0, 0),) * dims
    node, around = g.nodes.get(x.node), ()
    if x.places is None and node and isinstance(node.op, ops.Pool):
        around = node.op.padding if {*node.op.size, *node.op.stride} == {1} else ()
    if node and around:
        pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, around, strict=True))
        x = Value(node.inputs[0], g.shapes[node.inputs[0]], x.lead)
    y = g.add(name, ops.Conv(_float(weight), many(stride, dims), pads, step, groups), x)
    return y if bias is None else g.bias(f"{y.node}.bias", y, _channels(bias, y))


def conv_transpose(
    g: Builder,
    name: str,
    x: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    padding_mode: str = "zeros",
) -> Value:
    """conv_transpose1d and conv_transpose2d: a convolution of values with zeros between them."""
    dims = weight.ndim - 2
    _need_axes(x, dims)
    steps, apart = many(stride, dims), many(dilation, dims)
    if max(steps) > 1:
        x = _spread(g, f"{name}.spread", x, steps)
    inside, outside, *size = weight.shape
    weight = weight.reshape(groups, inside // groups, outside, *size).swapaxes(1, 2)
    weight = np.flip(weight, tuple(range(3, 3 + dims))).reshape(-1, inside // groups, *size)
    spans = [d * (k - 1) for d, k in zip(apart, size, strict=True)]
    sides = zip(spans, many(padding, dims), many(output_padding, dims), strict=True)
    around = [(span - p, span - p + more) for span, p, more in sides]
    x = pad(g, f"{name}.pad", x, [side for pair in around[::-1] for side in pair])
    return conv(g, name, x, weight, bias, dilation=dilation, groups=groups)


def batch_norm(
    g: Builder,
    name: str,
    x: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Value:
    """Batch norm by its running statistics, in training too."""
    if len(x.lead) != 1 or running_mean is None:
        raise InputError("it needs running statistics, and [B, C, ...]")
    factor = (1.0 if weight is None else weight) / np.sqrt(np.float64(running_var) + eps)
    shift = (0.0 if bias is None else bias) - running_mean * factor
    y = g.add(name, ops.Scale(_float(_channels(factor, x))), x)
    return g.bias(f"{y.node}.bias", y, _channels(shift, x))


def avg_pool(
    dims: int,
    g: Builder,
    name: str,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """avg_pool1d and avg_pool2d; where windows aren't divided alike, sums and a scale."""
    _need_axes(x, dims)
    size, pads = many(kernel_size, dims), many(padding, dims)
    steps = many(stride or kernel_size, dims)
    ends, divisor = [], np.ones(())
    for n, k, s, p in zip(x.shape[1:], size, steps, pads, strict=True):
        count = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        count -= (count - 1) * s >= n + p  # torch: every window begins before the end padding
        begin = np.arange(count) * s - p
        low, high = (begin, n + p) if count_include_pad else (np.maximum(begin, 0), n)
        divisor = divisor[..., None] * (np.minimum(begin + k, high) - low)
        ends.append(max(p, (count - 1) * s + k - n - p))
    padded = tuple(zip(pads, ends, strict=True))
    average = divisor_override is None and bool((divisor == math.prod(size)).all())
    if average or divisor_override == 1:
        return g.add(name, ops.Pool(size, steps, padded, average), x)
    total = g.add(f"{name}.sum", ops.Pool(size, steps, padded, average=False), x)
    return g.add(name, ops.Scale(_float(1 / (divisor_override or divisor))), total)


def adaptive_avg_pool(dims: int, g: Builder, name: str, x: Value, output_size: Any) -> Value:
    """adaptive_avg_pool1d and adaptive_avg_pool2d, where windows are alike."""
    _need_axes(x, dims)
    goal = (output_size,) * dims if output_size is None else output_size
    goal = (goal,) * dims if isinstance(goal, int) else tuple(goal)
    sides = [(n, n if o is None else o) for n, o in zip(x.shape[1:], goal, strict=True)]
    if any(n % o for n, o in sides):
        raise InputError(f"{x.shape[1:]} does not divide into {goal}; choose a size that does")
    size = tuple(n // o for n, o in sides)
    return g.add(name, ops.Pool(size, size, ((0, 0),) * dims), x)


def pad(
    g: Builder, name: str, x: Value, pad: Any, mode: str = "constant", value: float | None = None
) -> Value:
    """Values around each sample, or, by negative widths, cut off; the last axis comes first."""
    pairs = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)][::-1]
    if mode != "constant":
        _need_axes(x, len(pairs))
        around = [(0, 0), (0, 0), *pairs]
        return g.move(name, x, lambda t: np.pad(t, around, cast(Any, PADS[mode])))
    if value:
        raise InputError(f"it pads with {value}; only zeros keep silence silent")
    cuts = [slice(max(-a, 0), -max(-b, 0) or None) for a, b in pairs]
    x = g.move(f"{name}.cut", x, lambda t: t[(..., *cuts)])
    if single := len(pairs) == len(x.shape) < 3:
        x = g.move(f"{name}.in", x, lambda t: np.expand_dims(t, len(x.lead)))
    dims = len(x.shape) - 1
    if len(pairs) > dims:
        raise InputError(f"it pads the channels of {list(x.shape)}; concatenate them instead")
    widths = tuple((max(a, 0), max(b, 0)) for a, b in [(0, 0)] * (dims - len(pairs)) + pairs)
    if any(map(any, widths)):
        x = g.add(name, ops.Pool((1,) * dims, (1,) * dims, widths, average=False), x)
    return g.move(f"{name}.out", x, lambda t: t.squeeze(len(x.lead))) if single else x


def constant_pad(g: Builder, name: str, x: Value, padding: Any, value: float = 0.0) -> Value:
    """`pad` by the names that modules have for its arguments."""
    return pad(g, name, x, padding, value=value)


def interpolate(
    g: Builder,
    name: str,
    x: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    """Resampling, nearest or linear along each axis."""
    sides, dims = x.shape[1:], len(x.shape) - 1
    _need_axes(x, dims)
    factors = size if scale_factor is None else scale_factor
    factors = tuple(factors) if isinstance(factors, list | tuple) else (factors,) * dims
    sized = scale_factor is None
    ends = [int(f if sized else n * f) for n, f in zip(sides, factors, strict=True)]
    if sized or recompute_scale_factor:
        factors = tuple(b / a for a, b in zip(sides, ends, strict=True))
    linear = mode in LINEAR and not antialias
    if not linear and "nearest" not in mode:
        raise InputError(f"{mode}{', antialiased' * antialias}; use nearest or linear")
    if all(float(f).is_integer() for f in factors) and not align_corners:
        return g.add(name, ops.Resize(many(factors, dims), linear), x)
    if linear:
        for axis, (n, end, factor) in enumerate(zip(sides, ends, factors, strict=True)):
            x = _between(g, f"{name}.{axis}", x, axis, _sources(n, end, factor, align_corners))
        return x
    half = np.float32(0.5 if mode == "nearest-exact" else 0)
    places = []
    for n, end, factor in zip(sides, ends, factors, strict=True):
        # In single precision as torch, which rounds some of these down.
        place = np.floor((np.arange(end, dtype=np.float32) + half) * np.float32(1 / factor))
        places.append(np.minimum(place.astype(np.int64), n - 1))
    return g.move(name, x, lambda t: t[(..., *np.ix_(*places))])


def _sources(side: int, end: int, factor: float, align_corners: bool | None) -> np.ndarray:
    """Where along an axis the values of a linear resampling lie."""
    if align_corners:
        return np.linspace(0, side - 1, end)
    return np.clip((np.arange(end) + 0.5) / factor - 0.5, 0, side - 1)


def _between(g: Builder, name: str, x: Value, axis: int, sources: np.ndarray) -> Value:
    """Values between two neighbours along an axis of space, each in proportion."""
    at, last = axis + 1 - len(x.shape), x.shape[axis + 1] - 1
    low = np.floor(sources).astype(np.int64)
    share = (sources - low).reshape(-1, *(1 for _ in range(-at - 1)))
    parts = []
    for end, places, weight in (
        ("low", low, 1 - share),
        ("high", np.minimum(low + 1, last), share),
    ):
        part = g.move(f"{name}.{end}", x, lambda t, places=places: t.take(places, at))
        parts.append(g.add(f"{name}.{end}.share", ops.Scale(_float(weight)), part))
    return g.add(name, ops.Add(), *parts)


def reduce(
    average: bool, g: Builder, name: str, x: Value, dim: Any = None, keepdim: bool = False
) -> Value:
    """The mean or the sum over axes of a sample."""
    lead, total = len(x.lead), len(x.lead) + len(x.shape)
    dims = {d % total for d in ((dim,) if isinstance(dim, int) else dim or range(total))}
    if min(dims) < lead:
        raise InputError("it reduces over samples or steps; name other dimensions")
    rest = [d for d in range(lead, total) if d not in dims]
    axes, size = (*range(lead), *rest, *sorted(dims)), math.prod(x.shape[d - lead] for d in dims)
    flat = g.move(f"{name}.in", x, lambda t: t.transpose(axes).reshape(*x.lead, -1, size))
    y = g.add(name, ops.Pool((size,), (size,), ((0, 0),), average), flat)
    sides = [1 if d in dims else x.shape[d - lead] for d in range(lead, total)]
    left = sides if keepdim else [x.shape[d - lead] for d in rest]
    return g.move(f"{name}.out", y, lambda t: t.reshape(*x.lead, *left))


def add(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a + b, each a value or a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        if a.lead != b.lead or len(a.shape) != len(b.shape):
            raise InputError(f"{list(a.shape)} + {list(b.shape)} a sample; give both as many axes")
        shape = np.broadcast_shapes(a.shape, b.shape)
        return g.add(name, ops.Add(), _expand(g, name, a, shape), _expand(g, name, b, shape))
    x, constant = _together(g, name, *((a, b) if isinstance(a, Value) else (b, a)))
    return g.bias(name, x, constant)


def sub(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a - b."""
    return add(g, name, a, neg(g, f"{name}.negative", b) if isinstance(b, Value) else -b)


def neg(g: Builder, name: str, a: Value) -> Value:
    """-a."""
    return g.add(name, ops.Scale(_float(-1)), a)


def mul(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a b, one of them a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        raise InputError(f"it multiplies two values that move; keep one constant, or {CONVERTED}")
    x, constant = _together(g, name, *((a, b) if isinstance(a, Value) else (b, a)))
    return g.add(name, ops.Scale(_float(constant)), x)


def div(g: Builder, name: str, a: Value, b: Any) -> Value:
    """a / b, b a constant."""
    if isinstance(b, Value):
        raise InputError("it divides by a value that moves; divide by a constant")
    return mul(g, name, a, 1 / np.asarray(b, np.float64))


def cat(g: Builder, name: str, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Values one after another along an axis of a sample."""
    if not all(isinstance(x, Value) for x in tensors):
        raise InputError("it joins values and constants; add a bias instead")
    lead, total = len(tensors[0].lead), len(tensors[0].lead) + len(tensors[0].shape)
    if dim % total < lead or len({x.lead for x in tensors}) > 1:
        raise InputError("it joins samples or steps; name another dimension")
    return g.add(name, ops.Concat(dim % total - lead), *tensors)


def embedding(
    g: Builder,
    name: str,
    label: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
) -> Value:
    """Rows of weights, as a map of one-hot vectors."""
    if not isinstance(label, Label) or max_norm is not None:
        raise InputError("it needs an argument of integers [B], and weights without max_norm")
    if label.name not in g.nodes:
        g.add(label.name, ops.Input((len(weight),)), reserved=True)
    x = Value(label.name, g.shapes[label.name], BATCH)
    return g.add(name, ops.Dense(_float(np.transpose(weight))), x)


def matmul(g: Builder, name: str, x: Any, weight: Any) -> Value:
    """x weight, the weight a constant [I, O]."""
    if not isinstance(x, Value) or isinstance(weight, Value) or weight.ndim != 2:
        reason = "it multiplies other than by a constant matrix [I, O] behind"
        raise InputError(f"{reason}; where both move, {CONVERTED}")
    return linear(g, name, x, weight.T)


def delayed(g: Builder, name: str, x: Value, steps: Any, weight: Any, bias: Any = None) -> Value:
    """A map whose synapses have delays: for each number of steps a delay and a map, summed."""
    parts = []
    for d in np.unique(steps):
        late = g.add(f"{name}.delay{d}", ops.Delay(np.array(d)), x) if d else x
        parts.append(g.add(f"{name}.weight{d}", ops.Dense(_float(weight * (steps == d))), late))
    y = g.add(name, ops.Add(), *parts)
    return y if bias is None else g.bias(f"{y.node}.bias", y, bias)


def nothing(g: Builder, name: str, x: Value, *options: Any, **others: Any) -> Value:
    """Dropout."""
    return x


def many(value: Any, dims: int) -> tuple[int, ...]:
    """A whole number for each dimension."""
    numbers = (value,) * dims if isinstance(value, int) else tuple(value)
    return tuple(int(v) for v in (numbers * dims if len(numbers) == 1 else numbers))


def _float(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


def _spread(g: Builder, name: str, x: Value, steps: tuple[int, ...]) -> Value:
    """x [C, ...] with so many places from one value to the next, and zeros between."""
    sides = [(n - 1) * s + 1 for n, s in zip(x.shape[1:], steps, strict=True)]
    flat = g.move(f"{name}.flat", x, lambda t: t.reshape(*x.lead, -1))
    zero = g.add(f"{name}.zero", ops.Scale(_float(0)), g.move(name, flat, lambda t: t[..., :1]))
    both = g.add(f"{name}.both", ops.Concat(), flat, zero)
    places = np.full((x.shape[0], *sides), flat.shape[0])
    values = np.arange(flat.shape[0]).reshape(x.shape)
    places[(slice(None), *(slice(None, None, s) for s in steps))] = values
    return g.move(name, both, lambda t: t[..., places])


def _swap(t: np.ndarray) -> np.ndarray:
    return np.swapaxes(t, -1, -2)


def _channels(value: Any, x: Value) -> np.ndarray:
    return np.asarray(value).reshape(-1, *(1 for _ in x.shape[1:]))


def _need_axes(x: Value, dims: int) -> None:
    if len(x.lead) != 1 or len(x.shape) != dims + 1:
        axes = ", ".join(["B", "C", *("L" if dims == 1 else "HW")])
        raise InputError(f"it reads {[*'TB'[-len(x.lead) :], *x.shape]}; give [{axes}]")


def _together(g: Builder, name: str, x: Value, constant: Any) -> tuple[Value, np.ndarray]:
    """Both so that the constant broadcasts to a sample."""
    value = np.asarray(constant, np.float64)
    while value.ndim > len(x.shape) and len(value) == 1:
        value = value[0]
    if value.ndim > len(x.shape):
        raise InputError(f"a constant of {list(value.shape)} for samples of {list(x.shape)}")
    return _expand(g, name, x, np.broadcast_shapes(value.shape, x.shape)), value


def _expand(g: Builder, name: str, x: Value, shape: Shape) -> Value:
    return g.move(f"{name}.in", x, lambda t: np.broadcast_to(t, (*x.lead, *shape)))
