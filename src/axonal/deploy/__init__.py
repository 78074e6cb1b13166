"""Graphs run by events, exchanged and put on targets: numpy alone, but for what reads torch."""

from ..core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Agreement": "certify",
        "Engine": "engine",
        "trace": "from_torch",
        "trace_changes": "from_torch",
    },
)
