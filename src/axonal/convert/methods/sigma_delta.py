"""A trained network as a sigma-delta network: its layers send changes, not values.

Every activation becomes a delta neuron, which sends a graded spike when its activation has moved
by its threshold since it last sent; every linear map acts on those changes alone, its bias added
once. Equations: `core.neurons.Delta`; the idea: O'Connor and Welling 2017, Sigma
delta quantized networks (arXiv 1611.02024), and Intel's Lava.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...core.errors import InputError
from ...nn import Neuron, SigmaDelta
from ...nn.interpreter import Interpreter, describe, line, module_of, record
from ...nn.meter import Meter
from ...nn.stateful import State
from ..outputs import outputs_of
from ..tracing import input_dependent, is_linear, is_sum, kind_of, shallow, sources, trace

INPUT, OUTPUT = "input", "(output)"
ACTIVATIONS = ("relu", "leaky_relu")  # that a delta neuron has


class DeltaNetwork(nn.Module):
    """A network that computes with changes: `y, state = network(x, state)`, time first.

    x [T, B, ...] are the values of the first input, y [T, B, ...] the values of the output;
    everything in between is changes. `start` gives the first state.

    Attributes:
        dense: the network that was converted, sharing its weights.
        neurons: delta neurons by the name of the activation they replace, and one for the input.
        returns: how y is taken apart, of a network that returned several tensors.
    """

    def __init__(self, dense: fx.GraphModule, delta: fx.GraphModule, example: tuple[Tensor, ...]):
        super().__init__()
        self.dense, self.delta = dense, delta
        first, *constants = (tensor[:1] for tensor in example)
        self.constants = tuple(constants)
        self.register_buffer("rest", torch.zeros_like(first))
        self.returns = outputs_of(dense, self.rest, *constants)
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
                for name in sources(node, set(fanouts), INPUT):
                    fanouts[name] += synops[f"delta.{node.target}"] / sites[name]
        return fanouts

    def _first(self) -> State:
        return self.start(*(tensor.to(self.rest.device) for tensor in self.constants))

    def start(self, *static: Tensor, batch: int = 1) -> State:
        """The state of a network that has seen the input zero for ever; one dense evaluation.

        Args:
            static: the inputs that are constant, batch first (a class label, say).
            batch: how many samples, of a network without such inputs.
        """
        batch = len(static[0]) if static else batch
        rest = self.rest.expand(batch, *self.rest.shape[1:])
        seen, output = record(self.dense, self.neurons, rest, *static)
        state = {name: torch.stack(pair) for name, pair in seen.items()}
        return state | {INPUT: torch.stack([rest, rest]), OUTPUT: output[None]}

    def forward(self, x: Tensor, state: State, scale: float = 1.0) -> tuple[Tensor, State]:
        """The values of the output [T, B, ...] and the state after them.

        Args:
            x: the first input.
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
        change = torch.diff(x, dim=0, prepend=state[INPUT][:1])
        after: State = {}

        def fire(name: str, neuron: SigmaDelta, change: Tensor) -> Tensor:
            spikes, after[name] = neuron(change.unflatten(0, (len(x), -1)), state[name], scale)
            return spikes.flatten(0, 1)

        def rule(run: Interpreter, n: fx.Node, module: nn.Module | None) -> Any:
            if isinstance(module, SigmaDelta):
                return fire(str(n.target), module, run.env[n.all_input_nodes[0]])
            return run.default(n)

        change = fire(INPUT, self.encoder, change.flatten(0, 1))
        change = Interpreter(self.delta, rule).run(change).unflatten(0, (len(x), -1))
        y = state[OUTPUT] + torch.cumsum(change, 0)
        return y, after | {OUTPUT: y[-1:]}


def sigma_delta(model: nn.Module, *example: Tensor) -> DeltaNetwork:
    """Convert `model`, a torch module of linear maps and (leaky) ReLU, into a sigma-delta network.

    Its first argument becomes the input; the others are constant during a run. Thresholds
    begin at 0, where the result computes what `model` does; `calibrate` sets them.

    Args:
        model: the trained module, traceable by torch.fx; its weights are shared, not copied.
        example: arguments of the module: the input [B, ...], then those that are constant.

    Raises:
        InputError: the module can't be traced, holds an operation without a rule (named with
            its line), or has no activation at all.
    """
    dense = trace(model)
    return DeltaNetwork(dense, graph_of_changes(dense), example).eval()


def graph_of_changes(dense: fx.GraphModule) -> fx.GraphModule:
    """The graph of `trace` for changes of its first argument.

    Linear maps act on changes as they are, without their biases; what is constant adds nothing;
    activations become delta neurons. What is neither is refused, with the user's own line.

    Raises:
        InputError: an operation has no rule, or there is no activation.
    """
    delta = fx.GraphModule(shallow(dense), copy.deepcopy(dense.graph))
    varying = input_dependent(delta.graph)
    replaced = 0
    for node in list(delta.graph.nodes):
        if node not in varying or node.op in ("placeholder", "output"):
            continue
        # Asked of `dense`: a neuron may have taken the place of a module that is called again.
        if kind_of(dense, node) in ACTIVATIONS and node.op == "call_module":
            slope = getattr(module_of(dense, node), "negative_slope", 0.0)
            delta.add_submodule(node.name, SigmaDelta(0.0, negative_slope=slope))
            node.target = node.name
            replaced += 1
        else:
            _to_changes(delta, node, varying)
    if not replaced:
        raise InputError(f"{type(dense).__name__} has no activation to turn into neurons")
    for node in reversed(list(delta.graph.nodes)):
        if node not in varying and node.op != "output" and not node.users:
            delta.graph.erase_node(node)
    delta.delete_all_unused_submodules()
    delta.recompile()
    return delta


def _to_changes(graph: fx.GraphModule, node: fx.Node, varying: set[fx.Node]) -> None:
    """Make `node` act on changes: biases and constant summands have none."""
    if is_sum(graph, node):
        _drop_constant_summand(graph.graph, node, varying)
        return
    if not is_linear(graph, node, varying):
        raise InputError(
            f"no rule to send changes through {node.name} ({describe(graph, node)}){line(node)}; "
            "build it of linear maps and ReLU, or leave this part of the network out"
        )
    module = module_of(graph, node)
    if getattr(module, "bias", None) is not None:
        module._parameters["bias"] = None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module._buffers["running_mean"] = torch.zeros_like(module.running_mean)


def _drop_constant_summand(graph: fx.Graph, node: fx.Node, varying: set[fx.Node]) -> None:
    first, second = node.args
    if first in varying and second in varying:
        return
    summand, negative = (first, False) if first in varying else (second, "sub" in str(node.target))
    if negative:
        with graph.inserting_before(node):
            summand = graph.call_function(operator.neg, (summand,))
            varying.add(summand)
    node.replace_all_uses_with(summand)
    graph.erase_node(node)
