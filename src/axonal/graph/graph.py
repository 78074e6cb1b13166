"""A network as a static graph of linear maps and neurons: plain numpy, validated, no torch.

Every step, each node turns the values of its inputs into its own. A cycle must pass through a
`Delay` of at least one step, which hands on what an earlier step brought it. What is neither
linear nor a neuron is a `Difference`, which follows rates.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..core.errors import InputError
from .ops import LARGEST, Add, Delay, Input, Neurons, Op, Shape


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
        largest: values that a node may have.

    Attributes:
        nodes: by name, ordered.
        outputs: their names.
        shapes: of every node's value.

    Raises:
        InputError: a name twice or unknown, shapes that don't fit, no output, or a cycle without
            a delay.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str], *, largest: int = LARGEST):
        named = {node.name: node for node in nodes}
        if len(named) < len(nodes):
            twice, _ = Counter(node.name for node in nodes).most_common(1)[0]
            raise InputError(f"Graph: two nodes are called {twice!r}")
        for node in nodes:
            if missing := [name for name in node.inputs if name not in named]:
                raise InputError(f"Graph: {node.name!r} reads {missing[0]!r}, which isn't there")
        self.outputs = tuple(outputs)
        if wrong := [name for name in outputs if name not in named] or (not outputs and ["none"]):
            raise InputError(f"Graph: no output {wrong[0]!r}")
        self.nodes: dict[str, Node] = {node.name: node for node in _ordered(named)}
        self.shapes = _shapes(self.nodes, largest)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the `Input` nodes."""
        return tuple(node.name for node in self if isinstance(node.op, Input))

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes that read each node."""
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self:
            for name in node.inputs:
                readers[name].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

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
    """The nodes, each after its inputs; as they came where that leaves a choice."""
    waiting = {name: {i for i in node.inputs if not _waits(node)} for name, node in nodes.items()}
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for name, inputs in waiting.items():
        for source in inputs:
            readers[source].append(name)
    ready = deque(name for name, inputs in waiting.items() if not inputs)
    order = []
    while ready:
        name = ready.popleft()
        order.append(nodes[name])
        for reader in readers[name]:
            waiting[reader].discard(name)
            if not waiting[reader]:
                ready.append(reader)
    if len(order) < len(nodes):
        left = sorted(name for name, inputs in waiting.items() if inputs)
        raise InputError(
            f"Graph: {', '.join(left[:5])} read each other in one step; a cycle needs a Delay"
        )
    return order


def _shapes(nodes: Mapping[str, Node], largest: int) -> dict[str, Shape]:
    """The shape of every node's value, none of which has more than `largest` values."""
    shapes: dict[str, Shape] = {}
    late = [node for node in nodes.values() if _waits(node)]
    for node in nodes.values():
        if not _waits(node):
            _settle(nodes, node, shapes, largest)
            shapes[node.name] = _shape(node, [shapes[name] for name in node.inputs], largest)
    for node in late:
        _settle(nodes, node, shapes, largest)
        before = shapes[node.inputs[0]]
        if _shape(node, [before], largest) != shapes.setdefault(node.name, before):
            raise InputError(f"Graph: {node.name!r} closes a cycle with another shape")
    return shapes


def _shape(node: Node, inputs: Sequence[Shape], largest: int) -> Shape:
    """The shape of a node's value for inputs of these shapes."""
    try:
        shape = node.op.shape(*inputs)
    except InputError as error:
        raise InputError(f"Graph: {node.name!r}: {error}") from error
    if math.prod(shape) > largest or min(shape) < 1:
        raise InputError(f"Graph: {node.name!r} would have {shape} values")
    return shape


def _settle(nodes: Mapping[str, Node], node: Node, shapes: dict[str, Shape], largest: int) -> None:
    """Infer the shapes of what `node` reads, and of the delays on the way."""
    if not node.op.SEVERAL and len(node.inputs) != 1:
        raise InputError(f"Graph: {node.name!r} reads {len(node.inputs)} nodes instead of one")
    for name in node.inputs:
        if _inferred(nodes, nodes[name], shapes, largest, set()) is None:
            raise InputError(f"Graph: {node.name!r} stands in a cycle that nothing enters")


def _inferred(
    nodes: Mapping[str, Node],
    node: Node,
    shapes: dict[str, Shape],
    largest: int,
    seen: set[str],
) -> Shape | None:
    """The shape of a value in a cycle, from any of its inputs whose shape is known."""
    if node.name in shapes:
        return shapes[node.name]
    if node.name in seen:
        return None
    seen.add(node.name)
    sources = (_inferred(nodes, nodes[name], shapes, largest, seen) for name in node.inputs)
    if isinstance(node.op, Add):  # one tells the shape of all
        inputs = [next((shape for shape in sources if shape), None)]
    else:
        inputs = list(sources)
    known = [shape for shape in inputs if shape]
    if not known or len(known) < len(inputs):
        return None
    shapes[node.name] = _shape(node, known, largest)
    return shapes[node.name]
