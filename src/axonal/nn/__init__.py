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
from .neurons import IF, LI, LIF, IntegerLIF, Neuron, OneStep, SigmaDelta
from .normalise import MembraneNorm, TemporalBatchNorm, ThresholdBatchNorm, standardise
from .sequential import Sequential
from .stateful import Stateful
from .watch import watch

__all__ = [
    "IF",
    "LI",
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
    "MembraneNorm",
    "Neuron",
    "Noise",
    "OneStep",
    "Recurrent",
    "Resonate",
    "Sequential",
    "SigmaDelta",
    "Stateful",
    "TemporalBatchNorm",
    "ThresholdBatchNorm",
    "standardise",
    "watch",
]
