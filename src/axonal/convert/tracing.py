"""Networks followed by torch.fx, and what each of their operations is to a conversion."""

import copy
import operator
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..core.errors import InputError
from ..nn import QCFS, Neuron
from .attention import join, unrolled

TORCH = Path(torch.__file__).parent
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
RECTIFIERS = (*ACTIVATIONS, nn.ReLU6, nn.PReLU, QCFS)
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
DIVIDES = {operator.truediv, torch.div}
SCALES = {operator.mul, torch.mul, *DIVIDES}
LINEAR_FUNCTIONS = {
    torch.cat,
    torch.flatten,
    torch.reshape,
    torch.permute,
    torch.transpose,
    torch.mean,
    torch.sum,
    torch.pixel_shuffle,
    torch.pixel_unshuffle,
    F.interpolate,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.pad,
    F.dropout,
    operator.neg,
    operator.getitem,
    getattr,
}
LINEAR_METHODS = {"view", "reshape", "flatten", "permute", "transpose", "contiguous", "size"}
LINEAR_METHODS |= {"mean", "sum", "squeeze", "unsqueeze", "neg", "unflatten", "expand"}
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d)
PRODUCTS = {torch.matmul, torch.bmm, operator.matmul, operator.mul, torch.mul}
PRODUCTS |= {F.scaled_dot_product_attention}
MATRIX_PRODUCTS = {torch.matmul, operator.matmul}
# What is neither linear nor a rectifier, and treats samples alike.
CURVED_MODULES = (nn.MaxPool1d, nn.MaxPool2d, nn.Softmax, nn.LayerNorm, nn.GELU, nn.SiLU)
CURVED_MODULES += (nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.ELU, nn.Softplus)
CURVED = {
    *(torch.softmax, F.softmax, F.layer_norm, F.gelu, F.silu, torch.sigmoid, torch.tanh),
    *(F.max_pool1d, F.max_pool2d, "softmax", "sigmoid", "tanh"),
}
Role = Literal["input", "output", "rectifier", "linear", "curved", "product", "still"]
Schedule = Literal["pipelined", "waiting"]


class _Tracer(fx.Tracer):
    """Keeps whole what the conversion has a rule for, and notes the line of every call."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, Neuron | QCFS | nn.Conv2d)
        return known or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of `model`, sharing its weights, with every activation a module.

    Raises:
        InputError: torch.fx can't follow it, or it returns more than one tensor.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(
            f"can't trace {type(model).__name__}: {error}; what runs must not depend on values"
        ) from error
    if not isinstance(graph.output_node().args[0], fx.Node):
        raise InputError(f"{type(model).__name__} must return one tensor")
    dense = fx.GraphModule(shallow(model), graph, type(model).__name__)
    children = {*model._modules}
    for node in graph.nodes:
        if node.name in children and node.name != node.target:
            node._rename(f"{node.name}_called")  # what stands for it later gets the node's name
        _undo_in_place(dense, node)
        if node.op == "call_module" and len(node.kwargs) == 1 and not node.args:
            node.args, node.kwargs = (*node.kwargs.values(),), {}
        if (node.op, node.target) == ("call_method", "view"):
            node.target = "reshape"  # spikes may lie in memory in another order
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
    if node.target is F.relu6:
        return nn.ReLU6()
    if node.target is F.leaky_relu:
        given = dict(zip(("input", "negative_slope"), node.args, strict=False)) | node.kwargs
        return nn.LeakyReLU(given.get("negative_slope", 0.01))
    return None


def prepared(model: nn.Module, schedule: Schedule = "pipelined") -> fx.GraphModule:
    """The graph of `trace` in evaluation, batch norms part of the weights before them.

    A maximum of what a rectifier returns is the same as a rectified maximum. In a pipelined
    network it is taken first, so that what is sent on are spikes; in one that waits last, for
    there it is known of spikes alone.

    Raises:
        InputError: as `trace`, or a batch norm has no statistics.
    """
    dense = trace(unrolled(copy.deepcopy(model).eval()))
    moving = moves(dense.graph)
    for node in list(dense.graph.nodes):
        module = module_of(dense, node)
        if node.target in (torch.cat, torch.concat) and node in moving:
            join(node, moving)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _fuse(dense, node, module)
        elif isinstance(module, MAXIMA) or node.target in (F.max_pool1d, F.max_pool2d):
            reader = next(iter(node.users))
            pair = (node, reader) if schedule == "waiting" else (node.all_input_nodes[0], node)
            _exchange(dense, *pair)
    for node in dense.graph.nodes:
        # By the node's name: a module that is called twice is two populations.
        if isinstance(module := module_of(dense, node), RECTIFIERS):
            node.target = node.name
            dense.add_submodule(node.name, module)
    dense.graph.lint()
    dense.delete_all_unused_submodules()
    dense.recompile()
    return dense


def _fuse(dense: fx.GraphModule, node: fx.Node, norm: nn.Module) -> None:
    counted, mean, spread = norm.num_batches_tracked, norm.running_mean, norm.running_var
    # Weights of elsewhere may lack the counter; their statistics are not those of a new norm.
    new = counted is not None and not int(counted)
    if mean is None or (new and not bool(mean.any()) and bool((spread == 1).all())):
        raise InputError(
            f"{node.target} is a batch norm without statistics of data{line(node)}; train the "
            "model with track_running_stats=True"
        )
    before = node.all_input_nodes[0]
    layer = module_of(dense, before)
    fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    calls = sum(n.target == before.target for n in dense.graph.nodes)
    plain = isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and calls == 1
    if isinstance(layer, nn.Linear):  # the norm may be of tokens, and not of features
        plain = plain and layer.out_features == norm.num_features
    if plain and len(before.users) == 1:
        dense.add_submodule(f"{before.name}_fused", fuse(layer, norm))
        before.target = f"{before.name}_fused"
        node.replace_all_uses_with(before)
        dense.graph.erase_node(node)
    elif isinstance(norm, nn.BatchNorm2d):
        _spread(dense, node, norm)


def _spread(dense: fx.GraphModule, node: fx.Node, norm: nn.BatchNorm2d) -> None:
    """A batch norm as what it does: a factor and a sum for each channel."""
    ones = torch.ones_like(norm.running_mean)
    factor = (ones if norm.weight is None else norm.weight) * (norm.running_var + norm.eps).rsqrt()
    shift = (0 * ones if norm.bias is None else norm.bias) - norm.running_mean * factor
    found = node.all_input_nodes[0]
    for run, value in ((torch.mul, factor), (torch.add, shift)):
        name = f"{node.name}_{run.__name__}"
        dense.register_buffer(name, value.detach().reshape(-1, 1, 1))
        with dense.graph.inserting_before(node):
            found = dense.graph.call_function(run, (found, dense.graph.get_attr(name)))
        found.meta |= node.meta
    node.replace_all_uses_with(found)
    dense.graph.erase_node(node)


def _exchange(dense: fx.GraphModule, first: fx.Node, second: fx.Node) -> None:
    """Let a maximum and a rectifier that alone reads it, or the reverse, change places."""
    rectifies = [isinstance(module_of(dense, node), RECTIFIERS) for node in (first, second)]
    if any(rectifies) and len(first.users) == 1:
        second.replace_input_with(first, first.all_input_nodes[0])
        second.replace_all_uses_with(first)
        first.replace_input_with(first.all_input_nodes[0], second)
        second.append(first)


def roles(dense: fx.GraphModule) -> dict[fx.Node, Role]:
    """What each node of a prepared graph is to a conversion.

    Raises:
        InputError: an operation without a rule, with its line.
    """
    moving, found = moves(dense.graph), {}
    for node in dense.graph.nodes:
        if node not in moving or is_size(node):
            found[node] = "still"
        elif node.op in ("placeholder", "output"):
            found[node] = "input" if node.op == "placeholder" else "output"
        else:
            found[node] = _role(dense, node, moving)
    return found


def _role(dense: fx.GraphModule, node: fx.Node, moving: set[fx.Node]) -> Role:
    module, both = module_of(dense, node), [n for n in node.all_input_nodes if n in moving]
    if isinstance(module, RECTIFIERS):
        return "rectifier"
    if is_linear(dense, node, moving) or is_sum(node):
        return "linear"
    alone = len(node.all_input_nodes) == 1
    if alone and (isinstance(module, CURVED_MODULES) or node.target in CURVED):
        return "curved"
    if node.target in PRODUCTS and all(isinstance(arg, fx.Node) for arg in node.args):
        if {*node.args} == {*both} == {*node.all_input_nodes}:
            return "product"
        if node.target in MATRIX_PRODUCTS and both == [node.args[0]]:
            return "linear"
    raise InputError(
        f"no rule to convert {node.name} ({describe(dense, node)}){line(node)}; build it of "
        "convolutions, linear layers, norms, pooling, sums, concatenations, attention and "
        "activations, or leave this part of the network out"
    )


def rectifiers(dense: fx.GraphModule) -> dict[str, float]:
    """The slope below 0 of each rectifier by its node's name.

    Raises:
        InputError: there is none, a slope is outside [0, 1], or as `roles`.
    """
    found = {}
    for node in roles(dense):
        module = module_of(dense, node)
        if not isinstance(module, RECTIFIERS):
            continue
        slope = float(getattr(module, "negative_slope", 0.0))
        if isinstance(module, nn.PReLU):
            if module.weight.numel() > 1:
                raise InputError(f"{node.name} has a slope for each channel{line(node)}; use one")
            slope = float(module.weight.detach())
        if not 0 <= slope <= 1:
            raise InputError(f"{node.name} has slope {slope:g} below 0{line(node)}; 0 to 1 work")
        found[node.name] = slope
    if not found:
        raise InputError(f"{type(dense).__name__} has no rectifier; nothing would be converted")
    return found


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds or subtracts, unscaled."""
    named = node.op == "call_method" and node.target in ("add", "sub")
    return (node.target in SUMS or named) and not node.kwargs


def is_linear(dense: fx.GraphModule, node: fx.Node, moving: set[fx.Node]) -> bool:
    """Whether a node is an affine map of one moving value, sums with others aside."""
    module = module_of(dense, node)
    # Without running statistics a batch norm takes the batch's, which is no linear map.
    if isinstance(module, LINEAR_MODULES):
        return getattr(module, "running_mean", 0) is not None
    known = node.target in LINEAR_FUNCTIONS
    known = known or (node.op == "call_method" and node.target in LINEAR_METHODS)
    known = known and all(m in moving or is_size(m) for m in node.all_input_nodes)
    known = known and _keeps_zero(node) and _keeps_samples_apart(node)
    known = known and not node.kwargs.get("training")  # of dropout
    return known or _scales(node, moving)


def moves(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the values of the first argument, and its shapes."""
    moving: set[fx.Node] = set()
    for node in graph.nodes:
        first = node.op == "placeholder" and not moving
        if first or any(m in moving and not is_size(m) for m in node.all_input_nodes):
            moving.add(node)
    return moving


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


def shallow(module: nn.Module) -> nn.Module:
    """A copy of the tree of modules that shares parameters and buffers, and has its own hooks."""
    twin = copy.copy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called"):
        setattr(twin, hooks, OrderedDict())
    twin._parameters, twin._buffers = dict(module._parameters), dict(module._buffers)
    twin._modules = {name: shallow(child) for name, child in module._modules.items()}
    return twin


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that `node` calls, if it calls one."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def describe(graph: fx.GraphModule, node: fx.Node) -> str:
    """What a node calls, for people."""
    if (module := module_of(graph, node)) is not None:
        return f"{type(module).__name__} {node.target}"
    return getattr(node.target, "__name__", str(node.target))


def line(node: fx.Node) -> str:
    """Where the call stands in the user's code, if the trace recorded it."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    places = [x for x in lines if x.startswith("File ") and str(TORCH) not in x]
    return f" at {places[-1]}" if places else ""


def _undo_in_place(graph: fx.GraphModule, node: fx.Node) -> None:
    """Make an in-place ReLU an ordinary one, whose result later readers of its input read too."""
    module = module_of(graph, node)
    if node.kwargs.get("inplace") or (module is not None and getattr(module, "inplace", False)):
        source = node.all_input_nodes[0]
        source.replace_all_uses_with(node, delete_user_cb=lambda user: node < user)
    for child in module.modules() if module is not None else ():
        if hasattr(child, "inplace"):
            child.inplace = False


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
    (first, second), divides = node.args, node.target in DIVIDES
    return (first in moving and _stands(second)) or (
        not divides and second in moving and _stands(first)
    )


def _stands(arg: Any) -> bool:
    """Whether an argument is the same for all samples: of numbers, parameters and sizes."""
    if not isinstance(arg, fx.Node) or is_size(arg):
        return True
    return arg.op != "placeholder" and all(_stands(source) for source in arg.all_input_nodes)


def is_size(node: fx.Node) -> bool:
    """Whether a node is what a shape says, or computed from that alone."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    read = node.all_input_nodes if node.op == "call_function" else []
    return bool(read) and all(is_size(source) for source in read)
