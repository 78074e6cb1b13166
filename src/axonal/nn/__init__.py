"""The vocabulary of spiking networks."""

from ..core.kinds import (
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
from .layers import Delay, DelayedLinear, Noise, Recurrent
from .neurons import IF, LIF, IntegerLIF, Neuron, OneStep, SigmaDelta
from .sequential import Sequential
from .stateful import Stateful

__all__ = [
    "IF",
    "LIF",
    "AdEx",
    "AdaptiveCurrent",
    "AdaptiveThreshold",
    "BalancedResonate",
    "Current",
    "Delay",
    "DelayedLinear",
    "Delta",
    "IntegerLIF",
    "Izhikevich",
    "Leaky",
    "Neuron",
    "Noise",
    "OneStep",
    "Recurrent",
    "Resonate",
    "Sequential",
    "SigmaDelta",
    "Stateful",
]
