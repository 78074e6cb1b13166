"""Bands of hearing, evenly spaced in equivalent rectangular bandwidths.

Glasberg and Moore 1990, Hear. Res. 47:103: ERB(f) = 24.7 (0.00437 f + 1), and below f there are
21.4 log10(0.00437 f + 1) of them.
"""

import numpy as np

WIDTH, SLOPE, NUMBER = 24.7, 0.00437, 21.4  # Hz, 1 / Hz, bandwidths a decade
GAMMATONE = 1.019  # bandwidths of a gammatone filter of fourth order (Patterson et al. 1992)


def centres(low: float, high: float, count: int) -> np.ndarray:
    """The centres of `count` bands from `low` to `high`, in Hz."""
    first, last = (NUMBER * np.log10(1 + SLOPE * edge) for edge in (low, high))
    return (10 ** (np.linspace(first, last, count) / NUMBER) - 1) / SLOPE


def bandwidths(centre: np.ndarray) -> np.ndarray:
    """The widths b of gammatone filters of fourth order at these centres, in Hz."""
    return GAMMATONE * WIDTH * (SLOPE * centre + 1)
