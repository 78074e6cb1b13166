"""The events of a row of values: those that are not zero.

Magnitudes are looked at as bits, which compilers put into vectors; a NaN is an event.
"""

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "cache": True}
CHUNK = 64  # values that are passed over at once, if all are zero
MAGNITUDE = np.uint32(0x7FFFFFFF)


@njit(**OPTIONS)
def nonzero(row, size):
    """How many of row[:size] are not zero."""
    bits, total = row[:size].view(np.uint32), np.uint32(0)
    for n in range(size):
        total += np.uint32(bits[n] & MAGNITUDE != 0)
    return np.int64(total)


@njit(**OPTIONS)
def emit(row, size, base, at, events):
    """Append those of row[:size] that are not zero to events (idx, val).

    The first is written at `at`; of row[n] idx gets base + n and val the value. Returns where
    they end.
    """
    idx, val = events
    bits = row[:size].view(np.uint32)
    for first in range(0, size, CHUNK):
        part, some = bits[first : first + CHUNK], np.uint32(0)
        for n in range(len(part)):
            some |= part[n]
        if some & MAGNITUDE:
            for n in range(len(part)):
                if part[n] & MAGNITUDE:
                    idx[at], val[at] = base + first + n, row[first + n]
                    at += 1
    return at
