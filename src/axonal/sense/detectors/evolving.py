"""An evolving network of first spikes: what resonates with no neuron is novel."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from ...core.errors import InputError
from .base import Spiking

FREE = -1  # when a neuron last won, of a place that holds none


@numba.njit(cache=True, nogil=True)
def first_spike(x, low, high, won, span):
    """The first neuron to fire, as (when, which), by the equations of `Evolving`; (1, -1) if none.

    Args:
        x: [F].
        low, high: receptive fields, [N, F].
        won: when each neuron last won, [N]; `FREE` where there is none.
        span: a distance that takes the spike's delay to 1, [F]; 0: none is that short.
    """
    first, winner = 1.0, -1
    for i in range(len(won)):
        if won[i] < 0:
            continue
        last = 0.0
        for j in range(len(x)):
            away = max(low[i, j] - x[j], x[j] - high[i, j])
            if away > 0:
                last = max(last, away / span[j] if span[j] > 0 else 1.0)
                if last >= first:
                    break
        if last < first:
            first, winner = last, i
    return first, winner


@numba.njit(cache=True, nogil=True)
def resonate(x, low, high, won, winner, step):
    """Stretch the winner's fields to x, and merge neurons that now lie inside of it."""
    won[winner] = step
    grown = False
    for j in range(len(x)):
        if not low[winner, j] <= x[j] <= high[winner, j]:
            grown = True
            low[winner, j] = min(low[winner, j], x[j])
            high[winner, j] = max(high[winner, j], x[j])
    for i in range(len(won) if grown else 0):
        inside = (low[i] >= low[winner]).all() and (high[i] <= high[winner]).all()
        if inside and i != winner:
            won[i] = FREE


@dataclass(eq=False, kw_only=True)
class Evolving(Spiking):
    """An online evolving spiking network of output neurons that fire once, or not at all.

    Each feature sends one spike to every output neuron. A synapse has a receptive field
    [low, high] and delays the spike by how far x lies outside of it, in units of the feature's
    span; a neuron integrates its F synapses and fires when the last spike has come, and the first
    to fire silences the others. So with N neurons the latency of the first output spike is

        n = min_i max_j dist(x_j, [low_ij, high_ij]) / span_j,  1 if none fires by then,

    and it is how novel x is; `base.Alarm` scores it. Where it is at most `vigilance` the winner
    resonates: the synapses whose spikes came late stretch their fields to x, and neurons whose
    fields lie inside the winner's are merged into it. Otherwise a neuron is recruited at x, in the
    place of the one that has not won for longest when all are taken.

    In the spirit of OeSNN-UAD (Maciag et al. 2021, arXiv 1912.08785: a bounded repository of
    output neurons, recruited, merged and replaced online) with the resonance and vigilance of
    fuzzy ART (Carpenter, Grossberg and Rosen 1991) in the place of rank order.

    Args:
        neurons: N, the size of the repository.
        vigilance: the latest first spike that is resonance, in (0, 1).
        spans: of each feature, the distance that delays a spike by 1; 0: the range of what has
            been seen, which slowly forgets. None: 0 for all.
        rest, floor: of the alarm, in steps and in units of novelty.
        memory: steps over which ranges and the usual novelty are forgotten.
    """

    STATE = (*Spiking.STATE, "low", "high", "won", "least", "most")

    neurons: int = 128
    vigilance: float = 0.15
    spans: Any = None

    def __post_init__(self):
        super().__post_init__()
        self.spans = None if self.spans is None else np.array(self.spans, np.float64)
        if self.spans is not None and not (self.spans.ndim == 1 and (self.spans >= 0).all()):
            raise InputError(f"spans {self.spans} are numbers >= 0, one a feature")
        if self.neurons < 1 or not 0 < self.vigilance < 1:
            raise InputError(
                f"{self.neurons} neurons with vigilance {self.vigilance}: >= 1, in (0, 1)"
            )
        self.low = self.high = np.empty((0, 0))
        self.won = np.full(self.neurons, FREE)
        self.least = self.most = np.empty(0)

    def _begin(self, x: np.ndarray) -> None:
        if self.spans is not None and len(self.spans) != len(x):
            raise InputError(f"{len(self.spans)} spans for {len(x)} features")
        self.low, self.high = np.zeros((2, len(self.won), len(x)))
        self.least, self.most = x.copy(), x.copy()

    def _first(self, x: np.ndarray) -> tuple[float, int]:
        span = self.most - self.least
        if self.spans is not None:
            span = np.where(self.spans > 0, self.spans, span)
        return first_spike(x, self.low, self.high, self.won, span)

    def _measure(self, x: np.ndarray) -> float:
        return self._first(x)[0] if self.alarm.steps else 0.0

    def _adapt(self, x: np.ndarray) -> dict[str, float]:
        first, winner = self._first(x)
        neurons = int((self.won >= 0).sum())
        if winner >= 0 and first <= self.vigilance:
            resonate(x, self.low, self.high, self.won, winner, self.alarm.steps)
        else:
            place = int(np.argmin(self.won))  # a free one, or the longest without winning
            self.low[place] = self.high[place] = x
            self.won[place] = self.alarm.steps
        for end, pick in ((self.least, np.minimum), (self.most, np.maximum)):
            end += (x - end) / self.alarm.memory
            pick(end, x, out=end)
        fan = neurons * len(x)  # every spike goes to every neuron
        return {
            "synops": fan,
            "adds": 3 * fan,  # both ends of a field, and the count of spikes that have come
            "weight_reads": 2 * fan,
            "state_reads": fan,
            "state_writes": fan,
            "spikes": len(x) + (winner >= 0),
            "sites": len(x) + neurons,
        }
