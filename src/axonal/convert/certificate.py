"""What a conversion changed, and where: handed out with every change of form."""

from dataclasses import dataclass
from typing import Any, Self

from ..core.config import Config
from ..core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LayerCertificate(Config):
    """One population of neurons.

    Attributes:
        name: of the population.
        threshold: in the unit of its activation (the mean, where each channel has its own).
        error: root mean square of what its threshold alone does to the output, everything else
            exact.
        share: events sent, of those that could have been.
        synops: synaptic operations per sample that its events cause.
    """

    name: str
    threshold: float
    error: float
    share: float
    synops: float

    def __post_init__(self):
        _check(self.name, self.threshold, self.error, self.share, self.synops)


@dataclass(frozen=True, kw_only=True)
class Certificate(Config):
    """The error of a converted network against the one it was made from.

    Attributes:
        budget: the output error that the thresholds were chosen for, root mean square.
        calibration_error: the output error on the samples that chose them.
        output_error: the output error on samples that did not.
        samples: how many those were.
        layers: one row a population.
    """

    budget: float
    calibration_error: float
    output_error: float
    samples: int
    layers: tuple[LayerCertificate, ...]

    def __post_init__(self):
        _check("", self.budget, self.calibration_error, self.output_error, self.samples)

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


def _check(name: str, *figures: float) -> None:
    if not (isinstance(name, str) and all(type(x) in (int, float) and x >= 0 for x in figures)):
        raise InputError(f"Certificate: {name!r} with {figures}; they must be a name and numbers")
