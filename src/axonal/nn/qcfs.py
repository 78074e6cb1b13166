"""Quantised ReLUs, with which a network learns to fire few spikes once it is converted."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InputError


class QCFS(nn.Module):
    """A ReLU that is clipped and quantised (quantisation-clip-floor-shift).

        y = ceiling clip(floor(levels x / ceiling + 1/2), 0, levels) / levels

    Gradients pass straight through the floor (Bu et al. 2022, arXiv 2303.04347, eq. 15). A neuron
    that integrates `levels` steps and fires at `ceiling / levels`, from half of that on, sends
    exactly y.

    Args:
        levels: how many steps there are above zero.
        ceiling: where it is clipped, learned from this value on.

    Raises:
        InputError: no levels, or a ceiling that is not positive.
    """

    def __init__(self, levels: int, ceiling: float = 4.0):
        super().__init__()
        if type(levels) is not int or levels < 1 or not 0 < ceiling < float("inf"):
            raise InputError(f"QCFS: {levels} levels up to {ceiling}; both must be above 0")
        self.levels = levels
        self.ceiling = nn.Parameter(torch.tensor(float(ceiling)))

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> y of the same."""
        share = F.relu(x / self.ceiling).clamp(max=1)
        level = torch.floor(self.levels * share.detach() + 0.5) / self.levels
        return self.ceiling * (share + (level - share).detach())

    def extra_repr(self) -> str:
        return f"{self.levels} levels up to {float(self.ceiling.detach()):.3g}"


def rectifier(levels: int) -> nn.Module:
    """A ReLU; with `levels` above 0, the one that is quantised."""
    return QCFS(levels) if levels else nn.ReLU()
