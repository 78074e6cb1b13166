"""A neuron as data: what one scan needs to know to run any of them."""

import math
from dataclasses import dataclass
from typing import Literal

from .config import Config
from .errors import InputError

Emit = Literal["binary", "integer", "delta"]
Reset = Literal["subtract", "zero", "none"]


@dataclass(frozen=True, kw_only=True)
class Dynamics(Config):
    """The discrete equations of a population of neurons.

    Each step charges, fires and resets, in that order:

        h_t = decay v_{t-1} + gain x_t
        s_t = fire(h_t)
        v_t = h_t - threshold s_t  ("subtract"),  h_t [s_t = 0]  ("zero"),  h_t  ("none")

    where fire is, for each `emit`,

        binary    s = [h >= threshold]
        integer   s = clip(floor(h / threshold + 1/2), 0, levels)   (Luo et al. 2024, I-LIF)
        delta     d = a(h) - r_{t-1},  s = d [|d| >= threshold],  r_t = r_{t-1} + s

    A delta neuron (sigma-delta; Lava's `SigmaDelta`, Intel, BSD-3) is fed changes, sums them in
    h (so it wants decay 1 and reset "none"), and sends how far its activation, a(h) = h above 0
    and `negative_slope` h below, has moved since it last sent. What it holds back stays in
    a(h) - r and is sent later.

    The state is [K, B, ...] with K = `state_size`: v, and r for delta neurons.

    Attributes:
        emit: what a spike is: 0 or 1, a small integer, or a graded change.
        decay: of the membrane, per step, in [0, 1]; 1 integrates without leak.
        gain: of the input.
        threshold: > 0 (delta: >= 0), in the unit of the membrane.
        reset: what a spike does to the membrane, in the step of the spike.
        levels: the largest integer spike.
        negative_slope: of a delta neuron's activation below 0, in [0, 1]: 0 for a ReLU, 1 for the
            identity, between them a leaky ReLU.
        detach_reset: whether gradients ignore the path through the reset.

    Raises:
        InputError: a value outside the ranges above, or a combination without meaning.
    """

    emit: Emit = "binary"
    decay: float = 1.0
    gain: float = 1.0
    threshold: float = 1.0
    reset: Reset = "subtract"
    levels: int = 1
    negative_slope: float = 0.0
    detach_reset: bool = True

    def __post_init__(self):
        if self.emit not in ("binary", "integer", "delta"):
            raise InputError(f"Dynamics: emit {self.emit!r} is not binary, integer or delta")
        if self.reset not in ("subtract", "zero", "none"):
            raise InputError(f"Dynamics: reset {self.reset!r} is not subtract, zero or none")
        if not 0 <= self.decay <= 1:
            raise InputError(f"Dynamics: decay {self.decay} is outside [0, 1]")
        if not (self.threshold > 0 or (self.emit == "delta" and self.threshold == 0)):
            raise InputError(f"Dynamics: threshold {self.threshold} must be above 0")
        if not (math.isfinite(self.threshold) and math.isfinite(self.gain)):
            raise InputError(
                f"Dynamics: threshold {self.threshold} and gain {self.gain} must be finite"
            )
        if not 0 <= self.negative_slope <= 1:
            raise InputError(f"Dynamics: negative_slope {self.negative_slope} is outside [0, 1]")
        if self.levels < 1 or (self.levels > 1 and self.emit != "integer"):
            raise InputError(f"Dynamics: {self.levels} levels with {self.emit} spikes")
        if self.emit == "delta" and self.reset != "none":
            raise InputError('Dynamics: a delta neuron keeps its sum; its reset is "none"')

    @property
    def state_size(self) -> int:
        """K, how many values a neuron carries from one step to the next."""
        return 2 if self.emit == "delta" else 1

    @staticmethod
    def decay_from_tau(tau: float, dt: float = 1.0) -> float:
        """The decay per step of a leak with time constant `tau` (same unit as `dt`): exp(-dt/tau).

        Raises:
            InputError: `tau` or `dt` is not positive.
        """
        if not (tau > 0 and dt > 0):
            raise InputError(f"Dynamics: tau {tau} and dt {dt} must be above 0")
        return math.exp(-dt / tau)
