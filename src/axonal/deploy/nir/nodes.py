"""NIR's nodes as nodes of a `Graph`: one rule a kind, in `RULES`; the package explains them."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.hdf5 import Tree
from ...core.neurons import Current, Dynamics, Leaky, Reset
from ...graph.graph import Node
from ...graph.ops import (
    Add,
    Bias,
    Conv,
    Delay,
    Dense,
    Input,
    Neurons,
    Op,
    Pool,
    Scale,
    Shape,
    reshape,
)
from .conventions import Convention

Array = np.ndarray
SPIKING = ("IF", "LIF", "CubaLIF", "Threshold")


class Values:
    """The parameters of a node, each checked when it is asked for.

    Raises:
        InputError: one is missing, or is none of this kind's.
    """

    def __init__(self, tree: Tree):
        self.tree = {k: v for k, v in tree.items() if k not in ("type", "metadata")}
        _, required, optional = RULES[tree["type"]]
        if missing := [key for key in required.split() if key not in self.tree]:
            raise InputError(f"it has no {missing[0]}")
        if extra := sorted(set(map(str, self.tree)) - {*required.split(), *optional.split()}):
            raise InputError(f"{extra[0]!r} is no parameter of it that is known here")

    def __contains__(self, key: str) -> bool:
        return self.tree.get(key) is not None

    def array(self, key: str) -> Array:
        """Finite numbers, float64."""
        value = np.asarray(self.tree[key])
        if value.dtype.kind not in "biuf" or value.size == 0 or not np.isfinite(value).all():
            raise InputError(f"{key} must be finite numbers")
        return value.astype(np.float64)

    def weight(self, key: str) -> Array:
        """Finite numbers, float32."""
        with np.errstate(over="ignore"):
            value = self.array(key).astype(np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"{key} has values that float32 can't hold")
        return value

    def integers(self, key: str, count: int | None = None) -> tuple[int, ...]:
        """`count` integers, of which NIR may give one for all."""
        value = self.array(key)
        exact = value.ndim <= 1 and (value == np.rint(value)).all() and abs(value).max() < 2**31
        if not exact or (count and value.size not in (1, count)):
            raise InputError(f"{key} must be {count or 'some'} whole numbers")
        value = value.reshape(-1)
        return tuple(int(v) for v in (np.resize(value, count) if count else value))

    def neurons(self, *keys: str) -> list[Array]:
        """Several parameters, broadcast to one shape."""
        arrays = [self.array(key) for key in keys]
        try:
            return list(np.broadcast_arrays(*arrays))
        except ValueError as error:
            raise InputError(f"{', '.join(keys)} differ in shape") from error


class Builder:
    """A graph under construction, whose helpers leave out what would do nothing.

    Args:
        names: of all nodes of NIR, which no other node may have.
        convention: how neurons are cut into steps.
        dt: seconds of a step.
        most: values that a node may have.

    Attributes:
        nodes, shapes: so far.
        expected: node of NIR, node of the graph, parameter, shape: compared in the end.
        owner: the node of NIR that is being built.
    """

    def __init__(self, names: Iterable[str], convention: Convention, dt: float, most: float):
        self.convention, self.dt, self.most = convention, dt, most
        self.taken, self.twins = set(names), Counter[str]()
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.expected: list[tuple[str, str, str, Shape]] = []
        self.owner = ""

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Add a node, whose shape is known if those of its inputs are."""
        self.nodes.append(Node(name, op, inputs))
        if all(i in self.shapes for i in inputs):
            shape = op.shape(*(self.shapes[i] for i in inputs))
            steps = int(op.steps.max()) if isinstance(op, Delay) else 0
            if math.prod(shape) * (1 + steps) > self.most:
                raise InputError(f"it would have {shape} values; raise `limit` to read it")
            self.shapes[name] = shape
        return name

    def spare(self, name: str) -> str:
        """`name`, or with a number behind it if that is taken."""
        base = name
        while name in self.taken:
            self.twins[base] += 1
            name = f"{base}_{self.twins[base]}"
        self.taken.add(name)
        return name

    def scale(self, name: str, factor: Array, x: str) -> str:
        """x times a factor."""
        if (factor == 1).all():
            return x
        return self.add(self.spare(name), Scale(_few(factor)), x)

    def bias(self, name: str, value: Array, x: str) -> str:
        """x plus a value."""
        if not value.any():
            return x
        return self.add(self.spare(name), Bias(_few(value)), x)

    def expect(self, node: str, key: str, shape: Shape) -> None:
        """Note a shape to compare when all are known; () and (1,) go with all."""
        if math.prod(shape) > 1:
            self.expected.append((self.owner, node, key, shape))

    def potentials(self, *values: Array) -> None:
        """Refuse potentials that the convention would ignore."""
        if not self.convention.potentials and any(v.any() for v in values):
            raise InputError("v_leak and v_reset other than 0 don't count in this discretisation")

    def kind(self, name: str) -> tuple[str, Reset]:
        """The gain and the reset of a kind of spiking neuron."""
        if name not in self.convention.kinds:
            raise InputError(f"there is no {name} in this discretisation")
        return self.convention.kinds[name]


def _few(value: Array) -> Array:
    """`value` as float32, and as one number where all are equal."""
    value = value.astype(np.float32)
    first = value.reshape(-1)[0]
    return np.array(first) if (value == first).all() else value


def _linear(b: Builder, name: str, op: Op, bias: Array | None, x: str) -> None:
    """Add a weighted map, and its bias as a node of its own if there is any."""
    if bias is None or not bias.any():
        b.add(name, op, x)
    else:
        b.add(name, Bias(bias), b.add(b.spare(f"{name}.weight"), op, x))


def _dense(b: Builder, name: str, p: Values, x: str) -> None:
    bias = p.weight("bias") if "bias" in p else None
    op = Dense(p.weight("weight"))
    if bias is not None and bias.shape != op.weight.shape[:1]:
        raise InputError(f"bias {bias.shape} for weights {op.weight.shape}")
    _linear(b, name, op, bias, x)


def _conv(b: Builder, name: str, p: Values, x: str, dims: int) -> None:
    weight, bias = p.weight("weight"), p.weight("bias")
    if weight.ndim != dims + 2 or bias.shape != weight.shape[:1]:
        raise InputError(f"weight {weight.shape} and bias {bias.shape} don't fit")
    stride, dilation = p.integers("stride", dims), p.integers("dilation", dims)
    padding = p.tree["padding"]
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding not in ("same", "valid") or (padding == "same" and max(stride) > 1):
            raise InputError(f"padding {padding!r} with stride {stride}")
        sides = [(t // 2, t - t // 2) if padding == "same" else (0, 0) for t in total]
    else:
        sides = [(n, n) for n in p.integers("padding", dims)]
    (groups,) = p.integers("groups", 1)
    op = Conv(weight, stride, tuple(sides), dilation, groups)
    if "input_shape" in p:
        size = p.integers("input_shape", dims)
        b.expect(x, "input_shape", (weight.shape[1] * groups, *size))
    _linear(b, name, op, bias.reshape(-1, *(1,) * dims), x)


def _pool(b: Builder, name: str, p: Values, x: str, average: bool) -> None:
    sides = tuple((n, n) for n in p.integers("padding", 2))
    b.add(name, Pool(p.integers("kernel_size", 2), p.integers("stride", 2), sides, average), x)


def _flatten(b: Builder, name: str, p: Values, x: str) -> None:
    shape = p.integers("input_type") if "input_type" in p else b.shapes.get(x)
    if shape is None:
        raise InputError("it stands in a cycle and has no input_type")
    b.expect(x, "input_type", shape)
    (start,), (end,) = p.integers("start_dim", 1), p.integers("end_dim", 1)
    start, end = (d + len(shape) if d < 0 else d for d in (start, end))
    if not 0 <= start <= end < len(shape) or not 0 < math.prod(shape) <= b.most:
        raise InputError(f"can't flatten {shape} from start_dim {start} to end_dim {end}")
    b.add(name, reshape((*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])), x)


def _delay(b: Builder, name: str, p: Values, x: str) -> None:
    delay = p.array("delay")
    steps = np.rint(delay / b.dt)
    if abs(steps * b.dt - delay).max() > 1e-3 * b.dt or steps.max() > 2**20 or steps.min() < 0:
        raise InputError(f"delay must be whole steps of dt {b.dt} s, from 0 to 2^20")
    b.expect(x, "delay", delay.shape)
    same = (steps == steps.reshape(-1)[0]).all()
    b.add(name, Delay(np.asarray(steps.reshape(-1)[0] if same else steps, np.int64)), x)


def _scale(b: Builder, name: str, p: Values, x: str) -> None:
    b.expect(x, "scale", p.array("scale").shape)
    b.add(name, Scale(p.weight("scale")), x)


def _population(
    b: Builder, name: str, x: str, kind: type[Dynamics], reset: Reset, **constants: Array
) -> None:
    """Add a population; constants that all neurons share become numbers."""
    if not (constants["threshold"].astype(np.float32) > 0).all():
        raise InputError("the threshold must lie above v_reset, or above 0 where there is none")
    c = b.convention
    few = {key: _few(value) for key, value in constants.items()}
    many = c.emit == "multiple" and reset != "none"
    options: dict[str, Any] = {key: float(v.reshape(-1)[0]) for key, v in constants.items()}
    options |= {"emit": c.emit, "levels": c.levels} if many else {}
    op = Neurons(
        kind(**options, reset=reset, above=c.above), {k: v for k, v in few.items() if v.ndim}
    )
    if c.late and reset != "none":
        x = b.add(b.spare(f"{name}.fire"), op, x)
        b.add(name, Delay(np.asarray(c.late)), x)
    else:
        b.add(name, op, x)


def _threshold(b: Builder, name: str, p: Values, x: str) -> None:
    level = p.array("threshold")
    b.expect(x, "threshold", level.shape)
    _population(b, name, x, Leaky, "none", decay=np.zeros(()), threshold=level)


def _leaky(
    b: Builder, name: str, x: str, reset: Reset, leak: Array, gain: Array, pull: Array, level: Array
) -> None:
    """Add a population with u <- (1 - leak) u + gain x + pull."""
    if pull.any():
        x = b.bias(f"{name}.pull", pull, b.scale(f"{name}.gain", gain, x))
        gain = np.ones(())
    _population(b, name, x, Leaky, reset, decay=1 - leak, gain=gain, threshold=level)


def _levels(b: Builder, p: Values, x: str, *keys: str) -> list[Array]:
    """v_threshold, v_reset and more parameters, of one shape."""
    if "v_reset" not in p:
        p.tree["v_reset"] = np.zeros(())
    level, back, *others = p.neurons("v_threshold", "v_reset", *keys)
    b.expect(x, "v_threshold", level.shape)
    b.potentials(back)
    return [level, back, *others]


def _if(b: Builder, name: str, p: Values, x: str) -> None:
    how, reset = b.kind("IF")
    level, back, r = _levels(b, p, x, "r")
    gain = r * b.dt if how == "equation" else np.ones(())
    _leaky(b, name, x, reset, np.zeros(()), gain, np.zeros(()), level - back)


def _lif(b: Builder, name: str, p: Values, x: str) -> None:
    how, reset = b.kind("LIF")
    level, back, tau, r, rest = _levels(b, p, x, "tau", "r", "v_leak")
    b.potentials(rest)
    leak = b.convention.leak(tau, b.dt)
    gain = {"equation": r * leak, "unit": leak}.get(how, np.ones(()))
    _leaky(b, name, x, reset, leak, gain, (rest - back) * leak, level - back)


def _cuba_lif(b: Builder, name: str, p: Values, x: str) -> None:
    how, reset = b.kind("CubaLIF")
    level, back, tau, rest = _levels(b, p, x, "tau_mem", "v_leak")
    b.potentials(rest)
    leak = b.convention.leak(tau, b.dt)
    pull = (rest - back) * leak
    if b.convention.split or pull.any():
        x = _current(b, name, p, x, how)
        return _leaky(b, name, x, reset, leak, np.ones(()), pull, level - back)
    keep, gain, drive = _synapse(b, p, how)
    constants = {"decay": 1 - leak, "synapse": keep, "gain": gain, "drive": drive}
    return _population(b, name, x, Current, reset, **constants, threshold=level - back)


def _synapse(b: Builder, p: Values, how: str) -> tuple[Array, Array, Array]:
    """The decay, input gain and drive of a current."""
    if "w_in" not in p:
        p.tree["w_in"] = np.ones(())
    slow, tau, r, weight = p.neurons("tau_syn", "tau_mem", "r", "w_in")
    lost = b.convention.leak(slow, b.dt)
    if how == "equation":
        return 1 - lost, weight * lost, r * b.convention.leak(tau, b.dt)
    return 1 - lost, (1 - lost if how == "decayed" else np.ones(())), np.ones(())


def _current(b: Builder, name: str, p: Values, x: str, how: str) -> str:
    """Add a synaptic current: what it adds to its membrane in a step.

    With i' = s i + (1 - s) X for an X = w_in x that is constant through the step, the current at
    a time t in it is X + (i - X) exp(-t/tau_syn); the membrane's equation integrates that to
    r k i + r (1 - a - k) X, where k = dt/tau_mem a (e^z - 1)/z, z = dt (1/tau_mem - 1/tau_syn).
    """
    keep, gain, drive = _synapse(b, p, how)
    line = b.spare(f"{name}.current")
    before = b.spare(f"{name}.before")
    _filter(b, line, before, keep, b.scale(f"{name}.input", gain, x))
    if not b.convention.split:
        return b.scale(f"{name}.drive", drive, line)
    slow, tau, r, weight = p.neurons("tau_syn", "tau_mem", "r", "w_in")
    z = b.dt / tau - b.dt / slow
    with np.errstate(invalid="ignore", over="ignore"):
        k = b.dt / tau * np.exp(-b.dt / tau) * np.where(z == 0, 1, np.expm1(z) / (z + (z == 0)))
    if not np.isfinite(k).all():
        raise InputError("tau_mem is too small for this dt")
    old = b.scale(f"{name}.old", r * k, before)
    new = b.scale(f"{name}.new", (drive - r * k) * weight, x)
    return b.add(b.spare(f"{name}.drive"), Add(), old, new)


def _filter(b: Builder, name: str, before: str, decay: Array, *terms: str) -> None:
    """Add a leaky sum: y = decay y[t - 1] + the terms."""
    b.add(before, Delay(np.asarray(1)), name)
    b.add(name, Add(), *terms, b.scale(f"{name}.leak", decay, before))
    if terms[0] in b.shapes:
        b.shapes[name] = b.shapes[before] = b.shapes[terms[0]]


def _integrator(b: Builder, name: str, p: Values, x: str) -> None:
    """Add I, LI or CubaLI, which hand on their membrane."""
    zero = np.zeros(())
    key = "tau_mem" if "tau_mem" in p else "tau"
    leak = b.convention.leak(p.array(key), b.dt) if key in p else zero
    b.expect(x, "r", p.array("r").shape)
    if "tau_mem" in p:
        x = _current(b, name, p, x, "equation")
    else:
        x = b.scale(f"{name}.gain", p.array("r") * (leak if key in p else b.dt), x)
    rest = p.array("v_leak") if "v_leak" in p else zero
    x = b.bias(f"{name}.pull", rest * leak, x)
    _filter(b, name, b.spare(f"{name}.before"), 1 - leak, x)


def _input(b: Builder, name: str, p: Values, x: str) -> None:
    b.add(name, Input(p.integers("shape")))


def _port(b: Builder, name: str, p: Values, x: str) -> None:
    b.expect(x, "shape", p.integers("shape"))
    b.add(name, Add(), x)


Rule = tuple[Callable[[Builder, str, Values, str], None], str, str]
RULES: dict[str, Rule] = {  # what builds it, parameters it needs, parameters it may have
    "Input": (_input, "shape", ""),
    "Output": (_port, "shape", ""),
    "Port": (_port, "shape", ""),
    "Affine": (_dense, "weight bias", ""),
    "Linear": (_dense, "weight", ""),
    "Scale": (_scale, "scale", ""),
    "Conv1d": (
        lambda b, n, p, x: _conv(b, n, p, x, 1),
        "weight stride padding dilation groups bias",
        "input_shape",
    ),
    "Conv2d": (
        lambda b, n, p, x: _conv(b, n, p, x, 2),
        "weight stride padding dilation groups bias",
        "input_shape",
    ),
    "SumPool2d": (lambda b, n, p, x: _pool(b, n, p, x, False), "kernel_size stride padding", ""),
    "AvgPool2d": (lambda b, n, p, x: _pool(b, n, p, x, True), "kernel_size stride padding", ""),
    "Flatten": (_flatten, "start_dim end_dim", "input_type"),
    "Delay": (_delay, "delay", ""),
    "Threshold": (_threshold, "threshold", ""),
    "I": (_integrator, "r", ""),
    "LI": (_integrator, "tau r v_leak", ""),
    "CubaLI": (_integrator, "tau_syn tau_mem r v_leak", "w_in"),
    "IF": (_if, "r v_threshold", "v_reset"),
    "LIF": (_lif, "tau r v_leak v_threshold", "v_reset"),
    "CubaLIF": (_cuba_lif, "tau_syn tau_mem r v_leak v_threshold", "v_reset w_in"),
}
