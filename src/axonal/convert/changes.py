"""Graphs of changes: a traced network rewritten so that every operation acts on changes alone.

Linear maps do so as they are, without their biases; what does not move adds nothing; activations
become delta neurons. What is neither is refused, with the user's own line.
"""

import copy
import operator
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..core.errors import InputError
from ..nn import Neuron, SigmaDelta

TORCH = Path(torch.__file__).parent
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
LINEAR_MODULES = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.dropout._DropoutNd,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
)
SUMS = {operator.add, operator.sub, operator.iadd, torch.add, torch.sub}
SCALES = {operator.mul, operator.truediv, torch.mul, torch.div}
LINEAR_FUNCTIONS = {
    torch.cat,
    torch.flatten,
    torch.reshape,
    torch.permute,
    torch.mean,
    torch.sum,
    torch.pixel_shuffle,
    torch.pixel_unshuffle,
    F.interpolate,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.pad,
    operator.neg,
    operator.getitem,
    getattr,
}
LINEAR_METHODS = {"view", "reshape", "flatten", "permute", "transpose", "contiguous", "size"}
LINEAR_METHODS |= {"mean", "sum", "squeeze", "unsqueeze", "neg"}


class _Tracer(fx.Tracer):
    """Keeps whole what the conversion has a rule for, and notes the line of every call."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Neuron) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of `model`, sharing its weights, with every activation a module.

    Raises:
        InputError: torch.fx can't follow it, or it returns more than one tensor.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(f"can't trace {type(model).__name__}: {error}") from error
    if not isinstance(graph.output_node().args[0], fx.Node):
        raise InputError(f"{type(model).__name__} must return one tensor")
    dense = fx.GraphModule(_shallow(model), graph, type(model).__name__)
    for node in graph.nodes:
        _undo_in_place(dense, node)
        if (activation := _activation(node)) is not None:
            dense.add_submodule(node.name, activation)
            node.op, node.target = "call_module", node.name
            node.args, node.kwargs = tuple(node.all_input_nodes), {}
    dense.recompile()
    return dense


def _activation(node: fx.Node) -> nn.Module | None:
    """The module that does what the call `node` does, if that is an activation."""
    if node.target in (F.relu, torch.relu) or (node.op, node.target) == ("call_method", "relu"):
        return nn.ReLU()
    if node.target is F.leaky_relu:
        given = dict(zip(("input", "negative_slope"), node.args, strict=False)) | node.kwargs
        return nn.LeakyReLU(given.get("negative_slope", 0.01))
    return None


def graph_of_changes(dense: fx.GraphModule) -> fx.GraphModule:
    """The graph of `trace` for changes of its first argument: neurons for activations, no biases.

    Raises:
        InputError: an operation has no rule, or there is no activation.
    """
    delta = fx.GraphModule(_shallow(dense), copy.deepcopy(dense.graph))
    moving = _moving(delta.graph)
    replaced = 0
    for node in list(delta.graph.nodes):
        if node not in moving or node.op in ("placeholder", "output"):
            continue
        # Asked of `dense`: a neuron may have taken the place of a module that is called again.
        if node.op == "call_module" and isinstance(_module(dense, node), ACTIVATIONS):
            slope = getattr(_module(dense, node), "negative_slope", 0.0)
            delta.add_submodule(node.name, SigmaDelta(0.0, negative_slope=slope))
            node.target = node.name
            replaced += 1
        else:
            _to_changes(delta, node, moving)
    if not replaced:
        raise InputError(f"{type(dense).__name__} has no activation to turn into neurons")
    for node in reversed(list(delta.graph.nodes)):
        if node not in moving and node.op != "output" and not node.users:
            delta.graph.erase_node(node)
    delta.delete_all_unused_submodules()
    delta.recompile()
    return delta


def sources(node: fx.Node, neurons: set[str], first: str) -> set[str]:
    """The populations of `neurons` whose changes `node` reads, through maps without weights.

    The graph's own input goes by the name `first`.
    """
    found, seen, waiting = set(), set(), list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        name = first if source.op == "placeholder" else str(source.target)
        if name in neurons:
            found.add(name)
        elif source not in seen:
            seen.add(source)
            waiting.extend(source.all_input_nodes)
    return found


def _undo_in_place(graph: fx.GraphModule, node: fx.Node) -> None:
    """Make an in-place ReLU an ordinary one, whose result later readers of its input read too."""
    module = _module(graph, node) if node.op == "call_module" else None
    if node.kwargs.get("inplace") or (isinstance(module, ACTIVATIONS) and module.inplace):
        source = node.all_input_nodes[0]
        source.replace_all_uses_with(node, delete_user_cb=lambda user: node < user)
    for child in module.modules() if module else ():
        if isinstance(child, ACTIVATIONS):
            child.inplace = False


def _shallow(module: nn.Module) -> nn.Module:
    """A copy of the tree of modules that shares parameters and buffers, and has its own hooks."""
    twin = copy.copy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called"):
        setattr(twin, hooks, OrderedDict())
    twin._parameters, twin._buffers = dict(module._parameters), dict(module._buffers)
    twin._modules = {name: _shallow(child) for name, child in module._modules.items()}
    return twin


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module:
    return graph.get_submodule(str(node.target))


def _moving(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the first argument."""
    moving: set[fx.Node] = set()
    for node in graph.nodes:
        first = node.op == "placeholder" and not moving
        if first or any(source in moving for source in node.all_input_nodes):
            moving.add(node)
    return moving


def _to_changes(graph: fx.GraphModule, node: fx.Node, moving: set[fx.Node]) -> None:
    """Make `node` act on changes: biases and standing summands have none."""
    standing = [source for source in node.all_input_nodes if source not in moving]
    target, module = node.target, _module(graph, node) if node.op == "call_module" else None
    # Without running statistics a batch norm takes the batch's, which is no linear map.
    if isinstance(module, LINEAR_MODULES) and getattr(module, "running_mean", 0) is not None:
        if getattr(module, "bias", None) is not None:
            module._parameters["bias"] = None
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module._buffers["running_mean"] = torch.zeros_like(module.running_mean)
        return
    summed = target in SUMS or (node.op == "call_method" and target in ("add", "sub"))
    if summed and not node.kwargs:
        _keep_moving_summand(graph.graph, node, moving)
        return
    known = target in LINEAR_FUNCTIONS or (node.op == "call_method" and target in LINEAR_METHODS)
    known = known and not standing and _keeps_zero(node) and _keeps_samples_apart(node)
    if not (known or _scales(node, moving)):
        raise InputError(
            f"no rule to send changes through {node.name} ({_describe(graph, node)}){_line(node)}; "
            "build it of linear maps and ReLU, or leave this part of the network out"
        )


def _keeps_zero(node: fx.Node) -> bool:
    """Whether no change in is no change out, which padding with a value breaks."""
    return not (node.target is F.pad and (node.kwargs.get("value") or any(node.args[3:])))


def _keeps_samples_apart(node: fx.Node) -> bool:
    """Whether a reduction names its dimensions and leaves out the first, the samples."""
    if node.target not in (torch.mean, torch.sum, "mean", "sum"):
        return True
    given = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = given if isinstance(given, list | tuple) else (given, *node.args[2:])
    return all(isinstance(dim, int) and dim != 0 for dim in dims)


def _scales(node: fx.Node, moving: set[fx.Node]) -> bool:
    """Whether `node` multiplies or divides one moving value by numbers or parameters."""
    if node.target not in SCALES or node.kwargs or len(node.args) != 2:
        return False
    first, second = (
        "moving" if arg in moving else isinstance(arg, fx.Node) and arg.op != "get_attr"
        for arg in node.args
    )
    divides = node.target in (operator.truediv, torch.div)
    return (first, second) == ("moving", False) or (
        not divides and second == "moving" and not first
    )


def _keep_moving_summand(graph: fx.Graph, node: fx.Node, moving: set[fx.Node]) -> None:
    first, second = node.args
    if first in moving and second in moving:
        return
    kept, negative = (first, False) if first in moving else (second, "sub" in str(node.target))
    if negative:
        with graph.inserting_before(node):
            kept = graph.call_function(operator.neg, (kept,))
            moving.add(kept)
    node.replace_all_uses_with(kept)
    graph.erase_node(node)


def _describe(graph: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{type(_module(graph, node)).__name__} {node.target}"
    return getattr(node.target, "__name__", str(node.target))


def _line(node: fx.Node) -> str:
    """Where the call stands in the user's code, if the trace recorded it."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    places = [x for x in lines if x.startswith("File ") and str(TORCH) not in x]
    return f" at {places[-1]}" if places else ""
