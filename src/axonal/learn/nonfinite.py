"""Where a step of training stopped being finite."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .distributed import to_local


def first_nonfinite(
    network: nn.Module,
    batch: Mapping[str, Tensor],
    loss: Callable[[], tuple[Tensor, Any]],
    step: int,
) -> str:
    """Run the loss of a step again and name what was the first not to be finite.

    The gradients of `network`, which `loss` runs, are overwritten.

    Returns:
        Half a sentence that names the input, the layer or the parameter; "" if all is finite.
    """
    running: list[str] = []
    causes: list[str] = []

    def enter(name, module, args):
        running.append(name)

    def leave(name, module, args, output):
        running.remove(name)
        if not causes and not _is_finite(output):
            causes.append(f"{name} is the first layer whose output is not finite")

    handles = []
    for path, module in network.named_modules():
        name = f"{path or 'network'} ({type(module).__name__})"
        handles.append(module.register_forward_pre_hook(partial(enter, name)))
        handles.append(module.register_forward_hook(partial(leave, name)))
    network.zero_grad()
    value, _ = loss()
    for handle in handles:
        handle.remove()
    value.backward()
    symptom = f"the loss is {value.item()} at step {step}: "
    if inputs := [name for name, tensor in batch.items() if not _is_finite(tensor)]:
        return f"{symptom}the input {inputs[0]!r} is not finite; repair the data"
    if running and not causes:  # a layer refused to go on
        causes.append(f"{running[-1]} is the first layer whose neurons are not finite")
    if causes:
        return f"{symptom}{causes[0]}; lower the learning rate"
    if not _is_finite(value):
        return f"{symptom}the output of every layer is finite; look at the loss itself"
    # Gradients run from the last layer to the first: the last is the nearest to the source.
    if names := [name for name, p in network.named_parameters() if not _is_finite(p.grad)]:
        return f"the gradient of {names[-1]} is not finite at step {step}; lower the learning rate"
    return ""


def _is_finite(value: object) -> bool:
    tensors = [to_local(t.detach()) for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return all(t.isfinite().all() for t in tensors)
