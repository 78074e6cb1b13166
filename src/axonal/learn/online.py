"""Rules that learn as time goes on, in memory that doesn't grow with it.

Each runs a few steps, takes their gradient, adds it to a buffer and cuts the state from what made
it. An objective is a mean over steps, so that the loss is the sum of the parts', each weighted by
its share of the steps: for the cross-entropy of every step the loss itself, for one of an average
over time (a rate) the mean of the parts' own. What x was made from gets no gradient.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from ..core.errors import InputError
from ..core.kinds import Leaky
from ..nn.layers import Delay, DelayedLinear, Recurrent
from ..nn.neurons import Neuron
from ..nn.watch import MAPS

Rule = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]
Gradients = Sequence[Tensor | None]


def truncated(steps: int) -> Rule:
    """Backpropagation through `steps` steps at a time (Williams and Peng 1990, Neural Comput. 2).

    With one step it is SLTT: gradients through space alone (Meng et al. 2023, arXiv 2302.14311).

    Raises:
        InputError: `steps` below 1. The rule: a delay hands on outputs of trained layers from
            before the cut.
    """
    if steps < 1:
        raise InputError(f"truncated: {steps} steps; give at least 1")
    return lambda network, x, objective: in_parts(network, x, objective, steps)


def sltt_k(k: int, generator: torch.Generator | None = None) -> Rule:
    """SLTT at k steps only, drawn anew in every call (Meng et al. 2023).

    As in the authors' code gradients are not scaled up by T / k; the loss is that of all steps.

    Args:
        k: how many steps; all where T is smaller.
        generator: draws them; None for torch's own.

    Raises:
        InputError: k below 1. The rule: as `truncated`.
    """
    if k < 1:
        raise InputError(f"sltt-k: k {k}; give at least 1")

    def rule(network: nn.Module, x: Tensor, objective: Callable[[Tensor], Tensor]):
        device = generator.device if generator else None
        chosen = torch.randperm(len(x), generator=generator, device=device)[:k].tolist()
        return in_parts(network, x, objective, 1, chosen)

    return rule


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

    def rule(network: nn.Module, x: Tensor, objective: Callable[[Tensor], Tensor]):
        with _tracing(_decays(network, trace)):
            return in_parts(network, x, objective, 1)

    return rule


def in_parts(
    network: nn.Module,
    x: Tensor,
    objective: Callable[[Tensor], Tensor],
    steps: int,
    chosen: Container[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """A `Rule` that cuts the state every `steps` steps.

    Args:
        network, x, objective: as of any rule.
        steps: in a part.
        chosen: the first steps of the parts that teach; None for all.
    """
    _check(network, steps)
    parameters = [p for p in network.parameters() if p.requires_grad]
    sums: Gradients = [None] * len(parameters)
    outputs: Any = None
    state, loss, teaching = None, x.new_zeros(()), torch.is_grad_enabled()
    for begin in range(0, max(1, len(x)), steps):  # no step at all: the network says so
        part = x[begin : begin + steps].detach()
        with torch.set_grad_enabled(teaching and (chosen is None or begin in chosen)):
            y, state = network(part, state)
            value = objective(y) * (len(part) / len(x))
        if value.requires_grad:
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            sums = added(sums, found)
        state, loss = _cut(state), loss + value.detach()
        if outputs is None:  # one tensor: many small ones would litter the heap
            outputs = y.new_empty(len(x), *y.shape[1:])
        outputs[begin : begin + steps] = y.detach()
    return carried(loss, parameters, sums), outputs


def added(sums: Gradients, found: Gradients) -> Gradients:
    """Their sums, one by one. Not in place: gradients of several parameters may share memory."""
    pairs = zip(sums, found, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]


def carried(value: Tensor, parameters: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """`value`, whose backward pass hands `gradients` to `parameters`, times its own gradient."""
    return _Carried.apply(value, gradients, *parameters)


class _Carried(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Gradients, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        return None, None, *(g if g is None else g * grad for g in ctx.gradients)


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


@contextmanager
def _tracing(decays: Mapping[nn.Module, float]) -> Iterator[None]:
    """While the context is open, weights of these layers are taught by traces of their input."""
    handles = []
    for layer, decay in decays.items():
        layer.forward = traced = _Traced(layer, decay)
        if isinstance(bias := layer.bias, Tensor) and bias.requires_grad:
            handles.append(bias.register_hook(traced.of_bias))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in decays:
            del layer.forward


class _Traced:
    """A layer's forward that keeps for the backward pass, in place of its input, the trace.

    What autograd multiplies with the output's gradient to get that of the weights is the input
    that it kept; so it kept another one.
    """

    def __init__(self, layer: Any, decay: float):
        self.layer, self.forward, self.decay = layer, layer.forward, decay
        self.trace, self.ones = None, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):  # or the layer would keep a copy of its own
            x = x.to(torch.get_autocast_dtype(x.device.type))
        self.trace = x.detach() if self.trace is None else self.decay * self.trace + x.detach()
        self.ones = self.decay * self.ones + 1
        trace, kept = self.trace, 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            if tensor.data_ptr() != x.data_ptr() or tensor.numel() != x.numel():
                return tensor
            kept += 1
            return trace.reshape(tensor.shape)

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            y = self.forward(x)
        if y.requires_grad and self.layer.get_parameter("weight").requires_grad and kept != 1:
            raise InputError(f"ottt: {self.layer} doesn't keep its input for the backward pass")
        return y

    def of_bias(self, gradient: Tensor) -> Tensor:
        """The gradient of the bias, whose input is 1 in every step."""
        return gradient * self.ones
