"""A neuron as data: its constants, and its equations in an algebra that every engine has.

`Dynamics.step` is written once, in + - * /, comparisons and the few functions of an `Algebra`.
The reference runs it on tensors; the fused scans trace it and compile the trace and its
derivative. There is no other place where a neuron's equations stand.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Protocol, get_args

from ..config import Config, renamed
from ..errors import InputError

Emit = Literal["binary", "ternary", "integer", "multiple", "graded", "membrane"]
Reset = Literal["subtract", "zero", "late", "none"]
NEVER = 1e15  # a threshold that no membrane meets, and whose square is still a float32
State = tuple[Any, ...]  # of one neuron: numbers, nodes or arrays, by `Dynamics.state_names`
# What constants are called in files of before, by kind.
RENAMED: Mapping[str, Mapping[str, str]] = {
    "AdaptiveThreshold": {"fade": "rho", "rise": "beta"},
    "AdaptiveCurrent": {"fade": "beta", "couple": "a", "kick": "b"},
    "AdEx": {
        "capacity": "capacitance",
        "sharpness": "slope_factor",
        "tau": "tau_w",
        "couple": "a",
        "kick": "b",
        "back": "v_reset",
    },
    "BalancedResonate": {"fade": "gamma"},
}


class Algebra(Protocol):
    """The functions that equations call beside operators, of numbers of one kind."""

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """`yes` where the condition holds, else `no`."""
        ...

    def exp(self, x: Any, /) -> Any:
        """The exponential of x."""
        ...

    def floor(self, x: Any, /) -> Any:
        """The largest integer up to x; its gradient is zero."""
        ...

    def detach(self, x: Any, /) -> Any:
        """x, a constant to gradients."""
        ...

    def straight_through(self, value: Any, gradient: Any) -> Any:
        """`value`, with the gradient of `gradient` (straight-through; Bengio et al. 2013)."""
        ...

    def surrogate(self, x: Any, /) -> Any:
        """The surrogate derivative of a step at 0; a constant to gradients."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dynamics(Config):
    """The discrete equations of a population of neurons; each kind is a subclass.

    Each step charges the membrane to h, fires s and resets:

        v = h - threshold s  ("subtract"),  h [s = 0]  ("zero"),  h  ("none"),
        "late": h, and threshold times the spike is subtracted in the next step, after the leak

    where fire is, for each `emit`, with u = h / threshold,

        binary    s = [h >= threshold]
        ternary   s = [h >= threshold] - [-h >= threshold]
        integer   s = clip(floor(u + 1/2), 0, levels)             (Luo et al. 2024, I-LIF)
        multiple  s = clip(floor(u), 0, levels)                   (multi-spike of Sinabs, Rockpool)
        graded    s = +-2^-k, the k < levels with 3/4 <= |u| 2^k < 3/2, the largest |s| beyond,
                  0 below                                         (Huang et al. 2024, ECMT)
        membrane  s = h, at any value: a read-out that does not spike, and never resets

    Gradients through a spike follow a stand-in: the surrogate g of `ops.surrogate` for binary
    spikes, ds/dh = g(h - threshold) = -ds/dthreshold, and on both sides for ternary ones; du for
    the others, where s is within its levels (integer: -1/2 < u < levels + 1/2; multiple: 0 < u <
    levels + 1; graded: |u| < 3/2). With `detach_reset` the s in the reset is a constant.

    Attributes:
        gain: of the input.
        threshold: > 0, in the unit of the membrane.
        emit: what a spike is.
        reset: what a spike does to the membrane.
        levels: the largest integer spike, or how many sizes graded ones have.
        above: fire only above the threshold, not at it.
        refractory: steps after a spike in which a neuron neither fires nor moves its membrane.
        detach_reset: whether gradients ignore the path through the reset.
        text: all of this as JSON, made once: what an operator's schema can hold.

    Raises:
        InputError: a value outside its range, or a combination without meaning.
    """

    gain: float = 1.0
    threshold: float = 1.0
    emit: Emit = "binary"
    reset: Reset = "subtract"
    levels: int = 1
    above: bool = False
    refractory: int = 0
    detach_reset: bool = True

    text: ClassVar[str]
    KINDS: ClassVar[dict[str, type["Dynamics"]]] = {}
    STATE: ClassVar[tuple[str, ...]] = ("v",)  # the membrane comes first
    UNIT: ClassVar[tuple[str, ...]] = ("decay",)  # the constants that lie in [0, 1]
    POSITIVE: ClassVar[tuple[str, ...]] = ()  # those that are above 0
    RESETS: ClassVar[tuple[str, ...]] = ("subtract", "zero", "none")
    NUMBERED: ClassVar[bool] = False  # whether a spike of several levels is one event
    LEAST: ClassVar[float] = math.ulp(0.0)  # threshold

    def __init_subclass__(cls):
        Dynamics.KINDS[cls.__name__] = cls

    def __post_init__(self):
        name = type(self).__name__
        if type(self) is Dynamics:
            raise InputError(f"Dynamics: choose a kind: {', '.join(Dynamics.KINDS)}")
        for key, value in self.constants().items():
            if not math.isfinite(value):
                raise InputError(f"{name}: {key} {value} must be finite")
            if key in self.UNIT and not 0 <= value <= 1:
                raise InputError(f"{name}: {key} {value} is outside [0, 1]")
            if key in self.POSITIVE and not value > 0:
                raise InputError(f"{name}: {key} {value} must be above 0")
        if not self.threshold >= self.LEAST:
            least = "at least" if self.LEAST == 0 else "above"
            raise InputError(f"{name}: threshold {self.threshold} must be {least} 0")
        if self.emit not in get_args(Emit):
            raise InputError(
                f"{name}: emit {self.emit!r} is not one of {', '.join(get_args(Emit))}"
            )
        if self.NUMBERED and self.emit not in ("integer", "multiple"):
            raise InputError(f"{name}: it sends numbers; choose emit 'integer' or 'multiple'")
        if self.reset not in self.RESETS:
            raise InputError(f"{name}: reset {self.reset!r} is not one of {', '.join(self.RESETS)}")
        many = self.emit in ("integer", "multiple", "graded")
        if self.levels < 1 or (self.levels > 1 and not many):
            raise InputError(f"{name}: {self.levels} levels with {self.emit} spikes")
        if self.emit == "graded" and self.reset == "zero":
            raise InputError(f"{name}: a graded spike is part of the membrane; subtract it")
        if self.emit == "membrane" and (self.reset != "none" or self.refractory):
            raise InputError(f"{name}: a membrane that is read has no spikes; give it reset 'none'")
        if self.refractory < 0:
            raise InputError(f"{name}: {self.refractory} refractory steps")
        object.__setattr__(self, "text", json.dumps(self.to_dict(), sort_keys=True))

    def constants(self) -> dict[str, float]:
        """The constants of the equations by name; `ops.scan` takes a tensor for any of them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type in (float, "float")}

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that JSON can hold, with the kind under "kind"."""
        return {"kind": type(self).__name__} | super().to_dict()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Dynamics":
        """The dynamics that `to_dict` wrote, now or before constants were renamed.

        Raises:
            InputError: an unknown kind, or as `Config.from_dict`.
        """
        kind = values.get("kind", cls.__name__) if isinstance(values, Mapping) else None
        if kind not in cls.KINDS or not issubclass(cls.KINDS[kind], cls):
            raise InputError(
                f"{cls.__name__}: kind {kind!r} is unknown; choose of {', '.join(cls.KINDS)}"
            )
        values = {key: value for key, value in values.items() if key != "kind"}
        dynamics = super(Dynamics, cls.KINDS[kind]).from_dict(renamed(values, RENAMED.get(kind)))
        assert isinstance(dynamics, Dynamics)
        return dynamics

    @property
    def graded(self) -> bool:
        """Whether spikes carry values that need multiplications, and not only signs and counts."""
        return self.emit in ("graded", "membrane") or (self.NUMBERED and self.levels > 1)

    @property
    def events(self) -> int:
        """The most events that a neuron sends in a step: a number may be one, or so many."""
        return 1 if self.graded else self.levels

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the values that a neuron carries from one step to the next."""
        return (*self.STATE, "wait") if self.refractory else self.STATE

    @property
    def state_size(self) -> int:
        """The number K of these values."""
        return len(self.state_names)

    @property
    def rest(self) -> tuple[float, ...]:
        """The values of a neuron that was never driven."""
        return (0.0,) * self.state_size

    def step(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        """Advance a neuron by a step: input and state -> spike and state.

        Args:
            m: the algebra of all values.
            x: the input.
            state: as `state_names`.
            p: the constants by name, as attributes.
        """
        if not self.refractory:
            return self.equations(m, x, state, p)
        *inner, wait = state
        resting, values = wait > 0, vars(p)
        values = values | {"threshold": m.where(resting, NEVER, p.threshold)}
        s, (v, *rest) = self.equations(m, x, tuple(inner), SimpleNamespace(**values))
        fired = m.detach(s * s) > 0
        wait = m.where(fired, float(self.refractory), m.where(resting, wait - 1, 0.0))
        return s, (m.where(resting, inner[0], v), *rest, wait)

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        """Advance a neuron that is not refractory, as `step` says."""
        raise InputError(
            f"{type(self).__name__}: a kind of neuron has equations; see core.neurons.kinds"
        )

    def fire(self, m: Algebra, h: Any, threshold: Any) -> Any:
        """The spike of the membrane h."""
        if self.emit == "membrane":
            return h
        if self.emit == "binary":
            return self._spike(m, h - threshold)
        if self.emit == "ternary":
            return self._spike(m, h - threshold) - self._spike(m, -h - threshold)
        u = h / threshold
        if self.emit == "graded":
            value = _power(m, u, self.levels)
            return m.straight_through(value, m.where(abs(m.detach(u)) < 1.5, u, 0.0))
        shift = 0.5 if self.emit == "integer" else 0.0
        value, most = m.floor(u + shift), float(self.levels)
        value = m.where(value > most, most, m.where(value < 0, 0.0, value))
        inside = (u > -shift) & (u < most + 1 - shift)
        return m.straight_through(value, m.where(inside, u, 0.0))

    def reset_spike(self, m: Algebra, s: Any) -> Any:
        """The spike in the reset: a constant to gradients if `detach_reset`."""
        return m.detach(s) if self.detach_reset else s

    def apply_reset(self, m: Algebra, h: Any, s: Any, threshold: Any) -> Any:
        """The membrane after the spike s."""
        s = self.reset_spike(m, s)
        if self.reset == "subtract":
            return h - threshold * s
        if self.reset == "zero":
            return h * (1 - m.where(s > 1, 1.0, s if self.emit != "ternary" else s * s))
        return h

    def apply_late_reset(self, m: Algebra, h: Any, v: Any, threshold: Any) -> Any:
        """The membrane h after the late reset, if there is one, by the spike that v fired."""
        if self.reset != "late":
            return h
        return h - threshold * self.reset_spike(m, self.fire(m, v, threshold))

    def _spike(self, m: Algebra, x: Any) -> Any:
        fired = x > 0 if self.above else x >= 0
        return m.straight_through(m.where(fired, 1.0, 0.0), m.surrogate(x) * x)


def _power(m: Algebra, u: Any, levels: int) -> Any:
    """The signed power of two that a graded spike of u sends, of 1, 1/2, ... 2^(1 - levels)."""
    size = abs(u)
    value = m.where(size >= 0.75 * 2.0 ** (1 - levels), 2.0 ** (1 - levels), 0.0)
    for k in range(levels - 2, -1, -1):
        value = m.where(size >= 0.75 * 2.0**-k, 2.0**-k, value)
    return m.where(u < 0, -value, value)


def decay_from_tau(tau: float, dt: float = 1.0) -> float:
    """The decay per step of a leak with time constant `tau` (same unit as `dt`): exp(-dt/tau).

    Raises:
        InputError: `tau` or `dt` is not positive.
    """
    if not (tau > 0 and dt > 0):
        raise InputError(f"tau {tau} and dt {dt} must be above 0")
    return math.exp(-dt / tau)
