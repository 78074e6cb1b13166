"""Codes of signals: x [T, B, ...] <-> signed spikes [T, B, ...], with a state handed in and out.

No loop over time stands here: what depends on the past is a neuron of `core.neurons`, run by the
one scan on the changes of x.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core import neurons
from ...core.errors import InputError
from ...ops.scan import scan


@dataclass(frozen=True, kw_only=True)
class SignalCode:
    """A code of the changes d_t = x_t - x_(t-1); choose `Delta`, `SendOnDelta` or `SigmaDelta`.

    What stays at `start` sends nothing. Decoded: x_t = start + unit (s_0 + ... + s_t).

    Attributes:
        threshold: the change worth a spike, > 0, in the unit of x.
        start: x before the first step, known at both ends; from 0, an offset is the first change.
            snnTorch's delta starts at 0, or with `padding` at the first value, which no receiver
            knows.

    Raises:
        InputError: a threshold that is not positive, or a number that is not finite.
    """

    threshold: float
    start: float = 0.0

    def __post_init__(self):
        if not (0 < self.threshold < math.inf and math.isfinite(self.start)):
            raise InputError(f"{self}: give a threshold above 0 and a start, both finite")

    @property
    def unit(self) -> float:
        """What a spike of 1 stands for, in the unit of x."""
        return self.threshold

    @property
    def dynamics(self) -> neurons.Dynamics | None:
        """The neuron that sends, if one does."""
        raise InputError("SignalCode: choose Delta, SendOnDelta or SigmaDelta")

    def encode(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, ...] -> signed spikes [T, B, ...], and the state for what follows.

        The state [K, B, ...] is the last x, then that of `dynamics`, in float64: sums don't drift.

        Raises:
            InputError: a value is not finite, there is no step, or the state doesn't fit.
        """
        size = self.dynamics.state_size if self.dynamics else 0
        before = self._before(x, state, 1 + size)
        path = torch.cat([before[:1], x.double()])
        spikes, inner = self._send(path, before[1:])
        return spikes.to(x.dtype), torch.cat([path[-1:], inner])

    def decode(self, spikes: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes [T, B, ...] -> x [T, B, ...], and the state: its last value [1, B, ...].

        Each code's own text says how far off x is, beside the rounding of its dtype.

        Raises:
            InputError: as `encode`.
        """
        path = self._before(spikes, state, 1) + self.unit * spikes.double().cumsum(0)
        return path.to(spikes.dtype), path[-1:]

    def _send(self, path: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The x before and x, [1 + T, B, ...], and the neuron's state -> spikes, and the state."""
        assert self.dynamics
        return scan(path.diff(dim=0), state, self.dynamics)

    def _before(self, x: Tensor, state: Tensor | None, size: int) -> Tensor:
        """The state, or that of a signal which stayed at `start` so far."""
        if x.dim() < 2 or not len(x) or not x.is_floating_point():
            raise InputError(
                f"{self}: {x.dtype} {list(x.shape)} is not floating [T, B, ...] with a step or more"
            )
        if not bool(x.isfinite().all()):
            raise InputError(f"{self}: a value is NaN or infinite; look where it comes from")
        shape = (size, *x.shape[1:])
        if state is None:
            state = x.new_zeros(shape, dtype=torch.float64)
            state[0] = self.start
        if state.shape != shape or state.dtype != torch.float64:
            raise InputError(
                f"{self}: the state is {state.dtype} {list(state.shape)}, not float64 "
                f"{list(shape)}; pass back that of the same code and batch, or None"
            )
        return state


@dataclass(frozen=True, kw_only=True)
class Delta(SignalCode):
    """The sign of a change that reaches the threshold: s = sign(d) [|d| >= threshold].

    snnTorch's delta with `off_spike`: a ternary neuron that forgets at once. Decoded: further off
    by up to max(threshold, |d| - threshold) with every step; slow changes are lost.
    """

    @property
    def dynamics(self) -> neurons.Dynamics:
        """Decay 0, no reset."""
        return neurons.Leaky(decay=0.0, threshold=self.threshold, emit="ternary", reset="none")


@dataclass(frozen=True, kw_only=True)
class SendOnDelta(SignalCode):
    """All of x - b once it reaches the threshold: s = (x - b) [|x - b| >= threshold], b' = b + s.

    Miskowicz 2006 (Sensors 6:49), with the change as a graded spike: Lava's sigma-delta neuron.
    Decoded: b', less than a threshold from x.
    """

    @property
    def unit(self) -> float:
        """1: a spike is the change itself."""
        return 1.0

    @property
    def dynamics(self) -> neurons.Dynamics:
        """`core.neurons.Delta` of the identity."""
        return neurons.Delta(threshold=self.threshold, negative_slope=1.0)


@dataclass(frozen=True, kw_only=True)
class SigmaDelta(SignalCode):
    """Changes of x in rounded thresholds: s_t = n_t - n_(t-1), n = round((x - start) / threshold).

    O'Connor and Welling 2016 (arXiv 1611.02024), with integer spikes. Decoded: at most half a
    threshold from x.
    """

    @property
    def dynamics(self) -> None:
        """None: no spike depends on those before."""

    def _send(self, path: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return torch.floor((path - self.start) / self.threshold + 0.5).diff(dim=0), state
