"""Neurons as modules: `y, state = neuron(x, state)`, time first, nothing kept inside.

`Neuron` runs any kind of `Dynamics` over the one scan; the classes below are shorthands. Equations
and what stands in for the gradient of a spike: `core.neurons`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..core.config import renamed
from ..core.errors import InputError
from ..core.neurons import RENAMED, Burst, Delta, Dynamics, Leaky, decay_from_tau
from ..ops.scan import scan
from ..ops.surrogate import surrogate_named
from .stateful import Stateful


class Neuron(Stateful):
    """A population of neurons with the given dynamics.

    Args:
        dynamics: the equations and their constants, of any kind in `core.neurons`.
        surrogate: the surrogate derivative of binary and ternary spikes, a row of
            `ops.surrogate.SURROGATES`.
        slope: its parameter; None for the row's default.
        values: tensors that replace constants of `dynamics` by name, each broadcastable to one
            sample's neurons ([C, 1, 1] for the channels of images).
        learn: the constants to train, from their values; PLIF learns its "decay". What must lie
            in [0, 1] is the sigmoid of the parameter, a threshold its softplus (Fang et al. 2021,
            arXiv 2007.05785).

    Raises:
        InputError: the surrogate or a constant is unknown, or a value out of range.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        surrogate: str = "atan",
        slope: float | None = None,
        *,
        values: Mapping[str, Tensor] | None = None,
        learn: Sequence[str] = (),
    ):
        super().__init__()
        self.dynamics, self.surrogate = dynamics, surrogate_named(surrogate).name
        self.slope, self.learned = slope, tuple(learn)
        constants = dynamics.constants()
        self.varying = tuple(n for n in constants if n in {*(values or {}), *learn})
        if unknown := [name for name in (*(values or {}), *learn) if name not in constants]:
            kind = type(dynamics).__name__
            raise InputError(
                f"{kind}: no constant {unknown[0]!r}; there are {', '.join(constants)}"
            )
        for name in self.varying:
            value = torch.as_tensor((values or {}).get(name, constants[name]))
            value = value.detach().to(torch.get_default_dtype(), copy=True)
            self._check(name, value)
            if name in self.learned:
                self.register_parameter(name, nn.Parameter(self._free(name, value)))
            else:
                self.register_buffer(name, value)

    def value(self, name: str) -> Tensor | float:
        """The constant `name` as it is now: a tensor if it is one of `values` or learned."""
        if name not in self.varying:
            return self.dynamics.constants()[name]
        value = getattr(self, name)
        if name not in self.learned:
            return value
        if name in self.dynamics.UNIT:
            return value.sigmoid()
        return softplus(value) if name == "threshold" else value

    def forward(
        self, x: Tensor, state: Tensor | None = None, steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [T, B, ...] and the state of an earlier call -> spikes [T, B, ...] and the state.

        With `steps`, x is [1, B, ...] and stays the same for so many.

        Raises:
            InputError: as `ops.scan.scan`.
        """
        values: dict[str, Any] = {name: self.value(name) for name in self.varying}
        options = {"surrogate": self.surrogate, "slope": self.slope, "steps": steps}
        return scan(x, state, self.dynamics, **options, **values)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        tensors = with_current_names(self, state_dict, prefix)
        state_dict.clear()
        state_dict.update(tensors)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        shown = [f"{name} {list(getattr(self, name).shape)}" for name in self.varying]
        return ", ".join([str(self.dynamics), self.surrogate, *shown])

    def _check(self, name: str, value: Tensor) -> None:
        kind, low = type(self.dynamics).__name__, float(value.min()) if value.numel() else 0.0
        if not bool(value.isfinite().all()) or (name == "threshold" and low < self.dynamics.LEAST):
            raise InputError(f"{kind}: every {name} must be finite, and a threshold above 0")
        if name in self.dynamics.UNIT and not bool(((value >= 0) & (value <= 1)).all()):
            raise InputError(f"{kind}: every {name} must lie in [0, 1]")

    def _free(self, name: str, value: Tensor) -> Tensor:
        """The parameter whose sigmoid or softplus is `value`."""
        if name in self.dynamics.UNIT:
            parameter = value.logit()
        else:
            # log(e^v - 1) without the exponential of large values, which overflows
            inverse = value + torch.log(-torch.expm1(-value))
            parameter = inverse if name == "threshold" else value
        if not bool(parameter.isfinite().all()):
            raise InputError(f"{name} can't be learned from 0 or 1 on, where its gradient is zero")
        return parameter


def with_current_names(
    network: nn.Module, tensors: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """A state dict under today's names of constants, of which one of before has others.

    Args:
        network: whose state dict it is.
        tensors: by name.
        prefix: of these names, ending in a dot, where the network is part of another.
    """
    names = {
        f"{path}.{old}".lstrip("."): f"{path}.{new}".lstrip(".")
        for path, module in network.named_modules(prefix=prefix.rstrip("."))
        if isinstance(module, Neuron)
        for old, new in RENAMED.get(type(module.dynamics).__name__, {}).items()
    }
    return renamed(tensors, names)


class IF(Neuron):
    """A neuron that integrates without leak and fires: `Leaky` with decay 1.

    Args:
        threshold, options: of `Leaky`, such as `reset`.
        surrogate, slope: of `Neuron`.
    """

    def __init__(
        self,
        threshold: float = 1.0,
        *,
        surrogate: str = "atan",
        slope: float | None = None,
        **options: Any,
    ):
        super().__init__(Leaky(decay=1.0, threshold=threshold, **options), surrogate, slope)


class LIF(Neuron):
    """A leaky integrate-and-fire neuron; its input is scaled by the leak only if `gain` says so.

    Args:
        decay: of the membrane per step; `from_tau` converts a time constant.
        surrogate, slope: of `Neuron`.
        options: of `Leaky`, such as `threshold`, `reset` and `gain`; a gain of 1 - decay normalises
            the leak to a moving average.
    """

    def __init__(
        self,
        decay: float = 0.9,
        *,
        surrogate: str = "atan",
        slope: float | None = None,
        **options: Any,
    ):
        super().__init__(Leaky(decay=decay, **options), surrogate, slope)

    @classmethod
    def from_tau(cls, tau: float, dt: float = 1.0, **options) -> Self:
        """A LIF whose membrane leaks with time constant `tau`, in the unit of `dt`.

        Raises:
            InputError: `tau` or `dt` is not positive.
        """
        return cls(decay_from_tau(tau, dt), **options)


class LI(Neuron):
    """A leaky integrator that hands on its membrane: a read-out, which does not spike.

    Args:
        decay: of the membrane per step.
        gain: of the input; 1 - decay makes the membrane a moving average.
    """

    def __init__(self, decay: float = 0.9, *, gain: float = 1.0):
        super().__init__(Leaky(decay=decay, gain=gain, emit="membrane", reset="none"))


class IntegerLIF(Neuron):
    """A neuron of spikes from 0 to `levels`, each so many binary ones (Luo et al. 2024, I-LIF).

    A spike of s equals, sent through any linear map, the sum of the `levels` binary spikes of an
    `IF` of the same threshold that starts at rest and is driven by threshold x s in the first of
    `levels` sub-steps.

    Args:
        levels, threshold, decay, options: of `Leaky`, such as `reset`.
    """

    def __init__(self, levels: int = 4, threshold: float = 1.0, decay: float = 0.9, **options: Any):
        constants = {"levels": levels, "threshold": threshold, "decay": decay}
        super().__init__(Leaky(emit="integer", **constants, **options))


class SigmaDelta(Neuron):
    """A sigma-delta neuron: it sums the changes it is fed and sends how far its activation moved.

    Args:
        threshold: the change worth sending, >= 0, in the unit of the activation: one for all
            neurons, or a tensor that broadcasts to one sample's neurons ([C, 1, 1] for images).
            A buffer: it moves with the module and is saved with it.
        negative_slope: of the activation below 0: 0 for a ReLU, 1 for the identity.

    Raises:
        InputError: a threshold is negative or not finite.
    """

    def __init__(self, threshold: float | Tensor, *, negative_slope: float = 0.0):
        value = torch.as_tensor(threshold, dtype=torch.get_default_dtype())
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError("SigmaDelta: every threshold must be finite and at least 0")
        largest = float(value.max()) if value.numel() else 0.0
        dynamics = Delta(negative_slope=negative_slope, threshold=largest)
        super().__init__(dynamics, values={"threshold": value})

    def forward(
        self, x: Tensor, state: Tensor | None = None, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """As `Neuron.forward`, with every threshold multiplied by `scale` for this call."""
        return scan(x, state, self.dynamics, threshold=self.get_buffer("threshold") * scale)


class Bursting(Neuron):
    """Neurons that gather in one window and fire in the next; other steps cost next to nothing.

    Args:
        dynamics: when that is.
        threshold: a tensor that broadcasts to one sample's neurons.
    """

    def __init__(self, dynamics: Burst, threshold: Tensor):
        super().__init__(dynamics, values={"threshold": threshold})

    def forward(
        self, x: Tensor, state: Tensor | None = None, steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `Neuron.forward`."""
        if state is not None or steps is not None:
            return super().forward(x, state, steps)
        opens, window = (round(float(self.value(name))) for name in ("opens", "window"))
        first, last = max(0, opens - window), min(opens + window, len(x))
        if not 0 < first < last:
            return super().forward(x)
        begin = torch.stack([torch.zeros_like(x[0]), torch.full_like(x[0], first)])
        sent, (v, _) = super().forward(x[first:last], begin)
        spikes = torch.cat([x.new_zeros(first, *x.shape[1:]), sent])
        spikes = torch.cat([spikes, x.new_zeros(len(x) - last, *x.shape[1:])])
        return spikes, torch.stack([v, torch.full_like(v, len(x))])


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
