"""What a backward pass costs when it follows events, against how many there are."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.kinds import Current, Leaky
from ..energy import svg
from ..learn.event_kernels import decays
from ..learn.events import eventprop, mpd_ed
from ..learn.rules import bptt
from ..nn import Neuron, Sequential
from .contest import contest, spread

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # spikes a neuron and step
SIZES, STEPS, BATCH = (256, 512, 512, 10), 100, 32
LEAKY = Leaky(decay=0.9)
# EventProp reads a step as a unit of time; finer steps count its spikes well enough.
FINE, CURRENT = 8, Current(decay=0.9, synapse=0.8, reset="zero")
RULES = {
    "mpd-ed": (mpd_ed(wake=0), LEAKY),
    "eventprop": (eventprop(), CURRENT),
    "dense bptt": (bptt, LEAKY),
}


def figures(rounds: int, seed: int, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of the backward passes of `RULES` where every layer spikes at each of `RATES`.

    Weights are drawn, then scaled to the rate, layer by layer. A round times each rule once.

    Returns:
        "backward ms [rule, rate %]", and "backward speedup [rule, rate %]" over the dense one.
    """
    torch.set_num_threads(threads)
    found = {}
    for rate in RATES:
        generator = torch.Generator().manual_seed(seed)
        x = (torch.rand(STEPS, BATCH, SIZES[0], generator=generator) < rate).float()
        passes = {}
        for name, (rule, dynamics) in RULES.items():
            network = scaled(dynamics, x, rate, generator)
            loss, _ = rule(network, x, lambda y: y.square().mean())
            passes[name] = _again(loss, network)
        seconds = contest(passes, rounds).seconds
        for name, own in seconds.items():
            pairs = zip(seconds["dense bptt"], own, strict=True)
            found[f"backward ms [{name}, {_percent(rate)}]"] = spread([1000 * s for s in own])
            found[f"backward speedup [{name}, {_percent(rate)}]"] = spread(
                [a / b for a, b in pairs]
            )
    return {key: value for key, value in found.items() if "speedup [dense" not in key}


def drawing(found: dict[str, dict[str, float]]) -> str:
    """The milliseconds of `figures` against the rate, as the text of an SVG file."""
    series = []
    for i, (name, tone) in enumerate(zip(RULES, ("spike-0", "delta-0", "ann-0"), strict=True)):
        points = []
        for rate in RATES:
            ms = found[f"backward ms [{name}, {_percent(rate)}]"]
            title = f"{name} at {_percent(rate)}: {ms['value']:.1f} ms"
            points.append(svg.Point(100 * rate, ms["value"], ms["low"], ms["high"], "", title))
        series.append(svg.Series(name, tuple(points), tone, i))
    chart = svg.scatter(series, "spikes a neuron in 100 steps", "backward pass, ms", 900, 420)
    return svg.alone(chart, series)


def scaled(dynamics: Any, x: Tensor, rate: float, generator: torch.Generator) -> Sequential:
    """A network of `SIZES` whose layers each spike at about `rate` when fed x [T, B, N]."""
    fine, stand_in = 1, dynamics
    if isinstance(dynamics, Current):
        fine, a, b = FINE, -math.log(dynamics.decay), -math.log(dynamics.synapse)
        drive = dynamics.drive * decays(a, b, 1 / fine)[2] / decays(a, b, 1.0)[2]
        decay, synapse = dynamics.decay ** (1 / fine), dynamics.synapse ** (1 / fine)
        stand_in = replace(dynamics, decay=decay, synapse=synapse, drive=drive)
    layers: list[nn.Module] = []
    s = torch.zeros(len(x) * fine, 4, x.shape[2])
    s[::fine] = x[:, :4]
    for n, m in itertools.pairwise(SIZES):
        linear, neuron = nn.Linear(n, m, bias=False), Neuron(stand_in)
        weight, low, high = torch.rand(m, n, generator=generator) - 1 / 3, -12.0, 12.0
        with torch.no_grad():
            for _ in range(16):  # halves of a range of powers of two
                linear.weight.copy_(weight * 2 ** ((low + high) / 2))
                sent, _ = neuron(linear(s))
                few = fine * sent.mean() < rate
                low, high = ((low + high) / 2, high) if few else (low, (low + high) / 2)
        layers += [linear, Neuron(dynamics, "masked_triangle")]
        s = sent
    return Sequential(*layers)


def _again(loss: Tensor, network: nn.Module) -> Callable[[], Any]:
    weights = list(network.parameters())
    return lambda: torch.autograd.grad(loss, weights, retain_graph=True)


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"
