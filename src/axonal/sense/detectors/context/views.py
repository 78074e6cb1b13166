"""Four views of a history, each of which tells how far a row is from what was learned.

A view has `judge(history, begin, end)`, the distances [T, K] of rows, -1 where it has none yet;
`learn(history, begin, end, d)` of rows that were judged before, with what came of it; and
`multiplies`, those of a row.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ...stream import Stateful
from . import kernels

WIDEST, LAGS = 256, 32  # numbers and rows of a whitened window
NEURONS, CENTRES, PLACES = 128, 256, 512  # of the reservoir; of rates and shapes; of courses
POINTS, BROADEST = 24, 768  # stretches of a course, and numbers of one at most
MEMORY = 20_000.0  # rows that moments remember
ALIKE = 1e-6, 1e-2, 1e-3  # mean squares at which rates, shapes and courses are alike, at first


Scale = tuple[int, Any, Any, np.ndarray]  # as `_scales` of `Shapes` and `Courses` say


class History(Stateful):
    """The last rows and what views keep of each, in arrays that are moved when they are full.

    Args:
        channels: C.
        tail: rows that are still there after a move.
        distances: K, of all that is judged.
    """

    ROWS = ("u", "sums", "rates", "distance")
    STATE = ("end", *ROWS)

    def __init__(self, channels: int, tail: int, distances: int):
        self.tail, self.end = tail, 0
        size = 3 * tail
        self.u = np.zeros((size, channels))
        self.sums = np.zeros((size + 1, channels))  # sums[t] of all rows before t
        self.rates = np.zeros((size, NEURONS), np.float32)
        self.distance = np.zeros((size, distances))

    def add(self, u: np.ndarray) -> tuple[int, int]:
        """Add rows u [T, C]; where they begin and end."""
        if self.end + len(u) > len(self.u):
            moved = self.end - self.tail
            for name in self.ROWS:
                array = getattr(self, name)
                kept = self.tail + (name == "sums")
                array[:kept] = array[moved : moved + kept].copy()
            self.sums[: self.tail + 1] -= self.sums[0].copy()
            self.end = self.tail
        begin, self.end = self.end, self.end + len(u)
        self.u[begin : self.end] = u
        # One after another, so that they are the same in chunks of any size.
        both = np.concatenate([self.sums[begin : begin + 1], u])
        self.sums[begin : self.end + 1] = np.cumsum(both, 0)
        return begin, self.end


class View(Protocol):
    """What is judged and learned of a history."""

    kinds: int
    multiplies: int

    def judge(self, history: History, begin: int, end: int) -> np.ndarray: ...

    def learn(self, history: History, begin: int, end: int, d: np.ndarray) -> None: ...


class Windows(Stateful):
    """The last rows of all channels as one vector [D], whitened by their covariance.

    It is inverted from time to time, shrunk towards a ball while few rows n were seen, in the
    manner of Ledoit and Wolf 2004 (J. Multivariate Analysis 88:365):

        C + lambda I,  lambda = (0.01 + D / 2 / (D + n)) tr C / D
    """

    STATE = ("root", "mean", "sums", "outer", "due")

    def __init__(self, channels: int, period: int, seed: int):
        self.lags = max(1, min(LAGS, WIDEST // channels))
        self.size = min(WIDEST, self.lags * channels)
        self.root, self.outer = np.zeros((2, self.size, self.size))
        self.mean, self.sums = np.zeros(self.size), np.zeros(self.size + 1)
        self.due = 2.0
        self.kinds, self.multiplies = 1, self.size * (self.size + 1) // 2

    def _vectors(self, history: History, begin: int, end: int) -> np.ndarray:
        rows = history.u[begin - self.lags + 1 : end]
        windows = np.lib.stride_tricks.sliding_window_view(rows, self.lags, 0)
        return windows.reshape(end - begin, windows[0].size)[:, : self.size]

    def judge(self, history: History, begin: int, end: int) -> np.ndarray:
        out, first = np.full((end - begin, 1), -1.0), max(begin, self.lags - 1)
        if first < end and self.root.any():
            x = self._vectors(history, first, end)
            kernels.whitened(x, self.root, self.mean, out[first - begin :, 0])
        return out

    def learn(self, history: History, begin: int, end: int, d: np.ndarray) -> None:
        if (first := max(begin, self.lags - 1)) < end:
            kernels.moments(self._vectors(history, first, end), self.sums, self.outer)
        if self.sums[-1] >= self.due:
            self._invert()

    def _invert(self) -> None:
        if (n := float(self.sums[-1])) > MEMORY:
            self.sums *= MEMORY / n
            self.outer *= MEMORY / n
            n = MEMORY
        self.due = n + min(max(0.1 * n, 8.0), 2000.0)
        self.mean = self.sums[:-1] / n
        lower = np.tril(self.outer / n - np.outer(self.mean, self.mean))
        full = lower + np.tril(lower, -1).T
        scale = max(np.trace(full) / self.size, 1e-5)
        shrunk = (0.01 + 0.5 * self.size / (self.size + n)) * scale
        root = np.linalg.inv(np.linalg.cholesky(full + shrunk * np.eye(self.size)))
        # What was learned lies at 1, in square mean, however much it was shrunk.
        square = float(np.sum((root @ full) * root)) / self.size
        self.root = root / max(square, 1e-6) ** 0.5


class Reservoir(Stateful):
    """The rates of spiking neurons that all channels drive, beside those that were usual.

    Their time constants are log-uniform from one row to a period (`kernels.reservoir`).
    """

    STATE = ("sent", "drive", "v", "rate", "centres", "about", "rows", "events", "spikes")
    DYNAMIC = ("sent", "drive", "v", "rate", "rows", "events", "spikes")  # what judging changes

    def __init__(self, channels: int, period: int, seed: int):
        draw = np.random.default_rng(seed)
        self.decay = np.exp(-1 / np.exp(draw.uniform(0, np.log(period), NEURONS)))
        self.into = draw.normal(0, 1 / np.sqrt(channels), (channels, NEURONS))
        self.bias = draw.uniform(0.0, 1.5, NEURONS)
        self.sent, self.drive = np.zeros(channels), np.zeros(NEURONS)
        self.v, self.rate = np.zeros((2, NEURONS))
        self.centres = np.zeros((NEURONS, CENTRES), np.float32)
        self.about = np.array([0.0, ALIKE[0]])
        self.rows = self.events = self.spikes = 0
        self.kinds, self.multiplies = 1, CENTRES * NEURONS

    def judge(self, history: History, begin: int, end: int) -> np.ndarray:
        rates, out = history.rates[begin:end], np.empty((end - begin, 1))
        fixed, state = (
            (self.into, self.bias, self.decay),
            (self.sent, self.drive, self.v, self.rate),
        )
        events, spikes = kernels.reservoir(history.u[begin:end], *fixed, *state, rates)
        self.rows += end - begin
        self.events, self.spikes = self.events + events, self.spikes + spikes
        kernels.distances(rates, self.centres, self.about, out[:, 0])
        return out

    def learn(self, history: History, begin: int, end: int, d: np.ndarray) -> None:
        kernels.recruit_all(history.rates[begin:end], d[:, 0], self.centres, self.about)


class Shapes(Stateful):
    """The z-normalised course of each channel over half a period, one and two."""

    STATE = ("half", "one", "two", "about")

    def __init__(self, channels: int, period: int, seed: int):
        lengths = [max(6, period // 2), period, 2 * period]
        self.widths = [max(1, length // POINTS) for length in lengths]
        points = [length // width for length, width in zip(lengths, self.widths, strict=True)]
        self.half, self.one, self.two = (
            np.zeros((channels, n, CENTRES), np.float32) for n in points
        )
        self.about = np.tile([0.0, ALIKE[1]], (3, channels, 1))
        self.kinds, self.multiplies = 3 * channels, channels * CENTRES * sum(points)

    def _scales(self) -> Iterator[Scale]:
        """The first row that has a shape, the width of a stretch, centres and about these."""
        centres = self.half, self.one, self.two
        for width, shapes, about in zip(self.widths, centres, self.about, strict=True):
            yield width * shapes.shape[1] - 1, width, shapes, about

    def judge(self, history: History, begin: int, end: int) -> np.ndarray:
        out = np.empty((3, end - begin, history.u.shape[1]))
        for scale, one in zip(self._scales(), out, strict=True):
            kernels.shape_distances(history.sums, begin, end, *scale, one)
        return out.transpose(1, 0, 2).reshape(end - begin, -1)

    def learn(self, history: History, begin: int, end: int, d: np.ndarray) -> None:
        parts = d.reshape(len(d), 3, -1).transpose(1, 0, 2)
        for scale, part in zip(self._scales(), parts, strict=True):
            kernels.recruit_shapes(history.sums, part, begin, end, *scale)


class Courses(Stateful):
    """The course of all channels together, as it is, over half a period and one."""

    STATE = ("half", "one", "about")

    def __init__(self, channels: int, period: int, seed: int):
        lengths, most = [max(6, period // 2), period], max(4, min(POINTS, BROADEST // channels))
        self.widths = [max(1, length // most) for length in lengths]
        points = [length // width for length, width in zip(lengths, self.widths, strict=True)]
        self.half, self.one = (np.zeros((channels * n, PLACES), np.float32) for n in points)
        self.about = np.tile([0.0, ALIKE[2]], (2, 1))
        self.kinds, self.multiplies = 2, PLACES * channels * sum(points)

    def _scales(self, history: History, begin: int, end: int) -> Iterator[Scale]:
        """The first row that has a course, vectors from there on, centres and about these."""
        channels = history.u.shape[1]
        for width, centres, about in zip(
            self.widths, (self.half, self.one), self.about, strict=True
        ):
            points = len(centres) // channels
            first = min(max(begin, width * points - 1), end)
            x = np.empty((end - first, channels, points), np.float32)
            kernels.courses(history.sums, first, end, width, x)
            yield first, x.reshape(end - first, len(centres)), centres, about

    def judge(self, history: History, begin: int, end: int) -> np.ndarray:
        out = np.full((2, end - begin), -1.0)
        scales = self._scales(history, begin, end)
        for (first, x, centres, about), one in zip(scales, out, strict=True):
            kernels.distances(x, centres, about, one[first - begin :])
        return out.T

    def learn(self, history: History, begin: int, end: int, d: np.ndarray) -> None:
        scales = self._scales(history, begin, end)
        for (first, x, centres, about), part in zip(scales, d.T, strict=True):
            kernels.recruit_all(x, part[first - begin :], centres, about)
