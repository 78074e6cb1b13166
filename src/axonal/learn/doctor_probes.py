"""Figures of the populations of a network in one batch, which the doctor judges."""

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.neurons.base import NEVER
from ..core.neurons.kinds import AdaptiveThreshold, Leaky
from ..nn import Neuron, Stateful
from ..nn.hooks import currents
from ..ops.scan.reference import Tensors
from ..ops.surrogate import SURROGATES
from .initialise import membranes, replay, threshold

RARE = 5e-4  # spikes a neuron and step


@dataclass
class Record:
    """One population while it runs.

    Attributes:
        neuron: the population.
        calls: the input, the state (None: rest) and the output of each call.
        gradient: the norm of the loss's gradient by the spikes; None if none came back.
    """

    neuron: Neuron
    calls: list[tuple[Tensor, Tensor | None, Tensor]] = field(default_factory=list)
    gradient: float | None = None

    @property
    def sent(self) -> Tensor:
        """Sizes of the spikes of all calls, [T, B, ...]."""
        return torch.cat([y for *_, y in self.calls]).abs()

    @property
    def steps(self) -> float:
        """T."""
        begun = sum(state is None for _, state, _ in self.calls)
        return sum(len(y) for *_, y in self.calls) / (begun or 1)


@contextmanager
def record(network: nn.Module) -> Iterator[tuple[dict[str, Record], list[Tensor]]]:
    """Record the calls of a network: `with record(network) as (records, outputs)`.

    Returns:
        Its spiking populations by name, in order of execution; and the output of the last
        `Stateful`, which is the outermost, [T, B, ...].
    """
    names = {module: name for name, module in network.named_modules()}
    records: dict[str, Record] = {}
    outputs: list[Tensor] = []

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        y = output[0].detach()
        outputs[:] = [y]
        if not isinstance(module, Neuron) or module.dynamics.emit == "membrane":
            return
        population = records.setdefault(names[module], Record(module))
        state = args[1].detach() if len(args) > 1 and args[1] is not None else None
        population.calls.append((currents(args, kwargs).detach(), state, y))

        def backward_hook(gradient: Tensor) -> None:
            norm = population.gradient or 0.0
            population.gradient = math.hypot(norm, float(gradient.norm()))

        if output[0].requires_grad:
            output[0].register_hook(backward_hook)

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, Stateful):
                hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        yield records, outputs


def figures(record: Record) -> Iterator[tuple[str, float]]:
    """The figures of one population, by the doctor's checks.

    Beside these is "sharpness", the surrogate's peak times the threshold.
    """
    neuron, dynamics, sent = record.neuron, record.neuron.dynamics, record.sent
    yield "rate", (rate := float(sent.mean()))
    yield "saturated", float((sent >= dynamics.levels).double().mean())
    # Where a picture's border is empty neurons have nothing to say, but their channel has.
    units = sent.movedim(2, 0).flatten(1) if sent.dim() > 2 else sent.reshape(1, -1)
    yield "silent", float((units.amax(1) == 0).double().mean())
    yield from _membranes(record)
    if isinstance(dynamics, Leaky | AdaptiveThreshold) and rate < RARE:
        # What the mean input of the best driven hundredth drives at last, gain I / (1 - decay).
        x = torch.cat([x for x, *_ in record.calls]).double()
        steady = membranes(neuron, x.mean(0).expand_as(x))[-1].flatten()
        best = steady.kthvalue(math.ceil(0.99 * len(steady))).values
        yield "drive", float(best) / threshold(neuron)
    if "decay" in dynamics.UNIT and record.steps > 1:
        decay = float(torch.as_tensor(neuron.value("decay")).detach().median())
        yield "memory", decay
        if record.steps >= 20 and decay < 1:
            yield "leak", decay**record.steps


def _membranes(record: Record) -> Iterator[tuple[str, float]]:
    neuron, dynamics = record.neuron, record.neuron.dynamics
    pairs = [pair for x, state, _ in record.calls for pair in _fired(neuron, x, state)]
    if not pairs:
        return
    h, level = (torch.stack(part).double() for part in zip(*pairs, strict=True))
    awake = level < NEVER / 2
    h, level = h[awake], level[awake]
    apart = float(level.mean() - h.mean())
    yield "spread", float(h.std()) / apart if apart > 0 else math.inf
    if dynamics.emit in ("binary", "ternary"):
        x = h - level if dynamics.emit == "binary" else h.abs() - level
        slope = SURROGATES[neuron.surrogate].slope if neuron.slope is None else neuron.slope
        m = Tensors(x, neuron.surrogate, slope)
        peak = float(m.surrogate(x.new_zeros(())))
        yield "sharpness", peak * float(level.mean())
        yield "support", float((m.surrogate(x) > 0.1 * peak).double().mean())


def _fired(neuron: Neuron, x: Tensor, state: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """The membrane and its threshold in each step, as `Dynamics.fire` compares them."""
    dynamics, pairs = copy.copy(neuron.dynamics), []

    def fire(m: Any, h: Tensor, level: Tensor) -> Tensor:
        pairs.append((h, level.expand_as(h)))
        return type(dynamics).fire(dynamics, m, h, level)

    # A frozen value takes no attribute; this copy is nobody else's.
    object.__setattr__(dynamics, "fire", fire)
    replay(neuron, dynamics, x.float(), state)
    each = max(1, len(pairs) // len(x))  # a late reset asks first for the spike it still owes
    return pairs[each - 1 :: each]
