"""Cost tables, one TOML file each: every number with its range, unit, source, year and evidence.

A datapath has the energies of operators and memories in a process, and prices an ANN and a spiking
network alike. A chip has the energies of the events that it is built for, and its static power.
`tables/cmos45.toml` shows the form; a row without a figure says `unknown = "why"`.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..core.errors import FileError, InputError

SHIPPED = Path(__file__).parent / "tables"
ACCESS_BITS = 64
SCALES = {"pJ": 1e-12, "nJ": 1e-9, "mW": 1e-3, "W": 1.0, "pJ/64bit": 1e-12}  # to joules and watts
PRICED = ("estimated", "modelled")  # what is computed from counts was never measured
EVIDENCE = ("measured", "fitted", "modelled", "simulated", "derived")
EVIDENCE += ("primary", "secondary", "recalled")
SCENARIOS = ("low", "nominal", "high")
MEMORY, EVENT, POWER = ("pJ/64bit",), ("pJ", "nJ"), ("mW", "W")
# By kind, patterns of rows with their units: an operation of so many bits, an access of 64 bits; a
# synaptic operation, a spike that is sent, a hop of one, an update of a neuron in a step, a chip.
KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "datapath": {r"(multiply|add)\.[1-9]\d*": ("pJ",), "sram": MEMORY, "dram": MEMORY},
    "chip": {"synop": EVENT, "spike": EVENT, "hop": EVENT, "update": EVENT, "static": POWER},
}


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
class Cost:
    """A row of a table.

    Attributes:
        range: in `unit`.
        unit: a key of `SCALES`.
        source: who says so; never empty.
        year: of the source.
        evidence: one of `EVIDENCE`; how far the number was checked.
        note: what the number stands for.
    """

    range: Range
    unit: str
    source: str
    year: int
    evidence: str
    note: str

    def si(self, bits: int = ACCESS_BITS) -> Range:
        """The range in joules or watts; of a memory, for one word of `bits` packed in an access."""
        scale = SCALES[self.unit]
        return self.range * (scale * bits / ACCESS_BITS if self.unit == "pJ/64bit" else scale)


@dataclass(frozen=True)
class CostTable:
    """What a process or a chip costs.

    Attributes:
        kind: a key of `KINDS`.
        title: the process and its supply, or the chip.
        evidence: of every energy priced with it, one of `PRICED`.
        scenarios: what low, nominal and high stand for.
        omits: what no energy priced with it contains.
        costs: the rows by key.
        unknown: rows without a figure, and why.
        graded: whether a spike may carry a value, as it may on any datapath.
    """

    kind: str
    title: str
    evidence: str
    scenarios: Mapping[str, str]
    omits: tuple[str, ...]
    costs: Mapping[str, Cost]
    unknown: Mapping[str, str]
    graded: bool

    def __getitem__(self, key: str) -> Cost:
        if key in self.costs:
            return self.costs[key]
        why = self.unknown.get(key, f"it has {', '.join(sorted(self.costs))}")
        raise InputError(f"{self.title}: no row {key!r}; {why}")


def table_names() -> list[str]:
    """The names of the tables that Axonal ships."""
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


@cache
def load(name: str = "cmos45") -> CostTable:
    """A table that Axonal ships, by name, or any `.toml` file, by path.

    Raises:
        FileError: no such file, or not TOML.
        InputError: a key is missing, unknown or of another type, a number is negative, out of
            order or has no source.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        shipped = ", ".join(table_names())
        raise FileError(f"can't read the table {path} ({error}); shipped are: {shipped}") from error
    return parse(values, str(path))


def datapath(table: CostTable | None = None, widths: tuple[int, ...] = ()) -> CostTable:
    """Check that a table compares an ANN with a spiking network; `cmos45` by default.

    Raises:
        InputError: it is a chip's, which runs no ANN, or has no operators of one of `widths`, bits.
    """
    table = load() if table is None else table
    if table.kind != "datapath":
        raise InputError(
            f"{table.title} runs no ANN to compare with; choose a table of a datapath, such as "
            "cmos45, or price the events by themselves with energy.price"
        )
    known = {key.split(".")[1] for key in table.costs if key.startswith("multiply.")}
    for bits in widths:
        if str(bits) not in known or f"add.{bits}" not in table.costs:
            use = ", ".join(sorted(known, key=int))
            raise InputError(f"{table.title} has no {bits}-bit datapath; use {use or 'another'}")
    return table


def parse(values: Mapping[str, Any], where: str) -> CostTable:
    """The table that a TOML file holds, which messages call `where`.

    Raises:
        InputError: as `load`.
    """
    kind = str(values.get("kind"))
    if kind not in KINDS:
        raise InputError(
            f'{where}: say kind = "datapath", of the operators and memories of a process, or "chip"'
        )
    chip = kind == "chip"
    _keys(
        values,
        ["kind", "title", "evidence", "scenarios", "omits", "rows", *["graded"] * chip],
        where,
    )
    scenarios, omits, rows = values["scenarios"], values["omits"], values["rows"]
    if not isinstance(scenarios, dict) or scenarios.keys() != {*SCENARIOS}:
        raise InputError(f"{where}: scenarios must name low, nominal and high")
    if not isinstance(omits, list) or not all(isinstance(o, str) and o for o in omits):
        raise InputError(f"{where}: omits must list, in words, what the energies leave out")
    needed = [*KINDS["chip"]] if chip else ["sram"]
    if not isinstance(rows, dict) or (missing := [key for key in needed if key not in rows]):
        first = missing[0] if isinstance(rows, dict) else needed[0]
        raise InputError(f'{where}: no row {first}; give its figures, or unknown = "why"')
    if chip and not isinstance(values["graded"], bool):
        raise InputError(f"{where}: graded is {values['graded']!r}; say true or false")
    checked = {key: _row(f"{where}, row {key}", key, row, kind) for key, row in rows.items()}
    return CostTable(
        kind,
        _text(values, "title", where),
        _choice(values, "evidence", where, PRICED),
        {name: _text(scenarios, name, where) for name in SCENARIOS},
        tuple(omits),
        {key: row for key, row in checked.items() if isinstance(row, Cost)},
        {key: row for key, row in checked.items() if isinstance(row, str)},
        values.get("graded", True),
    )


def _row(where: str, key: str, row: Any, kind: str) -> Cost | str:
    """A row's figures, or the reason why it has none."""
    units = next((u for pattern, u in KINDS[kind].items() if re.fullmatch(pattern, key)), None)
    if units is None:
        raise InputError(f"{where}: a {kind} has rows {', '.join(KINDS[kind])}")
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a table of low, nominal, high, unit, source, ...")
    if "unknown" in row:
        _keys(row, ["unknown"], where)
        return _text(row, "unknown", where)
    _keys(row, [*SCENARIOS, "unit", "source", "year", "evidence", "note"], where)
    figures = Range(*(_number(row, name, where) for name in SCENARIOS))
    if not figures.low <= figures.nominal <= figures.high:
        raise InputError(f"{where}: low <= nominal <= high must hold, not {tuple(figures)}")
    if type(year := row["year"]) is not int or not 1900 < year < 2100:
        raise InputError(f"{where}: year {year!r} is no year")
    unit, evidence = _choice(row, "unit", where, units), _choice(row, "evidence", where, EVIDENCE)
    return Cost(
        figures, unit, _text(row, "source", where), year, evidence, _text(row, "note", where)
    )


def _keys(values: Mapping[str, Any], keys: list[str], where: str) -> None:
    if missing := [key for key in keys if key not in values]:
        raise InputError(f"{where}: {missing[0]} is missing")
    if unknown := [key for key in values if key not in keys]:
        raise InputError(f"{where}: {unknown[0]} is none of {', '.join(keys)}")


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise InputError(f"{where}: {key} = {value!r} is no cost; give a number >= 0")


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key} is empty; say it in words")
    return value


def _choice(row: Mapping[str, Any], key: str, where: str, choices: Sequence[str]) -> str:
    value = _text(row, key, where)
    if value not in choices:
        raise InputError(f"{where}: {key} {value!r} is not one of {', '.join(choices)}")
    return value
