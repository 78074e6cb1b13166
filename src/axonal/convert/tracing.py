"""Networks recorded as graphs, and what each of their operations is to a conversion."""

import copy
from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..core.errors import InputError
from ..graph.operators import Operator
from ..nn import ClippedReLU, Neuron
from ..nn.interpreter import Recorder, arguments_of, describe, line, module_of, operator_of, row_of
from .attention import join, unrolled
from .outputs import join_outputs
from .plain import plain

Role = Literal["input", "output", "rectifier", "linear", "nonlinear", "product", "constant"]
Schedule = Literal["pipelined", "waiting"]
REMEDY = (
    "build it of convolutions, linear layers, norms, pooling, sums, concatenations, attention and "
    "activations, or leave this part of the network out"
)
SUMS, SCALES, MAXIMA = ("add", "sub"), ("mul", "div"), ("max_pool1d", "max_pool2d")


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of `model`, sharing its weights, with every activation a module.

    Several outputs are joined (`outputs`); `structure` has what they were, None for one.

    Raises:
        InputError: torch.fx can't follow it, or it returns anything but tensors.
    """
    try:
        graph = Recorder(_is_leaf).trace(model)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(
            f"can't trace {type(model).__name__}: {error}; what runs must not depend on values"
        ) from error
    structure = join_outputs(graph, type(model).__name__)
    dense = fx.GraphModule(shallow(model), graph, type(model).__name__)
    dense.structure = structure
    children = {*model._modules}
    for node in graph.nodes:
        if node.name in children and node.name != node.target:
            node._rename(f"{node.name}_called")  # what stands for it later gets the node's name
        _undo_in_place(dense, node)
        if node.op == "call_module" and len(node.kwargs) == 1 and not node.args:
            node.args, node.kwargs = (*node.kwargs.values(),), {}
        if (node.op, node.target) == ("call_method", "view"):
            node.target = "reshape"  # spikes may lie in memory in another order
        if (activation := _activation(dense, node)) is not None:
            dense.add_submodule(node.name, activation)
            node.op, node.target = "call_module", node.name
            node.args, node.kwargs = tuple(node.all_input_nodes), {}
    dense.recompile()
    return dense


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, Neuron) or row_of(module) is not None


def _activation(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that does what the call `node` does, if that is an activation."""
    if node.target in (F.relu, torch.relu) or (node.op, node.target) == ("call_method", "relu"):
        return nn.ReLU()
    if node.target is F.relu6:
        return nn.ReLU6()
    if (span := _clip_of(graph, node)) is not None and span[0] == 0:
        return ClippedReLU(span[1])
    if node.target is F.leaky_relu:
        options = dict(zip(("input", "negative_slope"), node.args, strict=False)) | node.kwargs
        return nn.LeakyReLU(options.get("negative_slope", 0.01))
    return None


def _clip_of(graph: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
    """The ends of a clip by two numbers, if `node` is one."""
    row = operator_of(graph, node)
    if row is None or row.name not in ("hardtanh", "clamp"):
        return None
    arguments = arguments_of(graph, node, row)
    low = arguments.get("min_val", -1.0) if row.name == "hardtanh" else arguments.get("min")
    high = arguments.get("max_val", 1.0) if row.name == "hardtanh" else arguments.get("max")
    if isinstance(low, int | float) and isinstance(high, int | float):
        return float(low), float(high)
    return None


def prepared(model: nn.Module, schedule: Schedule = "pipelined") -> fx.GraphModule:
    """The graph of `trace` in evaluation, batch norms part of the weights before them.

    A maximum of what a rectifier returns is the same as a rectified maximum. In a pipelined
    network it is taken first, so that what is sent on are spikes; in one that waits last, for
    there it is known of spikes alone.

    Raises:
        InputError: as `trace`, or a batch norm has no statistics.
    """
    dense = trace(unrolled(plain(model)))
    varying = input_dependent(dense.graph)
    for node in list(dense.graph.nodes):
        module, kind = module_of(dense, node), kind_of(dense, node)
        if kind == "cat" and node in varying:
            join(node, varying)
        if kind == "matmul" and node in varying and node.args[1] not in varying:
            _as_linear(dense, node)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _fuse(dense, node, module)
        elif kind in MAXIMA:
            reader = next(iter(node.users))
            pair = (node, reader) if schedule == "waiting" else (node.all_input_nodes[0], node)
            _exchange(dense, *pair)
    for node in dense.graph.nodes:
        # By the node's name: a module that is called twice is two populations.
        if (module := rectifier_of(dense, node)) is not None:
            node.target = node.name
            dense.add_submodule(node.name, module)
    dense.graph.lint()
    dense.delete_all_unused_submodules()
    dense.recompile()
    return dense


def _as_linear(dense: fx.GraphModule, node: fx.Node) -> None:
    """A product with a constant matrix as a layer, whose weights are synapses."""
    weight = node.args[1]
    matrix = _attribute(dense, weight.target) if weight.op == "get_attr" else None
    if torch.is_tensor(matrix) and matrix.dim() == 2:
        layer = nn.Linear(*matrix.shape, bias=False, device="meta")
        layer.weight = nn.Parameter(matrix.detach().T.contiguous(), requires_grad=False)
        dense.add_submodule(f"{node.name}_linear", layer.eval())
        node.op, node.target = "call_module", f"{node.name}_linear"
        node.args, node.kwargs = node.args[:1], {}


def _attribute(dense: fx.GraphModule, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(dense.get_submodule(owner), name)


def _fuse(dense: fx.GraphModule, node: fx.Node, norm: nn.Module) -> None:
    counted, mean, variance = norm.num_batches_tracked, norm.running_mean, norm.running_var
    # Weights of elsewhere may lack the counter; their statistics are not those of a new norm.
    new = counted is not None and not int(counted)
    if mean is None or (new and not bool(mean.any()) and bool((variance == 1).all())):
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
        spread(dense, node, norm, 3)


def spread(dense: fx.GraphModule, node: fx.Node, norm: nn.Module, dims: int) -> None:
    """A batch norm, of samples of `dims` axes, as a factor and a sum for each channel."""
    ones = torch.ones_like(norm.running_mean)
    factor = (ones if norm.weight is None else norm.weight) * (norm.running_var + norm.eps).rsqrt()
    shift = (0 * ones if norm.bias is None else norm.bias) - norm.running_mean * factor
    result = node.all_input_nodes[0]
    for run, value in ((torch.mul, factor), (torch.add, shift)):
        name = f"{node.name}_{run.__name__}"
        dense.register_buffer(name, value.detach().reshape(-1, *(dims - 1) * (1,)))
        with dense.graph.inserting_before(node):
            result = dense.graph.call_function(run, (result, dense.graph.get_attr(name)))
        result.meta |= node.meta
    node.replace_all_uses_with(result)
    dense.graph.erase_node(node)


def _exchange(dense: fx.GraphModule, first: fx.Node, second: fx.Node) -> None:
    """Let a maximum and a rectifier that alone reads it, or the reverse, change places."""
    rectifies = [rectifier_of(dense, node) is not None for node in (first, second)]
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
    varying, roles = input_dependent(dense.graph), {}
    for node in dense.graph.nodes:
        if node not in varying or is_size(node):
            roles[node] = "constant"
        elif node.op in ("placeholder", "output"):
            roles[node] = "input" if node.op == "placeholder" else "output"
        else:
            roles[node] = _role(dense, node, varying)
    return roles


def outline(dense: fx.GraphModule) -> list[tuple[fx.Node, str, str]]:
    """Each call of a prepared graph that depends on the input, its role, and why it has none."""
    varying, rows = input_dependent(dense.graph), []
    for node in dense.graph.nodes:
        if node in varying and not is_size(node) and node.op not in ("placeholder", "output"):
            try:
                rows.append((node, _role(dense, node, varying), ""))
            except InputError as error:
                rows.append((node, "no rule", str(error)))
    return rows


def _role(dense: fx.GraphModule, node: fx.Node, varying: set[fx.Node]) -> Role:
    row, inputs = operator_of(dense, node), [n for n in node.all_input_nodes if n in varying]
    if rectifier_of(dense, node) is not None:
        return "rectifier"
    if is_linear(dense, node, varying) or is_sum(dense, node):
        return "linear"
    if row is not None and row.when(**arguments_of(dense, node, row)):
        if row.role == "nonlinear" and len(node.all_input_nodes) == 1:
            return "nonlinear"
        apart = {*node.args} == {*inputs} == {*node.all_input_nodes}
        if row.joint == "product" and all(isinstance(a, fx.Node) for a in node.args) and apart:
            return "product"
    none = row is not None and row.role is None and row.joint is None
    remedy = row.instead if row is not None and none else ""
    raise InputError(
        f"no rule to convert {node.name} ({describe(dense, node)}){line(node)}; "
        + (remedy or REMEDY)
    )


def rectifiers(dense: fx.GraphModule) -> dict[str, float]:
    """The slope below 0 of each rectifier by its node's name.

    Raises:
        InputError: there is none, a slope is outside [0, 1], or as `roles`.
    """
    slopes = {}
    for node in roles(dense):
        if (module := rectifier_of(dense, node)) is None:
            continue
        slope = float(getattr(module, "negative_slope", 0.0))
        if isinstance(module, nn.PReLU):
            if module.weight.numel() > 1:
                raise InputError(f"{node.name} has a slope for each channel{line(node)}; use one")
            slope = float(module.weight.detach())
        if not 0 <= slope <= 1:
            raise InputError(f"{node.name} has slope {slope:g} below 0{line(node)}; 0 to 1 work")
        slopes[node.name] = slope
    if not slopes:
        raise InputError(f"{type(dense).__name__} has no rectifier; nothing would be converted")
    return slopes


def kind_of(dense: fx.GraphModule, node: fx.Node) -> str:
    """The name of the row of what `node` calls; nothing where there is none."""
    row = operator_of(dense, node)
    return row.name if row else ""


def rectifier_of(dense: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that `node` calls, if it is a rectifier, in whose place neurons go."""
    row = operator_of(dense, node) if node.op == "call_module" else None
    return module_of(dense, node) if row and row.role == "rectifier" else None


def is_sum(dense: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node adds or subtracts, unscaled."""
    return kind_of(dense, node) in SUMS and not node.kwargs and len(node.args) == 2


def is_linear(dense: fx.GraphModule, node: fx.Node, varying: set[fx.Node]) -> bool:
    """Whether a node is an affine map of one input-dependent value, sums with others aside."""
    row = operator_of(dense, node)
    if row is None or row.role != "linear" or not row.when(**arguments_of(dense, node, row)):
        return False
    if node.op == "call_module":
        return True
    if row.name in SCALES:
        return _scales(node, row, varying)
    if row.name == "matmul":
        return [n for n in node.all_input_nodes if n in varying] == [node.args[0]]
    if row.weighted or row.name in SUMS:
        return False
    return all(m in varying or is_size(m) for m in node.all_input_nodes)


def input_dependent(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the values of the first argument, and its shapes."""
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        first = node.op == "placeholder" and not varying
        if first or any(m in varying and not is_size(m) for m in node.all_input_nodes):
            varying.add(node)
    return varying


def sources(node: fx.Node, neurons: set[str], first: str) -> set[str]:
    """The populations of `neurons` whose changes `node` reads, through maps without weights.

    The graph's own input goes by the name `first`.
    """
    names, seen, waiting = set(), set(), list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        name = first if source.op == "placeholder" else str(source.target)
        if name in neurons:
            names.add(name)
        elif source not in seen:
            seen.add(source)
            waiting.extend(source.all_input_nodes)
    return names


def shallow(module: nn.Module) -> nn.Module:
    """A copy of the tree of modules that shares parameters and buffers, and has its own hooks."""
    twin = copy.copy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called"):
        setattr(twin, hooks, OrderedDict())
    twin._parameters, twin._buffers = dict(module._parameters), dict(module._buffers)
    twin._modules = {name: shallow(child) for name, child in module._modules.items()}
    return twin


def _undo_in_place(graph: fx.GraphModule, node: fx.Node) -> None:
    """Make an in-place ReLU an ordinary one, whose result later readers of its input read too."""
    module = module_of(graph, node)
    if node.kwargs.get("inplace") or (module is not None and getattr(module, "inplace", False)):
        source = node.all_input_nodes[0]
        source.replace_all_uses_with(node, delete_user_cb=lambda user: node < user)
    for child in module.modules() if module is not None else ():
        if hasattr(child, "inplace"):
            child.inplace = False


def _scales(node: fx.Node, row: Operator, varying: set[fx.Node]) -> bool:
    """Whether `node` multiplies or divides one input-dependent value by numbers or parameters."""
    if node.kwargs or len(node.args) != 2:
        return False
    first, second = node.args
    return (first in varying and _is_constant(second)) or (
        row.name == "mul" and second in varying and _is_constant(first)
    )


def _is_constant(arg: Any) -> bool:
    """Whether an argument is the same for all samples: of numbers, parameters and sizes."""
    if not isinstance(arg, fx.Node) or is_size(arg):
        return True
    return arg.op != "placeholder" and all(_is_constant(source) for source in arg.all_input_nodes)


def is_size(node: fx.Node) -> bool:
    """Whether a node is what a shape says, or computed from that alone."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    read = node.all_input_nodes if node.op == "call_function" else []
    return bool(read) and all(is_size(source) for source in read)
