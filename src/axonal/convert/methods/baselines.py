"""Conversions of the literature, to compare with: binary spikes, one threshold a layer or channel.

`maximum` takes the largest value over the calibration data (Diehl et al. 2015, IJCNN), `percentile`
the 99.9th percentile, which a few outliers don't raise (Rueckauer et al. 2017, Front. Neurosci.
11:682). `signed` does so for each channel, and below 0 fires at -threshold / slope, so that rates
follow a leaky rectifier (signed neuron with imbalanced threshold, Spiking-YOLO, Kim et al. 2020,
arXiv 1903.06530). `balanced` learns thresholds from each layer's own clipping error,

    theta <- theta + 2 rate E[(y - theta)+],   from 0 on, values clipped as they go on

and reads the answer late, when spikes have come through (LTB, Bu et al. 2025, CVPR). `corrected`
takes thresholds of least error, then grows the offset of each layer's input by how much less, on
average, its neurons send than the network returns, given layers before that are right already (Li
et al. 2021, arXiv 2106.06984).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...core.errors import InputError
from ...nn.interpreter import Interpreter
from ..activations import BATCH, Calibration, Observed, observe, values_of
from ..plan import Plan, Population, assemble
from ..tracing import rectifiers
from .graded import least_error

MAXIMUM, PERCENTILE = 1.0, 0.999
LEAST_READ = 4  # steps, of a balanced network
LEAST = 1e-3  # of the largest value, for the balanced threshold of a channel that is silent
CORRECTING = 128  # samples that correct a layer


def maximum(dense: fx.GraphModule, data: Calibration) -> Plan:
    """Thresholds at the largest value of each layer (Diehl et al. 2015)."""
    return at_share("maximum", dense, data, MAXIMUM, _all_channels)


def percentile(dense: fx.GraphModule, data: Calibration, share: float = PERCENTILE) -> Plan:
    """Thresholds at a percentile of each layer (Rueckauer et al. 2017).

    Args:
        share: of the layer's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    return at_share("percentile", dense, data, share, _all_channels)


def at_share(
    name: str,
    dense: fx.GraphModule,
    data: Calibration,
    share: float,
    threshold: Callable[[Observed, float], Tensor],
) -> Plan:
    """Binary spikes whose thresholds are what `threshold` finds at a share of the values.

    Raises:
        InputError: `share` is outside (0, 1].
    """
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"{name}: a share of {share!r} of the values; choose above 0, up to 1")
    slopes = rectifiers(dense)
    seen = observe(dense, [*slopes], data.x, data.folder)
    populations = {
        node: Population(threshold(seen[node], share), slope=slope, emit="multiple")
        for node, slope in slopes.items()
    }
    return Plan(name, data.steps, data.shape, populations)


def _all_channels(seen: Observed, share: float) -> Tensor:
    """As `levels`, of all channels together."""
    return levels(Observed(seen.values.reshape(1, -1), seen.most.max()[None], 0), share)


def levels(seen: Observed, share: float) -> Tensor:
    """Below what the `share` of each channel's sizes above 0 lies, as it broadcasts to a sample."""
    if share == 1:
        return seen.shaped(seen.most)
    sizes = seen.values.abs().sort(1).values  # torch.quantile takes no more than 2^24 of them
    silent, last = (sizes == 0).sum(1, keepdim=True), sizes.shape[1] - 1
    place = (silent + share * (last - silent)).clamp(max=last)
    below = sizes.gather(1, place.floor().long())
    above = sizes.gather(1, place.ceil().long())
    return seen.shaped((below + (place - place.floor()) * (above - below))[:, 0])


def signed(dense: fx.GraphModule, data: Calibration, share: float = PERCENTILE) -> Plan:
    """Binary and ternary spikes with thresholds at a percentile of each channel.

    Args:
        share: of the channel's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    return at_share("signed", dense, data, share, levels)


def balanced(
    dense: fx.GraphModule, data: Calibration, rounds: int = 400, rate: float = 0.5
) -> Plan:
    """Binary spikes with balanced channel thresholds, and a delayed read-out.

    Args:
        rounds: batches of calibration data to learn from.
        rate: of learning.

    Raises:
        InputError: no rounds, or a rate that is not a positive number.
    """
    if type(rounds) is not int or rounds < 1 or not 0 < rate < math.inf:
        raise InputError(f"balanced: {rounds} rounds at rate {rate}; both must be above 0")
    slopes = rectifiers(dense)
    seen = observe(dense, [*slopes], data.x, data.folder)
    scale = {name: levels(seen[name], 1.0) for name in slopes}
    thresholds = {name: torch.zeros_like(value) for name, value in scale.items()}
    draw = torch.Generator().manual_seed(0)
    mean: dict[str, float] = {}
    for _ in range(rounds):
        pick = torch.randint(len(data.x), (BATCH,), generator=draw)
        for name, (beyond, mean[name]) in _clipped(dense, thresholds, data.x[pick]).items():
            thresholds[name] += 2 * rate * beyond
    populations = {
        name: Population(
            thresholds[name].clamp_min(LEAST * float(scale[name].max())),
            slope=slope,
        )
        for name, slope in slopes.items()
    }
    waits = [float(p.threshold.mean()) / 2 / mean[name] for name, p in populations.items()]
    delay = min(round(sum(waits)), max(0, data.steps - LEAST_READ))
    return Plan("balanced", data.steps - delay, data.shape, populations, delay=delay)


@torch.no_grad()
def _clipped(
    dense: fx.GraphModule, thresholds: dict[str, Tensor], x: Tensor
) -> dict[str, tuple[Tensor, float]]:
    """Run a network whose rectifiers clip: how far each would have gone beyond, and its mean."""
    seen: dict[str, tuple[Tensor, float]] = {}

    def rule(run: Interpreter, n: fx.Node, module: nn.Module | None) -> Any:
        y = run.default(n)
        if n.name not in thresholds:
            return y
        threshold = thresholds[n.name]
        dims = [d for d in range(y.dim()) if d != 1 or not threshold.dim()]
        beyond = (y - threshold).clamp_min(0).mean(dims).reshape(threshold.shape)
        seen[n.name] = beyond, max(float(y.clamp_min(0).mean(0).max()), 1e-12)
        return torch.minimum(y, threshold.expand_as(y))

    Interpreter(dense, rule).run(x)
    return seen


def corrected(dense: fx.GraphModule, data: Calibration) -> Plan:
    """Binary spikes with thresholds where T levels err least, and offsets for the means."""
    slopes = rectifiers(dense)
    populations = least_error(dense, data, slopes)
    x = data.x[:CORRECTING]
    target, _ = values_of(dense, [*slopes], x)
    for name in slopes:
        plan = Plan("corrected", data.steps, data.shape, populations)
        missing = target[name] - _sent(dense, plan, name, x)
        offset = missing.mean([d for d in range(missing.dim()) if d != 1])
        offset = offset.reshape(-1, *(1 for _ in missing.shape[2:]))
        populations = populations | {name: replace(populations[name], offset=offset)}
    return Plan("corrected", data.steps, data.shape, populations)


@torch.no_grad()
def _sent(dense: fx.GraphModule, plan: Plan, name: str, x: Tensor) -> Tensor:
    """What a population sends in place of its value, the mean over time."""
    network, sent = assemble(dense, plan), []
    neuron = network.populations()[name]
    handle = neuron.register_forward_hook(lambda _, args, output: sent.append(output[0].mean(0)))
    network.outputs(x)
    handle.remove()
    return sent[0] * plan.populations[name].threshold
