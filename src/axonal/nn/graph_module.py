"""Networks wired as a graph: branches, sums and concatenations between layers with states."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from ..core.errors import InputError
from ..core.neurons import HALF
from ..graph import difference
from .hooks import MAPS
from .interpreter import Interpreter, arrays, function_of
from .stateful import State, Stateful


class GraphModule(Stateful):
    """A graph of layers: `y, state = network(x, state)`, time first.

    `Stateful` modules in the graph are called as `y = module(x)` there; they run over all steps,
    and the state holds theirs by name. All else has to treat samples alike and runs with time
    folded into the batch. An input that is the same in every step (`image.expand(T, ...)`) runs
    once up to the first states, and linear maps run only in steps in which they are given
    anything.

    Args:
        graph: with one input and one output, of tensors [B, ...] throughout.

    Raises:
        InputError: it has more than one input, or calls a layer that has a state twice.
    """

    def __init__(self, graph: fx.GraphModule):
        super().__init__()
        if sum(node.op == "placeholder" for node in graph.graph.nodes) != 1:
            raise InputError(f"GraphModule: {type(graph).__name__} must have one input")
        called = _stateful(graph)
        if twice := [name for name in called if called.count(name) > 1]:
            raise InputError(
                f"GraphModule: {twice[0]!r} has one state and is called twice; copy it"
            )
        self.graph = graph

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [T, B, ...] and the state of an earlier call (None: rest) -> y [T, B, ...], state.

        Raises:
            InputError: no step or no sample, or a state of another network.
        """
        if x.dim() < 2 or not x.shape[0] or not x.shape[1]:
            raise InputError(f"GraphModule: x {list(x.shape)} must be [T, B, ...], both at least 1")
        if state is not None and (
            not isinstance(state, Mapping) or {*state} != {*_stateful(self.graph)}
        ):
            raise InputError(
                "GraphModule: the state is not of this network; pass back what its last call "
                "returned, or None"
            )
        rule = _OverTime(self.graph, (len(x), x.shape[1]), state or {})
        return rule.run(x), rule.after


def _stateful(graph: fx.GraphModule) -> list[str]:
    """The names of the layers with a state that `graph` calls, in order."""
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    return [name for name in called if isinstance(graph.get_submodule(name), Stateful)]


class _OverTime:
    """The rule of one run over time.

    Attributes:
        varying: the nodes that depend on the input.
        same: those of them whose values hold for every step, [B, ...].
        after: the states of the layers by name, after the run.
    """

    def __init__(self, graph: fx.GraphModule, steps: tuple[int, int], state: State):
        self.steps, self.state, self.after = steps, state, {}
        self.first = next(node for node in graph.graph.nodes if node.op == "placeholder")
        self.varying, self.same = {self.first}, set[fx.Node]()
        self.interpreter = Interpreter(graph, self.value)

    def run(self, x: Tensor) -> Tensor:
        """x [T, B, ...] -> y [T, B, ...]."""
        if self.steps[0] > 1 and not x.stride(0):
            self.same.add(self.first)
        y = self.interpreter.run(x[0] if self.same else x.flatten(0, 1))
        return y.unflatten(0, self.steps)

    def value(self, run: Interpreter, n: fx.Node, module: Any) -> Any:
        """What `n` returns for all steps, [T x B, ...], or for each alike, [B, ...]."""
        read = [m for m in n.all_input_nodes if m in self.varying]
        if not read:
            return run.default(n)
        self.varying.add(n)
        if self.same.issuperset(read) and n.op != "output" and not isinstance(module, Stateful):
            return self._once(n, read)
        for m in self.same.intersection(read):
            run.env[m] = self._repeated(run.env[m])
        self.same -= {*read}
        if isinstance(module, Stateful):
            inputs = [run.env[m].unflatten(0, self.steps) for m in n.args if isinstance(m, fx.Node)]
            y, self.after[str(n.target)] = module(*inputs, self.state.get(str(n.target)))
            return y.flatten(0, 1)
        if isinstance(module, MAPS) and not torch.is_grad_enabled():
            return _from_first_to_last(module, run.env[read[0]], self.steps)
        return run.default(n)

    def _once(self, n: fx.Node, read: list[fx.Node]) -> Any:
        """What holds for every step; but a shape is that of all of them."""
        run = self.interpreter
        value = run.default(n)
        if not isinstance(value, torch.Size | int):
            self.same.add(n)
            return value
        return run.default(n, {m: self._repeated(run.env[m].to("meta")) for m in read})

    def _repeated(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._repeated(part) for part in value)
        return value.expand(self.steps[0], *value.shape).flatten(0, 1)


def _from_first_to_last(layer: nn.Module, x: Tensor, steps: tuple[int, int]) -> Tensor:
    """The layer's output of x [T x B, ...], computed from the first step with any value to the
    last."""
    filled = x.unflatten(0, steps).flatten(1).any(1).nonzero().flatten().tolist()
    first, last = (filled[0], filled[-1] + 1) if filled else (0, 0)
    if last - first == steps[0]:
        return layer(x)
    silent = layer(torch.zeros_like(x[:1]))
    y = silent.expand(steps[0], steps[1], *silent.shape[1:]).clone()
    if filled:
        some = x[first * steps[1] : last * steps[1]]  # a view: who counts knows it for spikes
        y[first:last] = layer(some).unflatten(0, (-1, steps[1]))
    return y.flatten(0, 1)


class Difference(Stateful):
    """A function without memory as one of rates: it hands on by how much its sum should grow.

        y_t = t f(mean of x up to t) - (t - 1) f(mean of x up to t - 1)

    so that y sums to T f(mean x) after T steps, for any f, of one input or several (temporal
    difference; Huang et al. 2024, arXiv 2410.09228, and the products of STA, Jiang et al. 2024).
    It computes in float64; t f is rounded to multiples of `unit`, which come out the same wherever
    f is computed, to the last bit.

    Args:
        function: of tensors [B, ...], such as `nn.MaxPool2d(2)` or `torch.matmul`.
        unit: a power of two; None to round nothing.
    """

    def __init__(self, function: Callable[..., Tensor], unit: float | None = None):
        super().__init__()
        self.function, self.unit = function, unit

    def forward(self, *arguments: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs [T, B, ...] and, last, the state or None -> y [T, B, ...] and the state.

        The state is (sums of each input, steps so far, t f of the means), float64.

        Raises:
            InputError: no step, or a state of another function.
        """
        *inputs, state = arguments if len(arguments) > 1 else (*arguments, None)
        steps, batch = inputs[0].shape[:2]
        if not steps:
            raise InputError("Difference: an input has no step")
        if state is not None and [getattr(v, "shape", None) for v in state[:-2]] != [
            x.shape[1:] for x in inputs
        ]:
            raise InputError("Difference: the state is of other inputs; pass back the last one")
        wide = [x.double() for x in inputs]
        *sums, begin, last = state or (*(torch.zeros_like(x[0]) for x in wide), 0.0, 0.0)
        count = begin + torch.arange(1, steps + 1, device=wide[0].device, dtype=torch.float64)
        totals = [before + torch.cumsum(x, 0) for before, x in zip(sums, wide, strict=True)]
        means = [t / count.reshape(-1, *(1 for _ in t.shape[1:])) for t in totals]
        total = self._run(*(m.flatten(0, 1) for m in means)).unflatten(0, (steps, batch))
        total = total * count.reshape(-1, *(1 for _ in total.shape[1:]))
        if self.unit is not None:  # gradients pass straight through
            near = torch.floor(total / self.unit + HALF) * self.unit
            total = near.detach() + (total - total.detach())
        before = torch.as_tensor(last).to(total).expand_as(total[:1])
        y = torch.diff(total, dim=0, prepend=before).to(inputs[0].dtype)
        return y, (*(t[-1] for t in totals), begin + steps, total[-1:])

    def as_op(self) -> difference.Difference:
        """The same as a node of a graph.

        Raises:
            InputError: a graph has no such function.
        """
        row, options = function_of(self.function)
        return difference.Difference(row.name, arrays(options), self.unit)

    def _run(self, *means: Tensor) -> Tensor:
        """The function, in float64."""
        if not isinstance(self.function, nn.Module):
            return self.function(*means)
        weights = {**dict(self.function.named_parameters()), **dict(self.function.named_buffers())}
        return functional_call(self.function, {n: w.double() for n, w in weights.items()}, means)
