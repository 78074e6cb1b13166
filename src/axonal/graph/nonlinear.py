"""Functions that are not linear, as nodes of a graph: `Difference`, and what it knows by name.

A function takes values [T, ...] of samples and returns such; its names and options are torch's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.neurons import HALF
from .ops import Op, Shape, windows

# Multiply-adds that an exponential, a hyperbolic tangent or an error function counts as: the
# degree of their polynomials in single precision, and the reduction of the argument (Cephes).
CURVE = 8
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, eq=False)
class Difference(Op):
    """A function of rates: hands on by how much its sum should grow (`nn.Difference`).

        y_t = t f(mean of x up to t) - (t - 1) f(mean of x up to t - 1)

    Attributes:
        function: a name in `FUNCTIONS`.
        values: its options by name, numbers and arrays.
        unit: of which t f is rounded to multiples; None to round nothing.
    """

    function: str
    values: Mapping[str, Any] = field(default_factory=dict)
    unit: float | None = None

    def __post_init__(self):
        if self.function not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise InputError(f"Difference: no function {self.function!r}; there are {known}")

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: v for name, v in self.values.items() if isinstance(v, np.ndarray)}

    def shape(self, *given: Shape) -> Shape:
        try:
            found = self._run(*(np.zeros((1, *size)) for size in given)).shape
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"Difference: {self.function} of {given}: {error}") from error
        if found[:1] != (1,) or not 1 <= len(found) - 1 <= 3:
            raise InputError(f"Difference: {self.function} of {given} is no sample")
        return found[1:]

    def rest(self, result: Shape, *given: Shape) -> np.ndarray:
        """What it remembers before the first step: how many there were, sums, t f(means); flat."""
        return np.zeros(1 + sum(map(math.prod, (*given, result))))

    def over(self, given: list[np.ndarray], state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values for inputs [T, ...] after an earlier state, and the state after them."""
        count = state[0] + np.arange(1.0, len(given[0]) + 1)
        ends = np.cumsum([1, *(x[0].size for x in given)])
        _, *sums, last = np.split(state, ends)
        totals = [
            np.cumsum(np.concatenate([before.reshape(1, *x.shape[1:]), x]), 0)[1:]
            for before, x in zip(sums, given, strict=True)
        ]
        whole = self._run(*(t / _behind(count, t) for t in totals))
        whole = whole * _behind(count, whole)
        if self.unit is not None:
            whole = np.floor(whole / self.unit + HALF) * self.unit
        y = np.diff(whole, axis=0, prepend=last.reshape(1, *whole.shape[1:]))
        after = [count[-1:], *(t[-1].ravel() for t in totals), whole[-1].ravel()]
        return y.astype(np.float32), np.concatenate(after)

    def work(self, result: Shape, *given: Shape) -> dict[str, float]:
        """What a step takes, by field of `Counts`: dense work, whatever moved.

        Each input is added to its sum and divided by t, each result multiplied by t and the last
        one taken off, and sums and results are kept. The function's own part is in `FUNCTIONS`;
        what is done once for a whole row, such as a root, is left out.
        """
        size, results, fan = sum(map(math.prod, given)), math.prod(result), 1
        if self.function in ("matmul", "bmm"):
            fan = given[0][-1]
        elif "kernel_size" in self.values:
            fan = np.broadcast_to(self.values["kernel_size"], len(result) - 1).prod()
        _, multiplies, adds = FUNCTIONS[self.function]
        return {
            "multiplies": size + results * (1 + fan * multiplies),
            "adds": size + results * (1 + fan * adds),
            "weight_reads": sum(a.size for a in self.arrays().values()),
            "state_reads": 2 * size + results,
            "state_writes": size + 2 * results,
        }

    def _run(self, *x: np.ndarray) -> np.ndarray:
        function, *_ = FUNCTIONS[self.function]
        return np.asarray(function(*x, **self.values), np.float64)


def called(function: Any) -> tuple[str, dict[str, Any]]:
    """The name and the options of a function of torch, a partial one, or a module that calls one.

    Raises:
        InputError: options are given by place.
    """
    kind = type(function).__name__
    if kind in MODULES:
        name, *options = MODULES[kind]
        found = {key: getattr(function, key) for key in options}
    else:
        if getattr(function, "args", ()):
            raise InputError("its function has options by place; give them by name")
        found, function = getattr(function, "keywords", {}), getattr(function, "func", function)
        name = getattr(function, "__name__", kind)
    found = {k: v for k, v in found.items() if v is not None and not k.startswith("_")}
    return name, found


def _behind(count: np.ndarray, like: np.ndarray) -> np.ndarray:
    return count.reshape(-1, *(1 for _ in like.shape[1:]))


def _max_pool(
    dims: int,
    x: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> np.ndarray:
    if ceil_mode or return_indices:
        raise InputError("Difference: no ceil_mode and no indices of maxima; pad instead")
    if x.ndim != dims + 2:
        raise ValueError(f"give [C, {'L' if dims == 1 else 'H, W'}]")
    size, step, pads, apart = (
        tuple(np.broadcast_to(v, dims).tolist())
        for v in (kernel_size, stride or kernel_size, padding, dilation)
    )
    x = np.pad(x, [(0, 0)] * 2 + [(p, p) for p in pads], constant_values=-np.inf)
    seen = windows(x.reshape(-1, *x.shape[2:]), size, step, ((0, 0),) * dims, apart)
    found = seen.max(tuple(range(-dims, 0)))
    return found.reshape(*x.shape[:2], *found.shape[1:])


def _softmax(x: np.ndarray, dim: int) -> np.ndarray:
    if dim % x.ndim == 0:
        raise ValueError("it mixes samples")
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def _layer_norm(
    x: np.ndarray, normalized_shape: Any, weight: Any = 1.0, bias: Any = 0.0, eps: float = 1e-5
) -> np.ndarray:
    if tuple(normalized_shape) != x.shape[-1:] or x.ndim < 2:
        raise ValueError(f"it is over {tuple(normalized_shape)}; only the last axis will do")
    x = x - x.mean(-1, keepdims=True)
    scaled = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps)
    return scaled * weight + bias


def _gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + np.asarray(_erf(x * math.sqrt(0.5)), np.float64))


# The function, and its multiplies and adds for each value that goes into each result.
FUNCTIONS: Mapping[str, tuple[Callable[..., np.ndarray], int, int]] = {
    "max_pool1d": (partial(_max_pool, 1), 0, 1),
    "max_pool2d": (partial(_max_pool, 2), 0, 1),
    "softmax": (_softmax, CURVE + 1, CURVE + 3),
    "layer_norm": (_layer_norm, 3, 4),
    "gelu": (_gelu, CURVE + 3, CURVE + 1),
    "matmul": (np.matmul, 1, 1),
    "bmm": (np.matmul, 1, 1),
    "mul": (np.multiply, 1, 0),
}
POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
# A module's class: the function that it calls, and its attributes that are options.
MODULES: Mapping[str, tuple[str, ...]] = {
    "MaxPool1d": ("max_pool1d", *POOL),
    "MaxPool2d": ("max_pool2d", *POOL),
    "Softmax": ("softmax", "dim"),
    "LayerNorm": ("layer_norm", "normalized_shape", "weight", "bias", "eps"),
    "GELU": ("gelu", "approximate"),
}
