"""The vocabulary of spiking networks."""

from .neurons import IF, LIF, IntegerLIF, Neuron, OneStep, SigmaDelta
from .sequential import Sequential

__all__ = ["IF", "LIF", "IntegerLIF", "Neuron", "OneStep", "Sequential", "SigmaDelta"]
