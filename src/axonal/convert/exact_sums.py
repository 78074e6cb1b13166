"""Numbers that sum exactly: the same spikes from a converted network in any order of its sums.

Sums in floating point depend on their order, and a membrane that meets its threshold to the last
bit then fires here and not there. But float32 holds every integer up to 2^24, and sums of such are
exact in any order. So all that is summed lies on grids, the multiples of powers of two: inputs and
functions are rounded to one as they come, what spikes are multiplied by has few bits, and a row of
weights lies on the finest grid on which no part of its sum, for any input, goes beyond 2^24. What a
neuron does with a sum is the same operations in the same order everywhere. Float32 has to be
as it is: TF32 would break it. And weights keep `LEAST` bits even where the bound asks for fewer.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..nn import Delay, Difference, Neuron, OneStep, Signed
from ..nn.hooks import MAPS
from ..nn.interpreter import Interpreter
from .activations import BATCH, values_of
from .fold_thresholds import hold
from .tracing import SCALES, is_sum, kind_of, roles

SUM = 24  # bits of the integers that float32 holds
INPUT, VALUE = 10, 12  # bits of the largest input, and of the largest value of a function
SENT = 16  # bits of a number that is sent and of what it is multiplied by, together
LEAST = 8  # bits that weights and constants keep, even if the largest sums then don't fit
ROUNDS = 6  # in which the grids of branches that meet are brought together
SAMPLES = 4 * BATCH  # that show how large the values of functions are


def units(dense: fx.GraphModule, x: Tensor) -> dict[str, float]:
    """The grids of the input and the functions of a prepared network, by node: powers of two.

    Args:
        dense: the network.
        x: calibration samples [N, ...].
    """
    known = roles(dense)
    names = [node.name for node, role in known.items() if role in ("nonlinear", "product")]
    most = dict.fromkeys(names, x.new_zeros(()))
    for rows in x[:SAMPLES].split(BATCH) if names else ():
        values, _ = values_of(dense, names, rows)
        most = {name: torch.maximum(most[name], values[name].abs().amax()) for name in names}
    first = next(node.name for node, role in known.items() if role == "input")
    units = {name: float(_power(top)) * 2.0**-VALUE for name, top in most.items()}
    return units | {first: float(_power(x.abs().amax())) * 2.0**-INPUT}


def rounding(unit: float) -> OneStep:
    """Neurons that send how many times `unit` an input is, up to twice the largest calibrated."""
    dynamics = Signed(threshold=unit, levels=2 ** (INPUT + 1), negative_slope=1.0, decay=0.0)
    return OneStep(Neuron(dynamics))


def exact(graph: fx.GraphModule, shape: tuple[int, ...]) -> None:
    """Round weights and constants of an assembled network, in place, so that its sums are exact.

    What follows numbers that lie on no grid stays as it is.

    Args:
        graph: its inputs and functions rounded, and what spikes are worth inside its weights.
        shape: of one sample of the input.

    Raises:
        InputError: a weight is not finite.
    """
    one, spare = torch.ones(1, *shape, dtype=torch.float64), dict[str, int]()
    for _ in range(ROUNDS):
        run = _Rounded(graph, spare)
        with torch.no_grad():
            Interpreter(graph, run.grid).run(Grid(one, 0 * one))
        if not run.over:
            break
        spare = {name: spare.get(name, 0) + run.over.get(name, 0) for name in spare | run.over}
    like = next(graph.parameters(), torch.zeros(()))
    for node, values in run.weights.items():
        own = [None if v is None else nn.Parameter(v.to(like), False) for v in values]
        graph.add_submodule(f"{node.name}_weighted", _like(graph.get_submodule(node.target), *own))
        node.target = f"{node.name}_weighted"
    for node, (before, value) in run.constants.items():
        hold(graph, node, before, value.to(like))
    graph.graph.eliminate_dead_code()


@dataclass(frozen=True, eq=False)
class Grid:
    """What the values of a node can be, for one sample [1, ...].

    Attributes:
        size: the largest, also of a part of their sum.
        unit: what they are multiples of, powers of two; 0 where there is none.
        above: whether none is below 0.
        origins: the nodes whose weights or constants may be coarser.
    """

    size: Tensor
    unit: Tensor
    above: bool = False
    origins: frozenset[str] = frozenset()

    @property
    def bits(self) -> int:
        """Of the largest, in units."""
        return math.ceil(math.log2(max(1.0, float((self.size / self.unit).max()))))


class _Rounded:
    """The rule that runs a graph on grids; those of nodes in `spare` are coarser by so many bits.

    Attributes:
        over: bits by which sums go beyond those of float32, by the nodes that can change it.
        weights, constants: rounded, by node; a constant with what it takes the place of.
    """

    def __init__(self, graph: fx.GraphModule, spare: Mapping[str, int]):
        self.graph, self.spare, self.over = graph, spare, dict[str, int]()
        self.weights: dict[fx.Node, tuple[Tensor, Tensor | None]] = {}
        self.constants: dict[fx.Node, tuple[Any, Tensor]] = {}

    def grid(self, run: Interpreter, n: fx.Node, module: Any) -> Any:
        """The grid of what `n` returns; or a shape, or a constant."""
        read = [x for m in n.all_input_nodes if isinstance(x := run.env[m], Grid)]
        result = self._grid(run, n, module, read) if read and n.op != "output" else run.default(n)
        if isinstance(result, Grid) and result.unit.all() and (over := result.bits - SUM) > 0:
            self.over |= {name: max(over, self.over.get(name, 0)) for name in result.origins}
        return result

    def _grid(self, run: Interpreter, n: fx.Node, module: Any, read: list[Grid]) -> Any:
        """The same for the grids that it reads."""
        if isinstance(module, MAPS):
            return self._map(n, module, read[0])
        if isinstance(module, Delay):
            return read[0]
        if isinstance(module, Neuron | OneStep):
            dynamics = (module if isinstance(module, Neuron) else module.neuron).dynamics
            above = not getattr(dynamics, "negative_slope", 0.0)
            return _numbers(read[0].size, dynamics.levels, above=above)
        if hasattr(module, "carry"):
            return _numbers(module.carry(read[0].size), 1, above=True)
        if isinstance(module, Difference):
            sizes = [run.env[m].size[None] for m in n.args if isinstance(m, fx.Node)]
            return _numbers(module(*sizes, None)[0][0], 2 ** (VALUE + 1), module.unit or 0.0)
        kind, added = kind_of(self.graph, n), is_sum(self.graph, n)
        if added and (len(read) == 2 or n.args[0] is n.args[1]):
            return self._sum(read[0], read[-1])
        if added or n.target is torch.mul:
            return self._constant(run, n, read[0])
        return self._moved(run, n, read, kind not in (*SCALES, "matmul", "batch_norm"))

    def _map(self, n: fx.Node, module: Any, x: Grid) -> Grid:
        """Weights on the finest grids, one a row, on which parts of their sums have room."""
        dim, finest = -1 if isinstance(module, nn.Linear) else 1, x.unit.min()
        weight = rounded = module.weight.double()
        if not bool(weight.isfinite().all()):
            raise InputError(f"{n.name}: its weights times thresholds are beyond float32")
        bias = weight.new_zeros(1) if module.bias is None else module.bias.double()
        across = isinstance(module, nn.modules.conv._ConvTransposeNd)  # each weight is of many rows
        most = weight.abs().amax() if across else weight.abs().flatten(1).amax(1)
        unit, least = weight.new_zeros(1), _power(most) * finest * 2.0**-LEAST
        for _ in range(2):  # the second sees whether rounding up went too far
            up, down = (_like(module, w.relu(), None)(x.size) for w in (rounded, -rounded))
            size = torch.maximum(up, down) if x.above else up + down
            size = (size.transpose(dim, -1) + bias.abs()).transpose(dim, -1)
            if not finest:
                return Grid(size, torch.zeros_like(size))
            rows = size.transpose(dim, 0).flatten(1).amax(1)
            rows = rows.max() if across else torch.where(rows > 0, rows, rows.max())
            need = _power(rows) * 2.0 ** (self.spare.get(n.name, 0) - SUM)
            unit = torch.maximum(unit, torch.minimum(need, least))
            step = unit.reshape(-1, *(1 for _ in weight.shape[1:])) / finest
            rounded = torch.round(weight / step) * step
        self.weights[n] = rounded, module.bias if module.bias is None else _near(bias, unit)
        unit = unit.expand(size.shape[dim]).reshape(-1, *(1 for _ in size.shape[2:] if dim == 1))
        origins = frozenset({n.name} if bool((need < least).any()) else ())
        return Grid(size, unit.expand_as(size), origins=origins)

    def _sum(self, x: Grid, y: Grid) -> Grid:
        """Of two values, of which those on the finer grid decide."""
        size = x.size + y.size
        unit = torch.minimum(x.unit, y.unit).expand_as(size)
        finer = (g.origins for g in (x, y) if bool((g.unit == unit).any()))
        return Grid(size, unit, origins=frozenset[str]().union(*finer))

    def _constant(self, run: Interpreter, n: fx.Node, x: Grid) -> Grid:
        """A sum with a constant, or a product with what a spike is worth."""
        constants = {a: run.env[a] if isinstance(a, fx.Node) else a for a in n.args}
        (before,) = (a for a in n.args if not isinstance(constants[a], Grid))
        value = torch.as_tensor(constants[before]).to(x.size)
        value = value.reshape(*(1 for _ in range(x.size.dim() - value.dim())), *value.shape)
        if not x.unit.all():
            return Grid(x.size + value.abs(), torch.zeros_like(x.size + value))
        spare, own = self.spare.get(n.name, 0), frozenset({n.name})
        if is_sum(self.graph, n):
            alike = [d for d, k in enumerate(value.shape) if k == 1]
            step = _power(value.abs().max()) * 2.0 ** (spare - LEAST)
            step = torch.minimum(x.unit.amin(alike, keepdim=True), step)
            value, unit, size = (
                _near(value, step),
                torch.minimum(x.unit, step),
                x.size + value.abs(),
            )
            own = own if bool((unit < x.unit).any()) else frozenset[str]()
        else:
            step = _power(value.abs()) * 2.0 ** -max(SENT - x.bits - spare, LEAST)
            value, unit, size = _near(value, step), x.unit * step, x.size * value.abs()
        self.constants[n] = before, value
        return Grid(size, unit.expand_as(size), origins=x.origins | own)

    def _moved(self, run: Interpreter, n: fx.Node, read: list[Grid], known: bool) -> Any:
        """Of what moves values, or adds some up; or a shape. What else there is is not `known`."""
        nodes = [m for m in n.all_input_nodes if isinstance(run.env[m], Grid)]

        def moved(values: Iterable[Tensor]) -> Any:
            return run.default(n, dict(zip(nodes, values, strict=True)))

        size, unit = moved(x.size for x in read), moved(x.unit for x in read)
        ones = moved(torch.ones_like(x.size) for x in read)
        if not torch.is_tensor(size):
            return size
        if not known:
            unit = torch.zeros_like(size)
        elif bool((ones.abs() > 1).any()):
            unit = torch.stack([x.unit.min() for x in read]).min().expand_as(size)
        unit = torch.where(ones == 0, unit.max(), unit.abs())
        above = all(x.above for x in read) and bool((ones >= 0).all())
        return Grid(size.abs(), unit, above, frozenset[str]().union(*(x.origins for x in read)))


def _numbers(like: Tensor, most: float, unit: float = 1.0, above: bool = False) -> Grid:
    """Up to `most` times the unit."""
    return Grid(torch.full_like(like, most * unit), torch.full_like(like, unit), above)


def _like(module: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """A map as `module` with other weights."""
    twin = copy.copy(module)
    twin._parameters = {"weight": weight, "bias": bias}
    return twin


def _power(x: Tensor) -> Tensor:
    """The least power of two from x on, float64; 1 for 0."""
    share, _ = torch.frexp(x := x.double())  # of a power of two, in [1/2, 1)
    return torch.where(share == 0, 1.0, torch.where(share == 0.5, x, x / share))


def _near(x: Tensor, step: Tensor) -> Tensor:
    return torch.round(x / step) * step
