"""A trained network as a sigma-delta network: layers that hand on changes, not values.

Every activation becomes a delta neuron, which sends a graded spike when its activation has moved
by its threshold since it last sent; every linear map acts on those changes alone, its bias spent
once. Equations: `core.neurons.Delta`; the idea: O'Connor and Welling 2017, Sigma
delta quantized networks (arXiv 1611.02024), and Intel's Lava.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...core.errors import InputError
from ...nn import Neuron, SigmaDelta
from ...nn.meter import Meter
from ...nn.stateful import State
from ..changes import graph_of_changes
from ..tracing import sources, trace

INPUT, OUTPUT = "input", "(output)"


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
                for name in sources(node, set(fanouts), INPUT):
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
    dense = trace(model)
    return DeltaNetwork(dense, graph_of_changes(dense), example).eval()
