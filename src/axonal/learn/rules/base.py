"""The type of a rule, and what several rules use: learning in parts, gradients of a substitute.

Online rules run a few steps, take their gradient, add it to a buffer and cut the state from its
history: memory doesn't grow with time. The loss is the mean of the parts', weighted by their steps:
for the cross-entropy of every step the loss itself, but not for one of an average over time (a
rate). The graph behind x gets no gradient. Where no gradients are wanted, all steps run at once.
"""

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.neurons import Leaky
from ...nn.layers import Delay, DelayedLinear
from ...nn.neurons import Neuron

Rule = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]


def in_parts(
    network: nn.Module, x: Tensor, objective: Callable, steps: int, chosen: Container | None = None
) -> tuple[Tensor, Tensor]:
    """A `Rule` that cuts the state every `steps` steps; only parts that begin at `chosen` teach.

    Raises:
        InputError: a delay reaches trained layers across the cut.
    """
    _check_delays(network, steps)
    learning = torch.is_grad_enabled()
    steps = steps if learning else max(1, len(x))
    parameters = [p for p in network.parameters() if p.requires_grad]
    sums: list[Any] = [None] * len(parameters)
    outputs, state, loss = x, None, x.new_zeros(())
    for begin in range(0, max(1, len(x)), steps):  # no step at all: the network says so
        part = x[begin : begin + steps].detach()
        with torch.set_grad_enabled(learning and (chosen is None or begin in chosen)):
            y, state = network(part, state)
            value = objective(y) * (len(part) / len(x))
        if value.requires_grad:
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
            # Not in place: gradients of several parameters may share memory.
            pairs = zip(sums, gradients, strict=True)
            sums = [b if a is None else a if b is None else a + b for a, b in pairs]
        state, loss = _detached(state), loss + value.detach()
        if not begin:  # one tensor: many small ones would litter the heap
            outputs = y.new_empty(len(x), *y.shape[1:])
        outputs[begin : begin + steps] = y.detach()
    pairs = zip(parameters, sums, strict=True)
    return add_gradient(loss, sum((p * g).sum() for p, g in pairs if g is not None)), outputs


def add_gradient(value: Tensor, substitute: Tensor | float) -> Tensor:
    """`value` as it is, whose backward pass is also that of `substitute`."""
    if isinstance(substitute, Tensor):
        return value + (substitute - substitute.detach())
    return value


def one_decay(neuron: Neuron) -> float | None:
    """The decay of neurons whose state is a leaky membrane, if it is the same for all of them."""
    value = neuron.value("decay") if isinstance(neuron.dynamics, Leaky) else None
    if not isinstance(value, Tensor):
        return value
    return value.item() if value.numel() == 1 else None


def _detached(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(_detached(part) for part in state)
    return state.detach() if isinstance(state, Tensor) else state


def _check_delays(network: nn.Module, steps: int) -> None:
    trained = False
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, Delay | DelayedLinear) and trained and module.most >= steps:
            raise InputError(
                f"{type(module).__name__} {name!r} hands on what trained layers sent up to "
                f"{module.most} steps ago, which gradients over {steps} steps don't reach; put it "
                f"first, or take truncated with more than {module.most} steps, or bptt"
            )
        trained = trained or any(p.requires_grad for p in module.parameters(recurse=False))
