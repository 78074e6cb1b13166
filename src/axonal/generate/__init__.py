"""Generation: samplers, a pipeline that knows no medium, media, and measures of quality."""

from .pipeline import Generator, GeneratorOutput
from .pretrained import pretrained_names
from .samplers import SAMPLERS, sample

__all__ = ["SAMPLERS", "Generator", "GeneratorOutput", "pretrained_names", "sample"]
