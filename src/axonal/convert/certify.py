"""The certificate of a converted network, measured on samples that it was not calibrated with."""

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, fx

from ..nn import Burst, Difference, Neuron
from ..nn.meter import Meter
from .activations import BATCH, values_of
from .certificate import (
    RIGHT,
    SQUARED,
    Certificate,
    LayerCertificate,
    change_of,
    mean_of,
    share_of,
)
from .plan import Population, SpikingNetwork

KINDS = ("clip", "quantisation", "unevenness", "error", "all")


@torch.no_grad()
def certify(
    dense: fx.GraphModule, network: SpikingNetwork, x: Tensor, labels: Tensor | None = None
) -> Certificate:
    """What `network` does beside `dense`, the prepared network that it was assembled from.

    Args:
        x: samples [N, ...] that did not calibrate it.
        labels: classes [N], or targets, real numbers [N, ...]; None for neither.
    """
    watched = _Watched(network)
    sums: dict[str, list[float]] = {}
    scores: list[np.ndarray] = []
    for rows in torch.arange(len(x)).split(BATCH):
        values, output = values_of(dense, [*network.plan.populations], x[rows])
        answer = watched.run(x[rows], values)
        for name, error in {"": answer - output, **network.returns.named(answer - output)}.items():
            size = output if not name else network.returns.named(output)[name]
            both = sums.setdefault(name, [0.0, 0.0])
            both[0] += float(error.square().sum())
            both[1] += float(size.square().sum())
        if labels is not None:
            scores.append(np.stack([_scores(y, labels[rows]) for y in (output, answer)]))
    errors = {name: (wrong / max(norm, 1e-30)) ** 0.5 for name, (wrong, norm) in sums.items()}
    pairs = np.concatenate(scores, 1) if scores else None
    classes = labels is None or not labels.is_floating_point()
    work, ordinary = watched.meter.counts(), Meter(dense, "dense")
    with ordinary:
        dense(x[:1])
    plan = network.plan
    dense_names = {n for n, m in network.named_modules() if isinstance(m, Difference)}
    functions = {
        field: sum(v for n, v in work.by_layer(field).items() if n in dense_names)
        for field in ("multiplies", "adds")
    }
    return Certificate(
        budget=0.0,
        calibration_error=0.0,
        output_error=errors.pop(""),
        outputs=errors,
        score=RIGHT if classes else SQUARED,
        samples=len(x),
        layers=watched.layers(),
        method=plan.method,
        steps=plan.steps,
        levels=plan.levels,
        delay=network.delay,
        latency=network.latency,
        schedule=plan.schedule,
        synops=work.total("synops"),
        multiplies=work.total("multiplies") - functions["multiplies"],
        functions=sum(functions.values()),
        dense=ordinary.counts().total("synops"),
        before=None if pairs is None else (share_of if classes else mean_of)(pairs[0]),
        after=None if pairs is None else (share_of if classes else mean_of)(pairs[1]),
        change=None if pairs is None else change_of(*pairs),
    )


def _scores(y: Tensor, labels: Tensor) -> np.ndarray:
    """Of each answer, whether it is right, or its mean squared error."""
    if labels.is_floating_point():
        return (y - labels).square().flatten(1).mean(1).numpy()
    return (y.argmax(1) == labels).numpy()


class _Watched:
    """A network whose populations are compared with the values they stand for."""

    def __init__(self, network: SpikingNetwork):
        self.network, self.neurons = network, network.populations()
        self.sums = {name: dict.fromkeys(KINDS, 0.0) for name in self.neurons}
        self.spikes = dict.fromkeys(self.neurons, 0.0)
        self.sites = dict.fromkeys(self.neurons, 0)
        self.meter = Meter(network, "events", batch_dim=1)

    def run(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The answers for x, having compared every population with `values`."""
        with ExitStack() as stack:
            for name, neuron in self.neurons.items():

                def compare(_: Neuron, args: tuple, output: tuple, name: str = name) -> None:
                    self._compare(name, args[0], output[0], values[name])

                stack.callback(neuron.register_forward_hook(compare).remove)
            fed = self.network.fed(x)
            if not self.meter.steps:
                stack.enter_context(self.meter)
                fed = fed.contiguous()  # as a chip is, in every step
            return self.network(fed)[0][self.network.delay :].mean(0)

    def _compare(self, name: str, read: Tensor, spikes: Tensor, value: Tensor) -> None:
        population, steps = self.network.plan.populations[name], self.network.plan.steps
        dynamics = self.neurons[name].dynamics
        drive = read.expand(len(spikes), *read.shape[1:])
        if isinstance(dynamics, Burst):
            begin = int(dynamics.opens)
            drive, spikes = drive[begin - steps : begin], spikes[begin : begin + steps]
        unit = population.threshold
        sent = unit * spikes.mean(0)
        due = _rectified(drive.mean(0), population.slope)
        top = unit * population.levels
        clipped = torch.minimum(torch.maximum(value, -top), top)
        errors = {
            "clip": value - clipped,
            "quantisation": clipped - _rounded(clipped, population, steps),
            "unevenness": _rounded(due.clamp(-top, top), population, len(drive)) - sent,
            "error": value - sent,
            "all": value,
        }
        for kind, error in errors.items():
            self.sums[name][kind] += float(error.square().sum())
        self.spikes[name] += float(torch.count_nonzero(spikes))
        self.sites[name] += value.numel()

    def layers(self) -> tuple[LayerCertificate, ...]:
        """The rows of all populations."""
        counts = self.meter.counts()
        events, sites = counts.by_layer("spikes"), counts.by_layer("sites")
        rows = []
        for name, path in self.network.paths().items():
            sums, row = self.sums[name], f"graph.{path}"
            size = max(sums["all"], 1e-30)
            rows.append(
                LayerCertificate(
                    name=name,
                    threshold=float(self.network.plan.populations[name].threshold.mean()),
                    share=events[row] / max(sites[row], 1),
                    synops=0.0,
                    spikes=self.spikes[name] / max(self.sites[name], 1),
                    **{kind: (sums[kind] / size) ** 0.5 for kind in KINDS[:4]},
                )
            )
        return tuple(rows)


def _rectified(value: Tensor, slope: float) -> Tensor:
    return torch.where(value > 0, value, slope * value)


def _rounded(value: Tensor, population: Population, steps: int) -> Tensor:
    """What a population sends of a steady value in so many steps, on the mean."""
    unit = population.threshold / steps
    shift = 0.0 if population.emit == "multiple" else 0.5
    shift = torch.where(value > 0, shift, shift * population.slope)  # leaks round later below 0
    return unit * value.sign() * torch.floor(value.abs() / unit + shift)
