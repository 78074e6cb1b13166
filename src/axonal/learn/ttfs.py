"""Learning from the times of first spikes, one a neuron, in closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.kinds import Leaky
from .event_kernels import OPTIONS, shared
from .events import layers
from .online import Rule


def std_ed(clip: float = 1.0) -> Rule:
    """STD-ED-style: gradients of spike times through the spikes that were sent.

    The predecessor of the spike-timing form of Wei et al. 2024 (arXiv 2403.00270, whose text we
    had not): time to first spike with a dynamic firing threshold, Wei et al. 2023 (ICCV). A layer
    fires in the window [t_b, t_e] that follows the one in which it is fed. Its membranes
    integrate max(0, t - t_i) of each input spike, and its threshold falls as t_e - t, so that

        t_j = (t_e + sum_F w_ji t_i) / (1 + sum_F w_ji),   F: the inputs that fired
        dt_j/dt_i = w_ji / (1 + sum_F w),   dt_j/dw_ji = (t_i - t_j) / (1 + sum_F w)

    with windows of length 1; both factors are clipped to +-`clip`. It fires at t_b if the
    membrane is over the threshold there, and never if t_j >= t_e or 1 + sum_F w <= 0; such a
    neuron has no gradient, and its row is not visited.

    Reconstructed: no gradient at t_b; a read-out's potentials are read at its t_b, and so are
    sum_F w (t_b - t_i), continuous where inputs fall silent; no adaptive threshold.

    Args:
        clip: the bound of the factors.

    Returns:
        A rule for `nn.Sequential` of `nn.Linear` without bias and `IF` in turn, of which the
        weights, times gain / threshold, are all that is used; then, if there is one, a linear
        read-out. The first spikes of x [T, B, N] are fed in a window of T steps. Outputs are
        times of first spikes [B, C] in steps of the last window, T of those that are silent, or
        the read-out's potentials [1, B, C].
    """

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        takes = "Neuron(Leaky) with decay 1"
        pairs, tail = layers(network, x, "std-ed", _integrates, takes, readout=True)
        if tail[1:]:
            raise InputError(f"std-ed: {tail[1]} has steps to follow, and a read-out here one")
        fired = x.flatten(2) != 0
        early = (1 - fired.int().argmax(0) / len(x)).to(x.dtype) * fired.any(0)
        fired = fired.any(0)
        for linear, neuron in pairs:
            scale = neuron.dynamics.gain / neuron.dynamics.threshold
            early, fired = _First.apply(linear.weight * scale, early, fired, clip)
        y = tail[0](early)[None] if tail else (1 - early) * len(x)
        return objective(y), y.detach()

    return rule


def _integrates(d: Any) -> bool:
    return isinstance(d, Leaky) and d.decay == 1


class _First(torch.autograd.Function):
    """A layer: (weight [C, N], earliness [B, N], whether fired [B, N]) -> the same [B, C].

    A spike's earliness is the time from it to the end of its window, 0 where there was none.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, early: Tensor, fired: Tensor, clip: float
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", enabled=False):
            total, potential = 1 + fired.to(weight.dtype) @ weight.t(), early @ weight.t()
        late = (1 - potential) / total
        at_once = potential >= 1
        between = ~at_once & (total > 0) & (late < 1)
        sent = torch.where(between, 1 - late, at_once.to(early.dtype))
        ctx.clip = clip
        ctx.save_for_backward(weight, early, fired, late, total, between)
        ctx.mark_non_differentiable(found := at_once | between)
        return sent, found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, early, *rest = (part.numpy() for part in ctx.saved_tensors)
        seen, wanted = tuple(rest), ctx.needs_input_grad[1]
        to_early = np.zeros_like(early[: len(early) * wanted])
        grad = grads[0].contiguous().numpy()

        def work(first: int, last: int) -> np.ndarray:
            to_weight = np.zeros_like(weight)
            _visit(first, last, weight, early, seen, grad, ctx.clip, to_weight, to_early)
            return to_weight

        parts = shared(work, len(early))
        values = torch.from_numpy(to_early) if wanted else None
        return torch.from_numpy(sum(parts[1:], parts[0])), values, None, None


@njit(**OPTIONS)
def _visit(first, last, weight, early, seen, grad, clip, to_weight, to_early):
    """The gradients of weights and earliness, by spikes that have one and spikes they saw."""
    fired, late, total, between = seen
    for b in range(first, last):
        came = np.flatnonzero(fired[b])
        for j in np.flatnonzero(between[b]):
            for i in came:
                change = (early[b, i] + late[b, j]) / total[b, j]
                to_weight[j, i] += grad[b, j] * min(max(change, -clip), clip)
            if len(to_early):
                for i in came:
                    change = weight[j, i] / total[b, j]
                    to_early[b, i] += grad[b, j] * min(max(change, -clip), clip)
