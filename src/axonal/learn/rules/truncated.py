"""Backpropagation through a few steps at a time, and through space alone."""

import torch

from ...core.errors import InputError
from .base import Rule, in_parts


def truncated(steps: int) -> Rule:
    """Backpropagation through `steps` steps at a time (Williams and Peng 1990, Neural Comput. 2).

    Raises:
        InputError: `steps` below 1. The rule: a delay reaches trained layers across the cut.
    """
    if steps < 1:
        raise InputError(f"truncated: {steps} steps; give at least 1")
    return lambda network, x, objective: in_parts(network, x, objective, steps)


def sltt() -> Rule:
    """Gradients through space alone: one step at a time (Meng et al. 2023, arXiv 2302.14311).

    Raises:
        InputError: The rule: as `truncated`.
    """
    return truncated(1)


def sltt_k(k: int, generator: torch.Generator | None = None) -> Rule:
    """SLTT at k steps only, drawn anew in every call (Meng et al. 2023).

    As in the authors' code gradients are not scaled up by T / k; the loss is that of all steps.
    A `generator`, on the CPU, draws the steps.

    Raises:
        InputError: k below 1. The rule: as `truncated`.
    """
    if k < 1:
        raise InputError(f"sltt-k: k {k}; give at least 1")
    return lambda network, x, objective: in_parts(
        network, x, objective, 1, torch.randperm(len(x), generator=generator)[:k].tolist()
    )
