"""A file as a source of packets: its options, its blocks of rows, and its damage."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ...core.config import Config
from ...core.errors import AxonalError, FileError, InputError
from ..stream import EVENT, events

UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # in microseconds
NO_TIME = np.iinfo(np.int64).min  # where a row has none
FAR = 2**62  # microseconds: beyond, sums of times would overflow
SIDE = 2**14  # pixels: the most that any of these formats can address
LOST = np.iinfo(np.uint16).max  # the column of an event whose place is no number

Block = tuple[np.ndarray, Callable[[int], str]]  # rows, and where in the file each of them is
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    """Options of reading a file.

    Attributes:
        strict: refuse what is damaged: an end within a record, an event outside of the camera,
            time that runs backwards. Otherwise such rows are left out and counted as `dropped`,
            and time that runs backwards is held at the latest and counted as `held`.
        packet: the most rows of a packet.
        size: width and height of the camera, for files that don't say, or to overrule them.
        unit: of times in a table whose header doesn't say: "s", "ms", "us", "ns".
        rate: rows a second, for tables without times.
        time: the column of times, of a table as text; by default the first of such a name.
        columns: those of numbers, of a table as text; by default all but labels and times.

    Raises:
        InputError: a value out of range.
    """

    strict: bool = True
    packet: int = 65_536
    size: Size | None = None
    unit: str | None = None
    rate: float | None = None
    time: str | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self):
        if not 16 <= self.packet <= 2**24:
            raise InputError(f"packet {self.packet} is not in [16, {2**24}]")
        if self.size and [1 <= side <= SIDE for side in self.size] != [True, True]:
            raise InputError(f"size {self.size} is not width and height in [1, {SIDE}]")
        if self.unit and self.unit not in UNITS:
            raise InputError(f"unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if self.rate is not None and not 1e-6 <= self.rate <= 1e6:
            raise InputError(f"rate {self.rate} is not in [1e-6, 1e6] rows a second")


class Damage:
    """What a file lacks: raises it where it is read strictly, and otherwise counts it.

    Attributes:
        dropped: rows that were lost.
        missing: cells without a value, which got the one before.
        notes: sentences on what was used, left out or guessed.
        names: of the columns that are used, of a table as text.
        rate: rows a second, where they are evenly spaced and the file says so.
    """

    def __init__(self, path: Path, strict: bool):
        self.path, self.strict = path, strict
        self.notes: list[str] = []
        self.names: list[str] = []
        self.rate: float | None = None
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.dropped = self.missing = 0

    def __call__(self, lost: int, reason: str) -> None:
        if self.strict:
            raise FileError(
                f"{self.path}, {reason}; pass strict=False, or --lenient, to read the rest"
            )
        self.dropped += lost


class File:
    """A source (see `stream.Source`) that reads a file, as `open_file` returns it.

    Args:
        path: of the file.
        read: begins to read it, as `formats.Format.read` does.
        options: of reading.

    Attributes:
        dropped: rows that could not be read, so far; an end within a record counts as one.
        missing: cells of a table without a value, so far, which got the one before.
        notes: sentences on which columns of a table are used, and which are left out and why.
        held: rows whose time ran backwards and was held, so far.
        position: rows delivered, so far. `seek` reads from the beginning up to there, at full
            speed, so that every decoder goes on exactly, with all it counted.
    """

    def __init__(self, path: Path, read: Callable[[Damage], Iterator[Any]], options: Options):
        self.path, self.options, self._read = path, options, read
        self._damage = Damage(path, options.strict)
        size, channels = next(read(self._damage))
        size = (channels, 1) if channels else options.size or size
        if not size:
            raise InputError("it doesn't say how large the camera is; pass size=(W, H)")
        if not (channels or all(1 <= side <= SIDE for side in size)):
            raise ValueError(f"it says that the camera has {size[0]} x {size[1]} pixels")
        self.width, self.height = size
        self._run: Generator[np.ndarray] | None = None
        self.seek(0)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Iterate over packets from `position` on, each of at most `options.packet` rows.

        Raises:
            FileError: the file is damaged; names the byte or the row.
            InputError: `position` lies beyond the end.
        """
        self._run = self._run or self._packets()
        return self._run

    def seek(self, position: int) -> None:
        """Go on at the row `position`.

        Raises:
            InputError: it is negative.
        """
        if position < 0:
            raise InputError(f"position {position} is negative")
        self.close()
        self.position, self.held = position, 0
        self._damage.reset()

    @property
    def dropped(self) -> int:
        return self._damage.dropped

    @property
    def missing(self) -> int:
        return self._damage.missing

    @property
    def rate(self) -> float | None:
        """Rows a second, where the file says so."""
        return self._damage.rate

    @property
    def notes(self) -> list[str]:
        return self._damage.notes

    @property
    def names(self) -> list[str]:
        """Of the columns of a table as text."""
        return self._damage.names

    def close(self) -> None:
        if self._run:
            self._run.close()
        self._run = None

    def _packets(self) -> Generator[np.ndarray]:
        skip, last = self.position, -FAR
        with file_errors(self.path):
            blocks = self._read(self._damage)
            next(blocks)
            for block, where in blocks:
                rows, last = self._valid(block, last, where)
                begin = min(skip, len(rows))
                skip -= begin
                for at in range(begin, len(rows), self.options.packet):
                    packet = rows[at : at + self.options.packet]
                    self.position += len(packet)
                    # A few rows must not hold a large block of memory.
                    full = 2 * len(packet) > self.options.packet
                    yield packet if full else packet.copy()
        if skip:
            raise InputError(f"{self.path} has {skip} rows less than position {self.position}")

    def _valid(self, block: np.ndarray, last: int, where: Callable[[int], str]):
        """The rows that can be used, and the time of the last one."""
        count, latest, held, fault = _sift(
            block, last, self.width, self.height, self.options.strict
        )
        if fault >= 0:
            self._damage(1, f"{where(fault)}: {self._reason(block[fault], latest)}")
        self._damage.dropped += len(block) - count
        self.held += held
        return block[:count], latest

    def _reason(self, row: np.void, before: int) -> str:
        """The fault of a row that follows one at `before`."""
        if row["t"] == NO_TIME:
            return "no time"
        if row["t"] < before:
            return f"time runs backwards, from {before} to {row['t']} us"
        if row.dtype == EVENT:
            return f"an event at {row['x']}, {row['y']} of a camera of {self.width} x {self.height}"
        return "a value that is no finite number"


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Name the file in errors; those of a reader's libraries become a FileError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except AxonalError:
        raise
    except Exception as error:  # zip, zlib, HDF5, wave, ...: any of two dozen types
        reason = error or type(error).__name__
        raise FileError(
            f"can't read {path}: {reason}; is it complete, and of this format?"
        ) from error


def _sift(block: np.ndarray, last: int, width: int, height: int, strict: bool):
    """Move rows that are ordered and inside to the front of the block.

    Returns:
        How many these are, the time of the last one, how many were held, and the first row that
        `strict` refuses, else -1.
    """
    if block.dtype == EVENT:
        return _sift_events(block, last, width, height, strict)
    t = block["t"]
    good = (t != NO_TIME) & np.isfinite(block["value"]).all(1)
    rows = block if good.all() else block[good]
    latest = np.maximum.accumulate(np.append(last, rows["t"]))[1:]
    late = rows["t"] < latest
    if strict and (len(rows) < len(block) or late.any()):
        before = np.append(last, t[:-1])
        fault = int(np.flatnonzero(~good | (t < before))[0])
        return 0, int(before[fault]), 0, fault
    block[: len(rows)] = rows
    block["t"][: len(rows)] = latest
    return len(rows), int(latest[-1]) if len(rows) else last, int(late.sum()), -1


@numba.njit(cache=True, nogil=True)
def _sift_events(block, last, width, height, strict):
    count = held = 0
    for i in range(len(block)):
        t, x, y = block[i].t, block[i].x, block[i].y
        outside = x >= width or y >= height or t == NO_TIME
        if strict:
            if outside or t < last:
                return count, last, held, i
        elif outside:
            continue
        elif t < last or count < i:
            held += t < last
            t = max(t, last)
            p = block[i].p
            block[count].t, block[count].x, block[count].y, block[count].p = t, x, y, p
        last = t
        count += 1
    return count, last, held, -1


def microseconds(values: np.ndarray, unit: str | None) -> np.ndarray:
    """Times in `unit` as whole microseconds; NO_TIME where one is no number or beyond FAR.

    Raises:
        InputError: values that are not whole, of no known unit.
    """
    integer = values.dtype.kind in "iu"
    if unit is None and not integer:
        raise InputError("the unit of times isn't stated; pass unit='s', 'ms', 'us' or 'ns'")
    with np.errstate(over="ignore"):
        scaled = values if integer and UNITS[unit or "us"] == 1 else values * UNITS[unit or "us"]
    near = (scaled > -FAR) & (scaled < FAR)
    t = np.full(len(values), NO_TIME)
    t[near] = scaled[near] if scaled.dtype.kind in "iu" else np.rint(scaled[near])
    return t


def events_of(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Events from columns of any numbers; a place that is none becomes LOST, outside of all."""
    x, y = (np.where((side >= 0) & (side < LOST), side, LOST) for side in (x, y))
    return events(t, x, y, p > 0)
