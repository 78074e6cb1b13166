"""Sensor streams, from bytes to wakes: formats, sources, filters, detectors, delivery; no torch."""

from ..core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Budget": "detectors",
        "Evolving": "detectors",
        "LIFTrace": "filters",
        "Watch": "watch",
        "assemble": "pipeline",
        "events": "stream",
        "open_source": "sources",
        "samples": "stream",
    },
)
