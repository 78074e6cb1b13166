"""What the nodes of a graph compute: linear maps, delays and neurons, as data.

Shapes are of one sample and one step, channels first: [N], [C, L] or [C, H, W]. `apply` is the
definition of a map; `engine` finds the same by following events.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..core.errors import InputError
from ..core.neurons import Dynamics

Shape = tuple[int, ...]
LARGEST = 2**31 - 1  # values of a node


@dataclass(frozen=True, eq=False)
class Op(ABC):
    """What a node computes. Subclasses are data."""

    WEIGHTED: ClassVar[bool] = False  # whether its weights are synapses, which `Counts` count
    SEVERAL: ClassVar[bool] = False  # whether it reads other than one node

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """The shape of the result for inputs of these shapes.

        Raises:
            InputError: they don't fit.
        """

    def apply(self, *x: np.ndarray) -> np.ndarray:
        """The map of values of one step; neurons and delays, which remember, have none."""
        raise InputError(f"{type(self).__name__}: it remembers; `engine.reference` runs it")

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name: weights and other constants."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _need(condition: bool, op: Op, reason: str) -> None:
    if not condition:
        raise InputError(f"{type(op).__name__}: {reason}")


def _finite(op: Op) -> None:
    for name, value in op.arrays().items():
        _need(value.dtype.kind in "fi" and bool(np.isfinite(value).all()), op, f"{name} not finite")


@dataclass(frozen=True, eq=False)
class Input(Op):
    """Where events come in."""

    size: Shape
    SEVERAL: ClassVar = True

    def __post_init__(self):
        good = 1 <= len(self.size) <= 3 and min(self.size) > 0 and math.prod(self.size) <= LARGEST
        _need(good, self, f"shape {self.size} must be [N], [C, L] or [C, H, W]")

    def shape(self, *inputs: Shape) -> Shape:
        _need(not inputs, self, "it has no inputs")
        return self.size


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """y = weight x, weight [O, I] and x [I]."""

    weight: np.ndarray
    WEIGHTED: ClassVar = True

    def __post_init__(self):
        _finite(self)
        _need(self.weight.ndim == 2 and self.weight.size > 0, self, "weight must be [O, I]")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        fits = x == self.weight.shape[1:]
        _need(fits, self, f"weight {self.weight.shape} for an input of {x}")
        return self.weight.shape[:1]

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return self.weight @ x[0]


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """A convolution as torch's (a correlation): weight [O, I / groups, k] or [.., kh, kw].

    Attributes:
        stride, dilation: one number for each dimension.
        padding: zeros before and after, a pair for each dimension.
    """

    weight: np.ndarray
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    WEIGHTED: ClassVar = True

    def __post_init__(self):
        _finite(self)
        dims = self.weight.ndim - 2
        _need(dims in (1, 2) and self.weight.size > 0, self, "weight must be [O, I / groups, ...]")
        lengths = {len(self.stride), len(self.padding), len(self.dilation)}
        _need(lengths == {dims}, self, f"stride, padding and dilation need {dims} entries each")
        least = min(*self.stride, *self.dilation, self.groups)
        _need(least >= 1 and min(min(p) for p in self.padding) >= 0, self, "a size is too small")
        _need(self.weight.shape[0] % self.groups == 0, self, f"{self.groups} groups don't fit")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        outputs, inputs, *kernel = self.weight.shape
        fits = len(x) == self.weight.ndim - 1 and x[0] == inputs * self.groups
        _need(fits, self, f"weight {self.weight.shape}, {self.groups} groups, for an input of {x}")
        return outputs, *_fits(self, x[1:], tuple(kernel), self.stride, self.padding, self.dilation)

    def apply(self, *x: np.ndarray) -> np.ndarray:
        size = self.weight.shape[2:]
        seen = windows(x[0], size, self.stride, self.padding, self.dilation)
        axes = (0, *range(1 + len(size), seen.ndim))
        pairs = zip(np.split(self.weight, self.groups), np.split(seen, self.groups), strict=True)
        parts = [np.tensordot(w, s, (tuple(range(1, w.ndim)), axes)) for w, s in pairs]
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """Sums over windows of each channel, or averages (zeros of the padding counted).

    Attributes:
        size, stride: of the windows, one number for each dimension.
        padding: a pair for each dimension.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    average: bool = True

    def __post_init__(self):
        dims = len(self.size)
        fits = {len(self.stride), len(self.padding)} == {dims} and dims in (1, 2)
        _need(fits, self, "size, stride and padding need as many entries")
        least = min(*self.size, *self.stride)
        _need(least >= 1 and min(min(p) for p in self.padding) >= 0, self, "a size is too small")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _need(len(x) == len(self.size) + 1, self, f"windows {self.size} for an input of {x}")
        ones = (1,) * len(self.size)
        return x[0], *_fits(self, x[1:], self.size, self.stride, self.padding, ones)

    def apply(self, *x: np.ndarray) -> np.ndarray:
        seen = windows(x[0], self.size, self.stride, self.padding, (1,) * len(self.size))
        axes = tuple(range(-len(self.size), 0))
        return seen.mean(axes) if self.average else seen.sum(axes)


def _fits(
    op: Op,
    size: Shape,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Shape:
    """How often a window of a size fits, in each dimension."""
    counts = tuple(
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    _need(min(counts) >= 1, op, f"a window of {kernel} does not fit an input of {size}")
    return counts


@dataclass(frozen=True, eq=False)
class Resize(Op):
    """Upsampling by whole factors, one a dimension: nearest, or bilinear between pixel centres."""

    factor: tuple[int, ...]
    bilinear: bool = False

    def __post_init__(self):
        good = len(self.factor) in (1, 2) and min(self.factor) >= 1
        _need(good, self, f"factor {self.factor} needs whole numbers, one a dimension")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _need(len(x) == len(self.factor) + 1, self, f"factor {self.factor} for an input of {x}")
        return x[0], *(n * f for n, f in zip(x[1:], self.factor, strict=True))

    def apply(self, *x: np.ndarray) -> np.ndarray:
        (y,) = x
        for axis, factor in enumerate(self.factor, 1):
            low, high, share = between(y.shape[axis], factor, self.bilinear)
            share = share.reshape(-1, *(1 for _ in y.shape[axis + 1 :]))
            y = y.take(low, axis) * (1 - share) + y.take(high, axis) * share
        return y


@dataclass(frozen=True, eq=False)
class Select(Op):
    """y[i] = x[index[i]], both flat: whatever moves, repeats or drops values.

    Reshaping, flattening, transposing, slicing, pixel shuffles.

    Attributes:
        index: int64, in the shape of the result.
    """

    index: np.ndarray

    def __post_init__(self):
        good = self.index.dtype.kind == "i" and self.index.size > 0 and 1 <= self.index.ndim <= 3
        _need(good and int(self.index.min()) >= 0, self, "index must be integers from 0")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        fits = int(self.index.max()) < math.prod(x)
        _need(fits, self, f"an index lies outside an input of {x}")
        return self.index.shape

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return x[0].reshape(-1)[self.index]

    @property
    def reshapes(self) -> bool:
        """Whether it only reshapes, if its input has as many values."""
        return bool((self.index.ravel() == np.arange(self.index.size)).all())


def reshape(shape: Shape) -> Select:
    """The `Select` that reshapes; flattening is `reshape((N,))`."""
    return Select(np.arange(math.prod(shape), dtype=np.int64).reshape(shape))


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """y = factor x, the factor broadcast to the input's shape."""

    factor: np.ndarray

    def __post_init__(self):
        _finite(self)

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _broadcast(self, self.factor, x)
        return x

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return self.factor * x[0]


@dataclass(frozen=True, eq=False)
class Bias(Op):
    """y = x + value in every step, the value broadcast to the input's shape."""

    value: np.ndarray

    def __post_init__(self):
        _finite(self)

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _broadcast(self, self.value, x)
        return x

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return x[0] + self.value


def _broadcast(op: Op, value: np.ndarray, x: Shape) -> None:
    fits = value.ndim <= len(x) and all(
        a in (1, b) for a, b in zip(value.shape[::-1], x[::-1], strict=False)
    )
    _need(fits, op, f"{value.shape} does not broadcast to {x}")


@dataclass(frozen=True, eq=False)
class Add(Op):
    """The sum of inputs of one shape."""

    SEVERAL: ClassVar = True

    def shape(self, *inputs: Shape) -> Shape:
        _need(len(set(inputs)) == 1, self, f"inputs of {', '.join(map(str, inputs))}")
        return inputs[0]

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return sum(x[1:], x[0])


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Inputs one after another along `axis`."""

    axis: int = 0
    SEVERAL: ClassVar = True

    def shape(self, *inputs: Shape) -> Shape:
        rest = {(*x[: self.axis], *x[self.axis + 1 :]) for x in inputs}
        fits = inputs and 0 <= self.axis < len(inputs[0]) and len(rest) == 1
        _need(bool(fits), self, f"axis {self.axis} of inputs of {', '.join(map(str, inputs))}")
        total = sum(x[self.axis] for x in inputs)
        return *inputs[0][: self.axis], total, *inputs[0][self.axis + 1 :]

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return np.concatenate(x, self.axis)


@dataclass(frozen=True, eq=False)
class Delay(Op):
    """Hands on each value so many steps later.

    Attributes:
        steps: int64 >= 0, broadcast to the input's shape; a number for all.
    """

    steps: np.ndarray

    def __post_init__(self):
        good = self.steps.dtype.kind == "i" and self.steps.size > 0
        good = good and int(self.steps.min()) >= 0 and int(self.steps.max()) <= 2**20
        _need(good, self, "steps must be integers from 0 to 2^20")

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _broadcast(self, self.steps, x)
        return x


@dataclass(frozen=True, eq=False)
class Neurons(Op):
    """A population with its dynamics.

    Attributes:
        dynamics: the equations and constants.
        values: arrays that replace constants by name, broadcast to the input's shape.
    """

    dynamics: Dynamics
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        constants = self.dynamics.constants()
        unknown = [name for name in self.values if name not in constants]
        _need(not unknown, self, f"no constant {unknown}; there are {', '.join(constants)}")
        _finite(self)

    def arrays(self) -> dict[str, np.ndarray]:
        return dict(self.values)

    def shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        for value in self.values.values():
            _broadcast(self, value, x)
        return x

    def constants(self, shape: Shape) -> dict[str, np.ndarray]:
        """Every constant for each neuron of a population of `shape`, float32."""
        values = self.dynamics.constants() | dict(self.values)
        return {n: np.broadcast_to(np.asarray(v, np.float32), shape) for n, v in values.items()}


def windows(
    x: np.ndarray,
    size: Shape,
    stride: Shape,
    padding: tuple[tuple[int, int], ...],
    dilation: Shape,
) -> np.ndarray:
    """The windows of x [C, ...], with zeros around it: [C, places..., size...]."""
    spans = tuple(d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True))
    padded = np.pad(x, ((0, 0), *padding))
    seen = sliding_window_view(padded, spans, tuple(range(1, x.ndim)))
    places = tuple(slice(None, None, s) for s in stride)
    return seen[(slice(None), *places, *(slice(None, None, d) for d in dilation))]


def between(size: int, factor: int, bilinear: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two places of an axis that each place of `factor` times as many lies between.

    Returns:
        Lower places, upper places, and the share of the upper, float32; nearest: the same place.
    """
    if not bilinear:
        low = np.repeat(np.arange(size), factor)
        return low, low, np.zeros(size * factor, np.float32)
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.floor(at).astype(int)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)
