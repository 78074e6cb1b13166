"""HDF5 files from strangers, read within bounds known beforehand.

HDF5 can point into other files, name plugins to load, and declare terabytes in a few bytes. `read`
takes a small file of groups, numbers and text; `dataset` takes one table out of a large one, to be
read in slices. Everything else is refused.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import files
from .errors import FileError
from .extras import require

Tree = dict[str, Any]
LIMIT = 2**30  # bytes
DEPTH = 32  # groups within groups
OBJECTS = 100_000
CHUNK = 2**26  # bytes of a chunk, which is unpacked at once
PLACE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # of a string
RATIO = 1100  # deflate makes data at most 1032 times smaller
FILTERS = frozenset({1, 2, 3, 32000})  # h5py's own: deflate, shuffle, fletcher32, lzf
# Those of hdf5plugin: Blosc, Blosc 2, LZ4, bit shuffle, Zstandard.
PLUGINS = frozenset({32001, 32026, 32004, 32008, 32015})


def read(path: str | Path, limit: int = LIMIT) -> Tree:
    """Read the groups of a file as dictionaries, its data sets as arrays, strings as `str`.

    Attributes are not read.

    Args:
        path: of the file.
        limit: bytes that the file may have, and that its data may become.

    Raises:
        FileError: no such file, no HDF5, damaged, larger than `limit`, or holding what a file of
            numbers needs not: links that are not hard, one object twice, types other than numbers
            and text, data in other files, filters of plugins, groups deeper than `DEPTH`.
        MissingExtra: h5py is not installed.
    """
    h5py = require("h5py", "nir")
    path = files.readable(path)
    try:
        size = path.stat().st_size
        if not path.is_file() or size > limit:
            raise FileError(f"{path}: no file of at most {limit} bytes; raise `limit` to read it")
        with path.open("rb") as raw, h5py.File(path, "r") as file:
            return _Reader(h5py, path, raw, size, limit).group(file, "", 0)
    except FileError:
        raise
    except Exception as error:  # what libhdf5 says of damage comes as any of a dozen types
        raise FileError(
            f"can't read {path}: {error or type(error).__name__}; is it HDF5?"
        ) from error


def dataset(file: Any, name: str, axes: int) -> Any:
    """Find a data set of numbers in an open file that can be read in bounded memory.

    Args:
        file: an `h5py.File`.
        name: of the data set, with its groups: "events/t".
        axes: that it has to have.

    Raises:
        FileError: there is none of that name, type or number of axes, it lies behind a link, or as
            of `footprint`.
        MissingExtra: its filter is one of hdf5plugin, which is not installed.
    """
    h5py, parts = require("h5py", "events"), name.split("/")
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        _need(isinstance(link, h5py.HardLink), file.filename, name, "is not in it")
    data = file[name]
    numbers = isinstance(data, h5py.Dataset) and data.dtype.kind in "biuf" and data.ndim == axes
    _need(numbers, file.filename, name, f"is no table of numbers with {axes} axes")
    if _filters(data) & PLUGINS:
        require("hdf5plugin", "events")
    footprint(data, file.filename, name, FILTERS | PLUGINS)
    return data


def footprint(data: Any, path: str | Path, name: str, filters: frozenset[int] = FILTERS) -> int:
    """Bound the bytes that reading a data set takes, or a chunk of it, if that is more.

    Raises:
        FileError: it is kept in other files, needs a filter beside `filters`, or declares more
            than the file can hold.
    """
    elsewhere = data.is_virtual or data.id.get_create_plist().get_external_count() > 0
    _need(not elsewhere, path, name, "keeps its data in other files")
    used = _filters(data)
    _need(used <= filters, path, name, "needs a filter that comes as a plugin")
    chunk = int(np.prod(data.chunks or (), dtype=object)) * data.dtype.itemsize
    declared = int(np.prod(data.shape, dtype=object)) * data.dtype.itemsize
    stored = min(data.id.get_storage_size(), Path(path).stat().st_size)
    fits = chunk <= CHUNK and declared <= stored * (RATIO if used else 1) + chunk
    reason = f"declares {declared} bytes in chunks of {chunk}, more than its {stored} can hold"
    _need(fits, path, name, reason)
    return max(declared, chunk)


def _filters(data: Any) -> frozenset[int]:
    """The numbers of the filters that pack a data set."""
    properties = data.id.get_create_plist()
    return frozenset(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))


def _need(condition: bool, path: str | Path, name: str, reason: str) -> None:
    if not condition:
        raise FileError(f"{path}: {name or '/'} {reason}; it was not read")


class _Reader:
    """A walk through a file: what it has met, and the bytes that it may still take."""

    def __init__(self, h5py: Any, path: Path, raw: BinaryIO, size: int, limit: int):
        self.h5py, self.path, self.raw, self.size, self.limit = h5py, path, raw, size, limit
        self.left = limit
        self.heaps: dict[int, dict[int, bytes]] = {}
        self.seen: set[Any] = set()

    def need(self, condition: bool, name: str, reason: str) -> None:
        _need(condition, self.path, name, reason)

    def group(self, group: Any, name: str, depth: int) -> Tree:
        self.need(depth <= DEPTH, name, f"lies deeper than {DEPTH} groups")
        self.once(group, name)
        self.need(len(group) <= OBJECTS, name, f"has more than {OBJECTS} entries")
        tree: Tree = {}
        for key in group:
            inner = f"{name}/{key}"
            link = type(group.get(key, getlink=True)) is self.h5py.HardLink
            self.need(link, inner, "is a link that may lead to other files")
            value = group[key]
            if isinstance(value, self.h5py.Group):
                tree[key] = self.group(value, inner, depth + 1)
            else:
                self.need(isinstance(value, self.h5py.Dataset), inner, "is neither group nor data")
                tree[key] = self.data(value, inner)
        return tree

    def once(self, value: Any, name: str) -> None:
        """Refuse cycles, and what would be read twice for the price of once."""
        address = self.h5py.h5o.get_info(value.id).addr
        self.need(address not in self.seen, name, "is an object that has another name too")
        self.need(len(self.seen) < OBJECTS, name, f"is one of more than {OBJECTS} objects")
        self.seen.add(address)

    def data(self, data: Any, name: str) -> Any:
        self.once(data, name)
        text = self.h5py.check_string_dtype(data.dtype)
        self.need(text is not None or data.dtype.kind in "biuf", name, "holds no numbers or text")
        self.need(data.shape is not None, name, "is empty")
        self.take(footprint(data, self.path, name), name)
        if text is None:
            return data[()]
        return self.strings(data, name) if text.length is None else _decoded(data[()])

    def strings(self, data: Any, name: str) -> Any:
        """Read text of any length, which lies in heaps apart.

        libhdf5 trusts their sizes, and can loop without end in a damaged one; so they are read
        here: HDF5 File Format Specification 3.0, sections III.E (global heap) and VIII.A.
        """
        start, texts = data.id.get_offset(), []
        self.need(start is not None, name, "is text in chunks or within a header")
        places = np.frombuffer(self.bytes(start, 16 * data.size, name), PLACE)
        for length, address, index in places.tolist():
            text = self.heap(address, name).get(index, b"") if length else b""
            self.need(len(text) >= length, name, "is text that isn't there")
            self.take(length, name)
            texts.append(text[:length].decode())
        return texts[0] if data.shape == () else np.array(texts, object).reshape(data.shape)

    def heap(self, address: int, name: str) -> dict[int, bytes]:
        """The objects of the global heap at `address`, by number."""
        if address not in self.heaps:
            head = self.bytes(address, 16, name)
            size = int.from_bytes(head[8:], "little")
            self.need(head[:5] == b"GCOL\1", name, "points to no heap")
            self.take(size, name)
            heap, at, objects = self.bytes(address, size, name), 16, {}
            while at + 16 <= size and (index := int.from_bytes(heap[at : at + 2], "little")):
                length = int.from_bytes(heap[at + 8 : at + 16], "little")
                objects[index] = heap[at + 16 : at + 16 + length]
                at += 16 + -(-length // 8) * 8
            self.heaps[address] = objects
        return self.heaps[address]

    def bytes(self, start: int, count: int, name: str) -> bytes:
        self.need(start >= 0 and start + count <= self.size, name, "points outside of the file")
        self.raw.seek(start)
        return self.raw.read(count)

    def take(self, count: int, name: str) -> None:
        self.left -= count
        self.need(self.left >= 0, name, f"would take the file's data over {self.limit} bytes")


def _decoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.array([_decoded(v) for v in value.ravel()], object).reshape(value.shape)
    return value.decode() if isinstance(value, bytes) else str(value)
