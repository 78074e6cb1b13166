"""Detectors: they score how strange x is, in [0, 1], learn as they go, and need no labels.

River's convention, `stream.Detector`: `score_one(x)`, then `learn_one(x)`, x a vector [F] or a
mapping. Each passes on its whole state as arrays and numbers, takes constant memory, and follows
what drifts. `Budget` makes a threshold of the scores.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import InputError
from ..stream import Detector
from .baselines import Cusum, HalfSpaceTrees, Rate
from .budget import Budget
from .classifier import Classifier
from .evolving import Evolving
from .predictor import Predictor

__all__ = ["DETECTORS", "Budget", "Classifier", "Cusum", "Evolving", "HalfSpaceTrees",
           "Predictor", "Rate", "detector"]  # fmt: skip

DETECTORS: Mapping[str, Callable[..., Detector]] = {
    "rate": Rate,
    "cusum": Cusum,
    "trees": HalfSpaceTrees,
    "evolving": Evolving,
    "predictor": Predictor,
}


def detector(name: str, **options: Any) -> Detector:
    """A new detector by its name in `DETECTORS`, with that class's options.

    Raises:
        InputError: there is no such detector or option, or an option is out of its range.
        MissingExtra: "trees" without River.
    """
    if name not in DETECTORS:
        raise InputError(f"no detector {name!r}; there are {', '.join(DETECTORS)}")
    try:
        return DETECTORS[name](**options)
    except TypeError as error:
        raise InputError(f"detector {name}: {error}") from error
