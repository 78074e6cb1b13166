"""Leaky neurons without reset are a linear recurrence: all steps at once, in log2(T) passes.

Steps h -> a h + b compose to steps of the same form, (a1, b1) then (a2, b2) being
(a1 a2, a2 b1 + b2), so that each pass joins what lies twice as far apart (Hillis and Steele 1986;
Blelloch 1990). Where a loop over time is what costs, on devices without a fused kernel, this is
the faster form; its sums round in another order than the reference's.
"""

import torch
from torch import Tensor

from ...core.neurons import Dynamics, Leaky
from .reference import Tensors, constants


def suits(dynamics: Dynamics) -> bool:
    """Whether `dynamics` has this form."""
    return isinstance(dynamics, Leaky) and dynamics.reset == "none" and not dynamics.refractory


def scan(
    x: Tensor,
    state: Tensor,
    parameters: dict[str, Tensor],
    dynamics: Dynamics,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """As `reference.scan`, for `dynamics` that `suits`."""
    p = constants(x, parameters, dynamics)
    h, decay, apart = p.gain * x, p.decay, 1
    h = torch.cat([h[:1] + decay * state, h[1:]])
    while apart < len(h):
        h = torch.cat([h[:apart], h[apart:] + decay * h[:-apart]])
        decay, apart = decay * decay, 2 * apart
    return dynamics.fire(Tensors(x, surrogate, slope), h, p.threshold), h[-1:]
