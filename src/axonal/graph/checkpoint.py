"""A graph in a folder: its arrays as safetensors, all else as JSON. No pickle, and nothing is lost.

`graph.json` lists the nodes in order, each with its op's fields. An array stands there as
{"tensor": name} and lies in `graph.safetensors`, whose SHA-256 stands there too, so that no file
goes with another's. The fields are those of the ops' dataclasses: an op that is added is saved and
loaded without a line here.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import numpy as safetensors

from ..core import files
from ..core.errors import FileError, InputError
from ..core.neurons import Dynamics
from .graph import Graph, Node
from .ops import Delay, Op

NODES_FILE, ARRAYS_FILE = "graph.json", "graph.safetensors"
VERSION = 1
LIMIT = 2**30  # bytes of the arrays
TEXT = 2**25  # bytes of the JSON, which takes twenty times as many in memory
NODES = 2**16
Arrays = dict[str, np.ndarray]


def save(graph: Graph, folder: str | Path) -> Path:
    """Write `graph` to `folder`, whatever it holds; `load` gives an equal one.

    Args:
        graph: the network.
        folder: where `graph.json` and `graph.safetensors` are written; made if need be.

    Raises:
        InputError: an op holds what is neither a number, text, an array of finite numbers, nor a
            sequence of these; the message names the node.
        FileError: the folder can't be written.
    """
    folder, arrays, nodes = Path(folder), {}, []
    for i, node in enumerate(graph):
        try:
            values = {}
            for f in fields(node.op):
                value = getattr(node.op, f.name)
                value = np.asarray(value) if f.type is np.ndarray else value
                values[f.name] = _plain(value, f"{i}.{f.name}", arrays)
        except InputError as error:
            raise InputError(f"can't save {node.name!r}: {error}") from error
        entry = {"name": node.name, "op": type(node.op).__name__, "inputs": node.inputs}
        nodes.append(entry | {"fields": values})
    content = safetensors.save(arrays)
    digest = hashlib.sha256(content).hexdigest()
    text = {"version": VERSION, "outputs": graph.outputs, "arrays": digest, "nodes": nodes}
    files.write(folder / ARRAYS_FILE, content)
    files.write(folder / NODES_FILE, json.dumps(text, indent=1, allow_nan=False) + "\n")
    return folder


def load(folder: str | Path, *, limit: int = LIMIT) -> Graph:
    """Read the graph that `save` wrote to `folder`.

    Args:
        folder: with `graph.json` and `graph.safetensors`.
        limit: bytes that the arrays may have; a node may have a sixteenth as many values.

    Raises:
        FileError: files are missing, damaged, too large, of two graphs, or written by another
            version; or they describe no graph. The message names the node.
    """
    folder = Path(folder)
    try:
        text: Any = json.loads(_content(folder / NODES_FILE, TEXT), parse_constant=_not_finite)
        if text["version"] != VERSION:
            raise InputError(f"it has version {text['version']!r} where {VERSION} is read")
        content = _content(folder / ARRAYS_FILE, limit)
        if hashlib.sha256(content).hexdigest() != text["arrays"]:
            raise InputError(f"{ARRAYS_FILE} is damaged, or of another graph")
        return _graph(text, safetensors.load(content), limit // 16)
    except Exception as error:  # a file from a stranger can be wrong in any way
        reason = f"no {error}" if isinstance(error, KeyError) else error or type(error).__name__
        raise FileError(f"can't load a graph from {folder}: {reason}; save it again") from error


def _content(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most `limit`."""
    if not path.is_file():
        raise InputError(f"no {path.name}")
    if path.stat().st_size > limit:
        raise InputError(f"{path.name} has more than {limit} bytes, the limit")
    return path.read_bytes()


def _not_finite(constant: str) -> NoReturn:
    raise InputError(f"{constant} is no number")


def _plain(value: Any, name: str, arrays: Arrays) -> Any:
    """A field as JSON can hold it; its arrays go into `arrays`, called `name` and on."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Dynamics):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(inner, f"{name}.{key}", arrays) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner, f"{name}.{i}", arrays) for i, inner in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[name] = _finite(np.array(value, order="C"), name)
        return {"tensor": name}
    if value is not None and not isinstance(value, str | bool | int | float):
        raise InputError(f"{name} is a {type(value).__name__}, which no file holds")
    if isinstance(value, float) and not np.isfinite(value):
        raise InputError(f"{name} is not finite")
    return value


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    plain = array.dtype.kind in "biuf" and array.dtype.itemsize <= 8
    if not plain or not np.isfinite(array).all():
        raise InputError(f"{name} must be an array of finite numbers, of at most 64 bits")
    return array


def _graph(text: Any, arrays: Arrays, most: int) -> Graph:
    """The graph of the JSON, none of whose nodes has more than `most` values."""
    if not isinstance(text["nodes"], list) or len(text["nodes"]) > NODES:
        raise InputError(f"its nodes are no list of at most {NODES}")
    ops, nodes = _ops(Op), []
    for i, entry in enumerate(text["nodes"]):
        try:
            nodes.append(_node(entry, ops, arrays))
        except Exception as error:
            name = entry.get("name", i) if isinstance(entry, dict) else i
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise InputError(f"node {name!r}: {reason}") from error
    if arrays:
        raise InputError(f"{min(arrays)!r} is an array of no node")
    graph = Graph(nodes, _value(tuple[str, ...], text["outputs"], arrays), largest=most)
    for node in graph:
        steps = int(node.op.steps.max()) if isinstance(node.op, Delay) else 0
        if graph.size(node.name) * (1 + steps) > most:
            raise InputError(f"node {node.name!r} would hold more than {most} values")
    return graph


def _ops(base: type[Op]) -> dict[str, type[Op]]:
    """Every kind of op by its name."""
    kinds = {kind.__name__: kind for kind in base.__subclasses__()}
    for kind in base.__subclasses__():
        kinds |= _ops(kind)
    return kinds


def _node(entry: Any, ops: Mapping[str, type[Op]], arrays: Arrays) -> Node:
    """A node from its entry in the JSON."""
    name, kind = _value(str, entry["name"], arrays), _value(str, entry["op"], arrays)
    if kind not in ops:
        raise InputError(f"no op {kind!r}; there are {', '.join(sorted(ops))}")
    known, hints = {f.name: f for f in fields(ops[kind])}, get_type_hints(ops[kind])
    values = _value(dict, entry["fields"], arrays)
    required = {k for k, f in known.items() if f.default is f.default_factory is MISSING}
    if wrong := sorted((values.keys() - known.keys()) | (required - values.keys())):
        raise InputError(f"{kind} has the fields {', '.join(known)}, so {wrong[0]!r} is wrong")
    op = ops[kind](**{key: _value(hints[key], value, arrays) for key, value in values.items()})
    return Node(name, op, _value(tuple[str, ...], entry["inputs"], arrays))


def _value(hint: Any, value: Any, arrays: Arrays) -> Any:
    """What a JSON value means where a field of the type `hint` is; arrays leave `arrays`."""
    kind, options = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):  # of one type and None
        return None if value is None else _value(options[0], value, arrays)
    if kind is tuple and isinstance(value, list):
        inner = options[:1] * len(value) if options[-1] is Ellipsis else options
        return tuple(_value(h, v, arrays) for h, v in zip(inner, value, strict=True))
    if kind is Mapping and isinstance(value, dict):
        return {key: _value(options[1], inner, arrays) for key, inner in value.items()}
    if hint is Any and isinstance(value, list):
        return tuple(_value(Any, inner, arrays) for inner in value)
    if hint in (np.ndarray, Any) and isinstance(value, dict) and value.keys() == {"tensor"}:
        if value["tensor"] not in arrays:
            raise InputError(f"there is no array {value['tensor']!r} that is this node's alone")
        return _finite(arrays.pop(value["tensor"]), value["tensor"])
    if hint is Dynamics and isinstance(value, dict):
        hints = get_type_hints(Dynamics.KINDS.get(value.get("kind", ""), Dynamics)) | {"kind": str}
        return Dynamics.from_dict(
            {k: _value(hints.get(k, Any), v, arrays) for k, v in value.items()}
        )
    if kind is Literal:
        fits, wanted = value in options, f"one of {', '.join(options)}"
    else:
        scalars = {float: (int, float), Any: (str, bool, int, float, type(None))}
        fits, wanted = type(value) in scalars.get(hint, (hint,)), getattr(hint, "__name__", hint)
    if not fits:
        raise InputError(f"{value!r:.60} stands where {wanted} belongs")
    return value
