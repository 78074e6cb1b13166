"""A network as a static graph of linear maps and neurons: plain numpy, validated, no torch.

Every step, each node turns the values of its inputs into its own. A cycle must pass through a
`Delay` of at least one step, which hands on what an earlier step brought it. What is neither
linear nor a neuron is a `Difference`, which follows rates.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..core.errors import InputError
from .ops import (
    LARGEST,
    Add,
    Bias,
    Concat,
    Conv,
    Delay,
    Dense,
    Input,
    Neurons,
    Op,
    Pool,
    Resize,
    Scale,
    Select,
    Shape,
    reshape,
)

__all__ = [
    "LARGEST",
    "Add",
    "Bias",
    "Concat",
    "Conv",
    "Delay",
    "Dense",
    "Graph",
    "Input",
    "Neurons",
    "Node",
    "Op",
    "Pool",
    "Resize",
    "Scale",
    "Select",
    "Shape",
    "reshape",
]


@dataclass(frozen=True, eq=False)
class Node:
    """A named place in a graph: what it computes, and of which nodes."""

    name: str
    op: Op
    inputs: tuple[str, ...] = ()


class Graph:
    """A network: nodes by name, in an order in which each comes after its inputs.

    Only a `Delay` may stand before its input, where a cycle closes.

    Args:
        nodes: in any order.
        outputs: names of the nodes whose values are the result.

    Attributes:
        nodes: by name, ordered.
        outputs: as given.
        shapes: of every node's value.

    Raises:
        InputError: a name twice or unknown, shapes that don't fit, no output, or a cycle without
            a delay.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str]):
        names = [node.name for node in nodes]
        given = {node.name: node for node in nodes}
        if len(given) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"Graph: two nodes are called {twice!r}")
        for node in nodes:
            if missing := [name for name in node.inputs if name not in given]:
                raise InputError(f"Graph: {node.name!r} reads {missing[0]!r}, which isn't there")
        self.outputs = tuple(outputs)
        if wrong := [name for name in outputs if name not in given] or (not outputs and ["none"]):
            raise InputError(f"Graph: no output {wrong[0]!r}")
        self.nodes: dict[str, Node] = {node.name: node for node in _ordered(given)}
        self.shapes = _shapes(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the `Input` nodes."""
        return tuple(node.name for node in self if isinstance(node.op, Input))

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The nodes that read each node."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self:
            for name in node.inputs:
                found[name].append(node.name)
        return {name: tuple(readers) for name, readers in found.items()}

    @cached_property
    def neurons(self) -> dict[str, Neurons]:
        """The populations by name."""
        return {node.name: node.op for node in self if isinstance(node.op, Neurons)}

    def size(self, name: str) -> int:
        """How many values the node `name` has."""
        return math.prod(self.shapes[name])


def _waits(node: Node) -> bool:
    """Whether a node's value needs nothing of the same step."""
    return isinstance(node.op, Delay) and int(node.op.steps.min()) > 0


def _ordered(nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes, each after its inputs; as given where that leaves a choice."""
    waiting = {name: {i for i in node.inputs if not _waits(node)} for name, node in nodes.items()}
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for name, inputs in waiting.items():
        for source in inputs:
            readers[source].append(name)
    ready = [name for name, inputs in waiting.items() if not inputs]
    found = []
    while ready:
        name = ready.pop(0)
        found.append(nodes[name])
        for reader in readers[name]:
            waiting[reader].discard(name)
            if not waiting[reader]:
                ready.append(reader)
    if len(found) < len(nodes):
        left = sorted(name for name in nodes if nodes[name] not in found)
        raise InputError(
            f"Graph: {', '.join(left[:5])} read each other in one step; a cycle needs a Delay"
        )
    return found


def _shapes(nodes: Mapping[str, Node]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    late = [node for node in nodes.values() if _waits(node)]
    for node in nodes.values():
        if not _waits(node):
            _settle(nodes, node, shapes)
    for node in late:
        _find(nodes, node, shapes)
        got = shapes[node.inputs[0]]
        if node.op.shape(got) != shapes.setdefault(node.name, got):
            raise InputError(f"Graph: {node.name!r} closes a cycle with another shape")
    return shapes


def _settle(nodes: Mapping[str, Node], node: Node, shapes: dict[str, Shape]) -> None:
    """Find the shape of `node`, and of the delays that it waits for on the way."""
    _find(nodes, node, shapes)
    given = [shapes[name] for name in node.inputs]
    try:
        shapes[node.name] = node.op.shape(*given)
    except InputError as error:
        raise InputError(f"Graph: {node.name!r}: {error}") from error
    if math.prod(shapes[node.name]) > LARGEST or min(shapes[node.name]) < 1:
        raise InputError(f"Graph: {node.name!r} would have {shapes[node.name]} values")


def _find(nodes: Mapping[str, Node], node: Node, shapes: dict[str, Shape]) -> None:
    """Find the shapes of what `node` reads."""
    if not node.op.SEVERAL and len(node.inputs) != 1:
        raise InputError(f"Graph: {node.name!r} reads {len(node.inputs)} nodes instead of one")
    for name in node.inputs:
        if _guess(nodes, nodes[name], shapes, set()) is None:
            raise InputError(f"Graph: {node.name!r} stands in a cycle that nothing enters")


def _guess(
    nodes: Mapping[str, Node], node: Node, shapes: dict[str, Shape], seen: set[str]
) -> Shape | None:
    """The shape of a value in a cycle, from any of its inputs that can be known."""
    if node.name in shapes:
        return shapes[node.name]
    if node.name in seen:
        return None
    seen.add(node.name)
    found = (_guess(nodes, nodes[name], shapes, seen) for name in node.inputs)
    given = [next((g for g in found if g), None)] if isinstance(node.op, Add) else list(found)
    if not given or any(g is None for g in given):
        return None
    shapes[node.name] = node.op.shape(*(g for g in given if g))
    return shapes[node.name]
