"""Events: the sparse form of spikes, and the way to and from the dense form."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Events:
    """E events in a dense array of `shape` = (T, ...), ordered by time.

    Attributes:
        t: step of each event, [E] int64, not decreasing.
        address: flat index into shape[1:], [E] int64.
        value: what was sent, [E]; 1 for binary spikes.
        shape: of the dense form, time first.

    Raises:
        InputError: lengths differ, time runs backwards, or an index lies outside `shape`.
    """

    t: np.ndarray
    address: np.ndarray
    value: np.ndarray
    shape: tuple[int, ...]

    def __post_init__(self):
        sizes = {len(self.t), len(self.address), len(self.value)}
        if len(sizes) != 1 or not self.shape or min(self.shape) < 0:
            raise InputError(f"Events: lengths {sorted(sizes)} for a dense shape {self.shape}")
        if not len(self.t):
            return
        if (self.t[1:] < self.t[:-1]).any():
            raise InputError("Events: time runs backwards; sort the events by t")
        width = math.prod(self.shape[1:])
        bad_time = self.t[0] < 0 or self.t[-1] >= self.shape[0]
        if bad_time or self.address.min() < 0 or self.address.max() >= width:
            raise InputError(f"Events: an event lies outside the dense shape {self.shape}")

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def unchecked(
        cls, t: np.ndarray, address: np.ndarray, value: np.ndarray, shape: tuple[int, ...]
    ) -> Self:
        """Events that are known to be in order and inside `shape`: checks cost time."""
        events = object.__new__(cls)
        events.__dict__.update(t=t, address=address, value=value, shape=shape)
        return events

    @classmethod
    def from_dense(cls, dense: np.ndarray) -> Self:
        """The non-zero entries of `dense` [T, ...].

        Raises:
            InputError: `dense` has no time axis.
        """
        if dense.ndim < 1:
            raise InputError("Events: a dense array needs a time axis")
        flat = dense.ravel()
        where = np.flatnonzero(flat != 0)  # of truth values it is ten times as fast
        width = math.prod(dense.shape[1:]) or 1
        t = where // width
        return cls.unchecked(t, where - t * width, flat[where], dense.shape)

    def to_dense(self) -> np.ndarray:
        """The dense array, zeros where nothing happened; events at one place and time add up."""
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        flat = np.zeros((self.shape[0], width), self.value.dtype)
        np.add.at(flat, (self.t, self.address), self.value)
        return flat.reshape(self.shape)
