"""The note that goes along in a file of NIR: what NIR can't say of a graph.

It holds the graph's own nodes and constants, but for the weights. It is believed only where writing
what it tells gives the file's nodes and edges again, so that it can't say anything else than they.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.neurons import Dynamics
from ...graph.cycles import Edge
from ...graph.graph import Conv, Dense, Graph, Node, Select, reshape
from .hdf5 import Tree
from .write import RULES, Edges, Parts

Array = np.ndarray


def noted(graph: Graph, parts: Parts, dt: float, discretisation: str) -> dict[str, Any]:
    """The graph itself, but for the weights, which stand in `parts`: text, and arrays by name."""
    arrays: dict[str, Array] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, np.ndarray):
            arrays[name] = value.reshape(-1)
            return {"array": name, "shape": value.shape}
        if isinstance(value, Mapping):
            return {"values": {k: plain(v, f"{name}.{k}") for k, v in value.items()}}
        return {"dynamics": value.to_dict()} if isinstance(value, Dynamics) else value

    nodes = []
    for i, node in enumerate(graph):
        made: dict[str, Any] = {f.name: getattr(node.op, f.name) for f in fields(node.op)}
        if isinstance(node.op, Dense | Conv):
            home = node.name if node.name in parts else graph.readers[node.name][0]
            if np.array_equal(parts[home][1]["weight"], node.op.weight):
                made["weight"] = {"weight": home}
        if isinstance(node.op, Select):
            made["index"] = {"reshape": node.op.index.shape}
        made = {
            k: v if isinstance(v, dict) and k != "values" else plain(v, f"{i}.{k}")
            for k, v in made.items()
        }
        nodes.append([node.name, type(node.op).__name__, node.inputs, made])
    text = {"dt": dt, "discretisation": discretisation, "outputs": graph.outputs, "nodes": nodes}
    return {"graph": json.dumps(text), "arrays": arrays}


def restored(note: Any, text: Any, parts: Mapping[str, Any], most: float) -> Graph:
    """The graph that a note tells of; as far as it can be trusted, it raises any exception."""
    kinds = {kind.__name__: kind for kind in RULES}

    def value(given: Any) -> Any:
        match given:
            case {"array": name, "shape": shape}:
                return note["arrays"][name].reshape(shape)
            case {"weight": name}:
                return parts[name]["weight"]
            case {"reshape": shape}:
                if not 0 < math.prod(shape) <= most:
                    raise InputError("it would have too many values")
                return reshape(tuple(shape)).index
            case {"dynamics": d}:
                return Dynamics.from_dict(d)
            case {"values": values}:
                return {k: value(v) for k, v in values.items()}
        return tuple(map(value, given)) if isinstance(given, list) else given

    return Graph(
        [
            Node(name, kinds[kind](**{k: value(v) for k, v in made.items()}), tuple(inputs))
            for name, kind, inputs, made in text["nodes"]
        ],
        text["outputs"],
    )


def same(nodes: dict[str, Tree], edges: list[Edge], parts: Parts, wires: Edges) -> bool:
    """Whether a file's nodes and edges are those that were written."""

    def plain(tree: Tree) -> dict[str, Any]:
        return {k: v for k, v in tree.items() if k not in ("type", "metadata")}

    return (
        sorted(edges) == sorted(wires)
        and {name: tree["type"] for name, tree in nodes.items()}
        == {name: kind for name, (kind, _) in parts.items()}
        and all(
            plain(nodes[name]).keys() == values.keys()
            and all(np.array_equal(nodes[name][key], value) for key, value in values.items())
            for name, (_, values) in parts.items()
        )
    )
