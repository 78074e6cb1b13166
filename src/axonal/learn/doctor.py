"""What keeps a spiking network from learning, found in one batch, forward and backward.

Bounds are heuristics, calibrated so that networks which train well have no fault; where a figure
has a source, its row names it.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from rich.table import Table
from torch import Tensor, nn

from ..core.errors import InputError
from ..nn import Neuron, Recurrent
from .loop import Batch, Loss, Recipe
from .vitals import RARE, Watched, vitals

INF = math.inf


@dataclass(frozen=True)
class Check:
    """One figure with the range it should lie in.

    Attributes:
        name: what findings call it.
        figure: what is measured.
        low, high: the range.
        harm: what it does to training when it lies outside.
        remedy: what to change.
        level: "fault", or "note" for what is no obstacle.
    """

    name: str
    figure: str
    low: float
    high: float
    harm: str
    remedy: str
    level: Literal["fault", "note"] = "fault"


CHECKS = {
    row.name: row
    for row in (
        Check("finite", "share of finite inputs", 1, 1, "every membrane turns NaN",
              "remove NaN and infinity from the data"),
        Check("empty", "share of inputs that are not 0", 1e-6, INF, "nothing ever fires",
              "look at how the data are read and encoded"),
        Check("constant", "deviation of inputs between samples", 1e-6, INF,
              "every sample looks the same", "look at how the data are read and encoded"),
        Check("scale", "root mean square of inputs", 0, 10, "the first layer fires in every step",
              "scale inputs to about 1; bytes by 1/255"),
        Check("labels", "labels that no output stands for", 0, 0, "the loss fails or learns noise",
              "number classes from 0, and give the network an output for each"),
        Check("classes", "classes in a batch", 2, INF, "one constant answer is already right",
              "shuffle the data, or look at how labels are read"),
        Check("spread", "deviation of membranes over threshold less mean", 0.05, 20,
              "membranes don't cross the threshold at times, but never or always",
              "rescale the weights before it (--fix; learn.initialise)"),
        Check("silent", "share of neurons or channels that never fire", 0, 0.6,
              "they neither pass on nor learn anything",
              "lower their thresholds, rescale the weights, or add learn.objectives' lower bound"),
        Check("seldom", "spikes a neuron and step", RARE, INF, "nothing reaches the next layer",
              "rescale the weights before it (--fix)"),
        Check("saturated", "share of steps with the largest spike", 0, 0.8,
              "spikes carry no information, and cost the most",
              "rescale the weights before it (--fix), or raise its threshold"),
        Check("drive", "steady membrane of the best driven hundredth over threshold", 1, INF,
              "the mean input can't make it fire", "raise the input gain, or the weights (--fix)"),
        Check("support", "share of membranes where the surrogate is above a tenth of its peak",
              0.01, INF, "gradients die between those neurons", "widen the surrogate (--fix)"),
        Check("gradient", "gradient over that of the last population", 1e-3, 1e3,
              "layers far apart learn at rates that no step size suits",
              "rescale the weights (--fix), normalise (nn.ThresholdBatchNorm), or add shortcuts"),
        Check("overflow", "share of finite gradients", 1, 1, "the next step destroys the weights",
              "clip gradients, detach the reset, lower the weights"),
        Check("stuck", "share of gradients that are not 0", 1e-9, INF, "it does not learn",
              "look at the layers behind it"),
        Check("unused", "share of parameters that the loss depends on", 1, 1, "it does not learn",
              "use it, or remove it"),
        Check("frozen", "share of parameters that may learn", 1, 1,
              "it keeps its first weights, unless you mean it", "set requires_grad"),
        Check("peak", "surrogates' peaks times thresholds, of all populations", 1e-5, 1e3,
              "gradients shrink or grow from layer to layer",
              "choose slopes that make each peak 1 over the threshold"),
        Check("leak", "what a membrane keeps after the last step", 0, 0.95,
              "the leak is too slow to be one, and old input stays for ever",
              "choose a decay of about 1 - 3/T, or 1 to integrate"),
        Check("memory", "what a membrane keeps after a step", 0.1, 1,
              "a step knows nothing of the one before", "choose a decay above 1/e"),
        Check("reset", "recurrent populations with gradients through the reset", 0, 0,
              "gradients run in a circle and grow without bound", "set detach_reset"),
        Check("output", "spikes that all outputs send for a sample", 1, INF,
              "no spike tells the classes", "lower the outputs' thresholds, or read membranes"),
        Check("time", "share of answers that the first step gives already", 0, 0.98,
              "further steps cost and change nothing", "use fewer steps", "note"),
        # arXiv 2409.08290: beside a quantised network of as many bits, memory counted, at T 5-10.
        Check("energy", "spikes a neuron and step, of all", 0, 0.064,
              "a quantised network of the same bits would need less energy",
              "penalise spikes once it has learnt", "note"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A figure outside its range: of which check, where, and how much."""

    check: str
    layer: str
    measured: float

    @property
    def level(self) -> str:
        """ "fault" or "note"."""
        return CHECKS[self.check].level

    def __str__(self) -> str:
        row = CHECKS[self.check]
        span = f"{row.low:g} to {row.high:g}" if row.low < row.high else f"{row.low:g}"
        if row.high == INF:
            span = f"at least {row.low:g}" if row.low > 1e-5 else "above 0"
        return (
            f"{self.level}: {self.layer or 'the network'}: {row.figure} is {self.measured:.3g} "
            f"({span} is sound): {row.harm}. {row.remedy[0].upper()}{row.remedy[1:]}."
        )


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        figures: by population, in order of execution, what was measured by check.
        findings: what lies outside its range.
    """

    figures: dict[str, dict[str, float]]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What keeps the network from learning."""
        return tuple(found for found in self.findings if found.level == "fault")

    @property
    def reports(self) -> tuple["Report", ...]:
        """This one; a treatment has two."""
        return (self,)

    def table(self) -> Table:
        """The populations and their figures."""
        shown = ("rate", "silent", "saturated", "spread", "support", "gradient")
        table = Table("population", *shown)
        for name, row in self.figures.items():
            table.add_row(name, *(f"{row[key]:.3g}" if key in row else "-" for key in shown))
        return table

    def __str__(self) -> str:
        """Every finding as a sentence, those of one check as one; the verdict last."""
        groups: dict[str, list[Finding]] = {}
        for found in self.findings:
            groups.setdefault(found.check, []).append(found)
        lines = []
        for first, *more in groups.values():
            also = ", ".join(found.layer for found in more)
            lines.append(str(first) + (f" The same holds of {also}." if more else ""))
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """The report in a sentence."""
        if not (checks := list(dict.fromkeys(found.check for found in self.faults))):
            return "Nothing found that keeps this network from learning."
        return f"This network is unlikely to learn well until this is mended: {', '.join(checks)}."


def examine(network: nn.Module, batch: Batch, loss: Loss, seed: int = 0) -> Report:
    """Run one batch forward and backward, and hold what happens against `CHECKS`.

    The network is copied first: weights, gradients, statistics and random numbers stay as they
    are.

    Args:
        network: in training or evaluation mode.
        batch: what `loss` takes; integers under "label" are classes.
        loss: as of a `Recipe`.
        seed: of the loss's noise.

    Raises:
        InputError: the network has no neurons.
        Exception: what `loss` raises on sound inputs and labels.
    """
    if not any(isinstance(m, Neuron) for m in network.modules()):
        raise InputError("this network has no spiking neurons to examine; train it as any other")
    network = copy.deepcopy(network)
    network.zero_grad()
    early = [*_inputs(batch), *_labels(batch)]
    if bad := _judge(early):
        return Report({}, tuple(bad))
    watched = Watched(network)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), watched:
        torch.manual_seed(seed)
        generator = torch.Generator(next(iter(batch.values())).device).manual_seed(seed)
        try:
            loss(network, batch, generator)[0].backward()
        except (IndexError, RuntimeError, ValueError):
            if bad := _judge(_labels(batch, watched.outputs)):
                return Report({}, tuple(bad))
            raise
    found = {r.name: dict(vitals(r)) for r in watched.records.values() if r.calls}
    norms = [row["norm"] for row in found.values() if "norm" in row]
    for row in found.values():
        if "norm" in row and norms[-1] > 0 and math.isfinite(sum(norms)):
            row["gradient"] = row.pop("norm") / norms[-1]
    rows = [*early, *_labels(batch, watched.outputs), *_parameters(network)]
    rows += [(k, name, v) for name, row in found.items() for k, v in row.items() if k in CHECKS]
    peaks = [row["sharpness"] for row in found.values() if "sharpness" in row]
    rows += [("peak", "", math.prod(peaks)), *_whole(network, watched, batch)]
    return Report(found, tuple(_judge(rows)))


Row = tuple[str, str, float]


def _judge(rows: Iterable[Row]) -> list[Finding]:
    """The rows outside their check's range, in the order of `CHECKS`: causes first."""
    order = list(CHECKS)
    return [
        Finding(check, layer, value)
        for check, layer, value in sorted(rows, key=lambda row: order.index(row[0]))
        if not CHECKS[check].low <= value <= CHECKS[check].high
    ]


def _inputs(batch: Batch) -> Iterator[Row]:
    for name, x in batch.items():
        x = x.detach()
        if x.dim() < 2 or not x.numel():
            continue
        yield "finite", name, (finite := float(x.isfinite().double().mean()))
        if finite < 1:
            continue
        if x.is_floating_point():  # integers count, or are scaled by the network
            yield "scale", name, float(x.double().square().mean().sqrt())
        x = x.double()
        yield "empty", name, float((x != 0).double().mean())
        if len(x) > 1:
            yield "constant", name, float(x.std(0).max())


def _labels(batch: Batch, outputs: Sequence[Tensor] = ()) -> Iterator[Row]:
    label = batch.get("label")
    if label is None or label.is_floating_point():
        return
    sizes = [y.shape[-1] for y in outputs if y.dim() in (2, 3)]
    most = sizes[-1] if sizes else INF
    yield "labels", "label", float(((label < 0) | (label >= most)).sum())
    if len(label) >= 8:
        yield "classes", "label", float(len(label.unique()))


def _parameters(network: nn.Module) -> Iterator[Row]:
    for name, parameter in network.named_parameters():
        gradient = parameter.grad
        yield "frozen", name, float(parameter.requires_grad)
        if parameter.requires_grad:
            yield "unused", name, float(gradient is not None)
        if gradient is not None:
            yield "overflow", name, float(gradient.isfinite().double().mean())
            yield "stuck", name, float((gradient != 0).double().mean())


def _whole(network: nn.Module, watched: Watched, batch: Batch) -> Iterator[Row]:
    loops = [m for m in network.modules() if isinstance(m, Recurrent)]
    around = [
        not m.neuron.dynamics.detach_reset and m.neuron.dynamics.reset != "none" for m in loops
    ]
    yield "reset", "", float(sum(around))
    sent = [call[2] for record in watched.records.values() for call in record.calls]
    if any(len(y) >= 5 for y in sent):
        rate = sum(float(y.detach().abs().sum()) for y in sent) / sum(y.numel() for y in sent)
        yield "energy", "", rate
    # The outermost ends last.
    if not (answers := [y for y in watched.outputs if y.dim() == 3]):
        return
    last, label = answers[-1], batch.get("label")
    if any(last is y for y in sent):
        yield "output", "", float(last.detach().abs().sum()) / last.shape[1]
    # Of a network that has learnt: before, all steps may agree on the same wrong answer.
    if label is not None and len(last) > 1 and last.shape[1] == len(label):
        full, first = last.sum(0).argmax(1), last[0].argmax(1)
        if float((full == label).double().mean()) > 0.7:
            yield "time", "", float((full == first).double().mean())


def batch_of(recipe: Recipe) -> Batch:
    """A batch of the recipe's training data, drawn with its seed, of up to 64 samples."""
    data, cpu = recipe.data(), torch.device("cpu")
    count = len(next(iter(data.values())))
    pick = torch.randperm(count, generator=recipe.generator(0, 0, cpu))[: min(64, recipe.batch)]
    return {name: tensor[pick] for name, tensor in data.items()}


def watched(recipe: Recipe) -> Callable[[nn.Module], dict[str, float]]:
    """The doctor as a figure of a training: network -> {"faults", "notes"}, of one fixed batch.

    A loop that evaluates can log these beside the held-out loss.
    """
    batch = batch_of(recipe)

    def figures(network: nn.Module) -> dict[str, float]:
        findings = examine(network, batch, recipe.loss, recipe.seed).findings
        faults = sum(found.level == "fault" for found in findings)
        return {"faults": float(faults), "notes": float(len(findings) - faults)}

    return figures
