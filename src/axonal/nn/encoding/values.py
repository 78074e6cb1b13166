"""Codes of values: x [B, ...] in [0, 1] <-> spikes [T, B, ...]."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Code:
    """A code of values; choose `Latency`, `Phase` or `Burst`.

    Attributes:
        steps: T, at least 1.

    Raises:
        InputError: a number out of its range.
    """

    steps: int

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"{self}: a code takes at least 1 step")

    def encode(self, x: Tensor) -> Tensor:
        """x [B, ...] in [0, 1] -> spikes [T, B, ...].

        Raises:
            InputError: a value is NaN or outside [0, 1], or `x` is not floating.
        """
        return self._send(_checked(self, x))

    def decode(self, spikes: Tensor) -> Tensor:
        """Spikes [T, B, ...] -> x [B, ...], as near as the code's own text says.

        Raises:
            InputError: they are not floating, or not of `steps` steps.
        """
        if not (spikes.dim() and len(spikes) == self.steps and spikes.is_floating_point()):
            train = f"{spikes.dtype} {list(spikes.shape)}"
            raise InputError(f"{self}: {train} is no floating train of {self.steps} steps")
        return self._read(spikes)

    def _send(self, x: Tensor) -> Tensor:
        raise InputError(f"{type(self).__name__}: a code has _send; see nn.encoding.values")

    def _read(self, spikes: Tensor) -> Tensor:
        raise InputError(f"{type(self).__name__}: a code has _read; see nn.encoding.values")


@dataclass(frozen=True, kw_only=True)
class Latency(Code):
    """One spike, the earlier the larger x is; none where x < least.

        linear   t = round((T - 1) (1 - x))             (SpikingJelly, snnTorch)
        log      t = round((T - 1) ln x / ln least)     (Hopfield 1995, Nature 376:33: t ~ -ln x)

    Both libraries send 0 too, in the last step, but for snnTorch's `clip`. Their logarithms are
    tau ln(x / (x - threshold)), a membrane's time to charge, which snnTorch can rescale by the
    latest spike of the batch, and T - 1 - ln(x (e^(T - 1) - 1) + 1), steps down to x near e^-T.

    Decoded, by the first spike: 0 if there is none, where x < least; else linear is off by at most
    1 / (2 (T - 1)), and log by a factor of at most least^(-1 / (2 (T - 1))) either way.

    Attributes:
        steps: T, at least 2 here.
        kind: how x becomes a time.
        least: the smallest x that is sent, in (0, 1).
    """

    kind: Literal["linear", "log"] = "linear"
    least: float = 0.01

    def __post_init__(self):
        if not (self.steps >= 2 and 0 < self.least < 1 and self.kind in ("linear", "log")):
            raise InputError(f"{self}: give at least 2 steps, least in (0, 1), 'linear' or 'log'")

    def _send(self, x: Tensor) -> Tensor:
        log = x.clamp_min(self.least).log() / math.log(self.least)
        time = torch.floor((self.steps - 1) * (log if self.kind == "log" else 1 - x) + 0.5)
        now = _column(torch.arange(self.steps), x) == time
        return (now & (x >= self.least)).to(x.dtype)

    def _read(self, spikes: Tensor) -> Tensor:
        sent = (spikes != 0).to(spikes.dtype)
        late = sent.argmax(0).to(spikes.dtype) / (self.steps - 1)
        log = torch.exp(late * math.log(self.least)).clamp_min(self.least)
        return sent.amax(0) * (log if self.kind == "log" else 1 - late)


@dataclass(frozen=True, kw_only=True)
class Phase(Code):
    """Binary digits, the first the largest: s_t = floor(2^(1 + t) x) mod 2.

    Kim et al. 2018 (Neurocomputing 311:373), whose receivers multiply spikes by `weights`. 1 is
    sent as the largest number below it; SpikingJelly refuses it.

    Decoded: the sum of the weighted spikes, below x by at most 2^-T.

    Attributes:
        steps: T, at most 24 here, the digits of a float32.
    """

    def __post_init__(self):
        super().__post_init__()
        if self.steps > 24:
            raise InputError(f"{self}: a float32 has 24 digits; take at most as many steps")

    @property
    def weights(self) -> Tensor:
        """What a spike stands for in each step: 2^-(1 + t), [T]."""
        return 2.0 ** -torch.arange(1.0, self.steps + 1)

    def _send(self, x: Tensor) -> Tensor:
        below = x.double().clamp_max(1 - 2.0**-self.steps)
        return (torch.floor(below / _column(self.weights, below)) % 2).to(x.dtype)

    def _read(self, spikes: Tensor) -> Tensor:
        return (_column(self.weights, spikes[0]) * spikes).sum(0)


@dataclass(frozen=True, kw_only=True)
class Burst(Code):
    """More spikes, and closer ones, the larger x is: ceil(most x) of them, the first at once, every

        ceil(longest - (longest - shortest) x)   steps

    Guo et al. 2021 (Front. Neurosci. 15:638474).

    Decoded: the middle of all x of this count and interval, 0 if none was sent; off by at most
    1 / (2 most), and of two spikes or more by at most 1 / (2 (longest - shortest)) too.

    Attributes:
        steps: T, enough for every burst.
        most: the spikes of x = 1.
        shortest, longest: the interval of x = 1, and what that of x = 0 would be.
    """

    most: int = 5
    shortest: int = 1
    longest: int = 4

    def __post_init__(self):
        if not (self.most >= 1 and 1 <= self.shortest <= self.longest):
            raise InputError(f"{self}: most and shortest are at least 1, and longest not below it")
        falls = (self.longest - self.shortest) / self.most
        need = 1 + max(n * math.ceil(self.longest - falls * n) for n in range(self.most))
        if self.steps < need:
            raise InputError(f"{self}: a burst takes up to {need} steps; take as many")

    def _send(self, x: Tensor) -> Tensor:
        every = torch.ceil(self.longest - (self.longest - self.shortest) * x)
        time = _column(torch.arange(self.steps), x)
        return ((time % every == 0) & (time < torch.ceil(self.most * x) * every)).to(x.dtype)

    def _read(self, spikes: Tensor) -> Tensor:
        count, span = spikes.sum(0), self.longest - self.shortest
        low, high = (count - 1) / self.most, count / self.most
        if span:
            times = (_column(torch.arange(self.steps), spikes[0]) * spikes).sum(0)
            every = 2 * times / (count * (count - 1)).clamp_min(1)
            fits = (self.longest - every) / span
            low = torch.where(count > 1, low.maximum(fits), low)
            high = torch.where(count > 1, high.minimum(fits + 1 / span), high)
        return torch.where(count > 0, (low + high) / 2, 0.0)


def _checked(code: Code, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise InputError(f"{code}: x is {x.dtype}; give floating values in [0, 1]")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise InputError(f"{code}: x has values that are NaN or outside [0, 1]; scale it")
    return x


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value a step, [T, 1, ...], to go with `like` [B, ...]."""
    return values.to(like).reshape(-1, *(1 for _ in like.shape))
