"""Functions of torch in numpy, under torch's names and with its arguments.

Values are [B, ...]; they are computed in float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.errors import InputError
from .ops import Shape, windows

# Multiply-adds that an exponential, a hyperbolic tangent or an error function counts as: the
# degree of their polynomials in single precision, and the reduction of the argument (Cephes).
CURVE = 8
Cost = Callable[[Mapping[str, Any], Shape, Sequence[Shape]], tuple[float, float]]
_erf = np.frompyfunc(math.erf, 1, 1)


def max_pool(
    dims: int,
    x: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> np.ndarray:
    """Take the maximum of each window, as max_pool1d and max_pool2d do.

    Raises:
        InputError: indices are asked for. ValueError: x has other axes.
    """
    if return_indices:
        raise InputError("no indices of maxima; leave return_indices out")
    if x.ndim != dims + 2:
        raise ValueError(f"give [C, {'L' if dims == 1 else 'H, W'}]")
    size, step, pads, apart = (
        tuple(np.broadcast_to(v, dims).tolist())
        for v in (kernel_size, stride or kernel_size, padding, dilation)
    )
    around = [
        (p, max(p, after)) if ceil_mode else (p, p)
        for p, after in zip(pads, _ends(x.shape[2:], size, step, pads, apart), strict=True)
    ]
    x = np.pad(x, [(0, 0)] * 2 + around, constant_values=-np.inf)
    seen = windows(x.reshape(-1, *x.shape[2:]), size, step, ((0, 0),) * dims, apart)
    most = seen.max(tuple(range(-dims, 0)))
    return most.reshape(*x.shape[:2], *most.shape[1:])


def _ends(sides: Shape, size: Shape, step: Shape, pads: Shape, apart: Shape) -> list[int]:
    """The padding behind each axis at which its last window, begun before that, ends."""
    ends = []
    for n, k, s, p, d in zip(sides, size, step, pads, apart, strict=True):
        span = d * (k - 1) + 1
        count = -(-(n + 2 * p - span) // s) + 1
        count -= (count - 1) * s >= n + p  # torch: every window begins before the end padding
        ends.append((count - 1) * s + span - n - p)
    return ends


def softmax(x: np.ndarray, dim: int) -> np.ndarray:
    """exp(x) over its sum along an axis.

    Raises:
        ValueError: along that of samples.
    """
    if dim % x.ndim == 0:
        raise ValueError("it mixes samples")
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def group_norm(
    x: np.ndarray, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> np.ndarray:
    """Normalise over groups of channels of each sample.

    Raises:
        ValueError: the channels are no whole groups.
    """
    if x.ndim < 2 or x.shape[1] % num_groups:
        raise ValueError(f"{x.shape[1:]} has no {num_groups} groups of channels")
    grouped = x.reshape(len(x), num_groups, -1)
    scaled = layer_norm(grouped, grouped.shape[2:], eps=eps).reshape(x.shape)
    each_channel = (-1, *(1 for _ in x.shape[2:]))
    scaled = scaled if weight is None else scaled * np.reshape(weight, each_channel)
    return scaled if bias is None else scaled + np.reshape(bias, each_channel)


def instance_norm(
    x: np.ndarray,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> np.ndarray:
    """Normalise each channel of each sample by its own mean and deviation.

    Raises:
        ValueError: it has statistics, by which it is a batch norm, or channels without places.
    """
    if running_mean is not None or x.ndim < 3:
        raise ValueError("it normalises channels over their places, without running statistics")
    return group_norm(x, x.shape[1], weight, bias, eps)


def hardtanh(
    x: np.ndarray, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> np.ndarray:
    """x, clipped."""
    return np.clip(x, min_val, max_val)


def clamp(x: np.ndarray, min: Any = None, max: Any = None) -> np.ndarray:
    """x, clipped at the ends that are given."""
    return np.clip(x, min, max)


def layer_norm(
    x: np.ndarray, normalized_shape: Any, weight: Any = 1.0, bias: Any = 0.0, eps: float = 1e-5
) -> np.ndarray:
    """Normalise over the last axes.

    Raises:
        ValueError: these are of other sizes, or all there are.
    """
    shape = tuple(np.atleast_1d(normalized_shape).tolist())
    axes = tuple(range(-len(shape), 0))
    if shape != x.shape[-len(shape) :] or x.ndim <= len(shape):
        raise ValueError(f"it is over {shape}, which are not the last axes")
    x = x - x.mean(axes, keepdims=True)
    scaled = x / np.sqrt(np.square(x).mean(axes, keepdims=True) + eps)
    return scaled * weight + bias


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """x times the share of a normal distribution below it."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + np.asarray(_erf(x * math.sqrt(0.5)), np.float64))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1 + e)


def silu(x: np.ndarray) -> np.ndarray:
    """x sigmoid(x)."""
    return x * sigmoid(x)


def hardsigmoid(x: np.ndarray) -> np.ndarray:
    """A sigmoid of straight lines, clip(x + 3, 0, 6) / 6."""
    return np.clip(x + 3, 0, 6) / 6


def hardswish(x: np.ndarray) -> np.ndarray:
    """x hardsigmoid(x)."""
    return x * np.clip(x + 3, 0, 6) / 6


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """x above 0, alpha (exp(x) - 1) below."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def softplus(x: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """ln(1 + exp(beta x)) / beta; x itself where beta x is above the threshold."""
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> np.ndarray:
    """scaled_dot_product_attention: softmax(query key^T scale) value.

    Raises:
        ValueError: there is a mask, dropout, or heads are grouped.
    """
    if attn_mask is not None or dropout_p or enable_gqa:
        raise ValueError("attention with a mask, dropout or grouped heads has no rule")
    scores = query @ np.swapaxes(key, -1, -2)
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    return softmax(scores, -1) @ value


def each(multiplies: float, adds: float) -> Cost:
    """So many for each value of the result."""
    return lambda options, result, inputs: (
        multiplies * math.prod(result),
        adds * math.prod(result),
    )


def window_cost(options: Mapping[str, Any], result: Shape, inputs: Sequence[Shape]) -> Any:
    """A comparison for each value of a window."""
    return 0.0, math.prod(result) * np.broadcast_to(options["kernel_size"], len(result) - 1).prod()


def matmul_cost(options: Mapping[str, Any], result: Shape, inputs: Sequence[Shape]) -> Any:
    """A multiply-add for each value of a row."""
    work = math.prod(result) * inputs[0][-1]
    return work, work


def attention_cost(options: Mapping[str, Any], result: Shape, inputs: Sequence[Shape]) -> Any:
    """Scores, their softmax, and what they weigh."""
    query, key, _ = inputs
    scores = math.prod(query[:-1]) * key[-2]
    products = scores * query[-1] + math.prod(result) * key[-2]
    return products + scores * (CURVE + 2), products + scores * (CURVE + 3)
