"""Axonal makes neural networks spike, and proves what that saves.

The names that most programs need; all others are in the rooms (`axonal.nn`, `axonal.convert`, ...).
They are imported when they are first used, so that nothing here needs torch before you do.
"""

from .core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        # networks
        "IF": "nn",
        "LI": "nn",
        "LIF": "nn",
        "AdaptiveThreshold": "nn",
        "Neuron": "nn",
        "Recurrent": "nn",
        "Sequential": "nn",
        "SpikingClassifier": "models",
        "SpikingConfig": "models",
        # training
        "Recipe": "learn",
        "examine": "learn",
        "fit": "learn",
        # trained networks made spiking
        "Certificate": "convert",
        "sigma_delta": "convert",
        # generation
        "Generator": "generate",
        # running by events
        "Engine": "deploy",
        "Graph": "graph",
        "certify": "deploy.certify",
        "trace": "deploy",
        # what runs cost
        "Counts": "core.meter",
        "Meter": "nn.meter",
        "price": "energy",
        # errors
        "AxonalError": "core.errors",
    },
)
