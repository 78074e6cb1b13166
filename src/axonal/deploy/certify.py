"""Whether the engine's spikes are torch's: the certificate of a traced network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..graph.graph import Graph
from ..nn import OneStep, Stateful, watch
from .engine import Engine
from .from_torch import trace


@dataclass(frozen=True)
class Agreement:
    """How far two runs send the same.

    Converted networks send the same, for their sums are exact. In others spikes can differ where a
    membrane meets its threshold to the last bits: torch adds up in another order than the engine,
    which adds in the order of addresses, and there is no rule of ties that both keep.

    Attributes:
        compared: values compared in each population: neurons x steps x samples.
        different: how many of these differ.
        first: of each population that differs the first difference in time: step, sample, neuron
            (flat), what torch sent and what the engine sent.
    """

    compared: Mapping[str, int]
    different: Mapping[str, int]
    first: Mapping[str, tuple[int, int, int, float, float]]

    @property
    def share(self) -> float:
        """The share of values that are equal."""
        return 1 - sum(self.different.values()) / sum(self.compared.values())

    def __str__(self) -> str:
        if not self.first:
            count = sum(self.compared.values())
            return f"spike for spike the same: {count:,} values of {len(self.compared)} populations"
        name, first = min(self.first.items(), key=lambda item: item[1][:2])
        step, sample, neuron, torch_sent, engine_sent = first
        return (
            f"{sum(self.different.values()):,} of {sum(self.compared.values()):,} values differ; "
            f"first {name!r} in step {step} of sample {sample}: neuron {neuron} sends "
            f"{engine_sent:g} in the engine and {torch_sent:g} in torch"
        )


def certify(network: Stateful, x: Tensor, engine: Engine | None = None) -> Agreement:
    """Compares every population's spikes in the engine and in torch.

    Args:
        network: what was traced.
        x: real inputs, [T, B, ...].
        engine: of `trace(network, x)`; None for a new one.

    Raises:
        InputError: as `trace`, or there are no neurons.
    """
    graph = engine.graph if engine else trace(network, x[:1])
    if not graph.neurons:
        raise InputError("certify: the network has no neurons to compare")
    watched = Engine(Graph(list(graph), list(graph.neurons)))
    expected = sent(network, x)
    (source,) = graph.inputs
    compared, different = dict.fromkeys(graph.neurons, 0), dict.fromkeys(graph.neurons, 0)
    first: dict[str, tuple[int, int, int, float, float]] = {}
    for sample in range(x.shape[1]):
        values_by_name, _ = watched.run({source: x[:, sample].detach().numpy()})
        for name, values in values_by_name.items():
            theirs = expected[name][:, sample].reshape(len(x), -1)
            wrong = np.argwhere(values.reshape(len(x), -1) != theirs)
            compared[name] += values.size
            different[name] += len(wrong)
            if len(wrong) and (name not in first or wrong[0][0] < first[name][0]):
                step, place = map(int, wrong[0])
                both = float(theirs[step, place]), float(values.reshape(len(x), -1)[step, place])
                first[name] = (step, sample, place, *both)
    return Agreement(compared, different, first)


def sent(network: torch.nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """What every population sends in torch for x [T, B, ...], [T, B, ...] by its module's name."""
    with torch.no_grad(), watch(network, readouts=True) as calls:
        network(x)
    spikes = {name: torch.cat(parts).numpy() for name, parts in calls.items()}
    for name, module in network.named_modules():
        if isinstance(module, OneStep):  # time is folded into its batch, or left out
            values = spikes.pop(f"{name}.neuron")
            shape = x.shape[1], *values.shape[2:]
            spikes[name] = np.broadcast_to(values.reshape(-1, *shape), (len(x), *shape))
    return spikes
