"""The doctor: what keeps a spiking network from learning, seen in one batch.

Bounds are heuristics, calibrated so that networks which train well have no fault; where a figure
has a source, its row names it.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Literal

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.neurons import NEVER, AdaptiveThreshold, Leaky
from ..nn import Neuron, Recurrent, Stateful
from ..nn.hooks import currents
from ..ops.scan.reference import Tensors
from ..ops.surrogate import SURROGATES
from .data import sample_batch
from .initialise import membranes, replay, rescale, threshold
from .recipe import Batch, Loss, Recipe

INF = math.inf
RARE = 5e-4  # spikes a neuron and step


@dataclass(frozen=True)
class Check:
    """One figure with the range it should lie in.

    Attributes:
        figure: what is measured.
        low, high: the range.
        harm: what it does to training when it lies outside.
        remedy: what to change.
        level: "fault", or "note" for what is no obstacle.
    """

    figure: str
    low: float
    high: float
    harm: str
    remedy: str
    level: Literal["fault", "note"] = "fault"


CHECKS = {
    "input": Check("root mean square of inputs", 1e-6, 10,
        "the first layer fires never, or in every step",
        "look at how the data are read, and scale them to about 1; bytes by 1/255"),
    "classes": Check("classes in a batch", 2, INF, "one constant answer is already right",
        "shuffle the data, or look at how labels are read"),
    "spread": Check("deviation of membranes over threshold less mean", 0.05, 20,
        "membranes don't cross the threshold at times, but never or always",
        "rescale the weights before it (--fix; learn.initialise)"),
    "silent": Check("share of neurons or channels that never fire", 0, 0.6,
        "they neither pass on nor learn anything",
        "lower their thresholds, rescale the weights, or add learn.losses.activity"),
    "rate": Check("spikes a neuron and step", RARE, INF, "nothing reaches the next layer",
        "rescale the weights before it (--fix), or lower its threshold"),
    "saturated": Check("share of steps with the largest spike", 0, 0.8,
        "spikes carry no information, and cost the most",
        "rescale the weights before it (--fix), or raise its threshold"),
    "drive": Check("steady membrane of the best driven hundredth over threshold", 1, INF,
        "the mean input can't make it fire", "raise the input gain, or the weights (--fix)"),
    "support": Check("share of membranes where the surrogate is above a tenth of its peak",
        0.01, INF, "gradients die between those neurons", "widen the surrogate (--fix)"),
    "gradient": Check("gradient over that of the last population", 1e-3, 1e3,
        "layers far apart learn at rates that no step size suits, or not at all",
        "rescale the weights (--fix), normalise (nn.ThresholdBatchNorm), or add shortcuts"),
    "peak": Check("surrogates' peaks times thresholds, of all populations", 1e-5, 1e3,
        "gradients shrink or grow from layer to layer",
        "choose slopes that make each peak 1 over the threshold"),
    "leak": Check("what a membrane keeps after the last step", 0, 0.95,
        "the leak is too slow to be one, and old input stays for ever",
        "choose a decay of about 1 - 3/T, or 1 to integrate"),
    "memory": Check("what a membrane keeps after a step", 0.1, 1,
        "a step knows nothing of the one before", "choose a decay above 1/e"),
    "reset": Check("recurrent populations with gradients through the reset", 0, 0,
        "gradients run in a circle and grow without bound", "set detach_reset"),
    "time": Check("share of answers that the first step gives already", 0, 0.98,
        "further steps cost and change nothing", "use fewer steps", "note"),
    # arXiv 2409.08290: beside a quantised network of as many bits, memory counted, at T 5-10.
    "energy": Check("spikes a neuron and step, of all", 0, 0.064,
        "a quantised network of the same bits would need less energy",
        "penalise spikes once it has learnt", "note"),
}  # fmt: skip
SCALED = {"spread", "silent", "rate", "saturated", "drive", "gradient"}  # that weights can fix
XI = 0.5  # of `fix`: 20 layers learn faster with it than with 1, others as fast


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
        span = f"{row.low:g} to {row.high:g}" if row.low else f"at most {row.high:g}"
        if row.high == INF:
            span = f"at least {row.low:g}"
        return (
            f"{self.level}: {self.layer or 'the network'}: {row.figure} is {self.measured:.3g} "
            f"({span} is sound): {row.harm}. {row.remedy[0].upper()}{row.remedy[1:]}."
        )


@dataclass(frozen=True)
class Report:
    """The result of an examination; rich prints it with its table.

    Attributes:
        figures: by population, in order of execution, and by check.
        findings: the figures outside their range.
    """

    figures: dict[str, dict[str, float]]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that keep the network from learning."""
        return tuple(finding for finding in self.findings if finding.level == "fault")

    def __rich__(self) -> Group:
        shown = ("rate", "silent", "saturated", "spread", "support", "gradient")
        table = Table("population", *shown)
        for name, row in self.figures.items():
            table.add_row(name, *(f"{row[key]:.3g}" if key in row else "-" for key in shown))
        return Group(table, Text(str(self)))

    def __str__(self) -> str:
        """Every finding as a sentence, those of one check as one; the verdict last."""
        lines = []
        for _, (first, *more) in groupby(self.findings, lambda finding: finding.check):
            also = ", ".join(finding.layer for finding in more)
            lines.append(str(first) + (f" The same holds of {also}." if more else ""))
        checks = ", ".join(dict.fromkeys(fault.check for fault in self.faults))
        verdict = "Nothing found that keeps this network from learning."
        if checks:
            verdict = f"This network is unlikely to learn well until this is mended: {checks}."
        return "\n".join([*lines, verdict])


@dataclass
class _Record:
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
        """The steps T of a call."""
        begun = sum(state is None for _, state, _ in self.calls)
        return sum(len(y) for *_, y in self.calls) / (begun or 1)


@contextmanager
def _record(network: nn.Module) -> Iterator[tuple[dict[str, _Record], list[Tensor]]]:
    """Record the calls of a network: `with _record(network) as (records, outputs)`.

    Returns:
        Its spiking populations by name, in order of execution; and the output of the last
        `Stateful`, which is the outermost, [T, B, ...].
    """
    names = {module: name for name, module in network.named_modules()}
    records: dict[str, _Record] = {}
    outputs: list[Tensor] = []

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        y = output[0].detach()
        outputs[:] = [y]
        if not isinstance(module, Neuron) or module.dynamics.emit == "membrane":
            return
        population = records.setdefault(names[module], _Record(module))
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


def _figures(record: _Record) -> Iterator[tuple[str, float]]:
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


def _membranes(record: _Record) -> Iterator[tuple[str, float]]:
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


def examine(network: nn.Module, batch: Batch, loss: Loss, seed: int = 0) -> Report:
    """Run one batch forward and backward, and compare its figures with `CHECKS`.

    The network is copied first: weights, gradients, statistics and random numbers stay as they
    are.

    Args:
        network: in training or evaluation mode.
        batch: what `loss` takes; integers under "label" are classes.
        loss: as of a `Recipe`.
        seed: of the loss's noise.

    Raises:
        InputError: the network has no neurons.
        Exception: what `loss` raises.
    """
    if not any(isinstance(m, Neuron) for m in network.modules()):
        raise InputError("this network has no spiking neurons to examine; train it as any other")
    network = copy.deepcopy(network)
    with torch.enable_grad(), _record(network) as (records, outputs):
        _loss(network, batch, loss, seed).backward()
    table = {name: dict(_figures(population)) for name, population in records.items()}
    norms = {name: r.gradient for name, r in records.items() if r.gradient is not None}
    for name, norm in norms.items():
        last = list(norms.values())[-1]
        table[name]["gradient"] = norm / last if last else math.nan
    rows = [(k, name, v) for name, row in table.items() for k, v in row.items() if k in CHECKS]
    rows += [*_batch_figures(batch), *_network_figures(network, [*records.values()])]
    rows.append(("peak", "", math.prod(row.get("sharpness", 1.0) for row in table.values())))
    rows += [("time", "", share) for y in outputs for share in _answered(y, batch.get("label"))]
    rows.sort(key=lambda row: [*CHECKS].index(row[0]))  # causes first
    outside = [row for row in rows if not CHECKS[row[0]].low <= row[2] <= CHECKS[row[0]].high]
    return Report(table, tuple(Finding(*row) for row in outside))


def _loss(network: nn.Module, batch: Batch, loss: Loss, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        device = next(iter(batch.values())).device
        return loss(network, batch, torch.Generator(device).manual_seed(seed))[0]


def _batch_figures(batch: Batch) -> Iterator[tuple[str, str, float]]:
    for name, x in batch.items():
        # Integers count, or are scaled by the network.
        if x.dim() > 1 and (x.is_floating_point() or not x.any()):
            yield "input", name, float(x.detach().double().square().mean().sqrt())
    label = batch.get("label")
    if label is not None and not label.is_floating_point() and len(label) >= 8:
        yield "classes", "label", float(len(label.unique()))


def _network_figures(
    network: nn.Module, records: list[_Record]
) -> Iterator[tuple[str, str, float]]:
    loops = [m.neuron.dynamics for m in network.modules() if isinstance(m, Recurrent)]
    yield "reset", "", float(sum(not d.detach_reset and d.reset != "none" for d in loops))
    if any(record.steps >= 5 for record in records):
        sent = [record.sent for record in records]
        yield "energy", "", sum(float(s.sum()) for s in sent) / sum(s.numel() for s in sent)


def _answered(y: Tensor, label: Tensor | None) -> Iterator[float]:
    """The share of answers that y [T, B, C] gives after one step, if it has learnt to answer."""
    if label is None or y.dim() != 3 or len(y) == 1 or y.shape[1] != len(label):
        return
    full, first = y.sum(0).argmax(1), y[0].argmax(1)
    # Before, all steps may agree on the same wrong answer.
    if float((full == label).double().mean()) > 0.7:
        yield float((full == first).double().mean())


@dataclass(frozen=True)
class Treatment:
    """A network that was fixed, and the reports before and after; rich prints these.

    Attributes:
        network: with the changes.
        before, after: the reports.
        changes: a sentence for each layer that was changed.
    """

    network: nn.Module
    before: Report
    after: Report
    changes: dict[str, str]

    def __rich__(self) -> Group:
        changes = [f"{name}: {change}" for name, change in self.changes.items()] or ["nothing"]
        changed = Text("\n".join(["Changed:", *changes]))
        return Group("Before:", self.before, changed, "After:", self.after)


def fix(network: nn.Module, batch: Batch, loss: Loss, seed: int = 0) -> Treatment:
    """Fix in a copy the faults that scales can fix, and change nothing else.

    Weights are rescaled until membranes spread to the threshold (`initialise.rescale`), and
    surrogates widened where no membrane lies inside. A step that leaves as many faults as before
    is taken back.
    """
    before = after = examine(network, batch, loss, seed)
    best, changes = network, {}
    for checks, step in ((SCALED, _rescale), ({"support"}, _widen)):
        layers = [fault.layer for fault in after.faults if fault.check in checks]
        if not layers:
            continue
        trial = copy.deepcopy(best)
        steps = step(trial, layers, partial(_loss, trial, batch, loss, seed))
        # Runs of it have moved the statistics of norms.
        trial.load_state_dict(dict(network.named_buffers()), strict=False)
        report = examine(trial, batch, loss, seed)
        if len(report.faults) < len(after.faults):
            best, after, changes = trial, report, changes | steps
    return Treatment(best, before, after, changes)


def _rescale(network: nn.Module, layers: list[str], run: Callable[[], Tensor]) -> dict[str, str]:
    factors = rescale(network, run, XI)
    return {name: f"weights x {factor:.3g}" for name, factor in factors.items()}


def _widen(network: nn.Module, layers: list[str], run: Callable[[], Tensor]) -> dict[str, str]:
    """Take the nearest slopes, in octaves, that leave a tenth of the peak down to rest."""
    changes = {}
    for name in layers:
        neuron = network.get_submodule(name)
        assert isinstance(neuron, Neuron)
        first = SURROGATES[neuron.surrogate].slope if neuron.slope is None else neuron.slope
        x = torch.tensor([threshold(neuron), 0.0], dtype=torch.float64)
        for octaves in sorted(range(-20, 21), key=abs):
            slope = first * 2.0**octaves
            rest, peak = Tensors(x, neuron.surrogate, slope).surrogate(x)
            if rest >= 0.1 * peak:
                neuron.slope, changes[name] = slope, f"surrogate slope {first:g} -> {slope:g}"
                break
    return changes


def checkup(recipe: Recipe) -> Callable[[nn.Module], dict[str, float]]:
    """The doctor as a `Recipe.checkup`: the number of faults in one fixed batch."""
    batch = sample_batch(recipe)
    return lambda network: {
        "faults": float(len(examine(network, batch, recipe.loss, recipe.seed).faults))
    }
