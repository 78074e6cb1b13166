"""Rules that learn as time goes on, in memory that doesn't grow with it.

Each runs a few steps, takes their gradient, adds it to a buffer and cuts the state from what made
it. The loss is the mean of the parts', weighted by their steps: for the cross-entropy of every step
the loss itself, but not for one of an average over time (a rate). What x was made from gets no
gradient. Where no gradients are wanted, all steps run at once.
"""

from collections.abc import Callable, Container
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.neurons import Leaky
from ...nn.hooks import MAPS
from ...nn.layers import Delay, DelayedLinear, Recurrent
from ...nn.neurons import Neuron

Rule = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]


def truncated(steps: int) -> Rule:
    """Backpropagation through `steps` steps at a time (Williams and Peng 1990, Neural Comput. 2).

    With one step it is SLTT: gradients through space alone (Meng et al. 2023, arXiv 2302.14311).

    Raises:
        InputError: `steps` below 1. The rule: a delay reaches trained layers across the cut.
    """
    if steps < 1:
        raise InputError(f"truncated: {steps} steps; give at least 1")
    return lambda network, x, objective: in_parts(network, x, objective, steps)


def sltt_k(k: int, generator: torch.Generator | None = None) -> Rule:
    """SLTT at k steps only, drawn anew in every call (Meng et al. 2023).

    As in the authors' code gradients are not scaled up by T / k; the loss is that of all steps.
    A `generator`, on the CPU, draws the steps.

    Raises:
        InputError: k below 1. The rule: as `truncated`.
    """
    if k < 1:
        raise InputError(f"sltt-k: k {k}; give at least 1")
    return lambda network, x, objective: in_parts(
        network, x, objective, 1, torch.randperm(len(x), generator=generator)[:k].tolist()
    )


def ottt(trace: float | None = None) -> Rule:
    """Online training through time (Xiao et al. 2022, arXiv 2210.04195).

    As SLTT, but linear maps and convolutions are taught by the trace a[t] = decay a[t-1] + s[t] of
    their input in place of s[t]: the path from a membrane to the next one stays, those through
    spikes across time go. Other parameters learn as under SLTT. For neurons whose only memory is
    a leak (reset "subtract", "late" or "none", its gradient detached) the last population of
    neurons, and what stands behind it without a state, get the gradient of BPTT.

    Args:
        trace: the decay of all traces; None for that of the neurons that a layer feeds. Layers
            that feed none have no trace.

    Raises:
        InputError: `trace` outside [0, 1]. The rule: as `truncated`, a layer that feeds neurons
            without one decay, or `recompute`.
    """
    if trace is not None and not 0 <= trace <= 1:
        raise InputError(f"ottt: trace {trace} is outside [0, 1]")

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        with ExitStack() as hooks:
            for layer, decay in _decays(network, trace).items():
                hooks.enter_context(layer.register_forward_hook(_by_trace(decay)))
            return in_parts(network, x, objective, 1)

    return rule


def in_parts(
    network: nn.Module, x: Tensor, objective: Callable, steps: int, chosen: Container | None = None
) -> tuple[Tensor, Tensor]:
    """A `Rule` that cuts the state every `steps` steps; only parts that begin at `chosen` teach."""
    _check(network, steps)
    teaching = torch.is_grad_enabled()
    steps = steps if teaching else max(1, len(x))
    parameters = [p for p in network.parameters() if p.requires_grad]
    sums: list[Any] = [None] * len(parameters)
    outputs, state, loss = x, None, x.new_zeros(())
    for begin in range(0, max(1, len(x)), steps):  # no step at all: the network says so
        part = x[begin : begin + steps].detach()
        with torch.set_grad_enabled(teaching and (chosen is None or begin in chosen)):
            y, state = network(part, state)
            value = objective(y) * (len(part) / len(x))
        if value.requires_grad:
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            # Not in place: gradients of several parameters may share memory.
            pairs = zip(sums, found, strict=True)
            sums = [b if a is None else a if b is None else a + b for a, b in pairs]
        state, loss = _cut(state), loss + value.detach()
        if not begin:  # one tensor: many small ones would litter the heap
            outputs = y.new_empty(len(x), *y.shape[1:])
        outputs[begin : begin + steps] = y.detach()
    pairs = zip(parameters, sums, strict=True)
    return taught(loss, sum((p * g).sum() for p, g in pairs if g is not None)), outputs


def taught(value: Tensor, teacher: Tensor | float) -> Tensor:
    """`value`, whose backward pass is also that of `teacher`."""
    return value + (teacher - teacher.detach()) if isinstance(teacher, Tensor) else value


def _cut(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(_cut(part) for part in state)
    return state.detach() if isinstance(state, Tensor) else state


def _check(network: nn.Module, steps: int) -> None:
    trained = False
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, Delay | DelayedLinear) and trained and module.most >= steps:
            raise InputError(
                f"{type(module).__name__} {name!r} hands on what trained layers sent up to "
                f"{module.most} steps ago, which gradients over {steps} steps don't reach; put it "
                f"first, or take truncated with more than {module.most} steps, or bptt"
            )
        trained = trained or any(p.requires_grad for p in module.parameters(recurse=False))


def _decays(network: nn.Module, trace: float | None) -> dict[nn.Module, float]:
    """The linear maps and convolutions that feed neurons, with the decay of their traces."""
    found: dict[nn.Module, float] = {}
    waiting: list[nn.Module] = []
    for name, module in network.named_modules(remove_duplicate=False):
        if getattr(module, "recompute", False):
            raise InputError("ottt: layers that run twice have no trace; leave out recompute")
        if isinstance(module, Recurrent):
            waiting += [part for part in module.connection.modules() if isinstance(part, MAPS)]
        elif isinstance(module, MAPS) and module not in found:
            waiting.append(module)
        elif isinstance(module, Neuron) and waiting:
            decay = one_decay(module) if trace is None else trace
            if decay is None:
                raise InputError(
                    f"ottt: the neurons {name!r} ({type(module.dynamics).__name__}) have no one "
                    "decay that the traces before them could take; give `trace`, or take e-prop"
                )
            found, waiting = found | dict.fromkeys(waiting, decay), []
    return found


def one_decay(neuron: Neuron) -> float | None:
    """The decay of neurons whose state is a leaky membrane, if it is the same for all of them."""
    value = neuron.value("decay") if isinstance(neuron.dynamics, Leaky) else None
    if not isinstance(value, Tensor):
        return value
    return value.item() if value.numel() == 1 else None


def _by_trace(decay: float) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
    """A forward hook: beside y = W s[t] + b, W (a[t] - s[t]) + n b teaches the layer, n the weight
    that the trace gives to earlier steps."""
    before, count = torch.zeros(()), 0.0

    def teach(layer: Any, args: tuple[Tensor], y: Tensor) -> Tensor:
        nonlocal before, count
        y = taught(y, count * layer.forward(before / count)) if count else y
        before, count = decay * (before + args[0].detach()), decay * (count + 1)
        return y

    return teach
