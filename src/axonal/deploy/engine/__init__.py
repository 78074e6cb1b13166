"""Running graphs: a dense reference in numpy, and a fast engine that follows events."""

from .engine import Engine, Stream

__all__ = ["Engine", "Stream"]
