"""Architectures, one readable file each."""

from ..core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Classifier": "classifier",
        "ClassifierConfig": "classifier",
        "FlowConfig": "flow",
        "FlowUNet": "flow",
        "Model": "base",
        "SpikingClassifier": "spiking",
        "SpikingConfig": "spiking",
    },
)
