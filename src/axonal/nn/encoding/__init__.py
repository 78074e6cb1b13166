"""Codes of numbers as spikes, and their decoders.

Codes of values take x [B, ...] in [0, 1] to spikes [T, B, ...]; codes of signals take x [T, B, ...]
to signed spikes of its shape, `spikes, state = code.encode(x, state)`, so that a stream is coded
piece by piece. Each class says what it sends, whose equation that is, and how far what is decoded
can be from x. No code looks at the batch: a sample is sent alike in any company.
"""

from .signals import Delta, SendOnDelta, SigmaDelta, SignalCode
from .values import Burst, Code, Latency, Phase

__all__ = ["Burst", "Code", "Delta", "Latency", "Phase", "SendOnDelta", "SigmaDelta", "SignalCode"]
