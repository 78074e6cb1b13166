"""A trained network as a sigma-delta network: layers that hand on changes, not values.

Every activation becomes a delta neuron, which sends a graded spike when its activation has moved
by its threshold since it last sent; every linear map acts on those changes alone, its bias spent
once. Equations: `core.neuron.Dynamics`, emit "delta"; the idea: Yoon 2017 (arXiv 1611.02024),
O'Connor and Welling 2017 (arXiv 1611.02024's companion 1602.08323), Intel's Lava.
"""

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..nn import Neuron, SigmaDelta
from ..nn.meter import Meter

State = dict[str, Tensor]
TORCH = Path(torch.__file__).parent
INPUT, OUTPUT = "input", "output"

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


class DeltaNetwork(nn.Module):
    """A network that computes with changes: `y, state = network(x, state)`, time first.

    x [T, B, ...] are the values of the moving input, y [T, B, ...] the values of the output;
    everything in between is changes. `start` gives the first state.

    Attributes:
        dense: the network that was converted, sharing its weights.
        neurons: delta neurons by the name of the activation they replace, and one for the input.
    """

    def __init__(self, dense: fx.GraphModule, delta: fx.GraphModule, example: tuple[Tensor, ...]):
        super().__init__()
        self.dense, self.delta = dense, delta
        example, *still = example
        self.still = tuple(tensor[:1] for tensor in still)
        self.register_buffer("rest", torch.zeros_like(example[:1]))
        self.encoder = SigmaDelta(0.0, negative_slope=1.0)
        self.set_thresholds(dict.fromkeys(self.neurons, 0.0))

    @property
    def neurons(self) -> dict[str, SigmaDelta]:
        inner = {k: m for k, m in self.delta.named_children() if isinstance(m, SigmaDelta)}
        return {INPUT: self.encoder} | inner

    def thresholds(self) -> dict[str, Tensor]:
        """The threshold of each neuron population, in the unit of its activation."""
        return {name: neuron.threshold for name, neuron in self.neurons.items()}

    def set_thresholds(self, thresholds: Mapping[str, float | Tensor]) -> None:
        """Set thresholds by name: a number, or a tensor that broadcasts over one sample's neurons.

        Raises:
            InputError: an unknown name, or a threshold that is negative or not a number.
        """
        neurons = self.neurons
        for name, value in thresholds.items():
            value = torch.as_tensor(value, dtype=torch.float32)
            if name not in neurons:
                raise InputError(f"no neurons named {name!r}; there are {', '.join(neurons)}")
            if not bool((value >= 0).all() and value.isfinite().all()):
                raise InputError(f"the threshold of {name} must be finite and at least 0")
            neurons[name].threshold = value.to(self.rest)

    def sites(self) -> dict[str, int]:
        """How many neurons each population has."""
        start = self._first()
        return {name: start[name][0].numel() for name in self.neurons}

    def spread(self, run: Callable[[], Any]) -> dict[str, float]:
        """The standard deviation of each population's activations while `run` runs the network."""
        moments = {name: torch.zeros(3, dtype=torch.float64) for name in self.neurons}

        def watch(name: str):
            def hook(neuron: Neuron, args: tuple, output: tuple[Tensor, Tensor]) -> None:
                sent = output[1][1].double()
                sums = torch.stack([torch.ones_like(sent).sum(), sent.sum(), sent.square().sum()])
                moments[name] += sums.detach().cpu()

            return hook

        handles = [n.register_forward_hook(watch(name)) for name, n in self.neurons.items()]
        try:
            with torch.no_grad():
                run()
        finally:
            for handle in handles:
                handle.remove()
        means = {name: m[1:] / m[0] for name, m in moments.items()}
        return {name: max(float(m[1] - m[0] ** 2), 0.0) ** 0.5 for name, m in means.items()}

    def fanouts(self) -> dict[str, float]:
        """The synapses of a neuron in each population, averaged over its places."""
        meter, one = Meter(self, "dense", batch_dim=1), self.rest[None]
        with torch.no_grad(), meter:
            self(one, self._first())
        synops, sites = meter.counts().by_layer("synops"), self.sites()
        fanouts = dict.fromkeys(self.neurons, 0.0)
        for node in self.delta.graph.nodes:
            if f"delta.{node.target}" in synops and node.target not in fanouts:
                for name in _sources(node, set(fanouts)):
                    fanouts[name] += synops[f"delta.{node.target}"] / sites[name]
        return fanouts

    def _first(self) -> State:
        return self.start(*(tensor.to(self.rest.device) for tensor in self.still))

    def start(self, *static: Tensor, batch: int = 1) -> State:
        """The state of a network that has seen the input zero for ever; one dense evaluation.

        Args:
            static: the inputs that don't move, batch first (a class label, say).
            batch: how many samples, of a network without such inputs.
        """
        batch = len(static[0]) if static else batch
        recorder = _Recorder(self.dense, set(self.neurons))
        rest = self.rest.expand(batch, *self.rest.shape[1:])
        output = recorder.run(rest, *static)
        state = {name: torch.stack(seen) for name, seen in recorder.seen.items()}
        return state | {INPUT: torch.stack([rest, rest]), OUTPUT: output[None]}

    def forward(self, x: Tensor, state: State, scale: float = 1.0) -> tuple[Tensor, State]:
        """The values of the output [T, B, ...] and the state after them.

        Args:
            x: the moving input.
            state: from `start`, or from the call before.
            scale: multiplies every threshold, for runs that need not be as exact throughout.

        Raises:
            InputError: x or the state is of another shape.
        """
        if x.dim() != self.rest.dim() + 1 or x.shape[2:] != self.rest.shape[1:]:
            expected = tuple(self.rest.shape[1:])
            raise InputError(f"x has shape {tuple(x.shape)}; it must be [T, B, *{expected}]")
        if x.shape[1] != state[INPUT].shape[1]:
            raise InputError(
                f"x has batch {x.shape[1]} but the state {state[INPUT].shape[1]}; "
                "call start with as many samples"
            )
        moves = torch.diff(x, dim=0, prepend=state[INPUT][:1])
        stepper = _Stepper(self, len(x), state, scale)
        moves = stepper.neuron(INPUT, self.encoder, moves.flatten(0, 1))
        moves = stepper.run(moves).unflatten(0, (len(x), -1))
        y = state[OUTPUT] + torch.cumsum(moves, 0)
        return y, stepper.after | {OUTPUT: y[-1:]}


class _Recorder(fx.Interpreter):
    """Runs the dense graph and keeps what each activation read and returned."""

    def __init__(self, graph: fx.GraphModule, names: set[str]):
        super().__init__(graph)
        self.names, self.seen = names, {}

    def run_node(self, n: fx.Node) -> Any:
        read = self.env[n.args[0]] if n.name in self.names else None
        result = super().run_node(n)
        if read is not None:
            self.seen[n.name] = read, result
        return result


class _Stepper(fx.Interpreter):
    """Runs the graph of changes over T folded steps, threading each neuron's state."""

    def __init__(self, network: DeltaNetwork, steps: int, state: State, scale: float):
        super().__init__(network.delta)
        self.steps, self.state, self.scale, self.after = steps, state, scale, {}

    def neuron(self, name: str, neuron: SigmaDelta, moves: Tensor) -> Tensor:
        moves = moves.unflatten(0, (self.steps, -1))
        spikes, self.after[name] = neuron(moves, self.state[name], self.scale)
        return spikes.flatten(0, 1)

    def call_module(self, target, args, kwargs) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, SigmaDelta):
            return self.neuron(target, module, *args)
        return super().call_module(target, args, kwargs)


class _Tracer(fx.Tracer):
    """Keeps whole what the conversion has a rule for, and notes the line of every call."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Neuron) or super().is_leaf_module(m, module_qualified_name)


def sigma_delta(model: nn.Module, *example: Tensor) -> DeltaNetwork:
    """Convert `model`, a torch module of linear maps and (leaky) ReLU, into a sigma-delta network.

    Its first argument becomes the moving input; the others stand still during a run. Thresholds
    begin at 0, where the result computes what `model` does; `calibrate` sets them.

    Args:
        model: the trained module, traceable by torch.fx; its weights are shared, not copied.
        example: arguments of the module: the moving input [B, ...], then those that stand still.

    Raises:
        InputError: the module can't be traced, holds an operation without a rule (named with
            its line), or has no activation at all.
    """
    dense = _trace(model)
    if not isinstance(dense.graph.output_node().args[0], fx.Node):
        raise InputError(f"{type(model).__name__} must return one tensor")
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
        raise InputError(f"{type(model).__name__} has no activation to turn into neurons")
    _drop_static(delta.graph, moving)
    delta.delete_all_unused_submodules()
    delta.recompile()
    return DeltaNetwork(dense, delta, example).eval()


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(f"can't trace {type(model).__name__}: {error}") from error
    dense = fx.GraphModule(_shallow(model), graph)
    for node in graph.nodes:
        _undo_in_place(dense, node)
        if node.op == "call_function" and node.target in (F.relu, torch.relu):
            dense.add_submodule(node.name, nn.ReLU())
            node.op, node.target, node.args, node.kwargs = (
                "call_module",
                node.name,
                node.args[:1],
                {},
            )
    dense.recompile()
    return dense


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
    if (
        target in SUMS or (node.op == "call_method" and target in ("add", "sub"))
    ) and not node.kwargs:
        _keep_moving_summand(graph.graph, node, moving)
        return
    known = target in LINEAR_FUNCTIONS or (node.op == "call_method" and target in LINEAR_METHODS)
    known = known and not (target is F.pad and (node.kwargs.get("value") or any(node.args[3:])))
    scaled = target in SCALES and node.args[0] in moving and not node.kwargs
    scaled = scaled and not isinstance(node.args[1], fx.Node)
    if standing or not (known or scaled):
        raise InputError(
            f"no rule to send changes through {node.name} ({_describe(graph, node)}){_line(node)}; "
            "build it of linear maps and ReLU, or leave this part of the network out"
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


def _drop_static(graph: fx.Graph, moving: set[fx.Node]) -> None:
    for node in reversed(list(graph.nodes)):
        if node not in moving and node.op != "output":
            graph.erase_node(node)


def _sources(node: fx.Node, neurons: set[str]) -> set[str]:
    """The populations whose changes `node` reads, through maps without weights."""
    found = set()
    for source in node.all_input_nodes:
        name = INPUT if source.op == "placeholder" else str(source.target)
        found |= {name} if name in neurons else _sources(source, neurons)
    return found


def _describe(graph: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{type(_module(graph, node)).__name__} {node.target}"
    return getattr(node.target, "__name__", str(node.target))


def _line(node: fx.Node) -> str:
    """Where the call stands in the user's code, if the trace recorded it."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    places = [x for x in lines if x.startswith("File ") and str(TORCH) not in x]
    return f" at {places[-1]}" if places else ""
