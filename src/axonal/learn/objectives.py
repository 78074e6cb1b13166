"""What a spiking network is trained towards, and what its activity costs.

An objective is a mean over steps, so that rules which see a few steps at a time can take it of
these: (outputs [T, B, C], or first-spike times [B, C], and labels [B]) -> scalar.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from ..core.neurons.kinds import Leaky
from ..energy import EVENT_STATE_BITS, price
from ..nn.hooks import Watched
from ..nn.meter import fanout
from ..ops.scan import scan

Objective = Callable[[Tensor, Tensor], Tensor]
Penalty = Callable[[nn.Module, Watched, Watched], Tensor]  # see `nn.watch` for the last two


def rate_cross_entropy(scale: float = 1.0) -> Objective:
    """Cross-entropy of what the outputs send on average, times `scale`."""
    return lambda y, label: F.cross_entropy(scale * y.float().mean(0), checked(label, y))


def membrane_cross_entropy(over: Literal["steps", "maximum"] = "steps") -> Objective:
    """Cross-entropy of a read-out's membrane: in every step, or of its maximum over them.

    Eshraghian et al. 2023 (arXiv 2109.12894), section IV; the maximum as Cramer et al. 2020
    (arXiv 1910.07407) take it, which rules that see few steps at a time take over these.
    """
    if over == "maximum":
        return lambda y, label: F.cross_entropy(y.float().amax(0), checked(label, y))
    return lambda y, label: F.cross_entropy(
        y.float().flatten(0, 1), checked(label, y).repeat(len(y))
    )


def tet(share: float = 1e-3, level: float = 1.0) -> Objective:
    """(1 - share) times the cross-entropy of every step, and share times (y - level)^2.

    Temporal efficient training (Deng et al. 2022, arXiv 2202.11946, eq. 9-11), with its defaults.
    """
    each = membrane_cross_entropy()
    return lambda y, label: (
        (1 - share) * each(y, label) + share * (y.float() - level).square().mean()
    )


def count(right: float = 0.8, wrong: float = 0.2) -> Objective:
    """The squared distance of each output's spikes a step from `right` or `wrong`.

    Shrestha and Orchard 2018 (arXiv 1810.08646), the spike-count loss.
    """

    def objective(y: Tensor, label: Tensor) -> Tensor:
        chosen = F.one_hot(checked(label, y), y.shape[-1])
        return (y.float().mean(0) - (wrong + (right - wrong) * chosen)).square().mean()

    return objective


def first_spike(tau: float = 1.0) -> Objective:
    """Cross-entropy over -t / tau, t the step of an output's first spike, T if it sends none.

    Goeltz et al. 2021 (arXiv 1912.11443), eq. 5 without its regulariser. Of spikes [T, B, C] t is
    the number of steps without a spike so far, through which gradients flow.
    """

    def objective(y: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(-first_times(y) / tau, checked(label, y))

    return objective


def van_rossum(tau: float) -> Objective:
    """The squared distance of trains, filtered by e^(-t / tau), of the outputs and the targets.

    van Rossum 2001 (Neural Computation 13:751), eq. 4. Labels are trains [B, T, C].
    """
    kernel = Leaky(decay=float(np.exp(-1 / tau)), emit="membrane", reset="none")

    def objective(y: Tensor, label: Tensor) -> Tensor:
        if label.transpose(0, 1).shape != y.shape:
            raise InputError(f"van_rossum: targets {list(label.shape)} for outputs {list(y.shape)}")
        difference = y.float() - label.transpose(0, 1)
        return scan(difference, None, kernel)[0].square().mean() / tau

    return objective


def first_times(y: Tensor) -> Tensor:
    """The step of each output's first spike, T if there is none: [T, B, C] -> [B, C]."""
    if y.dim() == 2:
        return y
    sent = y.float().cumsum(0)
    silent = (sent - y).detach() < 1  # before this step
    return (silent * (1 - sent)).sum(0)


def guess(y: Tensor) -> Tensor:
    """The class that outputs [T, B, C] name, the largest sum; of times [B, C] the first."""
    return y.argmin(-1) if y.dim() == 2 else y.sum(0).argmax(-1)


def checked(label: Tensor, outputs: Tensor) -> Tensor:
    """`label`, if every entry is a class of `outputs` [..., C].

    Raises:
        InputError: labels are no integers, or out of range.
    """
    if label.is_floating_point() or label.dim() != 1:
        raise InputError(f"labels are {label.dtype} {list(label.shape)}; give classes, [B] int64")
    low, high, classes = int(label.min()), int(label.max()), outputs.shape[-1]
    if low < 0 or high >= classes:
        raise InputError(f"labels run from {low} to {high}, but the network has {classes} classes")
    return label


def activity(low: float = 0.0, high: float = 1.0, weight: float = 1.0) -> Penalty:
    """Squares of how far each neuron's spikes a step lie outside [low, high].

    Zenke and Vogels 2021 (Neural Computation 33:899), with bounds a neuron; low = high is a
    target. Summed over neurons, so that a layer's size doesn't dilute it, and averaged over
    populations.

    Raises:
        InputError: low above high.
    """
    if not 0 <= low <= high:
        raise InputError(f"activity: the bounds {low} and {high} are out of order")

    def penalty(network: nn.Module, sent: Watched, read: Watched) -> Tensor:
        outside = []
        for parts in sent.values():
            rate = torch.cat(parts).float().mean((0, 1))
            outside.append(((low - rate).relu() ** 2 + (rate - high).relu() ** 2).sum())
        return weight * torch.stack(outside).mean()

    return penalty


def energy(weight: float, bits: int = 8) -> Penalty:
    """The joules of a sample's spikes: what they cost in the layers that read them.

    A spike costs each synapse it reaches an addition, a weight fetched, and a sum read and
    written, at the nominal prices of `energy.price`; what the network itself is fed is no part
    of it. Modelled, not measured: only as good as that table.

    Args:
        weight: of a nanojoule.
        bits: of the weights: 8, 16 or 32.
    """
    fields = ("synops", "adds", "weight_reads", "state_reads", "state_writes")
    one = np.array([[[float(field in fields) for field in FIELDS]]])
    wide = EVENT_STATE_BITS[bits]
    joules = price(Counts(("synapse",), one, 1), bits=bits, state_bits=wide).total.nominal
    reach: dict[tuple[nn.Module, torch.Size], Tensor] = {}

    def penalty(network: nn.Module, sent: Watched, read: Watched) -> Tensor:
        samples = next(iter(sent.values()))[0].shape[1]
        work = torch.zeros(())
        for name, parts in read.items():
            for spikes in parts:
                layer, shape = network.get_submodule(name), spikes.shape[1:]
                if spikes.requires_grad:
                    if (layer, shape) not in reach:
                        reach[layer, shape] = fanout(layer, spikes)
                    work = work + (spikes.abs().sum(0) * reach[layer, shape]).sum()
        return weight * 1e9 * joules * work / samples

    return penalty
