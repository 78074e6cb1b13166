"""Where a step of training stopped being finite."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .distributed import part


def culprit(
    network: nn.Module,
    batch: Mapping[str, Tensor],
    loss: Callable[[], tuple[Tensor, Any]],
    step: int,
) -> str:
    """Run the loss of a step again and find what was the first not to be finite.

    The gradients of `network`, which `loss` runs, are overwritten.

    Returns:
        Half a sentence that names the input, the layer or the parameter; "" if all is finite.
    """
    inside: list[str] = []
    found: list[str] = []

    def enter(name, module, args):
        inside.append(name)

    def leave(name, module, args, output):
        inside.remove(name)
        if not found and _bad(output):
            found.append(f"{name} is the first layer whose output is not finite")

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
    loud = f"the loss is {value.item()} at step {step}: "
    if inputs := [name for name, tensor in batch.items() if _bad(tensor)]:
        return f"{loud}the input {inputs[0]!r} is not finite; repair the data"
    if inside and not found:  # a layer refused to go on
        found.append(f"{inside[-1]} is the first layer whose neurons are not finite")
    if found:
        return f"{loud}{found[0]}; lower the learning rate"
    if _bad(value):
        return f"{loud}the output of every layer is finite; look at the loss itself"
    # Gradients run from the last layer to the first: the last is the nearest to the source.
    if bad := [name for name, p in network.named_parameters() if _bad(p.grad)]:
        return f"the gradient of {bad[-1]} is not finite at step {step}; lower the learning rate"
    return ""


def _bad(value: object) -> bool:
    tensors = [part(t.detach()) for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return not all(t.isfinite().all() for t in tensors)
