"""Local threshold balancing: thresholds by gradient steps of each layer's own clipping error.

    theta <- theta + 2 rate E[(y - theta)+],   from 0 on, values clipped as they go on

and the answer is read late, when spikes have come through (LTB, Bu et al. 2025, CVPR).
"""

import math

import torch
from torch import Tensor, fx

from ..core.errors import InputError
from .activations import BATCH, observe
from .methods.baselines import levels
from .plan import Plan, Population
from .setting import Setting
from .tracing import rectifiers

LEAST_READ = 4  # steps
LEAST = 1e-3  # of the largest value, for the threshold of a channel that is silent


def balanced(dense: fx.GraphModule, given: Setting, rounds: int = 400, rate: float = 0.5) -> Plan:
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
    seen = observe(dense, [*slopes], given.x, given.folder)
    scale = {name: levels(seen[name], 1.0) for name in slopes}
    thresholds = {name: torch.zeros_like(value) for name, value in scale.items()}
    draw = torch.Generator().manual_seed(0)
    run = _Clipped(dense, thresholds)
    for _ in range(rounds):
        pick = torch.randint(len(given.x), (BATCH,), generator=draw)
        with torch.no_grad():
            run.run(given.x[pick])
        for name, over in run.over.items():
            thresholds[name] += 2 * rate * over
    populations = {
        name: Population(
            thresholds[name].clamp_min(LEAST * float(scale[name].max())),
            slope=slope,
        )
        for name, slope in slopes.items()
    }
    waits = [float(p.threshold.mean()) / 2 / run.mean[name] for name, p in populations.items()]
    delay = min(round(sum(waits)), max(0, given.steps - LEAST_READ))
    return Plan("balanced", given.steps - delay, given.shape, populations, delay=delay)


class _Clipped(fx.Interpreter):
    """Runs a network whose rectifiers clip, and keeps how far they would have gone beyond."""

    def __init__(self, dense: fx.GraphModule, thresholds: dict[str, Tensor]):
        super().__init__(dense)
        self.thresholds, self.over, self.mean = thresholds, {}, {}

    def run_node(self, n: fx.Node) -> Tensor:
        y = super().run_node(n)
        if n.name not in self.thresholds:
            return y
        threshold = self.thresholds[n.name]
        beyond = (y - threshold).clamp_min(0)
        kept = [d for d in range(y.dim()) if d != 1] if threshold.dim() else list(range(y.dim()))
        self.over[n.name] = beyond.mean(kept).reshape(threshold.shape)
        self.mean[n.name] = max(float(y.clamp_min(0).mean(0).max()), 1e-12)
        return torch.minimum(y, threshold.expand_as(y))
