"""Tables as text: CSV."""

import csv as split
import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...core.errors import InputError
from ..stream import samples
from .reading import FAR, UNITS, Damage, Options, events_of
from .tables import field_of

LINE = 1 << 16  # characters of a line, at most
COLUMNS = 1024
HEADER = r"\s*([a-z]+)[\s_(\[]*(s|ms|us|ns)?[)\]]*\s*"  # a name, and perhaps a unit
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Line = tuple[int, list[str]]  # its number, from 1 on, and its cells


def csv(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """A table with a header: a column of times beside x, y, p, or beside columns of numbers.

    A time is a date in ISO 8601 (in UTC if it doesn't say), or a number in the unit that the
    header states ("t_us", "time [s]") or that `Options.unit` does. Cells are parted by commas,
    semicolons or tabs.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _lines(file)
        top = list(itertools.islice(lines, 2))
        parse, width, is_events = _parser(top[0][1], top[-1][1], options.unit)
        yield None, 0 if is_events else width
        lines = itertools.chain(top[1:], lines)
        step = options.packet if is_events else max(1, options.packet // width)
        while part := list(itertools.islice(lines, step)):
            numbers, times, rows = [], [], []
            for number, cells in part:
                try:
                    t, values = parse(cells)
                except (ValueError, OverflowError) as error:
                    damage(1, f"line {number}: {error}")
                    continue
                numbers.append(f"line {number}")
                times.append(t)
                rows.append(values)
            t, values = np.array(times, np.int64), np.array(rows).reshape(-1, width)
            packet = events_of(t, *values.T) if is_events else samples(t, values)
            yield packet, numbers.__getitem__


def _parser(
    head: list[str], first: list[str], unit: str | None
) -> tuple[Callable[[list[str]], tuple[int, list[float]]], int, bool]:
    """Make a parser of rows by the header and the first row below it; `unit` is the caller's.

    Returns:
        A function from a row's cells to its time in microseconds and its numbers, which raises
        ValueError where the line is no such row; how many numbers; whether these are x, y, p.
    """
    names = [re.fullmatch(HEADER, name.lower()) for name in head]
    fields = {field_of(name[1]): i for i, name in enumerate(names) if name}
    if "t" not in fields or len(head) != len(first):
        raise ValueError("line 1: no header with a column of times, as t, time or timestamp")
    time = fields["t"]
    unit = unit or (names[time] or "  ")[2]
    if first[time].strip()[4:5] == "-":  # a date
        unit = None
    elif not unit:
        raise InputError("the unit of times isn't stated; pass unit='s', 'ms', 'us' or 'ns'")
    events = [fields[name] for name in "xyp"] if {"x", "y", "p"} <= set(fields) else []
    numbers = [i for i, cell in enumerate(first) if i != time and _is_number(cell)]
    if not 1 <= len(numbers) <= COLUMNS:
        raise ValueError(f"line 2: {len(numbers)} numbers beside the time, not 1 to {COLUMNS}")
    chosen = events or numbers

    def parse(cells: list[str]) -> tuple[int, list[float]]:
        if len(cells) != len(first):
            raise ValueError(f"{len(cells)} cells, not {len(first)}")
        values = [float(cells[i]) for i in chosen]
        t = _date(cells[time]) if unit is None else float(cells[time]) * UNITS[unit]
        if not abs(t) < FAR or not np.isfinite(values).all():
            raise ValueError("a number that is not finite")
        return round(t), values

    return parse, len(chosen), bool(events)


def _lines(file: IO[str]) -> Iterator[Line]:
    """Iterate over lines that are not empty; the first one decides what parts their cells."""
    delimiter = ""
    for number in itertools.count(1):
        if not (line := file.readline(LINE)):
            return
        if len(line) == LINE:
            raise ValueError(f"line {number} has more than {LINE} characters")
        if line.strip():
            delimiter = delimiter or max(",;\t", key=line.count)
            yield number, next(split.reader([line], delimiter=delimiter), [])


def _date(text: str) -> int:
    """Parse a date, in microseconds since 1970."""
    date = datetime.fromisoformat(text.strip())
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return (date - EPOCH) // timedelta(microseconds=1)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False
