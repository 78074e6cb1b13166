"""Graded spikes of several thresholds, without training: the default for convolutional networks.

A neuron may send up to 2^bits - 1 thresholds at once, a cascade of `bits` binary comparisons.
In T steps it tells N = (2^bits - 1) T values apart, and the ceiling of each channel is where
quantising its values errs least,

    theta = argmin E[(y - q(y))^2],   q(y) = (theta / N) clip(floor(N y / theta + 1/2), 0, N),

whose stationary point is the fixed point theta <- theta E[q y] / E[q^2] of threshold iteration
(H-MT, AAAI 2026; DCGS, Huang et al. 2025), here over values seen and not under a Gaussian.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numba import njit
from torch import Tensor, fx

from ...core.errors import InputError
from ...ops.threads import run_in_parts
from ..activations import Calibration, Observed, observe
from ..plan import Plan, Population
from ..tracing import rectifiers

SHARES = np.logspace(-1.3, 0, 60)[:-1]  # of the largest value
ROUNDS = 20  # of iteration from there
PARTS = 64  # of the channels that threads take


def graded(dense: fx.GraphModule, data: Calibration, bits: int = 8) -> Plan:
    """Neurons of graded spikes, each channel's ceiling where it errs least.

    Args:
        bits: of a spike, 1 to 16.

    Raises:
        InputError: `bits` out of range.
    """
    if type(bits) is not int or not 1 <= bits <= 16:
        raise InputError(f"graded: {bits} bits of a spike; choose 1 to 16")
    populations = least_error(dense, data, rectifiers(dense), 2**bits - 1)
    return Plan("graded", data.steps, data.shape, populations)


def least_error(
    dense: fx.GraphModule, data: Calibration, slopes: Mapping[str, float], levels: int = 1
) -> dict[str, Population]:
    """Populations of so many levels a spike, each channel's ceiling where T steps err least.

    Args:
        slopes: of the values below 0, by node.

    Raises:
        InputError, FileError: as `observe`.
    """
    seen = observe(dense, [*slopes], data.x, data.folder)
    return {
        name: Population(ceiling(seen[name], levels * data.steps) / levels, levels, slope)
        for name, slope in slopes.items()
    }


def ceiling(seen: Observed, levels: int) -> Tensor:
    """The ceilings for `levels` values above 0, as they broadcast to one sample."""
    values = np.ascontiguousarray(seen.values.cpu().numpy())
    most = np.maximum(seen.most.cpu().double().numpy(), 1e-12)
    best = np.empty_like(most)

    def work(_: int, first: int, last: int) -> None:
        _search(values[first:last], most[first:last], levels, SHARES, best[first:last])

    parts = min(len(values), PARTS)
    run_in_parts(work, len(values), parts, min(parts, torch.get_num_threads()))
    return seen.shaped((torch.from_numpy(best) * (seen.most.cpu() > 0)).to(seen.values))


def quantised(values: Tensor, ceilings: Tensor, levels: int) -> Tensor:
    """q(y) of `values`, on both sides of 0: what `_search` computes with."""
    unit = ceilings / levels
    return unit * values.sign() * torch.floor(values.abs() / unit + 0.5).clamp(max=levels)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _search(values, most, levels, shares, best):
    """Write the ceiling of each row of values at which quantising them errs least."""
    for row in range(len(values)):
        best[row] = most[row]
        least, along, size = _sums(values[row], most[row], levels)
        for share in shares:
            error, y, q = _sums(values[row], share * most[row], levels)
            if error < least:
                best[row], least, along, size = share * most[row], error, y, q
        for _ in range(ROUNDS):
            tried = best[row] * (along / size) if size > 0 else best[row]
            error, y, q = _sums(values[row], tried, levels)
            if not error < least:
                break  # the next round would try the same
            best[row], least, along, size = tried, error, y, q


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sums(values, ceiling, levels):
    """The sums of (y - q)^2, q y and q^2."""
    unit = ceiling / levels
    scale, error, along, size = 1 / unit, 0.0, 0.0, 0.0
    for i in range(len(values)):
        y = abs(np.float64(values[i]))
        q = unit * min(np.floor(y * scale + 0.5), np.float64(levels))
        error += (y - q) * (y - q)
        along += q * y
        size += q * q
    return error, along, size
