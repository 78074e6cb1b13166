"""What a spike is worth, carried into the weights that read it.

Neurons send whole numbers; each is worth its population's threshold. The factor moves through
whatever only moves values, up to the next linear map, where it becomes part of the weights
(Diehl et al. 2015); where it can't, it is multiplied in on the way, by a synapse of its own.
Constants that multiply join it, and so do the divisors of averages, which become sums: what is
added up are whole numbers still.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..graph import ops
from ..graph.builder import Builder
from ..nn import Delay, Stateful
from ..nn.hooks import MAPS
from ..nn.interpreter import Interpreter, arguments_of, arrays, line, operator_of
from .tracing import SCALES, input_dependent, is_sum, kind_of

POOL = ("kernel_size", "stride", "padding", "ceil_mode")


def fold(graph: fx.GraphModule, scales: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    """Multiply what the populations in `graph` send by `scales`, by name, inside the weights.

    Args:
        graph: changed in place; its linear maps are copied where they change.
        scales: broadcast to one sample's neurons.
        shape: of one sample of the input.
    """
    carrier = _Carrier(graph, scales)
    with torch.no_grad():
        like = next(graph.parameters(), torch.zeros(()))
        carrier.run.run(like.new_ones(1, *shape))
    for node, before, scale in carrier.edits:
        name = f"{before.name}_for_{node.name}"
        graph.register_buffer(name, _compact(scale))
        with graph.graph.inserting_before(node):
            worth = graph.graph.get_attr(name)
            node.replace_input_with(before, graph.graph.call_function(torch.mul, (before, worth)))
    for node, before, value in carrier.constants:
        hold(graph, node, before, _compact(value))
    for node, before in carrier.carried:
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)


def hold(graph: fx.GraphModule, node: fx.Node, before: Any, value: Tensor) -> None:
    """Let `node` read a constant of its own in the place of what it reads `before`."""
    graph.register_buffer(name := f"{node.name}_constant", value)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    node.args = tuple(constant if arg is before else arg for arg in node.args)


class _Carrier:
    """Runs a graph on what each value has to be multiplied by, of one sample."""

    def __init__(self, graph: fx.GraphModule, scales: Mapping[str, Tensor]):
        self.graph, self.run = graph, Interpreter(graph, self.scale)
        self.scales, self.varying = scales, input_dependent(graph.graph)
        self.edits: list[tuple[fx.Node, fx.Node, Tensor]] = []
        self.constants: list[tuple[fx.Node, Any, Tensor]] = []
        self.carried: list[tuple[fx.Node, fx.Node]] = []

    def scale(self, run: Interpreter, n: fx.Node, module: Any) -> Any:
        """What the value of `n` has to be multiplied by; or a shape."""
        if n not in self.varying:
            return run.default(n)
        carried = [m for m in n.all_input_nodes if self._scaled(m)]
        if n.op == "call_module" and n.target in self.scales:
            self._settle(n, carried)
            like = run.env[n.all_input_nodes[0]]
            return self.scales[str(n.target)].to(like).expand_as(like)
        if (scale := self._joined(n)) is not None:
            return scale
        if (share := self._share(n, module)) is not None:
            scale = self._after(n, carried)
            if scale is None:
                self._settle(n, carried)
            return share if scale is None else share * scale
        self._need_a_form(n)
        if carried and isinstance(module, MAPS):
            scale = _inputs(module, run.env[carried[0]])
            if scale is None:
                self._settle(n, carried)
            else:
                self._multiply(n, module, scale)
        elif carried and hasattr(module, "carry"):
            return module.carry(run.env[carried[0]])
        elif isinstance(module, Delay):
            return run.env[n.all_input_nodes[0]]
        elif carried and not isinstance(module, Stateful):
            if (scale := self._after(n, carried)) is not None:
                return scale
            self._settle(n, carried)
        elif carried:
            self._settle(n, carried)
        return self._ones(n, module)

    def _scaled(self, node: fx.Node) -> bool:
        value = self.run.env.get(node)
        varying = node in self.varying and torch.is_tensor(value)
        return varying and value.is_floating_point() and bool((value != 1).any())

    def _settle(self, node: fx.Node, carried: list[fx.Node]) -> None:
        """Have `node` read true values."""
        for m in carried:
            self.edits.append((node, m, self.run.env[m].clone()))

    def _joined(self, n: fx.Node) -> Tensor | None:
        """The factor behind a product with a constant, which takes it in, or a sum with one."""
        kind, added = kind_of(self.graph, n), is_sum(self.graph, n)
        if not (kind in SCALES or added) or len(n.args) != 2:
            return None
        values = {arg: self.run.env[arg] for arg in n.args if isinstance(arg, fx.Node)}
        varying = [m for m, v in values.items() if m in self.varying and torch.is_tensor(v)]
        if len(varying) != 1 or n.args[0] is n.args[1]:
            return None
        scale, other = values[varying[0]], n.args[n.args[0] is varying[0]]
        value = torch.as_tensor(values.get(other, other)).to(scale)
        if torch.broadcast_shapes(value.shape, scale.shape) != scale.shape:
            return None
        if kind in SCALES:
            self.carried.append((n, varying[0]))
            return scale / value if kind == "div" else scale * value
        if not self._scaled(varying[0]) or not scale.all():
            return None
        self.constants.append((n, other, value / scale))
        return scale

    def _share(self, n: fx.Node, module: Any) -> Tensor | None:
        """What an average, which becomes a sum, is of it."""
        before = n.all_input_nodes[0] if n.all_input_nodes else n
        total = _total(n, module, getattr(self.run.env.get(before), "shape", ()))
        if total is None:
            return None
        ones = {before: torch.ones_like(self.run.env[before])}
        average = self.run.default(n, ones)
        n.op, n.target, n.args, n.kwargs = total
        added = self.run.default(n, ones)
        return torch.where(added == 0, 1, average / added)

    def _after(self, n: fx.Node, carried: list[fx.Node]) -> Tensor | None:
        """The factor behind `n` that does what those before it do, if there is one."""
        factors = {m: self.run.env[m] for m in carried}
        draw = torch.Generator().manual_seed(0)
        noise = {m: torch.rand(f.shape, generator=draw).to(f) for m, f in factors.items()}
        plain, scaled, first, second = (
            self.run.default(n, {m: make(m) for m in carried})
            for make in (
                lambda m: torch.ones_like(factors[m]),
                lambda m: factors[m],
                lambda m: noise[m],
                lambda m: noise[m] * factors[m],
            )
        )
        if not torch.is_tensor(plain):
            return plain
        factor = torch.where(plain == 0, 1, scaled / plain)
        near = 1e-6 * float(second.abs().max())
        return factor if torch.allclose(first * factor, second, 1e-4, near) else None

    def _ones(self, n: fx.Node, module: Any) -> Any:
        """The shape of what `n` returns, of a value that is true."""
        args, _ = self.run.fetch_args_kwargs_from_env(n)
        if isinstance(module, Stateful):
            y = module(*(a[None] for a in args), None)[0][0]
        else:
            y = self.run.default(n)
        return torch.ones_like(y) if torch.is_tensor(y) else y

    def _need_a_form(self, n: fx.Node) -> None:
        """Refuse what a graph has no form for at these shapes, so that no engine has to."""
        row, values = operator_of(self.graph, n), [self.run.env[m] for m in n.all_input_nodes]
        if not (row and row.lower) or row.weighted or sum(map(torch.is_tensor, values)) != 1:
            return
        if n.op == "call_module":
            options = arguments_of(self.graph, n, row)
        else:
            args, kwargs = self.run.fetch_args_kwargs_from_env(n)
            if not torch.is_tensor(args[0]):  # a list: shapes alone decide whether it fits
                return
            options = dict(zip(row.arguments, args[row.tensors :], strict=False)) | kwargs
        x = next(value for value in values if torch.is_tensor(value))
        builder = Builder()
        try:
            source = builder.add("x", ops.Input(tuple(x.shape[1:])))
            row.lower(builder, n.name, *row.tensors * (source,), **arrays(options))
        except (InputError, TypeError) as error:
            raise InputError(f"{n.name} can't be converted{line(n)}: {error}") from error

    def _multiply(self, n: fx.Node, module: Any, scale: Tensor) -> None:
        twin = copy.copy(module)
        twin._parameters = dict(module._parameters)
        twin.weight = nn.Parameter((module.weight * scale).detach(), requires_grad=False)
        n.target = f"{n.name}_weighted"
        self.graph.add_submodule(n.target, twin)
        self.run.submodules[n.target] = twin


def _total(n: fx.Node, module: Any, shape: tuple[int, ...]) -> tuple | None:
    """The node that adds up what `n` averages, of an input of `shape`; None if it does not."""
    kind = n.target if module is None else type(module)
    if kind in (torch.mean, "mean"):
        return n.op, "sum" if kind == "mean" else torch.sum, n.args, n.kwargs
    size = dict(zip(POOL, n.args[1:], strict=False)) | n.kwargs if module is None else vars(module)
    if kind in (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d):
        goal = size.get("output_size", size.get("kernel_size"))
        goal = goal if isinstance(goal, tuple | list) else (goal, goal)
        sides = [(k, s or k) for k, s in zip(shape[-2:], goal, strict=True)]
        size = {"kernel_size": tuple(k // s for k, s in sides)}
        kind = None if any(k % s for k, s in sides) else nn.AvgPool2d
    if kind not in (nn.AvgPool2d, F.avg_pool2d):
        return None
    size = {key: size[key] for key in POOL if key in size}
    return "call_function", F.avg_pool2d, n.args[:1], size | {"divisor_override": 1}


def _alike(scale: Tensor, other: Tensor) -> bool:
    """Whether factors are the same, but for rounding."""
    return torch.allclose(scale, other.expand_as(scale), 1e-5, 0.0)


def _compact(scale: Tensor) -> Tensor:
    """A factor of one sample [...], with dimensions of 1 where it is the same along them."""
    scale = scale[0].detach().clone()
    for dim in range(scale.dim()):
        if _alike(scale, scale.narrow(dim, 0, 1)):
            scale = scale.narrow(dim, 0, 1)
    return scale.contiguous()


def _inputs(module: Any, scale: Tensor) -> Tensor | None:
    """The factor of each weight of a map that reads values to be multiplied by `scale`."""
    if isinstance(module, nn.Linear):
        rows = scale.reshape(-1, scale.shape[-1])
        return rows[0] if _alike(rows, rows[:1]) else None
    channels = scale.flatten(2)[..., :1]
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    if transposed or not _alike(scale.flatten(2), channels):
        return None
    each = channels.reshape(module.groups, -1)
    each = each.repeat_interleave(module.out_channels // module.groups, 0)
    return each.reshape(*each.shape, *(1 for _ in module.kernel_size))
