"""Detectors, which score how strange x is, in [0, 1], learn as they go, and need no labels.

River's convention, `stream.Detector`: `score_one(x)`, then `learn_one(x)`, x a vector [F] or a
mapping. Each passes on its whole state as arrays and numbers, takes constant memory, follows what
drifts, and refuses an option out of its range by an `InputError`. `Budget` makes a threshold of the
scores.
"""

from collections.abc import Callable, Mapping

from ..stream import Detector
from .baselines import Cusum, HalfSpaceTrees, Rate
from .budget import Budget, WindowBudget
from .classifier import Classifier
from .context import Context
from .evolving import Evolving
from .predictor import Predictor

__all__ = [
    "DETECTORS",
    "Budget",
    "Classifier",
    "Context",
    "Cusum",
    "Evolving",
    "HalfSpaceTrees",
    "Predictor",
    "Rate",
    "WindowBudget",
]

DETECTORS: Mapping[str, Callable[..., Detector]] = {
    "rate": Rate,
    "cusum": Cusum,
    "trees": HalfSpaceTrees,
    "context": Context,
    "evolving": Evolving,
    "predictor": Predictor,
}
