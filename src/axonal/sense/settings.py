"""The configuration of a watch: a TOML file, whose errors name the line.

[watch]    name, seconds between checkpoints, whether detectors learn during an event
[source]   url and what its kind of source takes
[[filter]] kind and its options, in order
[window]   seconds, grid
[[detector]] kind, options, and its threshold: fixed, wakes_per_hour, or windows_per_wake; later
             ones are asked only when the earlier ones have reached theirs
[wake]     hysteresis, cooldown, pre-roll, ...: the fields of `wake.Policy`
[[sink]]   kind and its options
[model]    what a call of the larger model costs, with its source
"""

import hashlib
import inspect
import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from ..core import files
from ..core.config import Config
from ..core.errors import FileError, InputError
from .wake import Policy

Table = Mapping[str, Any]
Kinds = Mapping[str, Callable[..., Any]]
LEARN = ("always", "calm", "never")
LARGEST = 1 << 20  # bytes of a configuration


@dataclass(frozen=True, kw_only=True)
class General(Config):
    """The section [watch].

    Attributes:
        name: of the stream, as sinks see it.
        checkpoint: seconds of the stream between two states on disk.
        learn: when detectors and budgets learn: "always", so that what happens often is normal and
            wakes keep to the budget; "calm", only while no wake is open, which takes a calibration
            or a quiet beginning; or "never", after a calibration.
    """

    name: str = "watch"
    checkpoint: float = 60.0
    learn: str = "always"

    def __post_init__(self):
        if self.learn not in LEARN or not self.checkpoint > 0:
            raise InputError(f"learn is one of {LEARN}, and checkpoint a number of seconds")


@dataclass(frozen=True, kw_only=True)
class WindowOptions(Config):
    """The section [window]: `seconds` (0: each row of samples), and a raster of `grid` x `grid`."""

    seconds: float = 0.1
    grid: int = 4


@dataclass(frozen=True, kw_only=True)
class Model(Config):
    """The section [model]: the larger model, called while awake.

    Attributes:
        calls_per_second: of an always-on model; 0: one call a window.
        joules_per_call: low, nominal, high; empty: joules are not reported.
        source: where those joules come from; needed with them.
    """

    calls_per_second: float = 0.0
    joules_per_call: tuple[float, ...] = ()
    source: str = ""

    def __post_init__(self):
        joules = self.joules_per_call
        if joules and (len(joules) != 3 or list(joules) != sorted(joules) or not self.source):
            raise InputError(
                "joules_per_call is [low, nominal, high], and source says where they come from"
            )
        if not (math.isfinite(self.calls_per_second) and self.calls_per_second >= 0):
            raise InputError("calls_per_second is a number from 0")


CLOSED = {"watch": General, "window": WindowOptions, "wake": Policy, "model": Model}
LISTS = ("filter", "detector", "sink")
THRESHOLDS = (
    "threshold",
    "wakes_per_hour",
    "windows_per_wake",
)  # of a detector, beside its own options


@dataclass(frozen=True)
class Settings:
    """A checked configuration; tables of open kinds stay tables, with where they stand.

    Attributes:
        watch, window, wake, model: the closed sections.
        source: [source].
        filter, detector, sink: the lists.
        origin: what a message about a table begins with, by (section, index).
    """

    watch: General
    window: WindowOptions
    wake: Policy
    model: Model
    source: Table
    filter: tuple[Table, ...] = ()
    detector: tuple[Table, ...] = ()
    sink: tuple[Table, ...] = ()
    origin: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def build(
        self, section: str, index: int, kinds: Kinds, *first: Any, omit: Sequence[str] = ()
    ) -> Any:
        """Build what the table [[section]] number `index` describes, without the options `omit`.

        Raises:
            InputError: as the function `build`; with the line.
        """
        table = {k: v for k, v in getattr(self, section)[index].items() if k not in omit}
        where = self.origin.get((section, index), f"[{section}] {index + 1}")
        return build(where, kinds, table, *first)

    def fingerprint(self) -> str:
        """A name for what makes scores: windows, filters, detectors; not their thresholds."""
        filters, detectors = (
            [{k: v for k, v in table.items() if k not in THRESHOLDS} for table in tables]
            for tables in (self.filter, self.detector)
        )
        parts = [self.window.to_dict(), filters, detectors]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def dump(self) -> str:
        """The settings as TOML."""
        lines = []
        for section in (*CLOSED, "source", *LISTS):
            content = getattr(self, section)
            listed = section in LISTS
            for table in content if listed else [content]:
                plain = table.to_dict() if isinstance(table, Config) else table
                lines += [f"[[{section}]]" if listed else f"[{section}]"]
                lines += [f"{name} = {toml(value)}" for name, value in plain.items()] + [""]
        return "\n".join(lines)


def build(where: str, kinds: Kinds, table: Table, *first: Any) -> Any:
    """Build what a table of a kind and its options describes: kinds[kind](*first, **options).

    Args:
        where: what a message begins with.
        kinds: classes and functions by name.
        table: "kind" and options.
        first: arguments before the options.

    Raises:
        InputError: an unknown kind or option, or one that the class refuses. FileError,
            MissingExtra: as the class.
    """
    options = dict(table)
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise InputError(f"{where}: kind is one of {', '.join(kinds)}, not {kind!r}")
    signature = inspect.signature(kinds[kind])
    parameters = list(signature.parameters.values())[len(first) :]
    names = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
    odd = [name for name in options if name not in names]
    if odd and len(names) == len(parameters):  # else it passes others on
        known = ", ".join(names) or "no options"
        raise InputError(f"{where}: {kind!r} has no option {odd[0]!r}; it takes {known}")
    try:
        signature.bind(*first, **options)
        return kinds[kind](*first, **options)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def read(path: str | Path) -> Settings:
    """Read the settings in a TOML file.

    Raises:
        FileError: the file can't be read. InputError: what it says is wrong, with the line.
    """
    files.readable(path)
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"can't read {path}: {error}") from error
    if len(content) > LARGEST:
        raise FileError(f"{path}: a configuration has at most {LARGEST:,} bytes")
    return parse(text, str(path))


def parse(text: str, name: str = "configuration") -> Settings:
    """Parse settings in TOML.

    Raises:
        InputError: it is no TOML, or says something unknown or wrong, with the line.
    """
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{name}: {error}") from error
    lines = _lines(text)

    def at(section: str, index: int = 0, key: str | None = None) -> str:
        line = lines.get((section, index, key)) or lines.get((section, index, None), 1)
        return f"{name}, line {line}"

    allowed = [*CLOSED, "source", *LISTS]
    for section, table in tree.items():
        listed = section in LISTS
        if section not in allowed:
            raise InputError(f"{at(section)}: there is no [{section}]; there are {allowed}")
        if not isinstance(table, list if listed else dict):
            raise InputError(
                f"{at(section)}: write {f'[[{section}]]' if listed else f'[{section}]'}"
            )
    sections: dict[str, Any] = {section: tuple(tree.get(section, ())) for section in LISTS}
    for section, config in CLOSED.items():
        locate = partial(at, section, 0)
        sections[section] = _closed(config, tree.get(section, {}), locate)
    if "url" not in tree.get("source", {}):
        raise InputError(f'{at("source")}: [source] needs url = "..."')
    origin = {(s, i): f"{at(s, i)}: [[{s}]]" for s in LISTS for i in range(len(sections[s]))}
    return Settings(**sections, source=tree["source"], origin=origin)


def _closed(config: type[Config], table: Table, at: Callable[[str | None], str]) -> Any:
    """A section of known fields, checked."""
    types = {field.name: field.type for field in fields(config)}
    for key, value in table.items():
        if key not in types:
            raise InputError(f"{at(key)}: there is no {key!r}; there are {', '.join(types)}")
        fits: Any = {"float": (int, float), "int": int, "str": str, "bool": bool}
        kind = str(getattr(types[key], "__name__", types[key]))
        odd = isinstance(value, bool) and kind != "bool"
        if odd or not isinstance(value, fits.get(kind, object)):
            raise InputError(f"{at(key)}: {key} is a {kind}, not {value!r}")
    try:
        return config.from_dict(dict(table))
    except InputError as error:
        raise InputError(f"{at(next(iter(table), None))}: {error}") from error


def toml(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + "}"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _lines(text: str) -> dict[tuple[str, int, str | None], int]:
    """The line of each table, (section, index, None), and of each key in it."""
    lines: dict[tuple[str, int, str | None], int] = {}
    section, counts = "", Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([\w-]+)", line):
            section = header[1]
            counts[section] += 1
            lines[section, counts[section] - 1, None] = number
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            index = max(counts[section] - 1, 0)
            lines.setdefault((section, index, key[1]), number)
    return lines
