"""What the neurons of a network send while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .neurons import Neuron

Network = nn.Module | Mapping[str, nn.Module]
Watched = dict[str, list[Tensor]]
MAPS = nn.Linear | nn.modules.conv._ConvNd


@contextmanager
def watch(network: Network, readouts: bool = False) -> Iterator[Watched]:
    """`with watch(network) as sent`: what each of its neurons sends while the context is open.

    Args:
        network: whose neurons to watch, or these by name.
        readouts: whether to watch also those that hand on their membrane and don't spike.

    Returns:
        By the module's name what it sent in each call, [T, B, ...], with its gradient.
    """
    with _kept(network, Neuron, lambda args, output: output[0], readouts) as sent:
        yield sent


@contextmanager
def tally(network: Network) -> Iterator[Watched]:
    """As `watch`, but of each call only [spikes, neurons x steps x samples], for `rates`."""
    with _kept(network, Neuron, lambda args, output: _counted(output[0]), False) as sent:
        yield sent


def _counted(spikes: Tensor) -> Tensor:
    total = torch.linalg.vector_norm(spikes.detach().float(), 1)
    return torch.stack([total, total.new_tensor(spikes.numel())]).double()


@contextmanager
def watch_reads(network: nn.Module) -> Iterator[Watched]:
    """`with watch_reads(network) as read`: what its linear maps and convolutions are given.

    Returns:
        By the module's name what it was given in each call, [T x B, ...], with its gradient.
    """
    with _kept(network, MAPS, lambda args, output: args[0]) as read:
        yield read


@contextmanager
def _kept(
    network: Network, kind: Any, part: Callable[[tuple, Any], Tensor], readouts: bool = True
) -> Iterator[Watched]:
    """A `part` of each call of the modules of a `kind`."""
    found: Watched = {}
    modules = network.items() if isinstance(network, Mapping) else network.named_modules()

    def hook(name: str):
        return lambda module, args, output: found.setdefault(name, []).append(part(args, output))

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in modules
        if isinstance(module, kind) and (readouts or not _reads_out(module))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _reads_out(module: nn.Module) -> bool:
    return isinstance(module, Neuron) and module.dynamics.emit == "membrane"


def rates(tallied: Watched) -> dict[str, float]:
    """The spikes a neuron and step of each population of a `tally`; integers count as so many."""
    sums = {name: torch.stack(parts).sum(0).tolist() for name, parts in tallied.items()}
    return {name: spikes / sites for name, (spikes, sites) in sums.items()}
