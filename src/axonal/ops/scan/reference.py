"""Charge, fire and reset over time in plain torch: the definition that every kernel must meet.

The backward pass is autograd's. Where a spike jumps, `_through` gives it the gradient of a
smooth stand-in; `scan` in `op.py` states the conventions in words.
"""

import torch
from torch import Tensor

from ...core.neuron import Dynamics
from ..surrogate import SURROGATES


def _through(value: Tensor, gradient: Tensor) -> Tensor:
    """`value` forward, `gradient` backward (straight-through; Bengio et al. 2013)."""
    return value.detach() + (gradient - gradient.detach())


def _fire(h: Tensor, r: Tensor, threshold: Tensor, d: Dynamics, surrogate: str, slope: float):
    if d.emit == "binary":
        x = h - threshold
        g = SURROGATES[surrogate].derivative(x.detach(), slope)
        return _through((h >= threshold).to(h.dtype), g * x)
    if d.emit == "integer":
        u = h / threshold
        inside = (u > -0.5) & (u < d.levels + 0.5)
        return _through(torch.floor(u + 0.5).clamp(0, d.levels), inside * u)
    change = torch.where(h > 0, h, d.negative_slope * h) - r
    return _through(change * (change.abs() >= threshold), change)


def scan(
    x: Tensor,
    state: Tensor,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    dynamics: Dynamics,
    surrogate: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """The equations of `Dynamics`: x [T, B, ...], state [K, B, ...] -> (spikes, state)."""
    v, r, spikes = state[0], state[-1], []
    for x_t in x:
        h = decay * v + gain * x_t
        s = _fire(h, r, threshold, dynamics, surrogate, slope)
        sent = s.detach() if dynamics.detach_reset else s
        if dynamics.reset == "subtract":
            v = h - threshold * sent
        else:
            v = h if dynamics.reset == "none" else h * (1 - sent.clamp(max=1))
        if dynamics.emit == "delta":
            r = r + s
        spikes.append(s)
    return torch.stack(spikes), torch.stack((v, r)[: dynamics.state_size])
