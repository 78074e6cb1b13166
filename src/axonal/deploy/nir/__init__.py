"""NIR, the exchange format of spiking networks: files and graphs of `nir`, read and written.

NIR (Pedersen et al. 2024, Nat. Commun. 15:8122) says neurons as differential equations; a `Graph`
has steps. So whoever reads or writes says how long a step is and how a neuron is cut into steps:
`dt`, and a name out of `CONVENTIONS`. With a = exp(-dt/tau) or 1 - dt/tau, a membrane

    tau v' = v_leak - v + r x,   a spike at v_threshold sets v to v_reset

is, measured from where it is reset, u = v - v_reset, exactly

    u <- a u + (1 - a) (r x + v_leak - v_reset),   a spike at v_threshold - v_reset sets u to 0.

So a population starts at v_reset, integrators start at 0 (NIR says neither), and what pulls at u
besides the input is a `Bias`. Integrators (I, LI, CubaLI) hand on their membrane, which a
population does not, and become y = a y[t - 1] + ... of `Delay`, `Scale` and `Add`.

Several edges into a node mean their sum. A cycle takes a step even where no Delay says so, as it
does in every simulator: one is put on the edge by which a population enters the way back to itself,
and is called `NODE.recurrent` after the node it leads to. Nodes of nested graphs are `GRAPH.NODE`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core import files
from ...core.errors import InputError
from ...core.extras import require
from ...graph.cycles import Edge, walk
from ...graph.graph import Add, Delay, Graph
from . import hdf5
from .conventions import CONVENTIONS, Convention, convention
from .fold import check
from .hdf5 import Tree
from .note import noted, restored, same
from .read import RULES, SPIKING, Builder, Values
from .write import written

__all__ = ["CONVENTIONS", "Convention", "from_nir", "read", "to_nir", "write"]
NODES = 4096  # of a network that is read


def read(path: str | Path, *, dt: float, discretisation: str, limit: int = hdf5.LIMIT) -> Graph:
    """The network of a NIR file; of one that `write` made, the very graph that was written.

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
            the node and the parameter. Or Axonal wrote it with another `dt` or `discretisation`,
            or it was changed since.
        MissingExtra: h5py is not installed.
    """
    tree = hdf5.read(path, limit)
    try:
        return _graph(tree.get("node"), dt, discretisation, limit)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def from_nir(graph: Any, *, dt: float, discretisation: str) -> Graph:
    """The network of a `nir.NIRGraph`, as `read`."""
    return _graph(_tree(graph), dt, discretisation)


def write(graph: Graph, path: str | Path, *, dt: float, discretisation: str) -> Path:
    """Write `graph` as a NIR file that `read` turns into the very same graph.

    Others find in it NIR's own equations, which make the same spikes up to rounding where they are
    cut into steps by the same convention. What is not one of NIR's nodes is written as several, if
    they do the same: softly reset membranes, for one, as an integrator, a Threshold, and a Delay
    of one step that brings the reset back. A population that fires at its threshold in a
    convention that fires above it, or the other way round, gets the next number as its threshold.

    Args:
        graph: the network.
        path: of the file.
        dt: seconds of a step.
        discretisation: a name out of `CONVENTIONS`, of those whose spikes do not leave late.
            Written as "norse", "sinabs" or "rockpool", a file means what these make of it. What
            the importers of the first two would leave out is folded into weights, or refused.

    Raises:
        InputError: NIR can't say something without losing it; the message names the node.
        FileError: the file can't be written.
        MissingExtra: nir is not installed.
    """
    nir = require("nir", "nir")
    made = to_nir(graph, dt=dt, discretisation=discretisation)
    return files.write(path, lambda partial: nir.write(partial, made))


def to_nir(graph: Graph, *, dt: float, discretisation: str) -> Any:
    """The `nir.NIRGraph` of a network, as `write`."""
    nir = require("nir", "nir")
    nodes, edges = written(graph, chosen := convention(dt, discretisation), dt)
    check(nodes, chosen)
    made = {
        name: getattr(nir, kind)(**_arguments(kind, values))
        for name, (kind, values) in nodes.items()
    }
    note = {"axonal": noted(graph, nodes, dt, discretisation)}
    return nir.NIRGraph(nodes=made, edges=edges, metadata=note, type_check=False)


def _arguments(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """The parameters as the class of `nir` wants them."""
    if kind in ("Input", "Output"):
        return {f"{kind.lower()}_type": {kind.lower(): values["shape"]}}
    return values


def _tree(node: Any) -> Tree:
    """A node of `nir` as it would come from a file."""
    kind = type(node).__name__
    if kind == "NIRGraph":
        nodes = {name: _tree(inner) for name, inner in node.nodes.items()}
        return {"type": kind, "nodes": nodes, "edges": node.edges, "metadata": node.metadata}
    tree = {k: v for k, v in vars(node).items() if k not in ("input_type", "output_type")}
    if kind in ("Input", "Output"):
        tree["shape"] = getattr(node, f"{kind.lower()}_type")[kind.lower()]
    elif kind == "Flatten":
        tree["input_type"] = node.input_type["input"]
    return tree | {"type": kind}


def _graph(tree: Any, dt: float, discretisation: str, limit: float = float("inf")) -> Graph:
    """The network of a tree, by its note if there is one."""
    chosen, most = convention(dt, discretisation), limit / 16  # values of a node
    if (
        not isinstance(tree, dict)
        or not isinstance(kind := tree.get("type"), str)
        or kind != "NIRGraph"
    ):
        raise InputError("nir: no network; the `node` of a file has to be a NIRGraph")
    nodes, edges = _flat(tree)
    if len(nodes) > NODES or len(edges) > 4 * NODES:
        raise InputError(f"nir: {len(nodes)} nodes and {len(edges)} edges; {NODES} are read")
    metadata = tree.get("metadata")
    if isinstance(metadata, dict) and "axonal" in metadata:
        return _noted(metadata["axonal"], nodes, edges, dt, discretisation, most)
    return _built(nodes, edges, Builder(nodes, chosen, dt, most))


def _flat(tree: Tree, prefix: str = "") -> tuple[dict[str, Tree], list[Edge]]:
    """Nodes by their names, those of nested graphs as `GRAPH.NODE`, and the edges between them."""
    nodes: dict[str, Tree] = {}
    edges: list[Edge] = []
    given = tree.get("nodes")
    if not isinstance(given, dict) or "edges" not in tree:
        raise InputError(f"nir: {prefix[:-1] or 'the network'!r} has no nodes or no edges")
    for name, node in given.items():
        kind = node.get("type") if isinstance(node, dict) else None
        if (
            not isinstance(kind, str)
            or (kind not in RULES and kind != "NIRGraph")
            or kind == "Port"
        ):
            raise InputError(f"nir: {prefix + name!r} is of a type that is unknown here: {kind!r}")
        if kind == "NIRGraph":
            inner, wires = _flat(node, f"{prefix}{name}.")
            nodes |= inner
            edges += wires
        else:
            port = prefix and kind in ("Input", "Output")
            nodes[prefix + name] = node | {"type": "Port"} if port else node

    def end(name: Any, kind: str) -> str:
        if not isinstance(name, str) or name not in given:
            raise InputError(f"nir: an edge of {name!r}, which is no node of its graph")
        if given[name]["type"] != "NIRGraph":
            return prefix + name
        ports = [n for n, inner in given[name]["nodes"].items() if inner["type"] == kind]
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
    """The network by `RULES`."""
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
            given = [
                b.add(b.spare(f"{name}.recurrent"), Delay(np.asarray(1)), source)
                if (source, name) in late
                else source
                for source in sources[name]
            ]
            x = b.add(b.spare(f"{name}.sum"), Add(), *given) if len(given) > 1 else "".join(given)
            if kind == "Output":
                outputs.append((list(nodes).index(name), x))
                b.expect(x, "shape", values.whole("shape"))
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
    found = {(name, r) for name in names if _waits(nodes[name], b) for r in readers[name]}
    while more := walk(names, readers, found, spiking)[0]:
        found |= more
    return {edge for edge in found if not _waits(nodes[edge[0]], b)}


def _waits(tree: Tree, b: Builder) -> bool:
    if tree["type"] == "Delay":
        delay = np.asarray(tree.get("delay"))
        return delay.dtype.kind in "iuf" and delay.size > 0 and bool((delay > b.dt / 2).all())
    return bool(b.convention.late) and tree["type"] in b.convention.kinds


def _noted(
    note: Any,
    nodes: dict[str, Tree],
    edges: list[Edge],
    dt: float,
    discretisation: str,
    most: float,
) -> Graph:
    """The graph that Axonal wrote, if that is what nodes and edges say."""
    try:
        text = json.loads(note["graph"])
        was = text["dt"], text["discretisation"]
        if was == (dt, discretisation):
            graph = restored(note, text, nodes, most)
            if any(graph.size(name) > most for name in graph.nodes):
                raise InputError("it would have too many values")
            unchanged = same(nodes, edges, *written(graph, convention(dt, discretisation), dt))
    except Exception as error:  # a note can be wrong in any way
        raise InputError(f"nir: the note of Axonal in it is damaged ({error})") from error
    if was != (dt, discretisation):
        raise InputError(f"nir: written with dt {was[0]} and discretisation {was[1]!r}; give these")
    if not unchanged:
        raise InputError(
            "nir: the network was changed after Axonal wrote it, and its note was not; to read "
            "what NIR says of it, remove 'axonal' from its metadata"
        )
    return graph
