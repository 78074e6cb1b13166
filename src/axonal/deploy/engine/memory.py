"""The engine's memory: flat, and laid out by the lines in which a processor reads it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


def _record(*names: str) -> np.dtype:
    fields = [(name, np.int64) for name in " ".join(names).split()]
    return np.dtype([*fields, ("scale", np.float32)])


# A row of the tables of nodes and of edges.
NODE = _record(
    "kind cells width size at mark state fixed varying bias lazy first_edge edges",
    "source output ints early ring ring_n slots capacity copied followed wide",
)
EDGE = _record(
    "op source fan spiking weights inputs outputs offset ints targets cells wide wide_out high",
    "pad_y pad_x taps_y taps_x stride_y stride_x dilate_y dilate_x group per_group",
)
INPUT, DELAY, PASS = -2, -1, 0  # kinds of nodes; populations count from 1
LINE = 64  # bytes of a line; values that fill one of any size


@dataclass
class Flat:
    """A flat array that grows while a graph is laid out."""

    dtype: Any
    parts: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def add(self, values: Any) -> int:
        """Append values, and return where they begin: at the beginning of a line of memory."""
        flat = np.ascontiguousarray(values, self.dtype).ravel()
        begin, self.size = self.size, self.size + padded_size(len(flat))
        self.parts.append(flat)
        return begin

    def array(self) -> np.ndarray:
        """Join all values, and a line more, so that there are always some."""
        values, at = blank(self.size + LINE, self.dtype), 0
        for part in self.parts:
            values[at : at + len(part)] = part
            at += padded_size(len(part))
        return values


def padded_size(count: int) -> int:
    """How many values fill the lines of memory that `count` values need."""
    return -(-count // LINE) * LINE


def blank(count: int, dtype: Any) -> np.ndarray:
    """Make zeros that begin with a line: a vector that lies in two takes twice as long."""
    size = np.dtype(dtype).itemsize
    room = np.zeros(count * size + LINE, np.uint8)
    return room[-room.ctypes.data % LINE :][: count * size].view(dtype)
