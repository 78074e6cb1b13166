"""From torch modules to graphs: the one file of this room that knows torch.

torch.fx follows a module, with stand-ins for its tensors; every call adds what it does to a
`build.Builder`. Layers of time are followed by their own rules.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from ..core.errors import InputError
from ..core.neurons import Leaky, Signed
from ..graph import graph as ops
from ..graph import lowering
from ..graph.builder import BATCH, FOLDED, TIME, Builder, Label, Value
from ..graph.graph import Graph
from ..graph.nonlinear import called
from ..nn import Delay, DelayedLinear, Neuron, OneStep, Recurrent, Sequential, Stateful
from ..nn.graph_module import Difference, GraphModule
from ..nn.neurons import Bursting, SigmaDelta

TORCH = Path(torch.__file__).parent
INPUT, START, ENCODER = "input", "start", "input neurons"
EMPTY = Parameter.empty


class Changes(Protocol):
    """What `trace_changes` needs of a sigma-delta network.

    Attributes:
        dense: the network as torch.fx followed it; its first argument moves.
        rest: [1, ...], that argument at rest.
        still: an example of each other argument, batch first.
    """

    dense: fx.GraphModule
    rest: Tensor
    still: tuple[Tensor, ...]

    @property
    def neurons(self) -> Mapping[str, Neuron]:
        """Delta neurons by the fx name of the activation they replace, and one as "input"."""
        ...


def trace(module: nn.Module, *example: Tensor) -> Graph:
    """The graph of `module`, its nodes named by the paths of modules and by fx for functions.

    Args:
        module: of Axonal's layers and torch's linear ones, as far as torch.fx can follow it; also
            a `Stateful` of your own that calls others as `y, state = layer(x, state)`. It is
            taken as in evaluation: without dropout, with the statistics of batch norms.
        example: an input of the right shape: time first, [T, B, ...], if the module is
            `Stateful`, else [B, ...], one for each argument. Integers [B] are labels, for
            `nn.Embedding` alone: that input takes one-hot vectors.

    Returns:
        The graph. Its first input is "input"; others have the names of the arguments.

    Raises:
        InputError: an operation without a rule, with its name and line; samples that mix; a
            module that fx can't follow; examples that don't fit.
    """
    tracing, lead = _Tracing({}), TIME if isinstance(module, Stateful) else BATCH
    names = [INPUT, *list(signature(module.forward).parameters)[1:]]
    if not 1 <= len(example) <= (1 if lead == TIME else len(names)):
        raise InputError(f"trace: {len(example)} examples; give one for each input, and no states")
    with torch.no_grad():
        given = [tracing.input(*pair, lead) for pair in zip(names, example, strict=False)]
        return tracing.graph(tracing.lower(module, "", *given))


def trace_changes(network: Changes) -> Graph:
    """The graph of a sigma-delta network: what moves in is changes, and so is what comes out.

    Inputs: "input", by how much the moving input has moved; "start" (1,), which is 1 in the first
    step and 0 later and brings the biases; and by name each argument that stands still, fed in
    the first step alone: its value, or a label as a one-hot vector. A first step without moves
    and with thresholds scaled by 0 leaves the state of `network.start`. The moving input's
    neurons are "input neurons", others have their names in `network.neurons`.

    Raises:
        InputError: as `trace`.
    """
    neurons, dense = dict(network.neurons), network.dense
    encoder = neurons.pop(INPUT)
    tracing = _Tracing(neurons)
    names = [str(node.target) for node in dense.graph.nodes if node.op == "placeholder"]
    with torch.no_grad():
        moves = tracing.input(INPUT, network.rest, BATCH)
        tracing.build.start = tracing.input(START, torch.zeros(1, 1), BATCH)
        pairs = zip(names[1:], network.still, strict=False)
        still = [tracing.input(*pair, BATCH) for pair in pairs]
        moves = _neuron(tracing.build, ENCODER, encoder, moves)
        return tracing.graph(tracing.follow(dense, dense.graph, "", moves, *still))


class _Tracer(fx.Tracer):
    """Follows a module down to what has a rule, and notes the line of every call."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, Stateful | OneStep | nn.Conv2d)
        known |= super().is_leaf_module(m, module_qualified_name)
        return known and m is not self.root


class _Tracing:
    """A graph in the making; `neurons` stand, by fx names, where the network has activations."""

    def __init__(self, neurons: Mapping[str, Neuron]):
        self.build, self.neurons, self.where = Builder(tuple(neurons)), neurons, ""

    def input(self, name: str, example: Tensor, lead: tuple[int, ...]) -> Any:
        shape, first = tuple(example.shape[len(lead) :]), "T, B" if lead == TIME else "B"
        if shape:
            return replace(self.build.add(name, ops.Input(shape)), lead=lead)
        if example.is_floating_point() or example.dim() != 1 or lead == TIME:
            raise InputError(f"trace: {name!r} like {list(example.shape)}; give [{first}, ...]")
        return Label(self.build.unique(name))

    def graph(self, result: Any) -> Graph:
        results = result if isinstance(result, list | tuple) else [result]
        if not (results and all(isinstance(value, Value) for value in results)):
            raise InputError("trace: the module must return tensors that depend on its input")
        with self.named("output", "what is returned"):
            return self.build.graph(results)

    @contextmanager
    def named(self, name: str, what: str, *given: Any) -> Iterator[None]:
        """Errors inside, and labels where they don't belong, are blamed on `name`."""
        try:
            if what.lower() != "embedding" and _among(given, Label):
                raise InputError("arguments of integers [B] go into embeddings alone")
            yield
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            raise InputError(f"can't trace {name!r} ({what}){self.where}: {error}") from error

    def lower(self, module: nn.Module, name: str, *given: Any) -> Any:
        """What `module`, which goes by `name`, makes of its arguments; without states."""
        kind = type(module).__name__
        own = name or kind.lower()
        if isinstance(module, Stateful):
            with self.named(own, kind):
                _need_time(module, *given)
        if whole := _rule(WHOLES, module):
            return whole(self, name, module, given[0])
        with self.named(own, kind, given if (rule := _rule(MODULES, module)) else ()):
            if rule:
                return rule(self.build, own, module, *given)
            ours = type(module).__module__.startswith(("torch.nn.", "axonal.nn."))
            if ours and not isinstance(module, nn.Sequential):
                lowering.refuse(kind)
        while given[-1] is None:  # a state left at its default
            given = given[:-1]
        result = self.follow(module, _followed(module, len(given)), name, *given)
        return result[0] if isinstance(module, Stateful) and type(result) is tuple else result

    def follow(self, root: nn.Module, graph: fx.Graph, name: str, *given: Any, wired=False) -> Any:
        """What the traced `root`, by the name of `name`, returns; `wired`: as a `GraphModule`."""
        known: dict[Any, Any] = {}
        waiting, outer = iter(given), self.where
        for node in graph.nodes:
            args, kwargs = _map(
                (node.args, node.kwargs), lambda a: isinstance(a, fx.Node), known.get
            )
            path, self.where = _join(name, node.name), _line(node)
            if node.op == "output":
                self.where = outer
                return args[0]
            if node.op == "placeholder":
                known[node] = next(waiting, *args or (EMPTY,))
                if known[node] is EMPTY:
                    raise InputError(f"trace: give an example of {node.target!r} too")
            elif node.op == "get_attr":
                owner, _, last = node.target.rpartition(".")
                known[node] = getattr(root.get_submodule(owner), last)
            elif path in self.neurons:
                known[node] = _neuron(self.build, path, self.neurons[path], args[0], reserved=True)
            elif node.op != "call_module":
                known[node] = self.call(node, path, args, kwargs)
            elif _among((args, kwargs), Value, Label):
                module, path = root.get_submodule(node.target), _join(name, node.target)
                stateful, args = isinstance(module, Stateful), (*args, *kwargs.values())
                if wired and stateful:
                    args = _map(args, lambda a: isinstance(a, Value), lambda a: a.at(TIME))
                result = self.lower(module, path, *args)
                known[node] = (result, None) if stateful else result
                if wired and stateful:
                    known[node] = result.at(FOLDED)
            else:
                known[node] = root.get_submodule(node.target)(*args, **kwargs)
        raise AssertionError("a traced graph ends with its output")

    def call(self, node: fx.Node, path: str, args: Any, kwargs: Any) -> Any:
        """What a function, or a method of a tensor, returns."""
        target: Any = node.target
        if node.op == "call_method":
            key, origin = target, "torch"
            run = lambda tensor, *args, **kwargs: getattr(tensor, key)(*args, **kwargs)  # noqa: E731
        else:
            key, run = getattr(target, "__name__", str(target)), target
            origin = (getattr(target, "__module__", None) or "torch").split(".")[0]
        found = _among((args, kwargs), Value, Label)
        if not found or (key == "getitem" and isinstance(args[0], tuple | list)):
            return run(*args, **kwargs)
        with self.named(path, key, args, kwargs):
            if origin in ("torch", "_operator", "builtins"):
                if rule := lowering.FUNCTIONS.get(key):
                    args, kwargs = _map((args, kwargs), torch.is_tensor, _array)
                    return rule(self.build, path, *args, **kwargs)
                if key in lowering.MOVES and len(found) == 1 and isinstance(found[0], Value):
                    return _move(self.build, path, found[0], run, args, kwargs)
            lowering.refuse(key)


def _need_time(module: nn.Module, *given: Any) -> None:
    count = len(given) if isinstance(module, Difference) else 1
    inputs, states = [x for x in given[:count] if x is not None], given[count:]
    if not all(isinstance(x, Value) and len(x.lead) == 2 for x in inputs):
        raise InputError(
            "it needs time; put it into an axonal.nn.Sequential, or make the module that calls "
            "it Stateful, time first"
        )
    if _among(states, Tensor, Value):
        raise InputError("it begins with a state of its own; graphs begin at rest")


def _followed(module: nn.Module, count: int) -> fx.Graph:
    """The graph of fx for a call with `count` arguments."""
    rest = list(signature(module.forward).parameters.values())[count:]
    fixed = {p.name: p.default for p in rest if p.default is not EMPTY}
    try:
        return _Tracer().trace(module, concrete_args=fixed or None)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(f"can't trace {type(module).__name__}: {error}") from error


def _line(node: fx.Node) -> str:
    """Where the call stands in the user's code, if the trace recorded it."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    places = [x for x in lines if x.startswith("File ") and str(TORCH) not in x]
    return f" at {places[-1]}" if places else ""


def _map(values: Any, chosen: Callable[[Any], bool], change: Callable[[Any], Any]) -> Any:
    return map_aggregate(values, lambda a: change(a) if chosen(a) else a)


def _among(values: Any, *kinds: type) -> list[Any]:
    """What is of these kinds in `values`, each once."""
    found: dict[int, Any] = {}
    _map(values, lambda a: isinstance(a, kinds), lambda a: found.setdefault(id(a), a))
    return list(found.values())


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _rule(table: Mapping[type, Callable], module: nn.Module) -> Callable | None:
    """The rule of the class whose forward the module has."""
    kinds = [k for k in type(module).__mro__ if k in table and type(module).forward is k.forward]
    return table[kinds[0]] if kinds else None


def _move(g: Builder, name: str, x: Value, run: Callable, args: Any, kwargs: Any) -> Any:
    """What `run` makes of arguments with x among them, if it only moves values."""

    def moved(places: np.ndarray) -> Any:
        tensor = torch.from_numpy(places)
        taken, named = _map((args, kwargs), lambda a: a is x, lambda _: tensor)
        seen = run(*taken, **named)
        if type(seen) in (list, tuple):
            return type(seen)(part.numpy() for part in seen)
        return seen.numpy() if torch.is_tensor(seen) else seen

    return g.move(name, x, moved)


def _sequential(tracing: _Tracing, name: str, module: Sequential, x: Value) -> Value:
    for key, layer in module._modules.items():
        assert layer is not None
        lead = TIME if isinstance(layer, Stateful) else FOLDED
        x = tracing.lower(layer, _join(name, key), x.at(lead))
    return x.at(TIME)


def _wired(tracing: _Tracing, name: str, module: GraphModule, x: Value) -> Value:
    """Nodes have the names of modules, as `nn.watch` has them: populations, those of neurons."""
    root, path = module.graph, _join(name, "graph")
    return tracing.follow(root, root.graph, path, x.at(FOLDED), wired=True).at(TIME)


def _recurrent(tracing: _Tracing, name: str, module: Recurrent, x: Value) -> Value:
    g = tracing.build
    fires = g.unique(_join(name, "neuron"))
    g.shapes[fires] = x.shape
    last = g.add(_join(name, "delay"), ops.Delay(np.array(1)), Value(fires, x.shape, BATCH))
    back = tracing.lower(module.connection, _join(name, "connection"), last)
    with tracing.named(name or "recurrent", "Recurrent"):
        total = g.add(_join(name, "sum"), ops.Add(), x, back)
        return _neuron(g, fires, module.neuron, total, reserved=True)


def _values(neuron: Neuron) -> dict[str, np.ndarray]:
    if _rule(MODULES, neuron) is not _neuron:
        raise InputError(f"{type(neuron).__name__} has a forward of its own; put it in Dynamics")
    values = {name: torch.as_tensor(neuron.value(name)) for name in neuron.varying}
    return {name: _array(value).astype(np.float32) for name, value in values.items()}


def _neuron(g: Builder, name: str, module: Neuron, x: Value, *state: Any, reserved=False) -> Value:
    return g.add(name, ops.Neurons(module.dynamics, _values(module)), x, reserved=reserved)


def _one_step(g: Builder, name: str, module: OneStep, x: Value) -> Value:
    """Neurons that forget: without decay and reset, every step is a first one."""
    dynamics, values = module.neuron.dynamics, _values(module.neuron)
    if not isinstance(dynamics, Leaky | Signed):
        raise InputError(f"{type(dynamics).__name__} remembers more than a membrane; use Leaky")
    forgetful = replace(dynamics, decay=0.0, reset=dynamics.RESETS[-1], refractory=0)
    values.pop("decay", None)
    return g.add(name, ops.Neurons(forgetful, values), x)


def _steps(module: Delay | DelayedLinear) -> np.ndarray:
    if module.width:
        raise InputError(f"its width {module.width} spreads delays; set width to 0 and test again")
    return module.delay.detach().clamp(0, module.most).round().long().cpu().numpy()


def _delay(g: Builder, name: str, module: Delay, x: Value, *state: Any) -> Value:
    steps = _steps(module)
    return g.add(name, ops.Delay(steps.reshape((*steps.shape, *(1 for _ in x.shape[1:])))), x)


def _delayed(g: Builder, name: str, module: DelayedLinear, x: Value, *state: Any) -> Value:
    weight, bias = _map((module.linear.weight, module.linear.bias), torch.is_tensor, _array)
    return lowering.delayed(g, name, x, _steps(module), weight, bias)


def _difference(g: Builder, name: str, module: Difference, *given: Any) -> Value:
    function, values = called(module.function)
    op = ops.Difference(function, _map(values, torch.is_tensor, _array), module.unit)
    return g.add(name, op, *(x for x in given if x is not None))


def _constant_pad(g: Builder, name: str, module: Any, x: Value) -> Value:
    return lowering.pad(g, name, x, module.padding, value=module.value)


def _conv(g: Builder, name: str, module: Any, x: Value) -> Value:
    pads = module.padding
    if module.padding_mode != "zeros":
        around = module._reversed_padding_repeated_twice
        x, pads = lowering.pad(g, f"{name}.pad", x, around, module.padding_mode), 0
    weight, bias = _map((module.weight, module.bias), torch.is_tensor, _array)
    how = module.stride, pads, module.dilation, module.groups
    return lowering.conv(g, name, x, weight, bias, *how)


def _with(rule: Callable, *names: str) -> Callable[..., Value]:
    """The rule for modules whose attributes `names` are arguments of the function's."""

    def of_module(g: Builder, name: str, module: nn.Module, *given: Any) -> Value:
        found = {n: getattr(module, n) for n in names}
        return rule(g, name, *given, **_map(found, torch.is_tensor, _array))

    return of_module


MOVING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle)
WHOLES: dict[type, Any] = {Sequential: _sequential, Recurrent: _recurrent, GraphModule: _wired}
MODULES: dict[type, Callable[..., Value]] = {
    **dict.fromkeys((Neuron, SigmaDelta, Bursting), _neuron),
    Delay: _delay,
    Difference: _difference,
    DelayedLinear: _delayed,
    OneStep: _one_step,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.ConstantPad1d: _constant_pad,
    nn.ConstantPad2d: _constant_pad,
}
MODULES |= {getattr(nn, name): _with(*rule) for name, rule in lowering.MODULES.items()}
MODULES |= dict.fromkeys(MOVING, lambda g, name, module, x: _move(g, name, x, module, (x,), {}))
