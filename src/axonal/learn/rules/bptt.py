"""Backpropagation through all of time: the gradient that the other rules approach."""

from collections.abc import Callable

from torch import Tensor, nn

from .base import Rule


def bptt() -> Rule:
    """Backpropagation through all of time (Werbos 1990), with surrogates for spikes."""
    return _all_steps


def _all_steps(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
    outputs = network(x)[0]
    return objective(outputs), outputs.detach()
