"""Training: a loop that knows no model by name, rules of learning, losses, and a doctor."""

from ..core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "RULES": "rules",
        "Recipe": "recipe",
        "activity": "losses",
        "cross_entropy": "losses",
        "energy": "losses",
        "evaluate": "loop",
        "examine": "doctor",
        "first_spike": "losses",
        "fit": "loop",
        "fix": "doctor",
        "fluctuation_driven": "initialise",
        "membrane_cross_entropy": "losses",
        "rate_cross_entropy": "losses",
        "rescale": "initialise",
        "rule_named": "rules",
        "spike_count": "losses",
        "spiking": "losses",
        "tet": "losses",
        "van_rossum": "losses",
    },
)
