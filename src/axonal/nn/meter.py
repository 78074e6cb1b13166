"""Counts what a torch network executes, exactly to the edge of every convolution."""

import copy
from typing import Any, Literal

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from ..ops.threads import run_in_parts
from .graph_module import Difference
from .hooks import MAPS, currents
from .neurons import Neuron

Mode = Literal["dense", "zeros", "events"]


class Meter:
    """Counts the operations of `network` while it runs, in `with Meter(network) as meter`.

    A layer is counted in one of three ways:

    - "dense": a multiply-add for each weight and position. Each input is read and each output
      written once, sums stay in a register: the best case for an ordinary processor.
    - "zeros": the same, but nothing is spent on inputs that are zero.
    - "events": each event is carried to the synapses it has (fewer at an edge), where a weight is
      fetched, multiplied and added into an accumulator that is read and written. An integer
      spike of a `Neuron` is so many binary ones, which need no multiplication.

    Layers that read a spiking neuron's output are counted by events, all others as `mode` says.
    Functions of rates (`Difference`) are dense: each step costs what its row of the operator table
    says. A layer that `Sequential` runs once, because its input stays the same, is counted once.
    A neuron costs an addition, a comparison and two reads in each step in which something
    reached it, and a write when it fires. Each call of `network` is a step.

    Args:
        network: what to watch.
        mode: how layers are executed that don't read spikes; "events" for sigma-delta networks.
        batch_dim: the dimension of the first argument that counts samples.
    """

    def __init__(self, network: nn.Module, mode: Mode = "dense", batch_dim: int = 0):
        self.network, self.mode, self.batch_dim = network, mode, batch_dim
        self.steps: list[dict[str, np.ndarray]] = []
        self.samples = 0
        self._running = False
        self._spikes: dict[int, Tensor] = {}
        self._fanouts: dict[tuple[str, torch.Size], Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "Meter":
        self._handles = [self.network.register_forward_pre_hook(self._begin)]
        for name, module in self.network.named_modules():
            if isinstance(module, MAPS):
                self._handles.append(module.register_forward_hook(self._layer_hook(name)))
            elif isinstance(module, Neuron):
                hook = self._neuron_hook(name)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
            elif isinstance(module, Difference):
                self._handles.append(module.register_forward_hook(self._function_hook(name)))
        # Last, because the network may itself be a layer.
        self._handles.append(self.network.register_forward_hook(self._end, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._spikes.clear()

    def counts(self) -> Counts:
        """What was counted, with the calls of `network` as steps.

        Raises:
            InputError: the network did not run, or ran other layers in some steps.
        """
        if not self.steps:
            raise InputError("Meter: the network has not run inside the meter")
        layers = tuple(self.steps[0])
        if any(tuple(step) != layers for step in self.steps):
            raise InputError("Meter: the network ran different layers in different steps")
        table = np.array([[step[layer] for layer in layers] for step in self.steps])
        return Counts(layers, table, self.samples)

    def _begin(self, module: nn.Module, args: tuple) -> None:
        self.samples = args[0].shape[self.batch_dim]
        self.steps.append({})
        self._running = True

    def _end(self, *_: object) -> None:
        self._running = False
        self._spikes.clear()

    def _add(self, name: str, **fields: float) -> None:
        if not self._running:
            return
        row = self.steps[-1].setdefault(name, np.zeros(len(FIELDS)))
        for field, value in fields.items():
            row[FIELDS.index(field)] += value

    def _neuron_hook(self, name: str):
        def hook(neuron: Neuron, args: tuple, kwargs: dict, output: tuple[Tensor, Tensor]) -> None:
            moved, spikes = currents(args, kwargs), output[0].detach()
            binary = not neuron.dynamics.graded
            if binary:
                self._spikes[spikes.untyped_storage().data_ptr()] = spikes
            touched = _nonzero(moved)
            sent = float(spikes.abs().sum()) if binary else _nonzero(spikes)
            reads, sites = 2 * touched, spikes.numel() * neuron.dynamics.events
            self._add(name, adds=reads, state_reads=reads, state_writes=sent)
            self._add(name, spikes=sent, sites=sites)

        return hook

    def _layer_hook(self, name: str):
        def hook(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            x, fanout = args[0], self._fanout(name, layer, args[0])
            spiking = x.untyped_storage().data_ptr() in self._spikes
            if spiking or self.mode == "events":
                work, _ = _carried(x, fanout, spiking)
                self._add(name, state_reads=work, state_writes=work)
            else:
                work, handed = float(fanout.sum()) * len(x), x.numel()
                if self.mode == "zeros":
                    work, handed = _carried(x, fanout, False)
                self._add(name, state_reads=x.numel(), state_writes=output.numel())
                self._add(name, spikes=handed, sites=x.numel())
            self._add(name, synops=work, adds=work, weight_reads=work)
            self._add(name, multiplies=0.0 if spiking else work)

        return hook

    def _function_hook(self, name: str):
        def hook(module: Difference, args: tuple, output: tuple[Tensor, Any]) -> None:
            y, shapes = output[0], [x.shape[2:] for x in args if torch.is_tensor(x)]
            work = module.as_op().work(tuple(y.shape[2:]), *map(tuple, shapes))
            self._add(name, **{field: value * len(y) * y.shape[1] for field, value in work.items()})

        return hook

    def _fanout(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        key = (name, x.shape[1:])
        if key not in self._fanouts:
            self._fanouts[key] = fanout(layer, x).double()
        return self._fanouts[key]


def fanout(layer: nn.Module, x: Tensor) -> Tensor:
    """How many weights of a layer each entry of one sample of `x` [B, ...] meets, [...]."""
    ones = copy.copy(layer)
    with torch.inference_mode(False), torch.enable_grad():
        vars(ones)["_parameters"] = {
            "weight": torch.ones_like(layer.get_parameter("weight")).float(),
            "bias": None,
        }
        probe = torch.zeros(1, *x.shape[1:], requires_grad=True, device=x.device)
        (weights,) = torch.autograd.grad(type(layer).forward(ones, probe).sum(), probe)
    return weights[0].round()


def _nonzero(x: Tensor) -> float:
    return float(torch.count_nonzero(x))


def _carried(events: Tensor, fanout: Tensor, spiking: bool) -> tuple[float, float]:
    """Synaptic operations of `events` [B, ...], each with the fan-out [...] of its place, and
    how many events there are. A spike of s counts |s| times, anything else that is not zero once.
    """
    if events.device.type != "cpu" or events.dtype != torch.float32:
        carried = (events.abs() if spiking else events != 0).sum(0, dtype=torch.float64)
        return float((carried * fanout).sum()), float(carried.sum())
    rows = events.detach().reshape(len(events), -1).numpy()
    flat, threads = fanout.reshape(-1).numpy(), max(1, min(torch.get_num_threads(), len(rows)))

    def carry(_: int, first: int, last: int) -> Any:
        return _carry(rows[first:last], flat, spiking)

    work, count = np.sum(run_in_parts(carry, len(rows), threads, threads), 0)
    return float(work), float(count)


@njit(nogil=True, cache=True, fastmath={"reassoc"})  # sums of integers: exact in any order
def _carry(rows, fanout, spiking):
    """The same; counting with torch took as long as the convolutions themselves."""
    work, count = 0.0, 0.0
    for b in range(len(rows)):
        for n in range(rows.shape[1]):
            event = abs(rows[b, n]) if spiking else np.float32(rows[b, n] != 0)
            work += event * fanout[n]
            count += event
    return work, count
