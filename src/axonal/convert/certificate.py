"""What a conversion changed, and where: handed out with every change of form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from ..core.config import Config
from ..core.errors import InputError

RIGHT, SQUARED = "right answers", "mean squared error"
Interval = tuple[float, float, float]  # a figure and the ends of its 95 % interval


@dataclass(frozen=True, kw_only=True)
class LayerCertificate(Config):
    """One population of neurons. Errors are root mean squares.

    Attributes:
        name: of the population.
        threshold: in the unit of its activation (the mean, where each channel has its own).
        error: of sigma-delta neurons, what their threshold alone does to the output, everything
            else exact; of others, what they send beside the network's activation, relative to it.
        share: events sent, of those that could have been.
        synops: synaptic operations per sample that its events cause, of sigma-delta neurons.
        clip: of activations above what neurons can send, relative to all.
        quantisation: of rounding what is below that, relative to all.
        unevenness: of what was sent beside what should have been for the input that came, which
            is due to the order of spikes; relative to all activations.
        spikes: of a neuron, per sample.
    """

    name: str
    threshold: float
    error: float
    share: float
    synops: float
    clip: float = 0.0
    quantisation: float = 0.0
    unevenness: float = 0.0
    spikes: float = 0.0

    def __post_init__(self):
        _check(self)

    @property
    def worst(self) -> str:
        """Which of its errors is largest; where it comes from, if that is known."""
        kinds = ("clip", "quantisation", "unevenness")
        largest = max(kinds, key=lambda kind: getattr(self, kind))
        return largest if getattr(self, largest) else "error"


REMEDIES = {
    "clip": "calibrate with more varied samples, or give it a higher ceiling",
    "quantisation": "give spikes more bits, or take more steps",
    "unevenness": "take more steps, or let layers wait for each other",
    "error": "give it a smaller threshold",
}


@dataclass(frozen=True, kw_only=True)
class Certificate(Config):
    """The error of a converted network against the one it was made from.

    Attributes:
        budget: the output error that sigma-delta thresholds were chosen for, root mean square; 0
            for other methods.
        calibration_error: the output error on the samples that chose them; 0 where not asked.
        output_error: the output error on samples that did not; relative to the output, but for
            sigma-delta.
        samples: how many those were.
        layers: one row a population.
        method: what converted it.
        steps: T, in which the answer is given.
        levels: that the coarsest population tells apart from 0 in them.
        delay: steps before the first that is read.
        latency: steps from the first input to the answer, all layers working in every step.
        schedule: "pipelined", or "waiting" for the layer before.
        synops, multiplies: of a sample, and how many of the operations multiply.
        functions: multiplies and adds of a sample in functions that stay dense, such as norms,
            softmax and products; in neither of the two.
        dense: multiply-adds of the network that was converted.
        before, after: the score of both, of the same samples.
        change: after - before, over these pairs.
        score: what these three are: the share of right answers, or the mean squared error beside
            targets.
        outputs: of a network with several, the relative error of each by name.
    """

    budget: float
    calibration_error: float
    output_error: float
    samples: int
    layers: tuple[LayerCertificate, ...]
    method: str = "sigma-delta"
    steps: int = 0
    levels: int = 0
    delay: int = 0
    latency: int = 0
    schedule: str = "pipelined"
    synops: float = 0.0
    multiplies: float = 0.0
    functions: float = 0.0
    dense: float = 0.0
    before: Interval | None = None
    after: Interval | None = None
    change: Interval | None = None
    score: str = RIGHT
    outputs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        _check(self)
        for figure in (self.before, self.after, self.change):
            if figure is not None and not (
                isinstance(figure, tuple) and len(figure) == 3 and all(_number(x) for x in figure)
            ):
                raise InputError(f"Certificate: {figure} is no figure with its interval")
        if self.score not in (RIGHT, SQUARED):
            raise InputError(f"Certificate: no score {self.score!r}")
        if not isinstance(self.outputs, Mapping) or not all(map(_number, self.outputs.values())):
            raise InputError(f"Certificate: {self.outputs!r} are no errors by output")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` wrote.

        Raises:
            InputError: a field is missing, unknown or of another type.
        """
        try:
            rows = tuple(LayerCertificate.from_dict(row) for row in values["layers"])
        except (KeyError, TypeError) as error:
            raise InputError(f"Certificate: no table of layers ({error})") from error
        return super().from_dict({**values, "layers": rows})

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds by population, as `DeltaNetwork.set_thresholds` takes them."""
        return {layer.name: layer.threshold for layer in self.layers}

    @property
    def weakest(self) -> LayerCertificate:
        """The layer that loses most of itself."""
        return max(self.layers, key=lambda layer: getattr(layer, layer.worst))

    def __str__(self) -> str:
        parts = [
            f"{self.method}: the output errs by {self.output_error:.3g}, {self.budget:.3g} asked"
        ]
        if not self.budget:
            parts = [
                f"{self.method}, {self.steps} steps ({self.schedule}, answer after "
                f"{self.latency}), {self.levels} levels: the output errs by {self.output_error:.2%}"
            ]
        if self.outputs:
            errors = ", ".join(f"{name} by {error:.2%}" for name, error in self.outputs.items())
            parts.append(f"of its outputs {errors}")
        if self.before and self.after and self.change:
            parts.append(self._scored(self.before[0], self.after[0], self.change))
        if self.dense:
            parts.append(
                f"{self.synops / 1e6:.3g} million synaptic operations, "
                f"{self.multiplies / max(self.synops, 1):.0%} of them with a multiplication, for "
                f"{self.dense / 1e6:.3g} million multiply-adds"
            )
        if self.functions:
            parts.append(
                f"functions that stay dense take {self.functions / 1e6:.3g} million operations more"
            )
        weakest = self.weakest if self.layers else None
        if weakest is not None and (size := getattr(weakest, weakest.worst)) > 0:
            how = "" if weakest.worst == "error" else f"{size:.2%} by {weakest.worst}: "
            parts.append(f"{weakest.name} loses most; {how}{REMEDIES[weakest.worst]}")
        return "; ".join(parts) + "."

    def _scored(self, before: float, after: float, change: Interval) -> str:
        if self.score == SQUARED:
            value, low, high = (f"{x:+.3g}" for x in change)
            return f"{SQUARED} {before:.4g} before, {after:.4g} after ({value}, {low} to {high})"
        value, low, high = (f"{100 * x:+.2f}" for x in change)
        return f"{RIGHT} {before:.2%} before, {after:.2%} after ({value} points, {low} to {high})"


def share_of(right: np.ndarray) -> Interval:
    """The share of True in `right` [N] with its interval (Wilson 1927)."""
    n, p, z = len(right), float(right.mean()), 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return p, centre - half, centre + half


def mean_of(values: np.ndarray) -> Interval:
    """The mean of `values` [N] with its interval (Wald)."""
    mean, half = float(values.mean()), 1.959964 * float(values.std()) / len(values) ** 0.5
    return mean, mean - half, mean + half


def change_of(before: np.ndarray, after: np.ndarray) -> Interval:
    """The mean change over pairs [N], with its interval (Wald, paired)."""
    each = after.astype(float) - before.astype(float)
    half = 1.959964 * float(each.std()) / len(each) ** 0.5
    return float(each.mean()), float(each.mean()) - half, float(each.mean()) + half


def _number(x: Any) -> bool:
    return type(x) in (int, float)


def _check(row: Config) -> None:
    """That names are words and figures numbers from 0."""
    for entry in fields(row):
        value = getattr(row, entry.name)
        good = isinstance(value, str) if entry.type is str else _number(value) and value >= 0
        if entry.type in (str, int, float) and not good:
            raise InputError(f"Certificate: {entry.name} is {value!r}, which it can't be")
