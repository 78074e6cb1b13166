"""What torch's functions add to a graph in the making, by their names and with their arguments.

No torch here: weights and other constants are arrays.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, cast

import numpy as np

from ..core.errors import InputError
from . import graph
from .builder import BATCH, Builder, Label, Value
from .graph import Shape


def linear(g: Builder, name: str, x: Value, weight: Any, bias: Any = None) -> Value:
    """A map of the last axis; with others before it, a convolution of size 1 along those."""
    if len(x.shape) == 1:
        y = g.add(name, graph.Dense(_float(weight)), x)
    else:
        lead, rest = x.lead, x.shape[:-1]
        flat = g.move(f"{name}.in", x, lambda t: _swap(t.reshape(*lead, -1, x.shape[-1])))
        op = graph.Conv(_float(weight)[..., None], (1,), ((0, 0),), (1,))
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
    node, around = g.nodes.get(x.node), ()
    if x.places is None and node and isinstance(node.op, graph.Pool):
        around = node.op.padding if {*node.op.size, *node.op.stride} == {1} else ()
    if node and around:
        pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, around, strict=True))
        x = Value(node.inputs[0], g.shapes[node.inputs[0]], x.lead)
    y = g.add(name, graph.Conv(_float(weight), many(stride, dims), pads, step, groups), x)
    return y if bias is None else g.bias(f"{y.node}.bias", y, _channels(bias, y))


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
    y = g.add(name, graph.Scale(_float(_channels(factor, x))), x)
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
        return g.add(name, graph.Pool(size, steps, padded, average), x)
    total = g.add(f"{name}.sum", graph.Pool(size, steps, padded, average=False), x)
    return g.add(name, graph.Scale(_float(1 / (divisor_override or divisor))), total)


def adaptive_avg_pool(dims: int, g: Builder, name: str, x: Value, output_size: Any) -> Value:
    """adaptive_avg_pool1d and adaptive_avg_pool2d, where windows are alike."""
    _need_axes(x, dims)
    goal = (output_size,) * dims if output_size is None else output_size
    goal = (goal,) * dims if isinstance(goal, int) else tuple(goal)
    sides = [(n, n if o is None else o) for n, o in zip(x.shape[1:], goal, strict=True)]
    if any(n % o for n, o in sides):
        raise InputError(f"{x.shape[1:]} does not divide into {goal}; choose a size that does")
    size = tuple(n // o for n, o in sides)
    return g.add(name, graph.Pool(size, size, ((0, 0),) * dims), x)


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
        x = g.add(name, graph.Pool((1,) * dims, (1,) * dims, widths, average=False), x)
    return g.move(f"{name}.out", x, lambda t: t.squeeze(len(x.lead))) if single else x


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
    """Upsampling by whole factors, and the nearest values by any."""
    sides, dims = x.shape[1:], len(x.shape) - 1
    _need_axes(x, dims)
    given = size if scale_factor is None else scale_factor
    given = tuple(given) if isinstance(given, list | tuple) else (given,) * dims
    ends = [n if scale_factor is None else int(n * f) for n, f in zip(given, sides, strict=True)]
    if scale_factor is None or recompute_scale_factor:
        given = tuple(b / a for a, b in zip(sides, ends, strict=True))
    whole = all(float(f).is_integer() for f in given)
    if whole and ("nearest" in mode or (mode in LINEAR and not align_corners and not antialias)):
        return g.add(name, graph.Resize(many(given, dims), "nearest" not in mode), x)
    if "nearest" not in mode:
        raise InputError(f"{mode} by {given}; use nearest, or linear by whole factors, unaligned")
    half = np.float32(0.5 if mode == "nearest-exact" else 0)
    places = []
    for n, end, factor in zip(sides, ends, given, strict=True):
        # In single precision as torch, which rounds some of these down.
        place = np.floor((np.arange(end, dtype=np.float32) + half) * np.float32(1 / factor))
        places.append(np.minimum(place.astype(np.int64), n - 1))
    return g.move(name, x, lambda t: t[(..., *np.ix_(*places))])


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
    y = g.add(name, graph.Pool((size,), (size,), ((0, 0),), average), flat)
    kept = [1 if d in dims else x.shape[d - lead] for d in range(lead, total)]
    left = kept if keepdim else [x.shape[d - lead] for d in rest]
    return g.move(f"{name}.out", y, lambda t: t.reshape(*x.lead, *left))


def add(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a + b, each a value or a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        if a.lead != b.lead or len(a.shape) != len(b.shape):
            raise InputError(f"{list(a.shape)} + {list(b.shape)} a sample; give both as many axes")
        shape = np.broadcast_shapes(a.shape, b.shape)
        return g.add(name, graph.Add(), _expand(g, name, a, shape), _expand(g, name, b, shape))
    x, constant = _together(g, name, *((a, b) if isinstance(a, Value) else (b, a)))
    return g.bias(name, x, constant)


def sub(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a - b."""
    return add(g, name, a, neg(g, f"{name}.negative", b) if isinstance(b, Value) else -b)


def neg(g: Builder, name: str, a: Value) -> Value:
    """-a."""
    return g.add(name, graph.Scale(_float(-1)), a)


def mul(g: Builder, name: str, a: Any, b: Any) -> Value:
    """a b, one of them a constant."""
    if isinstance(a, Value) and isinstance(b, Value):
        raise InputError(f"it multiplies two values that move; keep one constant, or {CONVERTED}")
    x, constant = _together(g, name, *((a, b) if isinstance(a, Value) else (b, a)))
    return g.add(name, graph.Scale(_float(constant)), x)


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
    return g.add(name, graph.Concat(dim % total - lead), *tensors)


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
        g.add(label.name, graph.Input((len(weight),)), reserved=True)
    x = Value(label.name, g.shapes[label.name], BATCH)
    return g.add(name, graph.Dense(_float(np.transpose(weight))), x)


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
        late = g.add(f"{name}.delay{d}", graph.Delay(np.array(d)), x) if d else x
        parts.append(g.add(f"{name}.weight{d}", graph.Dense(_float(weight * (steps == d))), late))
    y = g.add(name, graph.Add(), *parts)
    return y if bias is None else g.bias(f"{y.node}.bias", y, bias)


def nothing(g: Builder, name: str, x: Value, *options: Any, **others: Any) -> Value:
    """Dropout."""
    return x


def many(value: Any, dims: int) -> tuple[int, ...]:
    """A whole number for each dimension."""
    found = (value,) * dims if isinstance(value, int) else tuple(value)
    return tuple(int(v) for v in (found * dims if len(found) == 1 else found))


def _float(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


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


PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LINEAR = ("linear", "bilinear")
Rule = Callable[..., Value]
FUNCTIONS: Mapping[str, Rule] = {
    "linear": linear,
    "matmul": matmul,
    "conv1d": conv,
    "conv2d": conv,
    "batch_norm": batch_norm,
    "avg_pool1d": partial(avg_pool, 1),
    "avg_pool2d": partial(avg_pool, 2),
    "adaptive_avg_pool1d": partial(adaptive_avg_pool, 1),
    "adaptive_avg_pool2d": partial(adaptive_avg_pool, 2),
    "mean": partial(reduce, True),
    "sum": partial(reduce, False),
    "pad": pad,
    "interpolate": interpolate,
    "embedding": embedding,
    "add": add,
    "sub": sub,
    "neg": neg,
    "mul": mul,
    "div": div,
    "truediv": div,
    "cat": cat,
    "concat": cat,
    "dropout": nothing,
    "dropout1d": nothing,
    "dropout2d": nothing,
}
POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
NORM = ("running_mean", "running_var", "weight", "bias", "eps")
RESIZE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
# Classes of torch.nn: the rule, and the attributes that are its arguments.
MODULES: Mapping[str, tuple[Any, ...]] = {
    "Linear": (linear, "weight", "bias"),
    "Embedding": (embedding, "weight", "max_norm"),
    "BatchNorm1d": (batch_norm, *NORM),
    "BatchNorm2d": (batch_norm, *NORM),
    "AvgPool1d": (partial(avg_pool, 1), *POOL),
    "AvgPool2d": (partial(avg_pool, 2), *POOL, "divisor_override"),
    "AdaptiveAvgPool1d": (partial(adaptive_avg_pool, 1), "output_size"),
    "AdaptiveAvgPool2d": (partial(adaptive_avg_pool, 2), "output_size"),
    "Upsample": (interpolate, *RESIZE),
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d"), (nothing,)),
}
# What only moves values, as functions and as methods.
MOVES = {
    *("view", "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "contiguous"),
    *("permute", "transpose", "swapaxes", "movedim", "roll", "flip", "clone", "detach", "expand"),
    *("repeat", "tile", "repeat_interleave", "chunk", "split", "unbind", "narrow", "select"),
    *("getitem", "getattr", "size", "dim", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
}
ACTIVATION = "the activations of a graph are neurons: use some, or convert it to sigma-delta"
CONVERTED = "convert the network, which makes it an axonal.nn.Difference"
POOLING = f"use average pooling or a stride, or {CONVERTED}"
CURVED = f"{CONVERTED}, or leave this part to the host"
ANYTHING = "build it of linear maps and neurons, or leave this part to the host"
HINTS: dict[str, str] = {
    **dict.fromkeys(("ReLU", "LeakyReLU", "relu", "relu_", "leaky_relu"), ACTIVATION),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "max_pool1d", "max_pool2d"), POOLING),
    **dict.fromkeys(("Softmax", "LayerNorm", "GELU", "softmax", "layer_norm", "gelu"), CURVED),
    "Noise": "it belongs to training; leave it out",
}


def refuse(kind: str) -> NoReturn:
    """Refuse what has no rule, by the name of its class or function.

    Raises:
        InputError: always, with what to do.
    """
    raise InputError(f"there is no rule for it; {HINTS.get(kind, ANYTHING)}")
