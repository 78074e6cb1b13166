"""Generation: samplers, a pipeline a medium, and measures of quality."""

from .pipeline import Generated, Generator
from .pretrained import pretrained
from .samplers import SAMPLERS, sample

__all__ = ["SAMPLERS", "Generated", "Generator", "pretrained", "sample"]
