"""What the populations of a network do in one batch: the figures that the doctor judges."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.kinds import AdaptiveThreshold, Leaky
from ..core.neuron import NEVER
from ..nn import Neuron, Recurrent
from ..ops.scan.reference import Tensors, constants
from ..ops.surrogate import SURROGATES
from .initialise import threshold

RARE = 5e-4  # spikes a neuron and step


@dataclass
class Record:
    """One population while it runs."""

    name: str
    neuron: Neuron
    calls: list[tuple[Tensor, Tensor | None, Tensor]] = field(default_factory=list)
    gradient: float | None = None


class Watched:
    """Keeps what the populations of a network receive and send, and what comes back."""

    def __init__(self, network: nn.Module):
        named = [(n, m) for n, m in network.named_modules() if isinstance(m, Neuron)]
        spiking = [(n, m) for n, m in named if m.dynamics.emit != "membrane"]
        self.records = {m: Record(n, m) for n, m in spiking}
        self.outputs: list[Tensor] = []
        self.wholes = wholes(network)

    def __enter__(self) -> None:
        self.handles = [m.register_forward_hook(self._sent) for m in self.records]
        self.handles += [m.register_forward_hook(self._answered) for m in self.wholes]

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def _sent(self, module: Neuron, args: tuple, output: tuple) -> None:
        record, x = self.records[module], args[0]
        state = args[1] if len(args) > 1 else None
        record.calls.append((x.detach(), None if state is None else state.detach(), output[0]))
        if x.requires_grad:

            def back(gradient: Tensor) -> None:
                record.gradient = math.hypot(record.gradient or 0.0, float(gradient.norm()))

            x.register_hook(back)

    def _answered(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.outputs.append(output[0] if isinstance(output, tuple) else output)


def wholes(network: nn.Module) -> list[nn.Module]:
    """`network` and the parts of it that hold all its neurons, outermost first."""
    count = sum(isinstance(m, Neuron) for m in network.modules())
    return [
        m
        for m in network.modules()
        if not isinstance(m, Neuron | Recurrent)
        and sum(isinstance(part, Neuron) for part in m.modules()) == count
    ]


def vitals(record: Record) -> Iterator[tuple[str, float]]:
    """The figures of one population, named as the doctor's checks or as its table's columns.

    Beside these are "steps", T, "norm", of the gradient of the loss by its input, and
    "sharpness", the surrogate's peak times the threshold.
    """
    neuron, dynamics = record.neuron, record.neuron.dynamics
    sent = torch.cat([y.detach() for *_, y in record.calls]).abs()
    begins = sum(state is None for _, state, _ in record.calls) or 1
    steps = len(sent) / begins
    yield "steps", steps
    yield "rate", (rate := float(sent.mean()))
    yield "seldom", rate
    yield "saturated", float((sent >= dynamics.levels).double().mean())
    # Where a picture's border is empty neurons have nothing to say, but their channel has.
    units = sent.movedim(2, 0).flatten(1) if sent.dim() > 2 else sent.reshape(1, -1)
    yield "silent", float((units.amax(1) == 0).double().mean())
    yield from _membranes(record)
    if "decay" in dynamics.UNIT:
        decay = float(torch.as_tensor(neuron.value("decay")).detach().median())
        if steps > 1:
            yield "memory", decay
        if steps >= 20 and decay < 1:
            yield "leak", decay**steps
    if record.gradient is not None:
        yield "norm", record.gradient


def _membranes(record: Record) -> Iterator[tuple[str, float]]:
    neuron, dynamics = record.neuron, record.neuron.dynamics
    pairs = [pair for x, state, _ in record.calls for pair in _fired(neuron, x, state)]
    if not pairs:
        return
    h, level = (torch.stack(part) for part in zip(*pairs, strict=True))
    awake = level < NEVER / 2
    h, level = h[awake].double(), level[awake].double()
    apart = float(level.mean() - h.mean())
    yield "spread", float(h.std()) / apart if apart > 0 else math.inf
    if dynamics.emit in ("binary", "ternary"):
        row, x = SURROGATES[neuron.surrogate], h - level
        if dynamics.emit == "ternary":
            x = torch.maximum(x, -h - level)
        slope = row.slope if neuron.slope is None else neuron.slope
        m = Tensors(x, neuron.surrogate, slope)
        peak = float(m.surrogate(torch.zeros_like(x[:1])))
        yield "sharpness", peak * float(level.mean())
        yield "support", float((m.surrogate(x) > 0.1 * peak).double().mean())
    yield from _drive(record)


def _fired(neuron: Neuron, x: Tensor, state: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """What `Dynamics.fire` compares in each step: the membrane and its threshold."""
    dynamics, last = copy.copy(neuron.dynamics), []

    def fire(m: Any, h: Any, level: Any) -> Any:
        last[:] = [(h, torch.as_tensor(level).expand_as(h))]
        return type(dynamics).fire(dynamics, m, h, level)

    # A frozen value takes no attribute; this copy is nobody else's.
    object.__setattr__(dynamics, "fire", fire)
    x = x.float()
    given = {name: torch.as_tensor(neuron.value(name)).detach() for name in neuron.given}
    m, p = Tensors(x, neuron.surrogate, 1.0), constants(x, given, dynamics)
    values = tuple(x.new_full(x.shape[1:], r) for r in dynamics.rest) if state is None else state
    for x_t in x:
        _, values = dynamics.step(m, x_t, tuple(values), p)
        yield from last  # a late reset asks first for the spike it still owes


def _drive(record: Record) -> Iterator[tuple[str, float]]:
    """The steady membrane under the mean input, gain I / (1 - decay), where hardly any fire."""
    neuron = record.neuron
    rate = torch.cat([y.detach() for *_, y in record.calls]).abs().mean()
    if not isinstance(neuron.dynamics, Leaky | AdaptiveThreshold) or rate >= RARE:
        return
    x = torch.cat([x for x, *_ in record.calls]).double()
    decay, gain = (torch.as_tensor(neuron.value(n)).detach() for n in ("decay", "gain"))
    kept = sum(decay.double() ** k for k in range(len(x)))
    best = (x.mean(0) * gain * kept).flatten()
    rank = max(1, math.ceil(0.99 * len(best)))
    yield "drive", float(best.kthvalue(rank).values) / threshold(neuron)
