"""From noise to a sample: fixed-step solvers of the flow dx/dt = (x1(x) - x) / (1 - t).

A network here is `network(x, t, state) -> (estimate of x1, state)`: conventional ones hand on
None, sigma-delta ones what they remember. Time runs from 0 (noise) to 1 (image) in equal steps.
Values are tensors or arrays: whatever the network takes and gives.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..core.errors import InputError

Values = TypeVar("Values", Tensor, np.ndarray)
Network = Callable[[Values, float, Any], tuple[Values, Any]]


def euler(network: Network, x: Values, state: Any, steps: int) -> Values:
    """The first-order solver; `steps` evaluations. The last step lands on the estimate itself."""
    for t, after in _grid(steps):
        estimate, state = network(x, t, state)
        x = x + (after - t) / (1 - t) * (estimate - x)
    return x


def heun(network: Network, x: Values, state: Any, steps: int) -> Values:
    """The second-order predictor-corrector; 2 steps - 1 evaluations.

    The last step is Euler's: the velocity has no value at t = 1 (Karras et al. 2022,
    arXiv 2206.00364, algorithm 1).
    """
    for t, after in _grid(steps):
        estimate, state = network(x, t, state)
        velocity = (estimate - x) / (1 - t)
        guess = x + (after - t) * velocity
        if after < 1:
            estimate, state = network(guess, after, state)
            velocity = (velocity + (estimate - guess) / (1 - after)) / 2
            guess = x + (after - t) * velocity
        x = guess
    return x


def multistep(network: Network, x: Values, state: Any, steps: int) -> Values:
    """DPM-Solver++(2M) for the straight path; `steps` evaluations, second order.

    The estimate is extrapolated in log signal-to-noise, l = log(t / (1 - t)), from the last two
    evaluations, and the linear part solved exactly (Lu et al. 2022, arXiv 2211.01095); the first
    two steps, where l is infinite, and the last are Euler's.
    """
    before, last = None, 0.0
    for t, after in _grid(steps):
        estimate, state = network(x, t, state)
        target = estimate
        if before is not None and last > 0 and after < 1:
            ratio = (_log_snr(t) - _log_snr(last)) / (_log_snr(after) - _log_snr(t))
            target = estimate + (estimate - before) / (2 * ratio)
        x = x + (after - t) / (1 - t) * (target - x)
        before, last = estimate, t
    return x


SAMPLERS = {"euler": euler, "heun": heun, "multistep": multistep}


def sample(
    network: Network, noise: Values, state: Any = None, *, steps: int, sampler: str = "euler"
) -> Values:
    """Solve the flow from `noise` [B, ...] in `steps` steps of `sampler`.

    Raises:
        InputError: unknown sampler, or fewer than one step.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps is {steps!r}; it must be an integer of at least 1")
    return SAMPLERS[sampler](network, noise, state, steps)


def _grid(steps: int) -> Iterator[tuple[float, float]]:
    return ((i / steps, (i + 1) / steps) for i in range(steps))


def _log_snr(t: float) -> float:
    return math.log(t / (1 - t))
