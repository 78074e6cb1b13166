"""Whether gradients reach what is trained: a tensor that none reaches never learns."""

import torch
from torch import Tensor, nn

from .distributed import Processes, to_local

EARLY = 10  # steps in which one has to; weights that start at zero block others for a step or two


class Reached:
    """Which trained tensors of a network a gradient other than zero has reached so far.

    Args:
        network: whose gradients are looked at, after a backward pass.
        processes: that share the training.
    """

    def __init__(self, network: nn.Module, processes: Processes):
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.processes, self.looks = processes, 0
        self.steps = torch.zeros(len(self.trained), device=processes.device)

    def look(self) -> None:
        """Take the gradients of a step into account, of the first `EARLY` ones."""
        self.looks += 1
        if self.looks <= EARLY and self.trained:
            self.steps += torch.stack([_is_reached(p) for p in self.trained.values()])

    def missed(self) -> list[str]:
        """The tensors that none has reached, in any process."""
        self.processes.average([total := self.steps.clone()])
        return [name for name, n in zip(self.trained, total.tolist(), strict=True) if not n]


def _is_reached(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros((), device=parameter.device)
    return to_local(parameter.grad).any().float()


def some(names: list[str]) -> str:
    """The first three names, and how many there are beside them."""
    more = f" and {len(names) - 3} more tensors" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
