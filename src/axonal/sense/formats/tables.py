"""Events and samples in files that libraries open: npz, HDF5, AEDAT 4."""

import os
import select
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.extras import require
from ...core.hdf5 import dataset
from ..stream import samples
from .reading import Damage, Options, events_of, microseconds

SPELLED = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps", "date", "datetime"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "pols", "polarity", "polarities", "on"),
    "value": ("value", "values"),
    "width": ("width",),
    "height": ("height",),
}
ROW = 1 << 23  # bytes of a row, and rows of a batch, at most
SILENCE = 30.0  # seconds
DSEC, MVSEC = (640, 480), (346, 260)

Columns = Mapping[str, np.ndarray]


def field_of(name: str) -> str | None:
    """The field of a column of that name."""
    return next((field for field, names in SPELLED.items() if name.lower() in names), None)


def rows_of(
    columns: Columns, unit: str | None, rate: float | None = None, at: int = 0
) -> np.ndarray:
    """A packet from columns by any of the names in SPELLED.

    Args:
        columns: by name.
        unit: of times.
        rate: rows a second, where there are values and no times; the first is number `at`.

    Raises:
        ValueError: they are neither t, x, y, p nor t, value.
    """
    fields = {field: column for name, column in columns.items() if (field := field_of(name))}
    if rate and "value" in fields and "t" not in fields:
        value = fields["value"]
        times = np.rint(np.arange(at, at + len(value)) * (1e6 / rate)).astype(np.int64)
        return samples(times, value.reshape(len(value), -1))
    if not {"t", "x", "y", "p"} <= set(fields) and not {"t", "value"} <= set(fields):
        raise ValueError(f"it has {', '.join(columns)}, but not t, x, y, p, or t, value")
    t = microseconds(fields["t"], unit)
    if "value" not in fields:
        return events_of(t, fields["x"], fields["y"], fields["p"])
    return samples(t, fields["value"].reshape(len(t), -1))


def row_name(first: int) -> Callable[[int], str]:
    """A function that names a row of a block that begins at row `first`."""
    return lambda index: f"row {first + index}"


def _tables(rows: int, row: int, read: Callable[[int, int], Columns], options: Options, unit=None):
    """The blocks of a table of `rows` of `row` bytes, of which `read(begin, end)` reads some."""
    if row > ROW:
        raise ValueError(f"a row has {row} bytes")
    step = max(1, min(options.packet, ROW // row))
    for at in range(0, rows, step):
        columns = read(at, min(at + step, rows))
        yield rows_of(columns, unit or options.unit, options.rate, at), row_name(at)


class _Member:
    """A member of an npz, read in order."""

    def __init__(self, archive: zipfile.ZipFile, name: str, stack: ExitStack):
        self.name, self.file = name.removesuffix(".npy"), stack.enter_context(archive.open(name))
        heads = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        head = heads[np.lib.format.read_magic(self.file)[0]]
        self.shape, by_columns, self.dtype = head(self.file)
        kinds = [self.dtype[n].base.kind for n in self.dtype.names or ()] or [self.dtype.kind]
        if not set(kinds) <= set("biuf") or (by_columns and self.shape[1:]):
            raise ValueError(f"{name} is of {self.dtype}; rows of plain numbers are read")
        self.row = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize

    def read(self, rows: int) -> Columns:
        if len(raw := self.file.read(rows * self.row)) < rows * self.row:
            raise ValueError(f"{self.name} ends before its {self.shape[0]} rows do")
        array = np.frombuffer(raw, self.dtype).reshape(rows, *self.shape[1:])
        return {n: array[n] for n in self.dtype.names} if self.dtype.names else {self.name: array}


def _members(path: Path, stack: ExitStack, rate: float | None) -> dict[str, _Member]:
    """The members of an npz that are fields, by field."""
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
    chosen = [name for name in names if field_of(name) or name in ("events", "arr_0")]
    if not chosen:
        raise InputError(
            f"it has {', '.join(names) or 'nothing'}; save t and value [N, C], or t, x, y, p, or "
            "value alone and pass rate="
        )
    members = {field_of(name) or "events": _Member(archive, names[name], stack) for name in chosen}
    if "events" in members and not members["events"].dtype.names:  # values without a name
        members["value"] = members.pop("events")
        members["value"].name = "value"
    if "value" in members and "t" not in members and not rate:
        raise InputError("it has values without times; save t too, or pass rate=, in rows a second")
    return members


def npz(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """NumPy's archive of t, x, y, p (or one structured array `events`), and perhaps `width` and
    `height`; or of t and value [N, C]. Whole times are microseconds. Nothing is unpickled.
    """
    with ExitStack() as stack:
        members = _members(path, stack, options.rate)
        sides = [members.pop(side) for side in ("width", "height") if side in members]
        size = [int(side.read(1)[side.name][0]) for side in sides]
        value = members.get("value")
        channels = value.row // value.dtype.itemsize if value else 0
        yield tuple(size) if len(size) == 2 else None, channels
        lengths = {column.shape[:1] for column in members.values()}
        if len(lengths) != 1 or () in lengths:
            raise ValueError("its columns differ in length, or there are none")

        def read(begin: int, end: int) -> Columns:
            parts = (member.read(end - begin) for member in members.values())
            return {name: column for part in parts for name, column in part.items()}

        row = sum(member.row for member in members.values())
        yield from _tables(lengths.pop()[0], row, read, options)


def hdf5(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """DSEC's /events/{x, y, t, p} and /t_offset, or MVSEC's /davis/left/events [N, 4].

    https://dsec.ifi.uzh.ch/data-format and https://daniilidis-group.github.io/mvsec
    """
    h5py = require("h5py", "events")
    with h5py.File(path, "r") as file:
        if "davis" in file:
            yield MVSEC, 0
            data = dataset(file, "davis/left/events", 2)
            names = ("x", "y", "t", "p")
            if data.shape[1] != len(names):
                raise ValueError(f"davis/left/events has {data.shape[1]} columns, not x, y, t, p")

            def read(begin: int, end: int) -> Columns:
                return dict(zip(names, data[begin:end].T, strict=True))

            yield from _tables(len(data), data.dtype.itemsize * 4, read, options, "s")
            return
        yield DSEC, 0
        columns = {name: dataset(file, f"events/{name}", 1) for name in ("t", "x", "y", "p")}
        offset = dataset(file, "t_offset", 0)[()] if "t_offset" in file else 0
        if len(lengths := {len(column) for column in columns.values()}) > 1:
            raise ValueError("its columns differ in length")

        def sliced(begin: int, end: int) -> Columns:
            part = {name: column[begin:end] for name, column in columns.items()}
            return part | {"t": part["t"].astype(np.int64) + np.int64(offset)}

        yield from _tables(lengths.pop(), 32, sliced, options, "us")


def aedat4(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """AEDAT 4's first stream of events, through dv-processing.

    That loops without end in some damaged files, so it works in a process of its own, which is
    ended when it has written nothing for SILENCE seconds.
    """
    require("dv_processing", "events")
    if path.suffix != ".aedat4":
        raise ValueError("dv-processing reads it only under a name that ends with .aedat4")
    with _aedat4_process(path) as read:
        width, height = read(2).tolist()
        yield (width, height), 0
        row = 0
        while len(count := read(1, last=True)):
            if not 0 <= (rows := int(count[0])) <= ROW:
                raise ValueError(f"a batch of {rows} events")
            t, x, y, p = read(4 * rows).reshape(4, rows)
            yield events_of(t, x, y, p), row_name(row)
            row += rows


@contextmanager
def _aedat4_process(path: Path) -> Iterator[Callable[..., np.ndarray]]:
    """A function that reads so many numbers from a process of dv-processing."""
    script = Path(__file__).with_name("aedat4_process.py")
    command = [sys.executable, "-P", str(script), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    pipe = process.stdout.fileno()

    def read(numbers: int, last: bool = False) -> np.ndarray:
        raw = bytearray()
        while len(raw) < 8 * numbers:
            if not select.select([pipe], [], [], SILENCE)[0]:
                raise ValueError(f"dv-processing said nothing for {SILENCE} s: it is damaged")
            if not (part := os.read(pipe, min(8 * numbers - len(raw), 1 << 26))):
                if last and not raw and process.wait() == 0:
                    break
                raise ValueError("dv-processing can't read it: it is damaged")
            raw += part
        return np.frombuffer(raw, np.int64)

    try:
        yield read
    finally:
        process.kill()
        process.communicate()
