"""Thresholds under one error budget: each population gets the share that buys the most silence.

The output error of small independent residues adds up in squares, so at the optimum every
population saves the same work per squared error (the condition of optimal bit allocation,
Shoham and Gersho 1988). Both are measured by doubling one threshold at a time; thresholds move
towards balance, and a common factor keeps the whole on the budget.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import InputError
from ..nn.meter import Meter
from .certificate import Certificate, LayerCertificate
from .methods.sigma_delta import INPUT, DeltaNetwork

TINY = 1e-30  # stands for no work and no error, which have no logarithm
Run = Callable[[DeltaNetwork], Tensor]


def calibrate(
    network: DeltaNetwork,
    run: Run,
    check: Run,
    budget: float,
    target: tuple[Tensor, Tensor] | None = None,
    rounds: int = 2,
) -> Certificate:
    """Set the thresholds of `network` so that its output errs by `budget`, at the least work.

    Args:
        network: converted; its thresholds are replaced. If it has any that are not zero, their
            proportions are where balancing begins, else the spread of the activations is.
        run: runs it over calibration samples, always the same, and returns the output.
        check: the same over held-out samples, for the certificate.
        budget: root mean square error of the output.
        target: what `run` and `check` should return; None for what they do with thresholds of
            zero. A network tuned to its thresholds is nowhere more exact than near them.
        rounds: of balancing; each costs one run a population and a few more.

    Returns:
        The certificate, measured with the thresholds that were set.

    Raises:
        InputError: the budget is not positive or out of reach, or the output is not finite.
    """
    if not (budget > 0 and math.isfinite(budget)):
        raise InputError(f"the error budget is {budget}; it must be a positive number")
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; it must be at least 0")
    with torch.no_grad():
        begin = {name: float(value.mean()) for name, value in network.thresholds().items()}
        trial = _Trial(network, run, target and target[0])
        thresholds = trial.fit(begin if all(begin.values()) else trial.spread, budget)
        best, least = thresholds, trial.measure(thresholds)[1]
        for _ in range(rounds):
            thresholds = trial.fit(trial.balanced(thresholds), budget)
            if (work := trial.measure(thresholds)[1]) < least:
                best, least = thresholds, work
        return _certify(trial, _Trial(network, check, target and target[1]), best, budget)


class _Trial:
    """Runs of one network over the same samples, with thresholds to compare."""

    def __init__(self, network: DeltaNetwork, run: Run, target: Tensor | None):
        self.network, self.run = network, run
        network.set_thresholds(dict.fromkeys(network.neurons, 0.0))
        self.spread = network.spread(lambda: run(network))
        self.exact = run(network) if target is None else target
        if not bool(self.exact.isfinite().all()):
            raise InputError("the network's output is not finite; nothing can be calibrated")

    def measure(self, thresholds: dict[str, float]) -> tuple[float, float]:
        """Mean square error of the output, and synaptic operations of a sample."""
        self.network.set_thresholds(thresholds)
        with Meter(self.network, "events", batch_dim=1) as meter:
            output = self.run(self.network)
        return float((output - self.exact).square().mean()), meter.counts().total("synops")

    def fit(self, thresholds: dict[str, float], budget: float) -> dict[str, float]:
        """`thresholds` times the largest factor found that stays within the budget."""

        def scaled(log_factor: float) -> dict[str, float]:
            return {name: value * math.exp(log_factor) for name, value in thresholds.items()}

        def error(log_factor: float) -> float:
            return self.measure(scaled(log_factor))[0] ** 0.5

        # From above: a network tuned to its thresholds errs more below them, too.
        ladder = [math.log(10) - i * math.log(2) for i in range(18)]
        reached = next((x for x in ladder if error(x) <= budget), None)
        if reached is None:
            raise InputError(
                f"an error of {budget:g} is out of reach: it is {error(0.0):.3g} at the thresholds "
                f"that balancing began with and {error(ladder[-1]):.3g} far below them"
            )
        low, high = reached, reached + math.log(2)
        for _ in range(6):
            middle = (low + high) / 2
            low, high = (middle, high) if error(middle) <= budget else (low, middle)
        return scaled(low)

    def balanced(self, thresholds: dict[str, float]) -> dict[str, float]:
        """Larger thresholds where doubling saves more work for its error, smaller elsewhere."""
        error, work = self.measure(thresholds)
        value = {}
        for name in thresholds:
            e, w = self.measure({**thresholds, name: 2 * thresholds[name]})
            saved, spoiled = max(work - w, 1e-6 * work), max(e - error, 1e-6 * error)
            value[name] = max(saved, TINY) / max(spoiled, TINY)
        centre = sum(map(math.log, value.values())) / len(value)
        step = {k: max(-1.0, min(1.0, 0.3 * (math.log(v) - centre))) for k, v in value.items()}
        return {name: thresholds[name] * math.exp(step[name]) for name in thresholds}


def _certify(
    trial: _Trial, check: _Trial, thresholds: dict[str, float], budget: float
) -> Certificate:
    silent = dict.fromkeys(thresholds, 0.0)
    alone = {k: trial.measure({**silent, k: v})[0] ** 0.5 for k, v in thresholds.items()}
    calibration_error = trial.measure(thresholds)[0] ** 0.5
    network = trial.network
    with Meter(network, "events", batch_dim=1) as meter:
        output_error = float((check.run(network) - check.exact).square().mean()) ** 0.5
    counts, fanouts = meter.counts(), network.fanouts()
    spikes, sites = counts.by_layer("spikes"), counts.by_layer("sites")
    layers = []
    for name, threshold in thresholds.items():
        row = "encoder" if name == INPUT else f"delta.{name}"
        layers.append(
            LayerCertificate(
                name=name,
                threshold=threshold,
                error=alone[name],
                share=spikes[row] / sites[row],
                synops=spikes[row] * fanouts[name],
            )
        )
    return Certificate(
        budget=budget,
        calibration_error=calibration_error,
        output_error=output_error,
        samples=counts.samples,
        layers=tuple(layers),
    )
