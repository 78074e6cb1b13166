"""Kinds of neurons from the literature, each with the symbols and equations of its paper."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import InputError
from .base import Algebra, Dynamics, Reset, State


@dataclass(frozen=True, kw_only=True)
class Leaky(Dynamics):
    """One leaky membrane: IF, LIF, PLIF, integer LIF.

        h = decay v + gain x

    Gerstner et al. 2014, Neuronal Dynamics, section 1.3, in steps.

    Attributes:
        decay: of the membrane, per step, in [0, 1]; 1 integrates without leak.
    """

    RESETS: ClassVar = ("subtract", "zero", "late", "none")
    decay: float = 1.0

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        (v,) = state
        h = self.apply_late_reset(m, p.decay * v + p.gain * x, v, p.threshold)
        s = self.fire(m, h, p.threshold)
        return s, (self.apply_reset(m, h, s, p.threshold),)


@dataclass(frozen=True, kw_only=True)
class Current(Dynamics):
    """A leaky membrane behind a leaky synaptic current (current-based LIF, CUBA-LIF).

        i' = synapse i + gain x,   h = decay v + drive i'

    Attributes:
        decay, synapse: of the membrane and of the current, per step, in [0, 1].
        drive: of the membrane by the current.
    """

    STATE: ClassVar = ("v", "i")
    UNIT: ClassVar = ("decay", "synapse")
    RESETS: ClassVar = ("subtract", "zero", "late", "none")
    decay: float = 0.9
    synapse: float = 0.8
    drive: float = 1.0

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, i = state
        i = p.synapse * i + p.gain * x
        h = self.apply_late_reset(m, p.decay * v + p.drive * i, v, p.threshold)
        s = self.fire(m, h, p.threshold)
        return s, (self.apply_reset(m, h, s, p.threshold), i)


@dataclass(frozen=True, kw_only=True)
class AdaptiveThreshold(Dynamics):
    """A leaky membrane whose threshold rises with every spike and decays (ALIF, LSNN).

        h = decay v + gain x,  fires at threshold + beta a,  a' = rho a + s,
        "subtract" subtracts `threshold` alone

    Bellec et al. 2020 (Nat. Commun. 11:3625), eq. 8-10.

    Attributes:
        decay, rho: of the membrane and of the adaptation a, per step, in [0, 1].
        beta: how much a spike raises the threshold.
    """

    STATE: ClassVar = ("v", "a")
    UNIT: ClassVar = ("decay", "rho")
    decay: float = 0.9
    rho: float = 0.97
    beta: float = 0.2

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, a = state
        h = p.decay * v + p.gain * x
        s = self.fire(m, h, p.threshold + p.beta * a)
        return s, (self.apply_reset(m, h, s, p.threshold), p.rho * a + s)


@dataclass(frozen=True, kw_only=True)
class AdaptiveCurrent(Dynamics):
    """A leaky membrane with a current that opposes it (adLIF).

        h = decay v + (1 - decay) (gain x - w),   w' = beta w + a h + b s

    Bittar and Garner 2022 (Front. Neurosci. 16:865897), eq. 5-6, w taken at the end of the step.

    Attributes:
        decay, beta: of the membrane and of w, per step, in [0, 1]; the paper's alpha and beta.
        a: how the membrane drives w.
        b: what a spike adds to w.
    """

    STATE: ClassVar = ("v", "w")
    UNIT: ClassVar = ("decay", "beta")
    decay: float = 0.9
    beta: float = 0.97
    a: float = 0.1
    b: float = 0.5

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, w = state
        h = p.decay * v + (1 - p.decay) * (p.gain * x - w)
        s = self.fire(m, h, p.threshold)
        return s, (self.apply_reset(m, h, s, p.threshold), p.beta * w + p.a * h + p.b * s)


@dataclass(frozen=True, kw_only=True)
class Izhikevich(Dynamics):
    """The quadratic neuron of Izhikevich 2003 (IEEE Trans. Neural Netw. 14:1569), in mV and ms.

        h = v + dt (0.04 v^2 + 5 v + 140 - u + gain x),   u' = u + dt a (b v - u),
        a spike sets v to c and adds d to u; a membrane goes on from `threshold` at most

    Attributes:
        a, b, c, d: as published; the defaults are the regular spiking cell.
        dt: Euler step in ms; 0.5 is the published one for v.
    """

    STATE: ClassVar = ("v", "u")
    POSITIVE: ClassVar = ("dt",)
    RESETS: ClassVar = ("zero",)
    threshold: float = 30.0
    reset: Reset = "zero"
    a: float = 0.02
    b: float = 0.2
    c: float = -65.0
    d: float = 8.0
    dt: float = 0.5

    @property
    def rest(self) -> tuple[float, ...]:
        """The state at rest: v at c, with u in balance."""
        return (self.c, self.b * self.c, 0.0)[: self.state_size]

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, u = state
        h = v + p.dt * (0.04 * v * v + 5 * v + 140 - u + p.gain * x)
        u = u + p.dt * p.a * (p.b * v - u)
        s = self.fire(m, h, p.threshold)
        spike = self.reset_spike(m, s)
        return s, (h + spike * (p.c - h), u + p.d * spike)


@dataclass(frozen=True, kw_only=True)
class AdEx(Dynamics):
    """The adaptive exponential neuron (Brette and Gerstner 2005, J. Neurophysiol. 94:3637).

        h = v + dt/C (-g (v - E) + g D exp((v - V)/D) - w + gain x)
        w' = w + dt/tau_w (a (v - E) - w),   a spike sets v to v_reset and adds b to w

    in mV, ms, pA, nS and pF; the exponent stops growing at `threshold`, where the spike is cut.

    Attributes:
        capacitance, leak, rest_potential, onset, slope_factor: C, g, E, V and D.
        tau_w: the time constant of w.
        a: how the membrane drives w.
        b: what a spike adds to w.
        v_reset: the membrane after a spike.
        dt: Euler step in ms.
    """

    STATE: ClassVar = ("v", "w")
    POSITIVE: ClassVar = ("dt", "capacitance", "slope_factor", "tau_w")
    RESETS: ClassVar = ("zero",)
    threshold: float = 20.0
    reset: Reset = "zero"
    capacitance: float = 281.0
    leak: float = 30.0
    rest_potential: float = -70.6
    onset: float = -50.4
    slope_factor: float = 2.0
    tau_w: float = 144.0
    a: float = 4.0
    b: float = 80.5
    v_reset: float = -70.6
    dt: float = 0.1

    @property
    def rest(self) -> tuple[float, ...]:
        """The state at the resting potential."""
        return (self.rest_potential, 0.0, 0.0)[: self.state_size]

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, w = state
        away = v - p.rest_potential
        # Not p.threshold, which is out of reach while a neuron is refractory.
        cut = m.where(v < self.threshold, v, self.threshold)
        onset = p.leak * p.slope_factor * m.exp((cut - p.onset) / p.slope_factor)
        h = v + p.dt / p.capacitance * (onset - p.leak * away - w + p.gain * x)
        w = w + p.dt / p.tau_w * (p.a * away - w)
        s = self.fire(m, h, p.threshold)
        spike = self.reset_spike(m, s)
        return s, (h + spike * (p.v_reset - h), w + p.b * spike)


@dataclass(frozen=True, kw_only=True)
class Resonate(Dynamics):
    """Resonate-and-fire: a membrane that turns and decays (Izhikevich 2001, Neural Netw. 14:883).

        h = decay (cosine v - sine y) + gain x,   y' = decay (sine v + cosine y)

    Attributes:
        decay: of the amplitude, per step, in [0, 1].
        cosine, sine: of the angle turned in a step; `at` takes a frequency.
    """

    STATE: ClassVar = ("v", "y")
    decay: float = 0.98
    cosine: float = math.cos(0.5)
    sine: float = math.sin(0.5)

    @classmethod
    def at(cls, omega: float, damping: float, dt: float = 1.0, **options: Any) -> "Resonate":
        """A resonator of `omega` rad and `damping` >= 0, each per unit of `dt`.

        Raises:
            InputError: the damping is negative, or `dt` not positive.
        """
        if not (damping >= 0 and dt > 0):
            raise InputError(f"Resonate: damping {damping} must be at least 0 and dt {dt} above 0")
        turn = {"cosine": math.cos(omega * dt), "sine": math.sin(omega * dt)}
        return cls(decay=math.exp(-damping * dt), **turn, **options)

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, y = state
        h = p.decay * (p.cosine * v - p.sine * y) + p.gain * x
        y = p.decay * (p.sine * v + p.cosine * y)
        s = self.fire(m, h, p.threshold)
        return s, (self.apply_reset(m, h, s, p.threshold), y)


@dataclass(frozen=True, kw_only=True)
class BalancedResonate(Dynamics):
    """Balanced resonate-and-fire (Higuchi et al. 2024, arXiv 2402.14603).

        b = damping - q,   h = v + dt (b v - omega y + gain x),   y' = y + dt (omega v + b y)
        fires at threshold + q,   q' = gamma q + s;   spikes damp, and nothing else resets

    Attributes:
        omega: rad per unit of time.
        damping: the paper's p(omega) - b_offset; `at` computes it.
        gamma: decay of the refractory variable q, per step, in [0, 1].
        dt: the step in that unit.
    """

    STATE: ClassVar = ("v", "y", "q")
    UNIT: ClassVar = ("gamma",)
    POSITIVE: ClassVar = ("dt",)
    RESETS: ClassVar = ("none",)
    reset: Reset = "none"
    omega: float = 10.0
    damping: float = -1.5012562893380035
    gamma: float = 0.9
    dt: float = 0.01

    @classmethod
    def at(cls, omega: float, offset: float = 1.0, dt: float = 0.01, **options: Any):
        """The neuron of the paper, on its divergence boundary p(omega) less `offset`.

        Raises:
            InputError: |dt omega| is above 1, where no damping balances.
        """
        if not (dt > 0 and abs(dt * omega) <= 1):
            raise InputError(f"BalancedResonate: dt {dt} x omega {omega} must lie in [-1, 1]")
        boundary = (math.sqrt(1 - (dt * omega) ** 2) - 1) / dt
        return cls(omega=omega, damping=boundary - offset, dt=dt, **options)

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, y, q = state
        b = p.damping - q
        h = v + p.dt * (b * v - p.omega * y + p.gain * x)
        y = y + p.dt * (p.omega * v + b * y)
        s = self.fire(m, h, p.threshold + q)
        return s, (h, y, p.gamma * q + s)


@dataclass(frozen=True, kw_only=True)
class Delta(Dynamics):
    """A sigma-delta neuron: it sums the changes it is fed and sends how far its activation moved.

        v' = v + gain x,   d = a(v') - r,   s = d [|d| >= threshold],   r' = r + s

    with a(v) = v above 0 and `negative_slope` v below. What it holds back stays in a(v) - r and
    is sent later. Gradients pass as if d was always sent. Lava's `SigmaDelta` (Intel, BSD-3).

    Attributes:
        threshold: >= 0.
        negative_slope: in [0, 1]: 0 for a ReLU, 1 for the identity, between them a leaky ReLU.
    """

    STATE: ClassVar = ("v", "r")
    UNIT: ClassVar = ("negative_slope",)
    RESETS: ClassVar = ("none",)
    LEAST: ClassVar = 0.0
    reset: Reset = "none"
    negative_slope: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.emit != "binary" or self.refractory:
            raise InputError("Delta: it sends changes, at any time; leave emit and refractory out")

    @property
    def graded(self) -> bool:
        """Whether spikes carry values: always, for what it sends is a change."""
        return True

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, r = state
        v = v + p.gain * x
        change = m.where(v > 0, v, p.negative_slope * v) - r
        s = m.straight_through(m.where(abs(change) >= p.threshold, change, 0.0), change)
        return s, (v, r + s)
