"""From torch modules to graphs.

torch.fx records a module, which is then run on stand-ins for its tensors; every call adds to a
`Builder` what its row in the operator table says. Layers of time have rules of their own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from ..core.errors import InputError
from ..core.neurons import Leaky, Signed
from ..graph import lowering, ops
from ..graph.builder import BATCH, FOLDED, TIME, Builder, Label, Value
from ..graph.graph import Graph
from ..graph.operators import Operator, named
from ..nn import Delay, DelayedLinear, Neuron, OneStep, Recurrent, Sequential, Stateful
from ..nn.graph_module import Difference, GraphModule
from ..nn.interpreter import (
    Interpreter,
    Recorder,
    arrays,
    attributes,
    function_row,
    line,
    row_of,
)
from ..nn.neurons import Bursting, SigmaDelta

INPUT, START, ENCODER = "input", "start", "input neurons"
EMPTY = Parameter.empty


class Changes(Protocol):
    """What `trace_changes` needs of a sigma-delta network.

    Attributes:
        dense: the network as torch.fx recorded it; its first argument changes from step to step.
        rest: [1, ...], that argument at rest.
        constants: an example of each other argument, batch first.
    """

    dense: fx.GraphModule
    rest: Tensor
    constants: tuple[Tensor, ...]

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
        inputs = [tracing.input(*pair, lead) for pair in zip(names, example, strict=False)]
        return tracing.graph(tracing.lower(module, "", *inputs))


def trace_changes(network: Changes) -> Graph:
    """The graph of a sigma-delta network: changes come in, and changes go out.

    Inputs: "input", the change of the first argument; "start" (1,), which is 1 in the first step
    and 0 later and brings the biases; and by name each constant argument, fed in the first step
    alone: its value, or a label as a one-hot vector. A first step without changes and with
    thresholds scaled by 0 leaves the state of `network.start`. The neurons of the first argument
    are "input neurons", others have their names in `network.neurons`.

    Raises:
        InputError: as `trace`.
    """
    neurons, dense = dict(network.neurons), network.dense
    encoder = neurons.pop(INPUT)
    tracing = _Tracing(neurons)
    names = [str(node.target) for node in dense.graph.nodes if node.op == "placeholder"]
    with torch.no_grad():
        change = tracing.input(INPUT, network.rest, BATCH)
        tracing.build.start = tracing.input(START, torch.zeros(1, 1), BATCH)
        pairs = zip(names[1:], network.constants, strict=False)
        constants = [tracing.input(*pair, BATCH) for pair in pairs]
        change = _neuron(tracing.build, ENCODER, encoder, change)
        return tracing.graph(tracing.follow(dense, dense.graph, "", change, *constants))


class _Tracing:
    """A graph that is being built; `neurons` stand, by fx names, where there are activations."""

    def __init__(self, neurons: Mapping[str, Neuron]):
        self.build, self.neurons, self.where = Builder(tuple(neurons)), neurons, ""

    def input(self, name: str, example: Tensor, lead: tuple[int, ...]) -> Any:
        """Add an input like `example`; integers are labels."""
        shape, first = tuple(example.shape[len(lead) :]), "T, B" if lead == TIME else "B"
        if shape:
            return replace(self.build.add(name, ops.Input(shape)), lead=lead)
        if example.is_floating_point() or example.dim() != 1 or lead == TIME:
            raise InputError(f"trace: {name!r} like {list(example.shape)}; give [{first}, ...]")
        return Label(self.build.unique(name))

    def graph(self, result: Any) -> Graph:
        """Finish the graph, whose outputs are what the module returns."""
        results = result if isinstance(result, list | tuple) else [result]
        if not (results and all(isinstance(value, Value) for value in results)):
            raise InputError("trace: the module must return tensors that depend on its input")
        with self.named("output", "what is returned"):
            return self.build.graph(results)

    @contextmanager
    def named(self, name: str, call: str, *arguments: Any) -> Iterator[None]:
        """Blame errors inside, and labels where they don't belong, on `name` and what it calls."""
        try:
            if call.lower() != "embedding" and _among(arguments, Label):
                raise InputError("arguments of integers [B] go into embeddings alone")
            yield
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            raise InputError(f"can't trace {name!r} ({call}){self.where}: {error}") from error

    def lower(self, module: nn.Module, name: str, *arguments: Any) -> Any:
        """Add what `module`, which goes by `name`, does; states are left out."""
        kind = type(module).__name__
        own = name or kind.lower()
        if isinstance(module, Stateful):
            with self.named(own, kind):
                _need_time(module, *arguments)
        if container := _rule(CONTAINERS, module):
            return container(self, name, module, arguments[0])
        layer, row = _rule(LAYERS, module), row_of(module)
        with self.named(own, kind, arguments if layer or row else ()):
            if layer:
                return layer(self.build, own, module, *arguments)
            if row and row.moves:
                (x,) = arguments
                return _move(self.build, own, x, module, arguments, {})
            if row and row.lower:
                return row.lower(self.build, own, *arguments, **arrays(attributes(module, row)))
            if row or (type(module).__module__.startswith(LIBRARIES) and not _sequence(module)):
                raise _refusal(row)
        while arguments[-1] is None:  # a state left at its default
            arguments = arguments[:-1]
        result = self.follow(module, _recorded(module, len(arguments)), name, *arguments)
        return result[0] if isinstance(module, Stateful) and type(result) is tuple else result

    def follow(
        self, root: nn.Module, graph: fx.Graph, name: str, *arguments: Any, folded: bool = False
    ) -> Any:
        """Add what the recorded `root` does; `folded`: it runs as a `GraphModule`, over time."""
        outer, places = self.where, [n for n in graph.nodes if n.op == "placeholder"]
        for node in places[len(arguments) :]:
            if not node.args:
                raise InputError(f"trace: give an example of {node.target!r} too")
        rule = partial(self._node, name, folded)
        result = Interpreter(root, rule, graph).run(*arguments[: len(places)])
        self.where = outer
        return result

    def _node(
        self, name: str, folded: bool, run: Interpreter, node: fx.Node, module: nn.Module | None
    ) -> Any:
        """What one node of a recorded module returns."""
        if node.op == "output":
            return run.default(node)
        args, kwargs = run.fetch_args_kwargs_from_env(node)
        path, self.where = _join(name, node.name), line(node)
        if path in self.neurons:
            return _neuron(self.build, path, self.neurons[path], args[0], reserved=True)
        if not _among((args, kwargs), Value, Label):
            return run.default(node)
        if module is None:
            return self.call(node, path, args, kwargs)
        stateful, args = isinstance(module, Stateful), (*args, *kwargs.values())
        if folded and stateful:
            args = _map(args, lambda a: isinstance(a, Value), lambda a: a.at(TIME))
        result = self.lower(module, _join(name, node.target), *args)
        if folded and stateful:
            return result.at(FOLDED)
        return (result, None) if stateful else result

    def call(self, node: fx.Node, path: str, args: Any, kwargs: Any) -> Any:
        """What a function, or a method of a tensor, returns."""
        target: Any = node.target
        if node.op == "call_method":
            key, row = target, named(target)
            run = lambda tensor, *args, **kwargs: getattr(tensor, key)(*args, **kwargs)  # noqa: E731
        else:
            key, row, run = getattr(target, "__name__", str(target)), function_row(target), target
        values = _among((args, kwargs), Value, Label)
        if key == "getitem" and isinstance(args[0], tuple | list):
            return run(*args, **kwargs)
        with self.named(path, key, args, kwargs):
            if row and row.lower:
                return row.lower(self.build, path, *arrays(args), **arrays(kwargs))
            if row and row.moves and len(values) == 1 and isinstance(values[0], Value):
                return _move(self.build, path, values[0], run, args, kwargs)
            raise _refusal(row)


LIBRARIES = ("torch.nn.", "axonal.nn.")


def _sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential)


def _refusal(row: Operator | None) -> InputError:
    return InputError(f"there is no rule for it; {(row and row.instead) or lowering.ANYTHING}")


def _need_time(module: nn.Module, *arguments: Any) -> None:
    count = len(arguments) if isinstance(module, Difference) else 1
    inputs, states = [x for x in arguments[:count] if x is not None], arguments[count:]
    if not all(isinstance(x, Value) and len(x.lead) == 2 for x in inputs):
        raise InputError(
            "it needs time; put it into an axonal.nn.Sequential, or make the module that calls "
            "it Stateful, time first"
        )
    if _among(states, Tensor, Value):
        raise InputError("it begins with a state of its own; graphs begin at rest")


def _recorded(module: nn.Module, count: int) -> fx.Graph:
    """The graph of fx for a call with `count` arguments."""
    rest = list(signature(module.forward).parameters.values())[count:]
    fixed = {p.name: p.default for p in rest if p.default is not EMPTY}
    try:
        return Recorder(_is_leaf).trace(module, concrete_args=fixed or None)
    except Exception as error:  # torch.fx raises many kinds for Python that it can't follow
        raise InputError(f"can't trace {type(module).__name__}: {error}") from error


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, Stateful | OneStep) or row_of(module) is not None


def _map(values: Any, chosen: Callable[[Any], bool], change: Callable[[Any], Any]) -> Any:
    return map_aggregate(values, lambda a: change(a) if chosen(a) else a)


def _among(values: Any, *kinds: type) -> list[Any]:
    """What is of these kinds in `values`, each once."""
    distinct: dict[int, Any] = {}
    _map(values, lambda a: isinstance(a, kinds), lambda a: distinct.setdefault(id(a), a))
    return list(distinct.values())


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _rule(table: Mapping[type, Callable], module: nn.Module) -> Callable | None:
    """The rule of the class whose forward the module has."""
    kinds = [k for k in type(module).__mro__ if k in table and type(module).forward is k.forward]
    return table[kinds[0]] if kinds else None


def _move(g: Builder, name: str, x: Value, run: Callable, args: Any, kwargs: Any) -> Any:
    """What `run` makes of arguments with x among them, if it only moves values."""

    def moved(places: np.ndarray) -> Any:
        tensor = torch.from_numpy(places)
        taken, options = _map((args, kwargs), lambda a: a is x, lambda _: tensor)
        seen = run(*taken, **options)
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


def _graph(tracing: _Tracing, name: str, module: GraphModule, x: Value) -> Value:
    """Nodes have the names of modules, as `nn.watch` has them: populations, those of neurons."""
    root, path = module.graph, _join(name, "graph")
    return tracing.follow(root, root.graph, path, x.at(FOLDED), folded=True).at(TIME)


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
    if _rule(LAYERS, neuron) is not _neuron:
        raise InputError(f"{type(neuron).__name__} has a forward of its own; put it in Dynamics")
    values = {name: torch.as_tensor(neuron.value(name)) for name in neuron.varying}
    return {name: value.astype(np.float32) for name, value in arrays(values).items()}


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
    weight, bias = arrays((module.linear.weight, module.linear.bias))
    return lowering.delayed(g, name, x, _steps(module), weight, bias)


def _difference(g: Builder, name: str, module: Difference, *inputs: Any) -> Value:
    return g.add(name, module.as_op(), *(x for x in inputs if x is not None))


CONTAINERS: dict[type, Any] = {Sequential: _sequential, Recurrent: _recurrent, GraphModule: _graph}
# Layers of time; those of torch are in the operator table.
LAYERS: dict[type, Callable[..., Value]] = {
    **dict.fromkeys((Neuron, SigmaDelta, Bursting), _neuron),
    Delay: _delay,
    Difference: _difference,
    DelayedLinear: _delayed,
    OneStep: _one_step,
}
