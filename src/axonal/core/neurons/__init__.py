"""Neurons as data: the kinds, and what their equations are written in."""

from .base import NEVER, RENAMED, Algebra, Dynamics, Emit, Reset, State, decay_from_tau
from .integer import HALF, Burst, Signed
from .kinds import (
    AdaptiveCurrent,
    AdaptiveThreshold,
    AdEx,
    BalancedResonate,
    Current,
    Delta,
    Izhikevich,
    Leaky,
    Resonate,
)

__all__ = [
    "HALF",
    "NEVER",
    "RENAMED",
    "AdEx",
    "AdaptiveCurrent",
    "AdaptiveThreshold",
    "Algebra",
    "BalancedResonate",
    "Burst",
    "Current",
    "Delta",
    "Dynamics",
    "Emit",
    "Izhikevich",
    "Leaky",
    "Reset",
    "Resonate",
    "Signed",
    "State",
    "decay_from_tau",
]
