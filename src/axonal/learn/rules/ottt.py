"""Online training through time: space within the step, traces of inputs for the steps before."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...nn import Neuron, Recurrent
from ...nn.hooks import MAPS
from .base import Rule, add_gradient, in_parts, one_decay


def ottt(trace: float | None = None) -> Rule:
    """Online training through time (Xiao et al. 2022, arXiv 2210.04195).

    As SLTT, but linear maps and convolutions learn from the trace a[t] = decay a[t-1] + s[t] of
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
                hooks.enter_context(layer.register_forward_hook(_trace_hook(decay)))
            return in_parts(network, x, objective, 1)

    return rule


def _decays(network: nn.Module, trace: float | None) -> dict[nn.Module, float]:
    """The linear maps and convolutions that feed neurons, with the decay of their traces."""
    decays: dict[nn.Module, float] = {}
    waiting: list[nn.Module] = []
    for name, module in network.named_modules(remove_duplicate=False):
        if getattr(module, "recompute", False):
            raise InputError("ottt: layers that run twice have no trace; leave out recompute")
        if isinstance(module, Recurrent):
            waiting += [part for part in module.connection.modules() if isinstance(part, MAPS)]
        elif isinstance(module, MAPS) and module not in decays:
            waiting.append(module)
        elif isinstance(module, Neuron) and waiting:
            decay = one_decay(module) if trace is None else trace
            if decay is None:
                raise InputError(
                    f"ottt: the neurons {name!r} ({type(module.dynamics).__name__}) have no one "
                    "decay that the traces before them could take; give `trace`, or take e-prop"
                )
            decays, waiting = decays | dict.fromkeys(waiting, decay), []
    return decays


def _trace_hook(decay: float) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
    """A forward hook of a layer y = W s[t] + b, which adds the gradient of earlier steps.

    This is that of W (a[t] - s[t]) + n b, n the weight that the trace gives to earlier steps.
    """
    earlier, count = torch.zeros(()), 0.0

    def hook(layer: Any, args: tuple[Tensor], y: Tensor) -> Tensor:
        nonlocal earlier, count
        y = add_gradient(y, count * layer.forward(earlier / count)) if count else y
        earlier, count = decay * (earlier + args[0].detach()), decay * (count + 1)
        return y

    return hook
