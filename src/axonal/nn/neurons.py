"""Neurons as modules: `y, state = neuron(x, state)`, time first, nothing kept inside.

Each class is a choice of `Dynamics` over the one scan; equations stand in `core.neuron.Dynamics`,
gradients in `ops.scan`.
"""

from typing import Self

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.neuron import Dynamics, Reset
from ..ops.scan import scan
from ..ops.surrogate import surrogate_named


class Neuron(nn.Module):
    """A population of neurons with the given dynamics.

    Args:
        dynamics: the equations and their constants.
        surrogate: the surrogate derivative of binary spikes, a row of `ops.surrogate.SURROGATES`.
        slope: its parameter; None for the row's default.

    Attributes:
        threshold: a buffer that replaces `dynamics.threshold` where it is not None; broadcastable
            to one sample's neurons.

    Raises:
        InputError: the surrogate is unknown.
    """

    threshold: Tensor | None

    def __init__(self, dynamics: Dynamics, surrogate: str = "atan", slope: float | None = None):
        super().__init__()
        self.dynamics, self.surrogate = dynamics, surrogate_named(surrogate).name
        self.slope = slope
        self.register_buffer("threshold", None)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, ...] and the state of an earlier call -> spikes [T, B, ...] and the state.

        Raises:
            InputError: as `ops.scan.scan`.
        """
        return scan(
            x,
            state,
            self.dynamics,
            threshold=self.threshold,
            surrogate=self.surrogate,
            slope=self.slope,
        )

    def extra_repr(self) -> str:
        shown = "" if self.threshold is None else f", threshold {list(self.threshold.shape)}"
        return f"{self.dynamics}, {self.surrogate}{shown}"


class IF(Neuron):
    """Integrates without leak and fires: `Dynamics` with decay 1."""

    def __init__(
        self,
        threshold: float = 1.0,
        *,
        reset: Reset = "subtract",
        detach_reset: bool = True,
        surrogate: str = "atan",
        slope: float | None = None,
    ):
        dynamics = Dynamics(threshold=threshold, reset=reset, detach_reset=detach_reset)
        super().__init__(dynamics, surrogate, slope)


class LIF(Neuron):
    """Leaks, integrates and fires; the input is not scaled by the leak unless `gain` says so.

    Args:
        decay: of the membrane per step; `from_tau` converts a time constant.
        gain: of the input; 1 - decay normalises the leak to a moving average.
    """

    def __init__(
        self,
        decay: float = 0.9,
        *,
        gain: float = 1.0,
        threshold: float = 1.0,
        reset: Reset = "subtract",
        detach_reset: bool = True,
        surrogate: str = "atan",
        slope: float | None = None,
    ):
        dynamics = Dynamics(
            decay=decay, gain=gain, threshold=threshold, reset=reset, detach_reset=detach_reset
        )
        super().__init__(dynamics, surrogate, slope)

    @classmethod
    def from_tau(cls, tau: float, dt: float = 1.0, **options) -> Self:
        """A LIF whose membrane leaks with time constant `tau`, in the unit of `dt`.

        Raises:
            InputError: `tau` or `dt` is not positive.
        """
        return cls(Dynamics.decay_from_tau(tau, dt), **options)


class IntegerLIF(Neuron):
    """Trains with spikes of 0 to `levels`, each so many binary spikes (Luo et al. 2024, I-LIF).

    A spike of s equals, sent through any linear map, the sum of the `levels` binary spikes of an
    `IF` of the same threshold that starts at rest and is driven by threshold x s in the first of
    `levels` sub-steps.
    """

    def __init__(
        self,
        levels: int = 4,
        threshold: float = 1.0,
        decay: float = 0.9,
        *,
        reset: Reset = "subtract",
        detach_reset: bool = True,
    ):
        super().__init__(
            Dynamics(
                emit="integer",
                levels=levels,
                threshold=threshold,
                decay=decay,
                reset=reset,
                detach_reset=detach_reset,
            )
        )


class SigmaDelta(Neuron):
    """Sums the changes it is fed and sends on how far its activation has moved, once it has.

    Args:
        threshold: the change worth sending, >= 0, in the unit of the activation: one for all
            neurons, or a tensor that broadcasts to one sample's neurons ([C, 1, 1] for images).
            A buffer: it moves with the module and is saved with it.
        negative_slope: of the activation below 0: 0 for a ReLU, 1 for the identity.

    Raises:
        InputError: a threshold is negative or not finite.
    """

    threshold: Tensor

    def __init__(self, threshold: float | Tensor, *, negative_slope: float = 0.0):
        value = torch.as_tensor(threshold, dtype=torch.get_default_dtype()).detach().clone()
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError("SigmaDelta: every threshold must be finite and at least 0")
        largest = float(value.max()) if value.numel() else 0.0
        super().__init__(
            Dynamics(emit="delta", reset="none", negative_slope=negative_slope, threshold=largest)
        )
        self.threshold = value

    def forward(
        self, x: Tensor, state: Tensor | None = None, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """As `Neuron.forward`, with every threshold multiplied by `scale` for this call."""
        return scan(x, state, self.dynamics, threshold=self.threshold * scale)


class OneStep(nn.Module):
    """A neuron where an activation stands: one time step from rest, spikes only.

    Traced by torch.fx as a leaf, as every neuron should be.
    """

    def __init__(self, neuron: Neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ...] -> spikes [B, ...]."""
        return self.neuron(x[None])[0][0]
