"""The vocabulary of spiking networks."""

from ..core.neurons import (
    AdaptiveCurrent,
    AdaptiveThreshold,
    AdEx,
    BalancedResonate,
    Burst,
    Current,
    Delta,
    Izhikevich,
    Leaky,
    Resonate,
    Signed,
)
from .clipped import ClippedReLU
from .convolution import Conv2d
from .graph_module import Difference, GraphModule
from .hooks import watch
from .layers import Delay, DelayedLinear, Noise, Recurrent
from .neurons import IF, LI, LIF, Bursting, IntegerLIF, Neuron, OneStep, SigmaDelta
from .normalization import MembraneNorm, TemporalBatchNorm, ThresholdBatchNorm, standardise
from .qcfs import QCFS, rectifier
from .sequential import Sequential
from .stateful import Stateful

__all__ = [
    "IF",
    "LI",
    "LIF",
    "QCFS",
    "AdEx",
    "AdaptiveCurrent",
    "AdaptiveThreshold",
    "BalancedResonate",
    "Burst",
    "Bursting",
    "ClippedReLU",
    "Conv2d",
    "Current",
    "Delay",
    "DelayedLinear",
    "Delta",
    "Difference",
    "GraphModule",
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
    "Signed",
    "Stateful",
    "TemporalBatchNorm",
    "ThresholdBatchNorm",
    "rectifier",
    "standardise",
    "watch",
]
