"""What mends a spiking network without changing what it is: scales of weights and surrogates."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import Neuron
from ..ops.scan.reference import Tensors
from ..ops.surrogate import SURROGATES
from .doctor import Report, examine
from .initialise import rescale, threshold
from .loop import Batch, Loss
from .vitals import wholes

SCALE = {"spread", "silent", "seldom", "saturated", "drive", "gradient", "output"}


@dataclass(frozen=True)
class Treatment:
    """What was changed, and the reports before and after.

    Attributes:
        changes: by layer, in words.
    """

    before: Report
    after: Report
    changes: dict[str, str]

    @property
    def reports(self) -> tuple[Report, ...]:
        """Both."""
        return self.before, self.after

    def __str__(self) -> str:
        changed = [f"{name or 'the network'}: {what}" for name, what in self.changes.items()]
        lines = [
            "Before:",
            self.before,
            "Changed:",
            *(changed or ["nothing"]),
            "After:",
            self.after,
        ]
        return "\n".join(map(str, lines))


def fix(network: nn.Module, batch: Batch, loss: Loss, seed: int = 0, xi: float = 1.0) -> Treatment:
    """Mend in place what a scale can mend, and nothing else.

    Weights are rescaled until membranes spread to the threshold (`initialise.rescale`), and
    surrogates widened where no membrane lies inside. A step that leaves as many faults as before
    is taken back.

    Args:
        network, batch, loss, seed: as of `doctor.examine`.
        xi: as of `initialise.rescale`.
    """
    before = after = examine(network, batch, loss, seed)
    changes: dict[str, str] = {}
    for finds, step in ((SCALE, _rescaled), ({"support"}, _widened)):
        layers = [found.layer for found in after.faults if found.check in finds]
        if not layers or not after.figures:
            continue
        trial = copy.deepcopy(network)
        made = step(trial, layers, partial(loss, trial, batch, _generator(batch, seed)))
        if len((tried := examine(trial, batch, loss, seed)).faults) < len(after.faults):
            after, changes = tried, changes | made
            with torch.no_grad():
                for mine, theirs in zip(network.parameters(), trial.parameters(), strict=True):
                    mine.copy_(theirs)
            for mine, theirs in zip(network.modules(), trial.modules(), strict=True):
                if isinstance(mine, Neuron) and isinstance(theirs, Neuron):
                    mine.slope = theirs.slope
    return Treatment(before, after, changes)


def _generator(batch: Batch, seed: int) -> torch.Generator:
    return torch.Generator(next(iter(batch.values())).device).manual_seed(seed)


def _rescaled(network: nn.Module, layers: list[str], run: Callable[[], Any]) -> dict[str, str]:
    called: list[tuple[nn.Module, tuple[Any, ...]]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: called.append((module, args)))
        for module in wholes(network)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    module, args = called[0]
    name = next(name for name, part in network.named_modules() if part is module)
    inputs = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
    factors = rescale(module, *inputs)
    return {f"{name}.{k}".strip("."): f"weights x {v:.3g}" for k, v in factors.items()}


def _widened(network: nn.Module, layers: list[str], run: Callable[[], Any]) -> dict[str, str]:
    """Surrogates that keep a tenth of their peak from the threshold to rest, if they can."""
    made = {}
    for name in layers:
        neuron = network.get_submodule(name)
        assert isinstance(neuron, Neuron)
        first = slope = SURROGATES[neuron.surrogate].slope if neuron.slope is None else neuron.slope
        while (reach := _reach(neuron, slope))[0] < 0.1:
            wider = max(slope / 2, slope * 2, key=partial(_reach, neuron))
            if _reach(neuron, wider) <= reach:
                break
            slope = wider
        if slope != first:
            neuron.slope, made[name] = slope, f"surrogate slope {first:g} -> {slope:g}"
    return made


def _reach(neuron: Neuron, slope: float) -> list[float]:
    """The surrogate at some distances from the threshold, rest the farthest, over its peak."""
    x = threshold(neuron) * torch.tensor([1, 0.1, 0.01, 0.001, 0], dtype=torch.float64)
    values = Tensors(x, neuron.surrogate, slope).surrogate(x)
    return (values / values[-1]).tolist()
