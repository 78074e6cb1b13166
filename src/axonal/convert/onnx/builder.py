"""A torch.fx graph under construction, in which every value knows its shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from ...core.errors import FileError, InputError

PROBE = 7919  # samples, while shapes are worked out: a prime, to be known in what is computed
LARGEST = 1 << 26  # values of a sample, or of a constant that a file makes
Value = fx.Node | Tensor  # what depends on the input, and what does not


class Builder:
    """Adds calls to a graph of one input; what depends on no input is computed at once.

    Args:
        shape: of one sample.
    """

    def __init__(self, shape: Sequence[int]):
        self.root, self.graph = nn.Module(), fx.Graph()
        self.input = self.graph.placeholder("x")
        self.input.meta["value"] = _bounded(torch.empty(PROBE, *shape, device="meta"))

    def module(self, output: Any, name: str) -> fx.GraphModule:
        """The finished network, which returns `output`: nodes, or a dictionary of these."""
        self.graph.output(output)
        return fx.GraphModule(self.root, self.graph, name).eval()

    def run(self, function: Callable, args: Sequence[Any], options: Mapping[str, Any]) -> Value:
        """What `function` returns: a node if any of `args`, or of lists in it, is one."""
        nodes: list[fx.Node] = []
        map_aggregate(args, lambda a: nodes.append(a) if isinstance(a, fx.Node) else None)
        result = _bounded(function(*map_aggregate(args, meta), **options))
        if not nodes:
            return _once(function(*args, **options))
        rank = max(meta(node).dim() for node in nodes)
        read = map_aggregate(args, lambda a: self._readable(a, rank) if torch.is_tensor(a) else a)
        return self._follow(self.graph.call_function(function, tuple(read), {**options}), result)

    def repeated(self, constant: Tensor, like: fx.Node) -> fx.Node:
        """A constant [1, ...] for every sample of `like`."""
        place = self._readable(constant, 0)
        size = self.graph.call_method("size", (like, 0))
        ones = (-1,) * (constant.dim() - 1)
        node = self.graph.call_method("expand", (place, size, *ones))
        return self._follow(node, meta(constant).expand(PROBE, *ones))

    def layer(self, name: str, layer: nn.Module, x: Value) -> Value:
        """What a layer returns that is added under `name`."""
        if torch.is_tensor(x):
            raise InputError("a layer reads a constant")
        name = name if not hasattr(self.root, name) else f"{name}_{len(self.graph.nodes)}"
        self.root.add_module(name, layer.eval())
        weights = {k: v.to("meta") for k, v in layer.state_dict().items()}
        result = torch.func.functional_call(layer, weights, (x.meta["value"],))
        return self._follow(self.graph.call_module(name, (x,)), _bounded(result))

    def _follow(self, node: fx.Node, result: Tensor) -> fx.Node:
        if result.shape[:1] != (PROBE,) or any(n % PROBE == 0 for n in result.shape[1:] if n):
            raise InputError("it moves samples away from the first axis")
        node.meta["value"] = result
        return node

    def _readable(self, constant: Tensor, rank: int) -> Any:
        """A constant as an attribute of the module, or a number."""
        if constant.numel() == 1 and constant.dim() <= rank:
            return constant.item()
        name = f"constant_{len(self.graph.nodes)}"
        self.root.register_buffer(name, constant)
        return self.graph.get_attr(name)


def meta(value: Any) -> Any:
    """A value's shape and type, as a tensor without memory."""
    if isinstance(value, fx.Node):
        return value.meta["value"]
    return value.to("meta") if torch.is_tensor(value) else value


def _bounded(value: Tensor) -> Tensor:
    """`value`, unless a sample or constant is too large."""
    samples = PROBE if value.shape[:1] == (PROBE,) else 1
    if value.numel() > LARGEST * samples:
        raise FileError(f"an ONNX file asks for {list(value.shape)} values; {LARGEST:,} are read")
    return value


def _once(constant: Tensor) -> Tensor:
    """A constant that was repeated for every sample, once."""
    repeated = constant.is_floating_point() and constant.shape[:1] == (PROBE,)
    return constant[:1] if repeated else constant
