"""Memory of the engine: flat, and laid out by the lines in which a processor reads it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

LINE = 64  # bytes of a line; values that fill one of any size


@dataclass
class Flat:
    """A flat array that grows while a graph is laid out."""

    dtype: Any
    parts: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def add(self, values: Any) -> int:
        """Appends values; returns where they begin, which is the beginning of a line of memory."""
        flat = np.ascontiguousarray(values, self.dtype).ravel()
        begin, self.size = self.size, self.size + whole(len(flat))
        self.parts.append(flat)
        return begin

    def array(self) -> np.ndarray:
        """All values, and a line more, so that it is never empty."""
        found, at = blank(self.size + LINE, self.dtype), 0
        for part in self.parts:
            found[at : at + len(part)] = part
            at += whole(len(part))
        return found


def whole(count: int) -> int:
    """`count` values, and as many more as fill their last line."""
    return -(-count // LINE) * LINE


def blank(count: int, dtype: Any) -> np.ndarray:
    """Zeros that begin with a line of memory: a vector that lies in two takes twice as long."""
    size = np.dtype(dtype).itemsize
    room = np.zeros(count * size + LINE, np.uint8)
    return room[-room.ctypes.data % LINE :][: count * size].view(dtype)
