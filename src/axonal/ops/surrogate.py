"""The table of surrogate derivatives: what stands in for the derivative of a spike's step.

Each row is one formula in operators and the functions of a `core.neurons.Algebra`, so that the
reference and the kernels differentiate the same thing. A row added here reaches every neuron.
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
        derivative: g(m, x, slope) for x = h - threshold, m the algebra of x.
        slope: the default of the formula's parameter.
        peak: g(0, slope) for that default.
        source: where the formula and its default come from.
    """

    name: str
    derivative: Callable[[Any, Any, Any], Any]
    slope: float
    peak: float
    source: str


def _sigmoid(m, x, alpha):
    z = m.exp(-alpha * abs(x))  # of -|x|: never overflows
    return alpha * z / (1 + z) ** 2


SURROGATES: dict[str, Surrogate] = {
    row.name: row
    for row in (
        Surrogate(
            name="atan",
            derivative=lambda m, x, alpha: alpha / 2 / (1 + (math.pi * alpha / 2 * x) ** 2),
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
            derivative=lambda m, x, beta: 1 / (beta * abs(x) + 1) ** 2,
            slope=25.0,
            peak=1.0,
            source="Zenke & Ganguli 2018, SuperSpike (arXiv 1705.11146); slope as in snnTorch",
        ),
        Surrogate(
            name="triangle",
            derivative=lambda m, x, gamma: m.where(
                abs(x) < gamma, (gamma - abs(x)) / gamma**2, 0.0
            ),
            slope=1.0,
            peak=1.0,
            source="max(0, g - |x|) / g^2, area 1; Deng et al. 2022, TET (arXiv 2202.11946)",
        ),
        Surrogate(
            name="masked_triangle",
            derivative=lambda m, x, gamma: m.where(
                (x >= 0) & (x < gamma), (gamma - x) / gamma**2, 0.0
            ),
            slope=1.0,
            peak=1.0,
            source="the triangle where there was a spike: what an event-driven backward pass can "
            "see; masks as in MPD-ED (Wei et al. 2024, arXiv 2403.00270), the shape our choice",
        ),
        Surrogate(
            name="e_prop",
            derivative=lambda m, x, peak: m.where(abs(x) < 1, peak * (1 - abs(x)), 0.0),
            slope=0.3,
            peak=0.3,
            source="s max(0, 1 - |x|), for a threshold of 1; Bellec et al. 2020; so in Norse",
        ),
        Surrogate(
            name="spyx_triangle",
            derivative=lambda m, x, k: m.where(abs(k * x) < 1, 1 - abs(k * x), 0.0),
            slope=2.0,
            peak=1.0,
            source="max(0, 1 - |kx|), as in Spyx",
        ),
        Surrogate(
            name="spyx_arctan",
            derivative=lambda m, x, k: 1 / (math.pi * (1 + (math.pi * k * x) ** 2)),
            slope=2.0,
            peak=1 / math.pi,
            source="1 / (pi (1 + (pi k x)^2)), as in Spyx",
        ),
        Surrogate(
            name="super_spike",
            derivative=lambda m, x, alpha: alpha / (1 + abs(x)) ** 2,
            slope=1.0,
            peak=1.0,
            source="a / (1 + |x|)^2: SpikingJelly's SuperSpike, and Norse's; not Zenke & Ganguli's",
        ),
        Surrogate(
            name="soft_sign",
            derivative=lambda m, x, alpha: alpha / (2 * (1 + abs(alpha * x)) ** 2),
            slope=2.0,
            peak=1.0,
            source="a / (2 (1 + |ax|)^2), as in SpikingJelly",
        ),
        Surrogate(
            name="exponential",
            derivative=lambda m, x, width: m.exp(-abs(x) / width) / width,
            slope=0.5,
            peak=2.0,
            source="e^(-|x| / w) / w; Shrestha & Orchard 2018 (arXiv 1810.08646); so in Sinabs",
        ),
        Surrogate(
            name="boxcar",
            derivative=lambda m, x, width: m.where(abs(x) < width / 2, 1 / width, 0.0),
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
