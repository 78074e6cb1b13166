"""Charge, fire and reset over time in plain torch: the definition that every kernel must meet.

The backward pass is autograd's; `Dynamics` says where it follows a stand-in.
"""

from types import SimpleNamespace

import torch
from torch import Tensor

from ...core.neurons import Dynamics
from ..surrogate import SURROGATES


class Tensors:
    """The `Algebra` of tensors of one dtype and device."""

    exp, floor = staticmethod(torch.exp), staticmethod(torch.floor)

    def __init__(self, like: Tensor, surrogate: str, slope: float):
        self.like, self.row, self.slope = like, SURROGATES[surrogate], like.new_tensor(slope)

    def where(self, condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
        yes, no = (torch.as_tensor(part).to(self.like) for part in (yes, no))
        return torch.where(condition, yes, no)

    def detach(self, x: Tensor) -> Tensor:
        return x.detach()

    def straight_through(self, value: Tensor, gradient: Tensor) -> Tensor:
        return value.detach() + (gradient - gradient.detach())

    def surrogate(self, x: Tensor) -> Tensor:
        return self.row.derivative(self, x.detach(), self.slope)


def constants(x: Tensor, parameters: dict[str, Tensor], dynamics: Dynamics) -> SimpleNamespace:
    """The constants of `dynamics` as tensors like x, or what replaces them, by name."""
    own = {name: x.new_tensor(value) for name, value in dynamics.constants().items()}
    return SimpleNamespace(**own | parameters)


def scan(
    x: Tensor,
    state: Tensor,
    parameters: dict[str, Tensor],
    dynamics: Dynamics,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """The equations of `dynamics`: x [T, B, ...], state [K, B, ...] -> (spikes, state).

    `parameters` replace constants, each in the shape of one sample's neurons.
    """
    m, p = Tensors(x, surrogate, slope), constants(x, parameters, dynamics)
    spikes, values = [], tuple(state)
    for x_t in x:
        s, values = dynamics.step(m, x_t, values, p)
        spikes.append(s)
    return torch.stack(spikes), torch.stack(values)
