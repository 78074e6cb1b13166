"""A rectifier with a ceiling."""

import math

from torch import nn

from ..core.errors import InputError


class ClippedReLU(nn.Hardtanh):
    """min(max(x, 0), ceiling): `nn.ReLU6` with any ceiling; `clamp(0, ceiling)` as a module.

    Raises:
        InputError: a ceiling that is not positive.
    """

    def __init__(self, ceiling: float = 1.0):
        if not 0 < ceiling < math.inf:
            raise InputError(f"ClippedReLU: a ceiling of {ceiling}; it must be above 0")
        super().__init__(0.0, float(ceiling))
