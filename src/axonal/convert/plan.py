"""What a method decides, as data, and the spiking network that is put together from it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..core.neurons import Dynamics
from ..nn import (
    Burst,
    Bursting,
    Delay,
    Difference,
    GraphModule,
    Leaky,
    Neuron,
    OneStep,
    Signed,
    Stateful,
)
from ..nn.interpreter import arguments_of, line, module_of, operator_of, record
from .exact_sums import exact, rounding
from .fold_thresholds import fold
from .outputs import Outputs, outputs_of
from .tracing import (
    MAXIMA,
    Role,
    Schedule,
    input_dependent,
    is_size,
    kind_of,
    roles,
    shallow,
    spread,
)

Emit = Literal["integer", "multiple"]
LARGEST, LONGEST = 2**24, 2**16  # values of a sample, steps: what a file may ask for
POWERS = {2.0**k for k in range(-126, 128)}  # of float32


@dataclass(frozen=True, eq=False)
class Population:
    """The neurons that stand for one value of a network.

    A spike of s is worth s times the threshold, and is sent when the membrane holds as much.

    Attributes:
        threshold: > 0, in the unit of the value; broadcasts to one sample's neurons.
        levels: of a spike: how many thresholds it may be worth.
        slope: of the rectifier below 0: 0 for ReLU, 1 for a value that takes both signs.
        emit: "integer" fires from half a threshold on, "multiple" from a whole one.
        offset: added to the input in every step; None for nothing.

    Raises:
        InputError: a field that no neuron has.
    """

    threshold: Tensor
    levels: int = 1
    slope: float = 0.0
    emit: Emit = "integer"
    offset: Tensor | None = None

    def __post_init__(self):
        numbers = [t for t in (self.threshold, self.offset) if t is not None]
        if not all(torch.is_tensor(t) and t.is_floating_point() and t.numel() for t in numbers):
            raise InputError("Population: threshold and offset must be tensors of real numbers")
        if not all(bool(t.isfinite().all()) for t in numbers) or not bool((numbers[0] > 0).all()):
            raise InputError("Population: numbers must be finite, and thresholds above 0")
        if type(self.levels) is not int or self.levels < 1 or self.emit not in get_args(Emit):
            raise InputError(f"Population: no spikes of {self.levels!r} levels, {self.emit!r}")
        if not isinstance(self.slope, int | float) or not 0 <= self.slope <= 1:
            raise InputError(f"Population: a slope of {self.slope!r}; choose 0 to 1")

    def dynamics(self) -> Dynamics:
        """The neurons' equations, but for thresholds."""
        if self.levels == 1 and not self.slope:
            return Leaky(emit=self.emit)
        return Signed(emit=self.emit, levels=self.levels, negative_slope=self.slope)


@dataclass(frozen=True, eq=False)
class Plan:
    """A conversion as data: with the network that it is for, all that `assemble` needs.

    Attributes:
        method: its name.
        steps: T, in which the answer is given.
        shape: of one sample.
        populations: by the name of the node whose value they stand for.
        schedule: "pipelined": every layer works in every step. "waiting": a layer fires when the
            one before has sent all its spikes, so that their order does not matter.
        delay: steps before the answer's first, of a pipelined network.
        units: by node, powers of two: the input and functions are rounded to multiples of these,
            and weights so that sums are exact (`exact`). Without any, all stays as it is.

    Raises:
        InputError: a field out of range.
    """

    method: str
    steps: int
    shape: tuple[int, ...]
    populations: Mapping[str, Population]
    schedule: Schedule = "pipelined"
    delay: int = 0
    units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        counts = (self.steps, *self.shape)
        wrong = not self.shape or any(type(n) is not int or n < 1 for n in counts)
        if wrong or prod(self.shape) > LARGEST:
            raise InputError(f"Plan: no {self.steps} steps of samples {list(self.shape)}")
        if type(self.delay) is not int or self.delay < 0 or self.steps + self.delay > LONGEST:
            raise InputError(f"Plan: {self.delay} + {self.steps} steps; at most {LONGEST} work")
        if self.schedule not in get_args(Schedule) or not isinstance(self.method, str):
            raise InputError(f"Plan: {self.schedule!r} is not one of {get_args(Schedule)}")
        if not self.populations:
            raise InputError("Plan: no populations; nothing would spike")
        units = self.units.values() if isinstance(self.units, Mapping) else [None]
        if not all(type(unit) is float and unit in POWERS for unit in units):
            raise InputError(f"Plan: units {self.units!r} must be powers of two by name")

    @property
    def levels(self) -> int:
        """The values that the coarsest population can tell apart from 0 in T steps."""
        return self.steps * min(p.levels for p in self.populations.values())


class SpikingNetwork(GraphModule):
    """A converted network: `y, state = network(x, state)`, y adding up to the answer.

    Attributes:
        plan: how it was converted.
        delay: steps before the first that is read.
        returns: how y is taken apart, of a network that returned several tensors.
    """

    def __init__(self, graph: fx.GraphModule, plan: Plan, delay: int, outputs: Outputs):
        super().__init__(graph)
        self.plan, self.delay, self.returns = plan, delay, outputs

    @property
    def latency(self) -> int:
        """The steps from the first input to the answer."""
        return self.delay + self.plan.steps

    def paths(self) -> dict[str, str]:
        """Where in the graph the neurons are, by the node whose value they stand for."""
        inside = dict(self.graph.named_children())
        return {n: m if (m := f"{n}_neurons") in inside else n for n in self.plan.populations}

    def populations(self) -> dict[str, Neuron]:
        """The neurons by the node whose value they stand for."""
        return {name: self.graph.get_submodule(path) for name, path in self.paths().items()}

    def fed(self, x: Tensor) -> Tensor:
        """What samples [B, ...] that stay the same are, step by step: [T', B, ...].

        A layer that is waited for is fed in its own T steps alone.

        Raises:
            InputError: x is no batch of the shape converted for.
        """
        if tuple(x.shape[1:]) != self.plan.shape:
            raise InputError(f"samples {list(x.shape)} must be [B, *{list(self.plan.shape)}]")
        if self.plan.schedule == "pipelined":
            return x.expand(self.latency, *x.shape)
        same = x.expand(self.plan.steps, *x.shape)
        return torch.cat([same, x.new_zeros(self.delay, *x.shape)])

    def outputs(self, x: Tensor) -> Tensor:
        """The steps that are read, [T, B, ...], for samples [B, ...] that stay the same.

        Layers that wait run one after another in T steps each, which is the same.

        Raises:
            InputError: as `fed`.
        """
        fed, steps = self.fed(x), self.plan.steps
        if self.plan.schedule == "pipelined":
            return self(fed)[0][self.delay :]
        return GraphModule(_aligned(self.graph))(x.expand(steps, *x.shape))[0]

    def answer(self, x: Tensor) -> Any:
        """What the network that was converted would return for x [B, ...]: their mean."""
        return self.returns.split(self.outputs(x).mean(0))


def assemble(dense: fx.GraphModule, plan: Plan) -> SpikingNetwork:
    """Put populations into a prepared network, and their thresholds into its weights.

    Raises:
        InputError: the plan is for another network.
    """
    known = {node.name: role for node, role in roles(dense).items()}
    if unknown := sorted({*plan.populations, *plan.units} - {*known}):
        raise InputError(f"a plan for {unknown[0]!r}, which {type(dense).__name__} lacks")
    graph = fx.GraphModule(shallow(dense), copy.deepcopy(dense.graph))
    scales: dict[str, Tensor] = {}
    for node in list(graph.graph.nodes):
        role, population = known[node.name], plan.populations.get(node.name)
        if role == "rectifier" and population is None:
            raise InputError(f"the plan has no population for {node.name}")
        if role in ("nonlinear", "product"):
            _differ(graph, node, plan.schedule, plan.units.get(node.name))
        if role == "input" and node.name in plan.units:
            scales |= _round(graph, node, plan.units[node.name])
        if population is not None:
            name = _put(graph, node, population, role)
            scales[name] = population.threshold
    _spread_norms(dense, graph, plan.shape)
    delay = _wait(graph, plan) if plan.schedule == "waiting" else plan.delay
    fold(graph, scales, plan.shape)
    if plan.units:
        exact(graph, plan.shape)
    graph.graph.lint()
    graph.delete_all_unused_submodules()
    graph.recompile()
    like = next(dense.parameters(), torch.zeros(()))
    outputs = outputs_of(dense, like.new_zeros(1, *plan.shape))
    return SpikingNetwork(graph, plan, delay, outputs).eval()


def _spread_norms(dense: fx.GraphModule, graph: fx.GraphModule, shape: tuple[int, ...]) -> None:
    """Batch norms that are no part of weights as factors and sums, which can be exact."""
    nodes = [n for n in graph.graph.nodes if kind_of(graph, n) == "batch_norm"]
    like = next(dense.parameters(), torch.zeros(()))
    names = [node.name for node in nodes]
    with torch.no_grad():
        values, _ = record(dense, names, like.new_zeros(1, *shape)) if names else ({}, None)
    for node in nodes:
        _, y = values[node.name]
        spread(graph, node, module_of(graph, node), y.dim() - 1)


def _put(graph: fx.GraphModule, node: fx.Node, population: Population, role: Role) -> str:
    """Neurons in the place of a rectifier, or behind any other node."""
    neuron = _neuron(population.dynamics(), population.threshold)
    name = node.name if role == "rectifier" else f"{node.name}_neurons"
    graph.add_submodule(name, neuron)
    if role == "rectifier":
        node.target = name
    else:
        with graph.graph.inserting_after(node):
            sent = graph.graph.call_module(name)
        node.replace_all_uses_with(sent)
        sent.args, node = (node,), sent
    if population.offset is not None:
        graph.register_buffer(f"{name}_offset", population.offset)
        with graph.graph.inserting_before(node):
            offset = graph.graph.get_attr(f"{name}_offset")
            total = graph.graph.call_function(torch.add, (node.args[0], offset))
        node.args = (total,)
    return name


def _neuron(dynamics: Dynamics, threshold: Tensor) -> Neuron:
    return Neuron(dynamics, values={"threshold": threshold}).to(threshold)


def _round(graph: fx.GraphModule, node: fx.Node, unit: float) -> dict[str, Tensor]:
    """Neurons that round the input; their name, and what they send is worth."""
    graph.add_submodule(name := f"{node.name}_rounded", rounding(unit))
    with graph.graph.inserting_after(node):
        sent = graph.graph.call_module(name)
    node.replace_all_uses_with(sent)
    sent.args = (node,)
    return {name: torch.tensor(unit)}


def _differ(graph: fx.GraphModule, node: fx.Node, schedule: Schedule, unit: float | None) -> None:
    """A function without memory as one of rates."""
    module = module_of(graph, node)
    if schedule == "waiting":
        source = node.all_input_nodes[0]
        spiking = isinstance(module_of(graph, source), Neuron | _Any)
        if (
            kind_of(graph, node) not in MAXIMA
            or module is None
            or not (spiking or source.op == "placeholder")
        ):
            raise InputError(
                f"{node.name} can't wait for spikes{line(node)}: nn.MaxPool2d of what a rectifier "
                "returns can; choose schedule='pipelined'"
            )
        if spiking:
            graph.add_submodule(f"{node.name}_any", _Any(module))
            node.target = f"{node.name}_any"
        return
    function: Callable[..., Any] = module if module is not None else _function(graph, node)
    graph.add_submodule(f"{node.name}_difference", Difference(function, unit))
    node.op, node.target = "call_module", f"{node.name}_difference"
    node.args = tuple(arg for arg in node.args if isinstance(arg, fx.Node))
    node.kwargs = {}


def _function(graph: fx.GraphModule, node: fx.Node) -> Callable[..., Any]:
    """What `node` calls, with all but tensors given."""
    target = getattr(torch, node.target) if isinstance(node.target, str) else node.target
    row = operator_of(graph, node)
    given = arguments_of(graph, node, row) if row is not None else node.kwargs
    return partial(target, **{k: v for k, v in given.items() if not isinstance(v, fx.Node)})


class _Any(nn.Module):
    """The largest of spikes that all begin together: whether any came."""

    def __init__(self, pool: Any):
        super().__init__()
        size = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
        if pool.dilation not in (1, (1, 1)) or isinstance(pool, nn.MaxPool1d):
            raise InputError("a maximum over places apart, or in one dimension, can't wait")
        self.carry = nn.MaxPool2d(*size[:3], ceil_mode=pool.ceil_mode)  # of what spikes are worth
        self.sum = nn.AvgPool2d(*size, divisor_override=1)
        self.any = OneStep(Neuron(Leaky(threshold=0.5)))

    def forward(self, x: Tensor) -> Tensor:
        return self.any(self.sum(x))


def _wait(graph: fx.GraphModule, plan: Plan) -> int:
    """Give each population its window, and bring branches of unlike depth together.

    Returns:
        The first step of the last window.
    """
    windows: dict[fx.Node, int] = {}
    later: dict[tuple[fx.Node, int], fx.Node] = {}
    varying = input_dependent(graph.graph)
    for node in [n for n in graph.graph.nodes if n in varying and not is_size(n)]:
        read = [n for n in node.all_input_nodes if n in windows]
        window = max((windows[n] for n in read), default=0)
        for early in [n for n in read if windows[n] < window]:
            late = (window - windows[early]) * plan.steps
            if (early, late) not in later:
                name = f"{early.name}_waits_{late}"
                graph.add_submodule(name, Delay(late))
                with graph.graph.inserting_before(node):
                    later[early, late] = graph.graph.call_module(name, (early,))
            node.replace_input_with(early, later[early, late])
        neuron = module_of(graph, node)
        if node.op == "call_module" and isinstance(neuron, Neuron):
            window += 1
            graph.add_submodule(str(node.target), _burst(neuron, window, plan.steps))
        windows[node] = window
    return plan.steps * windows[graph.graph.output_node()]


def _aligned(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with every population's window of firing laid upon that of its input."""
    twin = fx.GraphModule(shallow(graph), copy.deepcopy(graph.graph))
    for name, module in [*twin.named_children()]:
        if isinstance(module, Delay):
            setattr(twin, name, nn.Identity())
        elif isinstance(module, Bursting):
            setattr(twin, name, _Aligned(module))
    return twin


class _Aligned(Stateful):
    """Neurons that wait, with the time between their windows left out."""

    def __init__(self, neuron: Bursting):
        super().__init__()
        opens = replace(neuron.dynamics, opens=neuron.dynamics.constants()["window"])
        self.neuron = _neuron(opens, neuron.get_buffer("threshold"))

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        return self.neuron(torch.cat([x, torch.zeros_like(x)]))[0][len(x) :], None


def _burst(neuron: Neuron, window: int, steps: int) -> Neuron:
    dynamics = neuron.dynamics
    if getattr(dynamics, "negative_slope", 0.0):
        raise InputError("only neurons of whole spikes above 0 can wait")
    burst = Burst(emit=dynamics.emit, levels=dynamics.levels, opens=window * steps, window=steps)
    threshold = neuron.get_buffer("threshold")
    return Bursting(burst, threshold).to(threshold)
