"""How rare distances are, in nats."""

import numpy as np

from ...stream import Stateful
from . import kernels

RECENT = 6000.0  # rows that the distributions remember


class Surprise(Stateful):
    """The nats -ln P(distance >= d) of K kinds, from histograms of ln d, forgotten slowly.

    Above the 90 % quantile q distances are exponential, as the peaks over most thresholds are:
    ln 10 + (d - q) / b, b the mean excess.
    """

    STATE = ("counts", "sums", "top", "excess", "below", "fresh", "due")

    def __init__(self, kinds: int):
        self.counts, self.sums, self.below = np.zeros((3, kinds, kernels.BINS))
        self.top, self.excess = np.full(kinds, np.inf), np.ones(kinds)
        self.fresh, self.due = 0, 1  # rows that no table knows, and at how many one is made

    def nats(self, d: np.ndarray) -> np.ndarray:
        """Of distances d [T, K]; 0 where there is none, below 0, and before any was learned."""
        out = np.empty_like(d)
        kernels.surprise(d, self.top, self.excess, self.below, out)
        return out

    def learn(self, d: np.ndarray) -> None:
        """Count distances d [T, K], and make tables of these when a sixteenth more is known."""
        kernels.count(d, self.counts, self.sums)
        self.fresh += len(d)
        if self.fresh >= self.due:
            self._refresh()
            self.fresh, self.due = 0, min(int(self.counts[0].sum()) // 16, 256)

    def _refresh(self) -> None:
        """Make the quantile, the mean excess and the nats below of what was counted."""
        n = self.counts.sum(1)
        forget = np.minimum(1.0, RECENT / np.maximum(n, 1.0))[:, None]
        self.counts *= forget
        self.sums *= forget
        n = np.minimum(n, RECENT)
        upto = np.cumsum(self.counts, 1)
        edge = np.argmax(upto >= 0.9 * n[:, None], axis=1)
        top = np.exp(kernels.LOWEST + kernels.STEP * (edge + 1))
        above = np.arange(kernels.BINS) > edge[:, None]
        more = (self.counts * above).sum(1)
        excess = (self.sums * above).sum(1) / np.maximum(more, 1e-9) - top
        self.excess = np.where(more > 0.5, np.maximum(excess, 0.02 * top), 0.1 * top)
        self.top = np.where(n > 0, top, np.inf)
        rest = 1 - (upto - 0.5 * self.counts) / np.maximum(n, 1e-9)[:, None]
        self.below = np.where(n[:, None] > 0, -np.log(np.clip(rest, 0.1, 1.0)), 0.0)
