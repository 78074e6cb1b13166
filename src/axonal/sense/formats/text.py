"""Tables as text: CSV, whose first rows decide which columns are used, and as what."""

import csv as split
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...core.errors import InputError
from ..stream import samples
from .reading import FAR, UNITS, Damage, Options, events_of
from .tables import field_of

LINE = 1 << 16  # characters of a line, at most
COLUMNS = 1024
LOOK = 256  # rows that decide
HEADER = r"\s*([a-z]+)[\s_(\[]*(s|ms|us|ns)?[)\]]*\s*"  # a name, and perhaps a unit
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A cell without a value, by what spreadsheets, databases and home automation write.
MISSING = {"", "-", "?", "na", "n/a", "nan", "null", "none", "nil", "missing", "unavailable"}
MISSING |= {"unknown", "inf", "+inf", "-inf", "infinity"}
WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "on": 1.0, "off": 0.0}
LABELS = r"(is_?)?(labels?|anomaly|anomalies|attack|outlier|class|target|ground_?truth)"
# Days by any of three orders; what lies behind is the time of day.
DAY = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?:[ T]+(.*))?")
Line = tuple[int, list[str]]  # its number, from 1 on, and its cells
Numbers = Callable[[str], float | None]  # of a cell; None if it is missing, ValueError if neither


def csv(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """A table: a column of times beside x, y, p, or beside columns of numbers.

    Cells are parted by commas, semicolons or tabs. The first rows decide which columns are
    numbers; texts, labels and further times are left out, as `damage.notes` says. A missing cell
    gets the value before it, and is counted. A time is a date (ISO 8601, 2014/11/09 or 31.12.2019,
    in UTC if it doesn't say; perhaps with the time of day in a column of its own), or a number in
    the unit that the header states ("t_us", "time [s]"), `Options.unit` does, or its size as
    seconds, ms, us or ns since 1970. Without times `Options.rate` says how many rows are a second.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _lines(file)
        top = list(itertools.islice(lines, 1 + LOOK))
        if not top:
            raise ValueError("it is empty")
        table = _layout(top, options)
        damage.notes[:], damage.names[:] = table.notes, table.names
        yield None, 0 if table.events else len(table.chosen)
        step = options.packet if table.events else max(1, options.packet // len(table.chosen))
        lines = itertools.chain(top[table.headed :], lines)
        values, row = list(table.first), 0
        while part := list(itertools.islice(lines, step)):
            numbers, times, rows = [], [], []
            for number, cells in part:
                try:
                    t, values, missing = table.row(cells, values, row)
                except (ValueError, OverflowError) as error:
                    damage(1, f"line {number}: {error}")
                    continue
                damage.missing += missing
                numbers.append(f"line {number}")
                times.append(t)
                rows.append(values)
                row += 1
            t, block = np.array(times, np.int64), np.array(rows).reshape(-1, len(table.chosen))
            packet = events_of(t, *block.T) if table.events else samples(t, block)
            yield packet, numbers.__getitem__


@dataclass
class _Layout:
    """How rows of a table are read.

    Attributes:
        width: cells of a row.
        headed: whether the first line names the columns.
        time: from cells and the number of a row to microseconds.
        chosen: the columns of numbers.
        number: the numbers of cells.
        first: values for cells that are missing before there was any.
        events: whether the chosen ones are x, y, p.
        notes: sentences on what is used and what is left out.
        names: of the chosen columns.
    """

    width: int
    headed: bool
    time: Callable[[list[str], int], float]
    chosen: list[int]
    number: Numbers
    first: list[float]
    events: bool
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def row(
        self, cells: list[str], before: Sequence[float], number: int
    ) -> tuple[int, list[float], int]:
        """A row's time, values, and how many of these are those `before`.

        Raises:
            ValueError: the line is no such row.
        """
        if len(cells) != self.width:
            raise ValueError(f"{len(cells)} cells, not {self.width}")
        values = [self.number(cells[i]) for i in self.chosen]
        t = self.time(cells, number)
        if not abs(t) < FAR:
            raise ValueError("a number that is not finite")
        if self.events and None in values:
            raise ValueError("an event lacks a number")
        filled = [b if v is None else v for v, b in zip(values, before, strict=True)]
        return round(t), filled, values.count(None)


def _layout(top: list[Line], options: Options) -> _Layout:
    """Decide by the first lines.

    Raises:
        ValueError: it is no table. InputError: an option is missing, or one doesn't fit.
    """
    width = len(top[0][1])
    head, body = top[0][1], [cells for _, cells in top[1:] if len(cells) == width]
    number = partial(_number, comma=_decimal_commas([head, *body]))
    headed = not all(_fits(number, cell) or _day(cell) for cell in head)
    if not headed:
        head, body = [str(i + 1) for i in range(width)], [top[0][1], *body]
    if not body:
        raise ValueError("it has no rows below its header")
    names = [name.strip() for name in head]
    columns = [[cells[i] for cells in body] for i in range(width)]
    time, used, notes = _times(names, columns, options, number)
    fields = {field_of(name): i for i, name in enumerate(names)}
    if is_events := {"x", "y", "p"} <= set(fields) and options.columns is None:
        chosen, left = [fields[name] for name in "xyp"], {}
    else:
        chosen, left = _chosen(names, columns, used, options.columns, number)
    if not 1 <= len(chosen) <= COLUMNS:
        reasons = _listed(left, names) or "there are none"
        raise ValueError(f"{len(chosen)} columns of numbers, not 1 to {COLUMNS}: {reasons}")
    firsts = [
        next(v for cell in columns[i] if (v := _value(number, cell)) is not None) for i in chosen
    ]
    used_names = [names[i] for i in chosen]
    if not is_events:
        notes.append(f"columns: {', '.join(used_names)}")
    if left:
        notes.append(f"left out: {_listed(left, names)}")
    return _Layout(width, headed, time, chosen, number, firsts, is_events, notes, used_names)


def _chosen(
    names: list[str],
    columns: list[list[str]],
    used: dict[int, str],
    wanted: Sequence[str] | None,
    number: Numbers,
) -> tuple[list[int], dict[int, str]]:
    """The columns of numbers, and why each other one is left out; `used` are times."""
    reasons = {i: why for i, why in used.items() if why}
    for i, (name, cells) in enumerate(zip(names, columns, strict=True)):
        if i in used:
            continue
        if not all(_fits(number, cell) for cell in cells):
            reasons[i] = "text"
        elif all(_value(number, cell) is None for cell in cells):
            reasons[i] = f"no value in the first {len(cells)} rows"
        elif wanted is None and re.fullmatch(LABELS, name.lower()):
            reasons[i] = "labels"
    if wanted is None:
        return [i for i in range(len(names)) if i not in reasons and i not in used], reasons
    for name in wanted:
        if name not in names:
            raise InputError(f"columns: there is no {name!r}; there are {', '.join(names)}")
        if reasons.get(names.index(name), "") not in ("", "another time"):
            raise InputError(f"columns: {name!r} is left out: {reasons[names.index(name)]}")
    chosen = [names.index(name) for name in wanted]
    others = [i for i in range(len(names)) if i not in chosen and i not in used]
    return chosen, reasons | {i: reasons.get(i, "not asked for") for i in others}


def _listed(left: dict[int, str], names: list[str]) -> str:
    """The columns that are left out, by the reason."""
    by: dict[str, list[str]] = {}
    for i, why in sorted(left.items()):
        by.setdefault(why, []).append(names[i] or f"column {i + 1}")
    return "; ".join(f"{', '.join(some)} ({why})" for why, some in by.items())


Times = tuple[Callable[[list[str], int], float], dict[int, str], list[str]]


def _times(names: list[str], columns: list[list[str]], options: Options, number: Numbers) -> Times:
    """A function from cells and a row's number to microseconds; columns that are times, and why
    those of them that are left out are; notes.
    """
    parts = [re.fullmatch(HEADER, name.lower()) for name in names]
    times = [i for i, part in enumerate(parts) if part and field_of(part[1]) == "t"]
    if options.time is not None:
        if options.time not in names:
            raise InputError(f"time: there is no {options.time!r}; there are {', '.join(names)}")
        times = [names.index(options.time), *times]
    if options.rate and not times:
        period = 1e6 / options.rate
        return lambda cells, row: row * period, {}, [f"times: {options.rate:g} rows a second"]
    if options.rate:
        raise InputError(f"it has times in {names[times[0]]!r}; leave out rate, or name no time")
    if not times:
        raise InputError(
            f"no column of times (as t, time or timestamp) among {', '.join(names)}; pass time= "
            "with its name, or rate= in rows a second"
        )
    split = len(times) > 1 and _split(columns[times[0]], columns[times[1]])
    if split and options.time is None:
        day, hour = times[:2]
        order = _order(columns[day])
        others = dict.fromkeys(times[2:], "another time")
        return (
            lambda cells, row: _date(f"{cells[day].strip()} {cells[hour].strip()}", order),
            {day: "", hour: "", **others},
            [f"times: {names[day]} and {names[hour]}"],
        )
    index = times[0]
    read, note = _clock(columns[index], (parts[index] or "  ")[2], options.unit, number)
    others = dict.fromkeys((i for i in times if i != index), "another time")
    return (
        lambda cells, row: read(cells[index]),
        {index: "", **others},
        [f"times: {names[index]}{note}"],
    )


def _split(days: list[str], hours: list[str]) -> bool:
    """Whether one column has days alone, and the other the times of day."""
    day, hour = _day(days[0]), re.fullmatch(r"\s*\d{1,2}:\d{2}.*", hours[0])
    return bool(day and not day[5] and hour)


def _clock(
    cells: list[str], stated: str | None, unit: str | None, number: Numbers
) -> tuple[Callable[[str], float], str]:
    """A function from a cell to microseconds, and a note on what was guessed.

    Raises:
        InputError: the unit is stated twice, or not at all.
    """
    if _day(cells[0]):
        return partial(_date, order=_order(cells)), ""
    if unit and stated and unit != stated:
        raise InputError(f"the header states times in {stated}, and unit says {unit!r}")
    note = ""
    if not (unit := unit or stated):
        values = [v for cell in cells if (v := _value(number, cell)) is not None]
        low, high = min(values, default=0), max(values, default=0)
        # Since 1970, from 1973 to 2096.
        spans = {name: 1e6 / scale for name, scale in UNITS.items()}
        fits = [name for name, n in spans.items() if 1e8 * n <= low and high < 4e9 * n]
        if len(fits) != 1:
            raise InputError("the unit of times isn't stated; pass unit='s', 'ms', 'us' or 'ns'")
        unit, note = fits[0], f", taken as {fits[0]} since 1970"
    scale = UNITS[unit]

    def read(cell: str) -> float:
        if (value := number(cell)) is None:
            raise ValueError("no time")
        return value * scale

    return read, note


def _lines(file: IO[str]) -> Iterator[Line]:
    """Iterate over lines that are not empty; the first one decides what parts their cells."""
    delimiter = ""
    for number in itertools.count(1):
        if not (line := file.readline(LINE)):
            return
        if len(line) == LINE:
            raise ValueError(f"line {number} has more than {LINE} characters")
        if line.strip():
            delimiter = delimiter or max(";\t,", key=line.count)
            yield number, next(split.reader([line], delimiter=delimiter), [])


def _decimal_commas(rows: list[list[str]]) -> bool:
    """Whether numbers have commas where others have points."""
    cells = [cell.strip() for cells in rows for cell in cells]
    return any(re.fullmatch(r"[-+]?\d*,\d+%?", cell) for cell in cells)


def _number(cell: str, comma: bool) -> float | None:
    text = cell.strip().lower()
    if text in MISSING:
        return None
    if text in WORDS:
        return WORDS[text]
    text = text.removesuffix("%")
    value = float(text.replace(",", ".") if comma else text)
    return value if np.isfinite(value) else None


def _value(number: Numbers, cell: str) -> float | None:
    """The number of a cell, None if there is none."""
    try:
        return number(cell)
    except ValueError:
        return None


def _fits(number: Numbers, cell: str) -> bool:
    """Whether a cell is a number or missing."""
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _day(cell: str) -> re.Match[str] | None:
    """The parts of a date."""
    return DAY.fullmatch(cell.strip())


def _order(cells: list[str]) -> str:
    """The order of day, month and year in dates: "ymd", "dmy" or "mdy".

    Raises:
        InputError: days and months can't be told apart.
    """
    days = [day for cell in cells if (day := _day(cell))]
    if any(len(day[1]) == 4 for day in days):
        return "ymd"
    if days[0][2] == "." or any(int(day[1]) > 12 for day in days):
        return "dmy"
    if any(int(day[3]) > 12 for day in days):
        return "mdy"
    raise InputError(f"{cells[0]!r} may be of two months; write dates as 2019-12-31")


def _date(cell: str, order: str = "ymd") -> int:
    """Parse a date, in microseconds since 1970."""
    day = _day(cell)
    if day is None:
        raise ValueError(f"{cell.strip()!r} is no date")
    parts = dict(zip(order, (day[1], day[3], day[4]), strict=True))
    text = f"{int(parts['y']):04d}-{int(parts['m']):02d}-{int(parts['d']):02d}"
    hour = re.sub(r"^(\d):", r"0\1:", (day[5] or "").strip())
    date = datetime.fromisoformat(f"{text}T{hour}" if hour else text)
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return (date - EPOCH) // timedelta(microseconds=1)
