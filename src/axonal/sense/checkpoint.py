"""States of stages in one file: safetensors for the arrays, JSON in its header for the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..core import files
from ..core.errors import FileError
from .stream import State, columns, rows

ARRAY = "array"  # a leaf {ARRAY: name} of the JSON stands for the array of that name
PACKET = "packet"  # {PACKET: its columns} for a packet


def write(path: Path, state: State) -> None:
    """Write `state`, nested dictionaries of arrays, packets, numbers, strings and lists.

    Raises:
        FileError: it can't be written; the file that was there stays.
    """
    arrays: dict[str, np.ndarray] = {}
    header = {"state": json.dumps(_plain(state, "", arrays))}
    files.write(path, save(arrays, header))


def read(path: Path) -> State:
    """What `write` wrote.

    Raises:
        FileError: it is missing, damaged, or no file of states.
    """
    try:
        content = path.read_bytes()
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        tree = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["state"])
        return _filled(tree, arrays)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise FileError(f"can't go on from {path}: {error}; remove it to begin anew") from error


def _plain(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON takes it; its arrays go into `arrays`."""
    if isinstance(value, dict):
        return {k: _plain(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.names:
        return {PACKET: _plain(columns(value), name, arrays)}
    if isinstance(value, np.ndarray) and value.ndim:
        arrays[name] = np.ascontiguousarray(value)
        return {ARRAY: name}
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _filled(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {ARRAY}:
        return arrays[tree[ARRAY]]
    found = {k: _filled(v, arrays) for k, v in tree.items()}
    return rows(found[PACKET]) if set(found) == {PACKET} else found
