"""A graph as a Mermaid flowchart: text that GitHub, GitLab and notebooks show as a drawing.

The syntax: https://mermaid.js.org/syntax/flowchart.html
"""

from ..core.errors import InputError
from .cycles import Edge, walk
from .graph import Graph, Node
from .ops import Delay, Input, Neurons

EDGES = 500  # that Mermaid draws, if it is not told otherwise
LONGEST = 26  # characters of a name
STYLE = """
    classDef neurons stroke:#d55e00,stroke-width:2px
    classDef weights stroke:#0072b2,stroke-width:2px
    classDef input stroke:#00805c,stroke-width:2px
    classDef late stroke-dasharray:5 4
    classDef other stroke:#9aa3ad
"""


def mermaid(graph: Graph) -> str:
    """Write `graph` as a Mermaid flowchart, readable for up to some dozens of nodes.

    Populations are round boxes, weights are square ones; a box and a line are dashed where they
    are a `Delay`'s.

    Raises:
        InputError: more edges than Mermaid draws.
    """
    edges = sum(len(node.inputs) for node in graph)
    if edges > EDGES:
        raise InputError(f"drawing: {edges} edges; {EDGES} are drawn at most, so use the summary")
    order = traversal(graph)[1]
    number = {name: i for i, name in enumerate(order)}
    lines = ["flowchart TD"]
    for name in order:
        node = graph.nodes[name]
        lines.append(f"    n{number[name]}{_box(graph, node)}")
        for source in node.inputs:
            late = any(isinstance(end.op, Delay) for end in (node, graph.nodes[source]))
            lines.append(f"    n{number[source]} {'-.->' if late else '-->'} n{number[name]}")
    return "\n".join(lines) + STYLE


def traversal(graph: Graph) -> tuple[set[Edge], list[str]]:
    """`walk` from the inputs; the last come first, so that the order is that of the graph."""
    names = [*graph.inputs[::-1], *list(graph.nodes)[::-1]]
    return walk(names, {name: readers[::-1] for name, readers in graph.readers.items()})


def plain(name: str, most: int = 60) -> str:
    """A name from anywhere, safe to show: what is not printable is replaced."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _box(graph: Graph, node: Node) -> str:
    """The shape, text and style of a node."""
    op, shape = node.op, "×".join(map(str, graph.shapes[node.name]))
    kind, left, right = "other", "(", ")"
    text = f"{type(op.dynamics if isinstance(op, Neurons) else op).__name__} {shape}"
    if isinstance(op, Delay):
        low, high = int(op.steps.min()), int(op.steps.max())
        steps = f"{low}" if low == high else f"{low} to {high}"
        kind, text = "late", f"{steps} step{'s' if high != 1 else ''} later"
    elif isinstance(op, Neurons):
        kind, left, right = "neurons", "([", "])"
    elif op.WEIGHTED:
        kind, left, right = "weights", "[", "]"
    elif isinstance(op, Input):
        kind = "input"
    text += ", output" if node.name in graph.outputs else ""
    # Whatever may mean something to Mermaid or to HTML goes in as a number.
    name = "".join(
        c if c.isalnum() or c in " ._-…" else f"#{ord(c)};" for c in plain(node.name, LONGEST)
    )
    return f'{left}"{name}<br>{text}"{right}:::{kind}'
