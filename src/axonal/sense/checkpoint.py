"""A file of states: safetensors for the arrays, JSON in its header for the rest."""

import json
import re
from collections.abc import Callable
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
VERSION = "2"
RENAMED = {  # keys of version 1, which wrote no number
    "kept": "events_out",
    "taken": "offset",
    "kept_us": "active_us",
    "told_us": "message_us",
    "told": "count",
    "seen": "p",
}


def _renamed(key: str) -> str:
    """The key that stands for one of version 1."""
    return RENAMED.get(key) or re.sub("^judge-", "trigger-", key)


def write(path: Path, state: State) -> None:
    """Write `state`, nested dictionaries of arrays, packets, numbers, strings and lists.

    Raises:
        FileError: it can't be written; the file that was there stays.
    """
    arrays: dict[str, np.ndarray] = {}
    header = {"state": json.dumps(_plain(state, "", arrays)), "version": VERSION}
    files.write(path, save(arrays, header))


def read(path: Path) -> State:
    """Read what `write` wrote, in this version or in the one before.

    Raises:
        FileError: it is missing, damaged, of a newer version, or no file of states.
    """
    try:
        content = path.read_bytes()
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])["__metadata__"]
        version = header.get("version", "1")
        if version not in ("1", VERSION):
            raise ValueError(f"a newer Axonal wrote it, in version {version}")
        return _filled(json.loads(header["state"]), arrays, _renamed if version == "1" else str)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError, RecursionError) as error:
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


def _filled(tree: Any, arrays: dict[str, np.ndarray], name: Callable[[str], str]) -> Any:
    """The value that `_plain` took apart; its keys go through `name`."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {ARRAY}:
        return arrays[tree[ARRAY]]
    values = {name(k): _filled(v, arrays, name) for k, v in tree.items()}
    return rows(values[PACKET]) if set(values) == {PACKET} else values
