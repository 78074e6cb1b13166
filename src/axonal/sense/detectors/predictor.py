"""A spiking predictor: adaptive neurons, a read-out that guesses x, and its error as novelty."""

from dataclasses import dataclass

import numba
import numpy as np

from ...core.errors import InputError
from .base import Spiking, StandardScaler

FAR = 8.0  # standard deviations at which inputs are cut off
BETA, RHO, KAPPA = 0.8, 0.98, 1.5  # decay of membranes and adaptation, and its strength


@numba.njit(cache=True, nogil=True)
def advance(current, v, a, trace, ticks):
    """Run adaptive neurons at constant currents, by the equations of `Predictor`.

    Args:
        current: [N].
        v, a, trace: membranes, adaptation and traces of spikes, [N]; changed.
        ticks: steps.

    Returns:
        The number of spikes.
    """
    fired = 0
    for _ in range(ticks):
        for i in range(len(v)):
            v[i] = BETA * v[i] + (1 - BETA) * current[i]
            s = v[i] >= 1 + KAPPA * a[i]
            v[i] -= s
            a[i] = RHO * a[i] + (1 - RHO) * s
            trace[i] = BETA * trace[i] + (1 - BETA) * s
            fired += s
    return fired


@dataclass(eq=False, kw_only=True)
class Predictor(Spiking):
    """A layer of adaptive neurons with an online read-out, which scores what it can't predict.

    Inputs u are x, standardised by a running mean and deviation. The neurons (leaky
    integrate-and-fire with adaptive thresholds, Bellec et al. 2018, arXiv 1803.09574) run `ticks`
    steps on each, with random fixed A and b, the same from one x to the next:

        h_i = beta v_i + (1 - beta) (b_i + sum_j A_ij u_j)
        s_i = [h_i >= 1 + kappa a_i],  v_i = h_i - s_i,  a_i <- rho a_i + (1 - rho) s_i

    From p, the traces of spikes, u and 1, the read-out W p guesses the next u, and the normalised
    delta rule (Widrow and Hoff 1960) corrects it: W += rate (u - W p) p' / (1 + |p|^2). The
    novelty is max_j |u_j - guess_j|; `base.Alarm` scores it.

    Args:
        neurons: of the layer.
        ticks: steps of the layer for one x.
        rate: of learning, in (0, 2).
        seed: of the random weights.
        rest, floor: of the alarm, in steps and in deviations.
        memory: steps over which mean, deviation and the usual novelty are forgotten.
    """

    STATE = (*Spiking.STATE, "standard", "into", "bias", "v", "a", "trace", "weights", "p")

    neurons: int = 64
    ticks: int = 4
    rate: float = 0.05
    seed: int = 0
    memory: float = 2000.0

    def __post_init__(self):
        super().__post_init__()
        if self.neurons < 1 or self.ticks < 1 or not 0 < self.rate < 2:
            raise InputError(
                f"{self.neurons} neurons, {self.ticks} ticks >= 1; rate {self.rate} in (0, 2)"
            )
        self.standard = StandardScaler(self.memory, FAR)
        self.v, self.a, self.trace = np.zeros((3, self.neurons))
        self.into = self.weights = np.empty((0, 0))
        self.bias = self.p = np.empty(0)

    def _begin(self, x: np.ndarray) -> None:
        draw = np.random.default_rng(self.seed)
        self.into = draw.normal(0, 2 / np.sqrt(len(x)), (self.neurons, len(x)))
        self.bias = draw.uniform(-0.5, 1.5, self.neurons)
        size = self.neurons + len(x) + 1
        self.weights, self.p = np.zeros((len(x), size)), np.zeros(size)

    def _error(self, x: np.ndarray) -> np.ndarray:
        return self.standard(x) - self.weights @ self.p

    def _measure(self, x: np.ndarray) -> float:
        return float(np.abs(self._error(x)).max()) if self.alarm.steps else 0.0

    def _adapt(self, x: np.ndarray) -> dict[str, float]:
        if self.standard.steps:
            step = self.rate / (1 + self.p @ self.p)
            self.weights += np.outer(step * self._error(x), self.p)
        self.standard.learn(x)
        u = self.standard(x)
        fired = advance(self.bias + self.into @ u, self.v, self.a, self.trace, self.ticks)
        self.p = np.concatenate((self.trace, u, [1.0]))
        dense, updates = self.into.size + 2 * self.weights.size, self.neurons * self.ticks
        return {  # dense: currents, guessing and correcting take graded values
            "synops": dense,
            "multiplies": dense,
            "adds": dense + 4 * updates,
            "weight_reads": dense,
            "state_reads": 3 * updates,
            "state_writes": 3 * updates + self.weights.size,
            "spikes": fired,
            "sites": updates,
        }
