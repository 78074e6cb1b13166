"""Networks of NIR, from files and from the package `nir`, as a `Graph`."""

from pathlib import Path
from typing import Any

import numpy as np

from ...core import hdf5
from ...core.errors import InputError
from ...core.hdf5 import Tree
from ...graph.cycles import Edge, walk
from ...graph.graph import Graph
from ...graph.ops import Add, Delay
from .conventions import convention
from .nodes import RULES, SPIKING, Builder, Values

NODES = 4096  # of a network that is read


def read(path: str | Path, *, dt: float, discretisation: str, limit: int = hdf5.LIMIT) -> Graph:
    """Read the network of a NIR file.

    Args:
        path: of the file.
        dt: seconds of a step.
        discretisation: a name out of `CONVENTIONS`.
        limit: bytes that the file and its data may have.

    Returns:
        The graph; constants are rounded to float32.

    Raises:
        FileError: the file is missing, damaged, too large, or no HDF5 of numbers (`hdf5.read`).
        InputError: it holds no network of NIR, or one that has no such steps; the message names
            the node and the parameter.
        MissingExtra: h5py is not installed.
    """
    tree = hdf5.read(path, limit)
    try:
        return _graph(tree.get("node"), dt, discretisation, limit)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def from_nir(graph: Any, *, dt: float, discretisation: str) -> Graph:
    """Turn a `nir.NIRGraph` into a graph, as `read`."""
    return _graph(_tree(graph), dt, discretisation)


def _tree(node: Any) -> Tree:
    """A node of `nir` as it would come from a file."""
    kind = type(node).__name__
    if kind == "NIRGraph":
        nodes = {name: _tree(inner) for name, inner in node.nodes.items()}
        return {"type": kind, "nodes": nodes, "edges": node.edges}
    tree = {k: v for k, v in vars(node).items() if k not in ("input_type", "output_type")}
    if kind in ("Input", "Output"):
        tree["shape"] = getattr(node, f"{kind.lower()}_type")[kind.lower()]
    elif kind == "Flatten":
        tree["input_type"] = node.input_type["input"]
    return tree | {"type": kind}


def _graph(tree: Any, dt: float, discretisation: str, limit: float = float("inf")) -> Graph:
    """The network of a tree, of whose nodes none has more than `limit` / 16 values."""
    rules = convention(dt, discretisation)
    kind = tree.get("type") if isinstance(tree, dict) else None
    if not isinstance(kind, str) or kind != "NIRGraph":
        raise InputError("nir: no network; the `node` of a file has to be a NIRGraph")
    nodes, edges = _flat(tree)
    if len(nodes) > NODES or len(edges) > 4 * NODES:
        raise InputError(f"nir: {len(nodes)} nodes and {len(edges)} edges; {NODES} are read")
    return _built(nodes, edges, Builder(nodes, rules, dt, limit / 16))


def _flat(tree: Tree, prefix: str = "") -> tuple[dict[str, Tree], list[Edge]]:
    """Nodes by their names, those of nested graphs as `GRAPH.NODE`, and the edges between them."""
    nodes: dict[str, Tree] = {}
    edges: list[Edge] = []
    inside = tree.get("nodes")
    if not isinstance(inside, dict) or "edges" not in tree:
        raise InputError(f"nir: {prefix[:-1] or 'the network'!r} has no nodes or no edges")
    for name, node in inside.items():
        kind = node.get("type") if isinstance(node, dict) else None
        known = isinstance(kind, str) and (kind in RULES or kind == "NIRGraph") and kind != "Port"
        if not known:
            raise InputError(f"nir: {prefix + name!r} is of a type that is unknown here: {kind!r}")
        if kind == "NIRGraph":
            inner, wires = _flat(node, f"{prefix}{name}.")
            nodes |= inner
            edges += wires
        else:
            port = prefix and kind in ("Input", "Output")
            nodes[prefix + name] = node | {"type": "Port"} if port else node

    def end(name: Any, kind: str) -> str:
        if not isinstance(name, str) or name not in inside:
            raise InputError(f"nir: an edge of {name!r}, which is no node of its graph")
        if inside[name]["type"] != "NIRGraph":
            return prefix + name
        ports = [n for n, inner in inside[name]["nodes"].items() if inner["type"] == kind]
        if len(ports) != 1:
            raise InputError(f"nir: {prefix + name!r} has {len(ports)} {kind} nodes; one is read")
        return f"{prefix}{name}.{ports[0]}"

    for pair in np.atleast_1d(tree["edges"]) if np.ndim(tree["edges"]) < 1 else tree["edges"]:
        if np.shape(pair) != (2,):
            raise InputError(f"nir: an edge is no pair of names: {pair!r:.80}")
        edges.append((end(pair[0], "Output"), end(pair[1], "Input")))
    if len(set(edges)) < len(edges):
        raise InputError("nir: an edge stands twice; one Scale beside it says what is meant")
    return nodes, edges


def _built(nodes: dict[str, Tree], edges: list[Edge], b: Builder) -> Graph:
    """The graph of nodes and edges, by `RULES`."""
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for source, reader in edges:
        sources[reader].append(source)
        readers[source].append(reader)
    names = sorted(nodes, key=lambda name: (nodes[name]["type"] != "Input", name))
    late = cuts(names, readers, nodes, b)
    outputs = []
    for name in walk(names, readers)[1]:
        kind = nodes[name]["type"]
        try:
            b.owner, values = name, Values(nodes[name])
            if bool(sources[name]) == (kind == "Input") or (kind == "Output" and readers[name]):
                raise InputError("edges lead to an Input, from an Output, or to nothing else's end")
            terms = [
                b.add(b.spare(f"{name}.recurrent"), Delay(np.asarray(1)), source)
                if (source, name) in late
                else source
                for source in sources[name]
            ]
            x = b.add(b.spare(f"{name}.sum"), Add(), *terms) if len(terms) > 1 else "".join(terms)
            if kind == "Output":
                outputs.append((list(nodes).index(name), x))
                b.expect(x, "shape", values.integers("shape"))
            else:
                RULES[kind][0](b, name, values, x)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"nir: {name!r} ({kind}): {error}") from error
    try:
        graph = Graph(b.nodes, [name for _, name in sorted(outputs)])
    except RecursionError as error:
        raise InputError("nir: a cycle is too long to be followed") from error
    for owner, name, key, shape in b.expected:
        if graph.shapes[name] != shape:
            raise InputError(
                f"nir: {owner!r} gets {graph.shapes[name]} of {name!r}, but its {key} is of {shape}"
            )
    return graph


def cuts(
    names: list[str], readers: dict[str, list[str]], nodes: dict[str, Tree], b: Builder
) -> set[Edge]:
    """The edges that take a step so that every cycle does.

    Edges that leave a Delay of a step or more, or spikes that leave late, do already.
    """
    spiking = {name for name in names if nodes[name]["type"] in SPIKING}
    late = {(name, r) for name in names if _waits(nodes[name], b) for r in readers[name]}
    while more := walk(names, readers, late, spiking)[0]:
        late |= more
    return {edge for edge in late if not _waits(nodes[edge[0]], b)}


def _waits(tree: Tree, b: Builder) -> bool:
    """Whether what a node hands on is of an earlier step."""
    if tree["type"] == "Delay":
        delay = np.asarray(tree.get("delay"))
        return delay.dtype.kind in "iuf" and delay.size > 0 and bool((delay > b.dt / 2).all())
    return bool(b.convention.late) and tree["type"] in b.convention.kinds
