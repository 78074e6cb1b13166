"""Tables of operation energies: every number with its range, unit, source, year and evidence."""

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from ..core.errors import FileError, InputError

PICO = 1e-12
ACCESS_BITS = 64
UNITS = ("pJ", "pJ/64bit")
EVIDENCE = ("measured", "modelled", "primary", "secondary", "recalled")


@dataclass(frozen=True)
class Range:
    """One quantity under three scenarios; sums and multiples stay within a scenario."""

    low: float
    nominal: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.nominal + other.nominal, self.high + other.high)

    def __mul__(self, factor: float) -> "Range":
        return Range(self.low * factor, self.nominal * factor, self.high * factor)

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.nominal, self.high))


@dataclass(frozen=True)
class Row:
    """The energy of one operation, or of one memory access of 64 bits.

    Attributes:
        cost: in `unit`.
        unit: "pJ" an operation, or "pJ/64bit" an access.
        source: who says so; never empty.
        year: of the source.
        evidence: one of `EVIDENCE`; how far the number was checked.
        note: what the number stands for.
    """

    cost: Range
    unit: str
    source: str
    year: int
    evidence: str
    note: str

    def joules(self, bits: int = ACCESS_BITS) -> Range:
        """One operation; or, for a memory, one word of `bits`, packed with others in an access."""
        return self.cost * (PICO if self.unit == "pJ" else PICO * bits / ACCESS_BITS)


@dataclass(frozen=True)
class Table:
    """The rows of one process or chip.

    Attributes:
        title: the process and its supply.
        evidence: of every energy priced with it.
        scenarios: what low, nominal and high stand for.
        omits: what no energy priced with it contains.
        rows: by key: "multiply.8", "add.8" (likewise 16 and 32), "sram", "dram".
    """

    title: str
    evidence: str
    scenarios: dict[str, str]
    omits: tuple[str, ...]
    rows: dict[str, Row]

    def __getitem__(self, key: str) -> Row:
        if key not in self.rows:
            raise InputError(f"{self.title}: no row {key!r}; it has {', '.join(sorted(self.rows))}")
        return self.rows[key]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The table that a TOML file holds.

        Raises:
            InputError: a part is missing, of another type, negative, or has no source.
        """
        title = _text(values, "title", "table")
        scenarios, omits = values.get("scenarios"), values.get("omits")
        if not isinstance(scenarios, dict) or set(scenarios) != {"low", "nominal", "high"}:
            raise InputError(f"{title}: scenarios must name low, nominal and high")
        if not isinstance(omits, list) or not all(isinstance(o, str) and o for o in omits):
            raise InputError(f"{title}: omits must list, in words, what the energies leave out")
        rows = values.get("rows")
        if not isinstance(rows, dict) or not rows:
            raise InputError(f"{title}: it has no rows")
        evidence = _choice(values, "evidence", title, EVIDENCE)
        checked = {key: _row(f"{title}, row {key}", row) for key, row in rows.items()}
        return cls(title, evidence, scenarios, tuple(omits), checked)


@cache
def load(name: str = "cmos45") -> Table:
    """A table that Axonal ships, by name, or any `.toml` file, by path.

    Raises:
        FileError: no such file, or not TOML.
        InputError: a row without source, range, unit, year or evidence.
    """
    shipped = Path(__file__).parent / "tables"
    path = Path(name) if name.endswith(".toml") else shipped / f"{name}.toml"
    try:
        return Table.from_dict(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        have = ", ".join(sorted(file.stem for file in shipped.glob("*.toml")))
        raise FileError(f"can't read the table {path} ({error}); shipped are: {have}") from error


def _row(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a table of low, nominal, high, unit, source, ...")
    cost = Range(*(_number(row, key, where) for key in ("low", "nominal", "high")))
    if not cost.low <= cost.nominal <= cost.high:
        raise InputError(f"{where}: low <= nominal <= high must hold, not {tuple(cost)}")
    year = row.get("year")
    if not isinstance(year, int) or not 1900 < year < 2100:
        raise InputError(f"{where}: year {year!r} is no year")
    return Row(
        cost,
        _choice(row, "unit", where, UNITS),
        _text(row, "source", where),
        year,
        _choice(row, "evidence", where, EVIDENCE),
        _text(row, "note", where),
    )


def _number(row: dict[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise InputError(f"{where}: {key} = {value!r} is no energy; give a number >= 0")


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key} is missing; say it in words")
    return value


def _choice(row: dict[str, Any], key: str, where: str, choices: tuple[str, ...]) -> str:
    value = _text(row, key, where)
    if value not in choices:
        raise InputError(f"{where}: {key} {value!r} is not one of {', '.join(choices)}")
    return value
