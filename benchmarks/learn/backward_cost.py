"""What a backward pass costs when it follows events, against how many there are."""

import itertools
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from axonal.core.neurons import Current, Dynamics, Leaky
from axonal.learn.rules import rule_named
from axonal.nn import Neuron, Sequential
from axonal.report import charts

from ..harness.charts import write
from ..harness.results import Figures
from ..harness.timing import ratio, spread, time_in_turn

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # spikes a neuron and step
SIZES, STEPS, BATCH = (256, 512, 512, 10), 100, 32
LEAKY = Leaky(decay=0.9)
FINE = 8  # parts of a step, in which discrete neurons spike about as EventProp's in continuous time
CURRENT = Current(decay=0.9 ** (1 / FINE), synapse=0.8 ** (1 / FINE), reset="zero")
RULES = {
    "eventprop": (rule_named("eventprop"), CURRENT, FINE),
    "dense bptt": (rule_named("bptt"), LEAKY, 1),
}


def figures(rounds: int, seed: int) -> Figures:
    """Time the backward passes of `RULES` where every layer spikes at each of `RATES`.

    Weights are drawn, then scaled to the rate, layer by layer. A round times each rule once.

    Returns:
        "backward ms [rule, rate %]", and "backward speedup [rule, rate %]" over the dense one.
    """
    milliseconds, speedups = {}, {}
    for rate in RATES:
        generator = torch.Generator().manual_seed(seed)
        drawn = (torch.rand(STEPS, BATCH, SIZES[0], generator=generator) < rate).float()
        passes = {}
        for name, (rule, dynamics, fine) in RULES.items():
            x = drawn.new_zeros(fine * STEPS, *drawn.shape[1:])
            x[::fine] = drawn
            network = scaled_network(dynamics, x, rate / fine, generator)
            loss, _ = rule(network, x, lambda y: y.square().mean())
            weights = list(network.parameters())
            passes[name] = partial(torch.autograd.grad, loss, weights, retain_graph=True)
        seconds = time_in_turn(passes, rounds).seconds
        dense = seconds["dense bptt"]
        for name, own in seconds.items():
            at = f"[{name}, {100 * rate:g} %]"
            milliseconds[f"backward ms {at}"] = spread([1000 * s for s in own])
            if own is not dense:
                speedups[f"backward speedup {at}"] = ratio(dense, own)
    return milliseconds | speedups


def draw(figures: Figures, path: Path) -> None:
    """Write the milliseconds of `figures` against the rate, as an SVG file."""
    series = []
    for i, (name, tone) in enumerate(zip(RULES, ("delta-0", "ann-0"), strict=True)):
        points = []
        for percent in (100 * rate for rate in RATES):
            ms = figures[f"backward ms [{name}, {percent:g} %]"]
            title = f"{name} at {percent:g} %: {ms['value']:.1f} ms"
            points.append(charts.Point(percent, ms["value"], ms["low"], ms["high"], "", title))
        series.append(charts.Series(name, tuple(points), tone, i))
    chart = charts.scatter(series, "spikes a neuron in 100 steps", "backward pass, ms", 900, 420)
    write(path, chart, series)


@torch.no_grad()
def scaled_network(
    dynamics: Dynamics, x: Tensor, rate: float, generator: torch.Generator
) -> Sequential:
    """Build a network of `SIZES` whose layers each spike at about `rate` when fed x [T, B, N]."""
    layers, s = [], x[:, :4]
    for n, m in itertools.pairwise(SIZES):
        linear, neuron, sent = nn.Linear(n, m, bias=False), Neuron(dynamics, "masked_triangle"), s
        weight, low, high = torch.rand(m, n, generator=generator) - 1 / 3, -12.0, 12.0
        for _ in range(16):  # halves of a range of powers of two
            middle = (low + high) / 2
            linear.weight.copy_(weight * 2**middle)
            sent, _ = neuron(linear(s))
            low, high = (middle, high) if sent.mean() < rate else (low, middle)
        layers, s = [*layers, linear, neuron], sent
    return Sequential(*layers)
