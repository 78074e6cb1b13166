"""Graded spikes of several thresholds, without training: the default for convolutional networks.

A neuron may send up to 2^bits - 1 thresholds at once, a cascade of `bits` binary comparisons.
In T steps it tells N = (2^bits - 1) T values apart, and the ceiling of each channel is where
quantising its values errs least,

    theta = argmin E[(y - q(y))^2],   q(y) = (theta / N) clip(floor(N y / theta + 1/2), 0, N),

whose stationary point is the fixed point theta <- theta E[q y] / E[q^2] of threshold iteration
(H-MT, AAAI 2026; DCGS, Huang et al. 2025), here over values seen and not under a Gaussian.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from ...core.errors import InputError
from ..activations import Calibration, Observed, observe
from ..plan import Plan, Population
from ..tracing import rectifiers

SHARES = torch.logspace(-1.3, 0, 60, dtype=torch.float64).tolist()  # of the largest value
ROUNDS = 20  # of iteration from there


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
    values, most = seen.values.double(), seen.most.double()[:, None].clamp_min(1e-12)
    best, least = most, _error(values, most, levels)
    for share in SHARES[:-1]:
        best, least = _better(values, best, least, share * most, levels)
    for _ in range(ROUNDS):
        q = quantised(values, best, levels)
        size = q.square().sum(1, keepdim=True)
        factor = torch.where(size > 0, (q * values).sum(1, keepdim=True) / size, 1.0)
        best, least = _better(values, best, least, best * factor, levels)
    return seen.shaped((best[:, 0] * (seen.most > 0)).to(seen.values))


def quantised(values: Tensor, ceilings: Tensor, levels: int) -> Tensor:
    """q(y) of `values`, on both sides of 0."""
    unit = ceilings / levels
    return unit * values.sign() * torch.floor(values.abs() / unit + 0.5).clamp(max=levels)


def _error(values: Tensor, ceilings: Tensor, levels: int) -> Tensor:
    return (values - quantised(values, ceilings, levels)).square().mean(1, keepdim=True)


def _better(
    values: Tensor, best: Tensor, least: Tensor, tried: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    error = _error(values, tried, levels)
    lower = error < least
    return torch.where(lower, tried, best), torch.where(lower, error, least)
