"""A graph as a drawing in SVG: its nodes from top to bottom, what is late dashed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup

from ..core.errors import InputError
from .cycles import Edge, walk
from .graph import Delay, Graph, Input, Neurons, Node

MOST = 400  # nodes
GLYPH, HIGH, GAP, STEP, LINE = 7.4, 42, 26, 88, 14  # a character, a box, between, a layer, an edge
LONGEST = 26  # characters of a name
STYLE = """
.axonal { --ink: #1c1e21; --soft: #5f656d; --paper: #fff; --wire: #9aa3ad; }
.axonal { --weights: #0072b2; --neurons: #d55e00; --other: #9aa3ad; --ends: #00805c; }
@media (prefers-color-scheme: dark) {
.axonal { --ink: #e9eaec; --soft: #9ba2ab; --paper: #1c1f24; --wire: #7d8691; }
.axonal { --weights: #5ab4ec; --neurons: #ff8a3d; --other: #7d8691; --ends: #2cc295; }
}
.axonal text { font: 12px system-ui, sans-serif; text-anchor: middle; fill: var(--soft); }
.axonal text.name { font-weight: 600; fill: var(--ink); }
.axonal rect { fill: var(--paper); stroke-width: 1.8; }
.axonal .wire { fill: none; stroke: var(--wire); stroke-width: 1.6; }
.axonal .late { stroke-dasharray: 5 4; }
.axonal .tip { fill: var(--wire); }
"""


@dataclass
class _Spot:
    """A box, or the place where a long edge passes a layer.

    Attributes:
        rank: its layer, counted from the top.
        wide: of the box, in px.
        x: of its middle.
        above, below: the spots that it is drawn to.
    """

    rank: int
    wide: float
    x: float = 0.0
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)


def draw(graph: Graph) -> str:
    """`graph` as the text of an SVG file, readable for up to some dozens of nodes.

    Populations are round boxes, weights are square ones; a box and a line are dashed where they
    are a `Delay`'s, and lines that close a cycle run along the right. Resting on a box shows what
    it does.

    Raises:
        InputError: more than `MOST` nodes.
    """
    if len(graph.nodes) > MOST:
        raise InputError(f"draw: {len(graph.nodes)} nodes; {MOST} at most, or use the summary")
    closing, order = traversal(graph)
    spots, routes = _ranked(graph, order, closing)
    rows = _rows(spots, {source for source, _ in closing})
    _arrange(spots, rows)
    right = max(spot.x + spot.wide / 2 for spot in spots.values())
    wires = [_wire(graph, spots, edge, route) for edge, route in routes.items()]
    # The shortest way round runs innermost.
    turns = sorted(closing, key=lambda edge: abs(spots[edge[0]].rank - spots[edge[1]].rank))
    wires += [
        _turn(graph, spots, edge, right + LINE * (i + 2), 4.0 * (i % 4))
        for i, edge in enumerate(turns)
    ]
    width = right + LINE * (len(turns) + 2)
    boxes = [_box(graph, graph.nodes[name], spots[name]) for name in order]
    body = Markup("").join(wires + boxes)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="axonal" viewBox="0 0 {:.0f} {:.0f}" '
        'width="{:.0f}" height="{:.0f}" role="img"><title>{} nodes</title><style>{}</style>'
        "{}</svg>"
    ).format(*(width, STEP * len(rows)) * 2, len(order), Markup(STYLE), body)


def traversal(graph: Graph) -> tuple[set[Edge], list[str]]:
    """`walk` from the inputs; the last come first, so that the order is that of the graph."""
    names = [*graph.inputs[::-1], *list(graph.nodes)[::-1]]
    return walk(names, {name: readers[::-1] for name, readers in graph.readers.items()})


def _ranked(
    graph: Graph, order: list[str], closing: set[Edge]
) -> tuple[dict[str, _Spot], dict[Edge, list[str]]]:
    """Every node on the layer below its lowest source; and the spots along every edge."""
    spots: dict[str, _Spot] = {}
    routes: dict[Edge, list[str]] = {}
    for name in order:
        node = graph.nodes[name]
        sources = [s for s in dict.fromkeys(node.inputs) if (s, name) not in closing]
        rank = max((spots[source].rank + 1 for source in sources), default=0)
        lines = max(len(line) for line in _lines(graph, node))
        spots[name] = _Spot(rank, GLYPH * lines + 24)
        for source in sources:
            route = [source]
            for between in range(spots[source].rank + 1, rank):
                passing = f"{len(spots)}\0"  # no name that is drawn holds this
                spots[passing] = _Spot(between, 4.0)
                route.append(passing)
            routes[source, name] = [*route, name]
    for route in routes.values():
        for above, below in pairwise(route):
            spots[above].below.append(below)
            spots[below].above.append(above)
    return spots, routes


def _rows(spots: Mapping[str, _Spot], outside: set[str]) -> list[list[str]]:
    """The layers, each ordered by the middle of its neighbours, so that fewer edges cross.

    Those of `outside`, whose edges turn back on the right, come last.
    """
    rows: list[list[str]] = [[] for _ in range(max(s.rank for s in spots.values()) + 1)]
    for name, spot in spots.items():
        rows[spot.rank].append(name)
    place = {name: float(i) for row in rows for i, name in enumerate(row)}

    def middle(name: str, near: str) -> float:
        if name in outside:
            return math.inf
        others = getattr(spots[name], near)
        return sum(place[o] for o in others) / len(others) if others else place[name]

    for turn in range(8):
        near = "below" if turn % 2 else "above"
        for row in rows[::-1] if turn % 2 else rows:
            row.sort(key=lambda name: middle(name, near))
            place.update({name: float(i) for i, name in enumerate(row)})
    return rows


def _arrange(spots: Mapping[str, _Spot], rows: list[list[str]]) -> None:
    """Find x: near the neighbours, and apart from each other."""
    for row in rows:
        for before, name in pairwise(row):
            spots[name].x = spots[before].x + _apart(spots, before, name)
        middle = spots[row[-1]].x / 2
        for name in row:
            spots[name].x -= middle
    for turn in range(40):
        near = ("above", "below")[turn % 2 :][:1] if turn < 36 else ("above", "below")
        for row in rows[::-1] if turn % 2 else rows:
            _shift(spots, row, near)
    left = min(spot.x - spot.wide / 2 for spot in spots.values())
    for spot in spots.values():
        spot.x += 12 - left


def _shift(spots: Mapping[str, _Spot], row: list[str], near: tuple[str, ...]) -> None:
    """Move a layer towards the middle of its neighbours."""
    wish = []
    for name in row:
        others = [spots[other].x for side in near for other in getattr(spots[name], side)]
        wish.append(sum(others) / len(others) if others else spots[name].x)
    gaps = [_apart(spots, a, b) for a, b in pairwise(row)]
    low, high = wish[:1], wish[-1:]
    for want, gap in zip(wish[1:], gaps, strict=True):
        low.append(max(want, low[-1] + gap))
    for want, gap in zip(wish[-2::-1], gaps[::-1], strict=True):
        high.append(min(want, high[-1] - gap))
    for name, a, b in zip(row, low, high[::-1], strict=True):
        spots[name].x = (a + b) / 2  # both keep the gaps, so their mean does


def _apart(spots: Mapping[str, _Spot], a: str, b: str) -> float:
    return (spots[a].wide + spots[b].wide) / 2 + GAP


def _top(spot: _Spot) -> float:
    return 30 + STEP * spot.rank


def _late(graph: Graph, edge: Edge) -> str:
    late = any(isinstance(graph.nodes[name].op, Delay) for name in edge)
    return "wire late" if late else "wire"


def _wire(graph: Graph, spots: Mapping[str, _Spot], edge: Edge, route: list[str]) -> Markup:
    """An edge downwards, past the layers between."""
    x, y = spots[edge[0]].x, _top(spots[edge[0]]) + HIGH
    path = f"M{x:.1f} {y:.1f}"
    for name in route[1:]:
        spot = spots[name]
        end = _top(spot) - (7 if name == edge[1] else 0)
        half = (y + end) / 2
        path += f"C{x:.1f} {half:.1f} {spot.x:.1f} {half:.1f} {spot.x:.1f} {end:.1f}"
        x, y = spot.x, end
        if name != edge[1]:
            y += HIGH
            path += f"V{y:.1f}"
    return _path(path, _late(graph, edge), f"M{x - 4:.1f} {y:.1f}h8l-4 7z")


def _turn(
    graph: Graph, spots: Mapping[str, _Spot], edge: Edge, far: float, offset: float
) -> Markup:
    """An edge that closes a cycle: out below, along on the right, and back in from above."""
    start, end = spots[edge[0]], spots[edge[1]]
    x, y = start.x + start.wide / 4, _top(start) + HIGH
    back, top = end.x + end.wide / 4, _top(end) - 7
    low, up = y + 8 + offset, top - 2 - offset
    path = f"M{x:.1f} {y:.1f}V{low - 6:.1f}q0 6 6 6H{far - 6:.1f}q6 0 6 -6"
    path += f"V{up + 6:.1f}q0 -6 -6 -6H{back + 6:.1f}q-6 0 -6 6V{top:.1f}"
    return _path(path, _late(graph, edge), f"M{back - 4:.1f} {top:.1f}h8l-4 7z")


def _path(path: str, style: str, tip: str) -> Markup:
    return Markup('<path class="{}" d="{}"/><path class="tip" d="{}"/>').format(style, path, tip)


def _lines(graph: Graph, node: Node) -> tuple[str, str]:
    """What a box says."""
    name = plain(node.name, LONGEST)
    end = ", output" if node.name in graph.outputs else ""
    if isinstance(node.op, Delay):
        low, high = int(node.op.steps.min()), int(node.op.steps.max())
        steps = f"{low}" if low == high else f"{low} to {high}"
        return name, f"{steps} step{'s' if high != 1 else ''} later{end}"
    kind = type(node.op.dynamics if isinstance(node.op, Neurons) else node.op).__name__
    return name, f"{kind} {'×'.join(map(str, graph.shapes[node.name]))}{end}"


def plain(name: str, most: int = 60) -> str:
    """A name from anywhere, safe to show: what is not printable is replaced."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _box(graph: Graph, node: Node, spot: _Spot) -> Markup:
    round_, tone = 5, "other"
    if isinstance(node.op, Neurons):
        round_, tone = HIGH // 2, "neurons"
    elif node.op.WEIGHTED:
        round_, tone = 0, "weights"
    elif isinstance(node.op, Input):
        tone = "ends"
    name, text = _lines(graph, node)
    return Markup(
        '<g><title>{}: {}</title><rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}" '
        'rx="{}" style="stroke:var(--{})"/><text class="name" x="{:.1f}" y="{}">{}</text>'
        '<text x="{:.1f}" y="{}">{}</text></g>'
    ).format(
        *(plain(node.name), text, "late" if isinstance(node.op, Delay) else "now"),
        *(spot.x - spot.wide / 2, _top(spot), spot.wide, HIGH, round_, tone),
        *(spot.x, _top(spot) + 18, name, spot.x, _top(spot) + 34, text),
    )
