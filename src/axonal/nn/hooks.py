"""Records of what the neurons of a network send, and its layers read, while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.operators import OPERATORS
from .neurons import Neuron

Network = nn.Module | Mapping[str, nn.Module]
Watched = dict[str, list[Tensor]]
# The layers of torch whose weights are synapses.
MAPS = reduce(
    or_, (getattr(nn, kind) for row in OPERATORS.values() if row.weighted for kind in row.modules)
)


@contextmanager
def watch(network: Network, readouts: bool = False) -> Iterator[Watched]:
    """Record what each neuron of a network sends, in `with watch(network) as sent`.

    Args:
        network: whose neurons to watch, or these by name.
        readouts: whether to watch also those that hand on their membrane and don't spike.

    Returns:
        By the module's name what it sent in each call, [T, B, ...], with its gradient.
    """
    sent: Watched = {}

    def record(name: str, args: tuple, output: Any) -> None:
        sent.setdefault(name, []).append(output[0])

    with _called(network, Neuron, record, readouts):
        yield sent


@contextmanager
def tally(network: Network) -> Iterator[dict[str, Tensor]]:
    """Sum up the spikes of each population over all calls; `rates` takes what it yields.

    Memory doesn't grow with the calls: by name there is [spikes, neurons x steps x samples].
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, spikes: Tensor) -> None:
        total = torch.linalg.vector_norm(spikes.detach().float(), 1).double()
        now = torch.stack([total, total.new_tensor(spikes.numel())])
        sums[name] = sums[name] + now if name in sums else now

    with _called(network, Neuron, lambda name, args, output: add(name, output[0]), False):
        yield sums


@contextmanager
def watch_reads(network: nn.Module) -> Iterator[Watched]:
    """Record the inputs of linear maps and convolutions, in `with watch_reads(network) as read`.

    Returns:
        By the module's name its input in each call, [T x B, ...], with its gradient.
    """
    read: Watched = {}

    def record(name: str, args: tuple, output: Any) -> None:
        read.setdefault(name, []).append(args[0])

    with _called(network, MAPS, record):
        yield read


@contextmanager
def _called(
    network: Network, kind: Any, record: Callable[[str, tuple, Any], None], readouts: bool = True
) -> Iterator[None]:
    """Call `record` with the name, arguments and output of each call of a module of this kind."""
    modules = network.items() if isinstance(network, Mapping) else network.named_modules()

    def hook(name: str):
        return lambda module, args, output: record(name, args, output)

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in modules
        if isinstance(module, kind) and (readouts or not _reads_out(module))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reads_out(module: nn.Module) -> bool:
    return isinstance(module, Neuron) and module.dynamics.emit == "membrane"


def rates(tallied: Mapping[str, Tensor]) -> dict[str, float]:
    """The spikes a neuron and step of each population in a `tally`; integers count as so many."""
    return {name: float(spikes / sites) for name, (spikes, sites) in tallied.items()}


def currents(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a population in every step, [T, B, ...], of the arguments of its call.

    `Sequential` hands over once what stays the same.
    """
    return args[0].expand(kwargs.get("steps") or len(args[0]), *args[0].shape[1:])
