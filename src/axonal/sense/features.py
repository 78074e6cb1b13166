"""Windows of time, and the features of each that a detector scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from .stream import Stateful, channels_of

REST = 3 / 8
LONGEST_GAP = 1000  # empty windows that are closed one by one; a longer gap is one jump


@dataclass(frozen=True)
class Window:
    """The features and counts of [t_start_us, t_end_us).

    Attributes:
        x: features, [F] float64, see `Windows`.
        n_in, n_out: events before and after the filters.
    """

    t_start_us: int
    t_end_us: int
    x: np.ndarray
    n_in: int
    n_out: int


class Windows(Stateful):
    """A cutter of packets into windows, which counts what is in them.

    Features of events, of each cell of a `grid` x `grid` raster over the sensor (at most one cell a
    column and row), row by row: 2 sqrt(n + 3/8) - 2 sqrt(3/8) of its n events (Anscombe 1948), in
    which Poisson noise of any rate has a deviation of about 1, and silence is 0. Features of
    samples: of each channel the mean and the root mean square about it, in turn; where `seconds`
    is 0 a window is one row, and its features are the values.

    A window closes when something later arrives, or when `advance` says how late it is. Windows
    without samples are gaps, and none is made of them; windows without events are silence, but more
    than `LONGEST_GAP` of them are jumped over, so that a leap of time costs nothing.
    """

    STATE = ("n_in", "n_out", "channels", "current", "open", "sums")

    def __init__(self, seconds: float, width: int, height: int, grid: int = 4):
        if not 0 <= seconds < 1e6 or not 1 <= grid <= 256:
            raise InputError(
                f"windows of {seconds} s on a grid of {grid}: seconds from 0 (samples only) to a "
                "million, grid from 1 to 256"
            )
        self.period = round(seconds * 1e6)
        if seconds and not self.period:
            raise InputError(f"windows of {seconds} s: at least a microsecond")
        columns, rows = min(grid, width), min(grid, height)
        self.column = np.arange(width) * columns // width
        self.row = np.arange(height) * rows // height * columns
        self.cells = columns * rows
        self.current, self.open = 0, False  # number of the window that is open, if one is
        self.channels = 0  # of samples; 0 of events
        self._clear(0)

    def _clear(self, size: int) -> None:
        self.sums, self.n_in, self.n_out = np.zeros(size), 0, 0

    def push(self, packet: np.ndarray, passed: np.ndarray) -> Iterator[Window]:
        """The windows that `packet` closes; `passed` is what the filters left of it."""
        if not len(packet):
            return
        self.channels = channels_of(packet)
        if not self.period:
            if not self.channels:
                raise InputError("windows of 0 s are for samples; give events a length of window")
            for row in packet:
                t = int(row["t"])
                yield Window(t, t, row["value"].astype(np.float64), 1, 1)
            return
        if not len(self.sums):
            self._clear(2 * self.channels or self.cells)
        number, passed_number = packet["t"] // self.period, passed["t"] // self.period
        for n in np.unique(number):
            yield from self._close(int(n))
            begin, end = np.searchsorted(number, [n, n + 1])
            rows = passed[slice(*np.searchsorted(passed_number, [n, n + 1]))]
            self.n_in += int(end - begin)
            self.n_out += len(rows)
            self.sums += self._sums(rows)

    def advance(self, t_us: int) -> Iterator[Window]:
        """The windows that end by `t_us`, into which nothing more will come."""
        if self.period and self.open:
            yield from self._close(t_us // self.period)

    def _close(self, number: int) -> Iterator[Window]:
        if not self.open:
            self.current, self.open = number, True
        while self.current < number:
            silent = number - self.current > LONGEST_GAP or self.channels
            if silent and not self.n_in:
                self.current = number
                return
            start = self.current * self.period
            x = self._features()
            yield Window(start, start + self.period, x, self.n_in, self.n_out)
            self.current += 1
            self._clear(len(self.sums))

    def _sums(self, rows: np.ndarray) -> np.ndarray:
        """Counts of events by cell, or sums and sums of squares by channel."""
        if self.channels:
            value = rows["value"].astype(np.float64)
            return np.concatenate([value.sum(0), (value**2).sum(0)])
        cells = self.row[rows["y"]] + self.column[rows["x"]]
        return np.bincount(cells, minlength=self.cells).astype(np.float64)

    def _features(self) -> np.ndarray:
        if not self.channels:
            return 2 * (np.sqrt(self.sums + REST) - np.sqrt(REST))
        mean, square = np.split(self.sums / max(self.n_out, 1), 2)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        return np.stack([mean, spread], 1).ravel()
