"""Where a step of training stopped being finite."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .processes import part


def culprit(
    network: nn.Module, batch: Mapping[str, Tensor], loss: Callable[[], Tensor], step: int
) -> str:
    """Run the loss of a step again and find what was the first not to be finite.

    Args:
        network: what the loss runs; its gradients are overwritten.
        batch: what the loss reads.
        loss: runs forward.
        step: its number, for the sentence.

    Returns:
        Half a sentence that names the input, the layer or the parameter; "" if all is finite.
    """
    found: list[str] = []
    inside: list[str] = []

    def enter(name: str):
        return lambda module, args: inside.append(name)

    def leave(name: str):
        def check(module, args, output):
            inside.remove(name)
            if not found and _bad(output):
                found.append(f"{name} is the first layer whose output is not finite")

        return check

    named = {f"{n or 'network'} ({type(m).__name__})": m for n, m in network.named_modules()}
    handles = [m.register_forward_pre_hook(enter(name)) for name, m in named.items()]
    handles += [m.register_forward_hook(leave(name)) for name, m in named.items()]
    network.zero_grad()
    value = loss()
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
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    # Gradients run from the last layer to the first: the last is the nearest to the source.
    if bad := [name for name, gradient in gradients.items() if _bad(gradient)]:
        return f"the gradient of {bad[-1]} is not finite at step {step}; lower the learning rate"
    return ""


def _bad(value: object) -> bool:
    tensors = [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return not all(bool(part(t.detach()).isfinite().all()) for t in tensors)
