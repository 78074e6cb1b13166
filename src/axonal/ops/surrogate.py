"""The table of surrogate derivatives: what stands in for the derivative of a spike's step.

Each row is one formula in operators that torch tensors and Numba scalars both have (`abs` and
`**`, no `torch.exp`), so the reference and the kernels differentiate the same thing.

A row added here reaches every neuron. After changing a row, save `scan/cpu.py` too: Numba's
cache of compiled kernels watches the file of the kernel alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """One surrogate derivative g.

    Attributes:
        name: what users call it.
        derivative: g(x, slope) for x = h - threshold, of any shape; keeps the dtype of x.
        slope: the default of the formula's parameter.
        peak: g(0, slope) for that default.
        source: where the formula and its default come from.
    """

    name: str
    derivative: Callable[[Any, Any], Any]
    slope: float
    peak: float
    source: str


def _atan(x, alpha):
    return alpha / 2 / (1 + (math.pi * alpha / 2 * x) ** 2)


def _sigmoid(x, alpha):
    z = math.e ** (-alpha * abs(x))  # of -|x|: never overflows
    return alpha * z / (1 + z) ** 2


def _fast_sigmoid(x, beta):
    return 1 / (beta * abs(x) + 1) ** 2


def _triangle(x, gamma):
    return (gamma - abs(x)) * (abs(x) < gamma) / gamma**2


def _boxcar(x, width):
    return (abs(x) < width / 2) / (width + 0 * x)  # 0 * x: a comparison alone has lost x's dtype


SURROGATES: dict[str, Surrogate] = {
    row.name: row
    for row in (
        Surrogate(
            name="atan",
            derivative=_atan,
            slope=2.0,
            peak=1.0,
            source="Fang et al. 2021 (arXiv 2007.05785); (a/2) / (1 + (pi a x / 2)^2)",
        ),
        Surrogate(
            name="sigmoid",
            derivative=_sigmoid,
            slope=4.0,
            peak=1.0,
            source="logistic density a s(ax) (1 - s(ax)); slope as in SpikingJelly",
        ),
        Surrogate(
            name="fast_sigmoid",
            derivative=_fast_sigmoid,
            slope=25.0,
            peak=1.0,
            source="Zenke & Ganguli 2018, SuperSpike (arXiv 1705.11146); slope as in snnTorch",
        ),
        Surrogate(
            name="triangle",
            derivative=_triangle,
            slope=1.0,
            peak=1.0,
            source="max(0, g - |x|) / g^2, area 1; Deng et al. 2022, TET (arXiv 2202.11946)",
        ),
        Surrogate(
            name="boxcar",
            derivative=_boxcar,
            slope=1.0,
            peak=1.0,
            source="[|x| < w/2] / w, area 1; Bittar & Garner 2022, sparch, has w = 1",
        ),
    )
}


def surrogate_named(name: str) -> Surrogate:
    """The row called `name`.

    Raises:
        InputError: the table has no such row.
    """
    if name not in SURROGATES:
        raise InputError(f"surrogate {name!r} is unknown; choose one of {', '.join(SURROGATES)}")
    return SURROGATES[name]
