"""A watch assembled from settings."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import InputError
from . import settings
from .delivery.outbox import Outbox
from .delivery.sinks import SINKS
from .detectors import DETECTORS, Budget
from .features import Windows
from .filters import FILTERS
from .settings import THRESHOLDS, Settings
from .sources import open_source
from .stream import Source, channels_of
from .watch import Judge, Watch

EVENTS = """\
[[filter]]
kind = "hot_pixel"

[[filter]]
kind = "inhibited_trace"

[window]
seconds = 0.1
grid = 4

[[detector]]
kind = "rate"
floor = 1.0
rising = true
wakes_per_hour = 6.0
"""

SAMPLES = """\
[window]
seconds = 0.1

[[detector]]
kind = "evolving"
wakes_per_hour = 6.0
"""


def read(what: str) -> tuple[Settings, str]:
    """The settings in a TOML file, or the default ones for a file of events or samples.

    Returns:
        Settings and their text.

    Raises:
        InputError, FileError: as `settings.read`, or the source can't be opened.
    """
    if what.endswith(".toml"):
        return settings.read(what), Path(what).read_text()
    with closing(open_source(what)) as source:
        first = next(iter(source), None)
    if first is None:
        raise InputError(f"{what} holds nothing to watch")
    quoted = '"' + what.replace("\\", "\\\\").replace('"', '\\"') + '"'
    middle = SAMPLES if channels_of(first) else EVENTS
    text = f"[source]\nurl = {quoted}\n\n{middle}"
    return settings.parse(text, "default settings"), text


def assemble(
    chosen: Settings,
    folder: Path,
    quiet: bool = False,
    detectors: Mapping[str, Callable[..., Any]] = DETECTORS,
) -> Watch:
    """The watch that settings describe; its state and its outbox are kept in `folder`.

    Args:
        chosen: the settings.
        folder: made if it isn't there.
        quiet: no sinks, for calibration.
        detectors: what the settings may name, by kind.

    Raises:
        InputError: a part refuses its options. FileError: the source or `folder` can't be used.
            MissingExtra: a part needs a package.
    """
    options = dict(chosen.source)
    source = open_source(options.pop("url"), **options)
    sinks = {
        f"{table.get('kind')}-{i}": chosen.build("sink", i, SINKS)
        for i, table in enumerate(() if quiet else chosen.sink)
    }
    return Watch(
        source,
        _filters(chosen, source),
        Windows(chosen.window.seconds, source.width, source.height, chosen.window.grid),
        [_judge(chosen, i, detectors) for i in range(len(chosen.detector))],
        chosen.wake,
        chosen.watch.name,
        files.writable(folder),
        None if quiet else Outbox(folder / "outbox", sinks),
        chosen.watch.checkpoint,
        chosen.watch.learn,
        chosen.fingerprint(),
    )


def _filters(chosen: Settings, source: Source) -> list[Any]:
    size = source.width, source.height
    return [chosen.build("filter", i, FILTERS, *size) for i in range(len(chosen.filter))]


def _judge(chosen: Settings, index: int, detectors: Mapping[str, Callable[..., Any]]) -> Judge:
    table = chosen.detector[index]
    detector = chosen.build("detector", index, detectors, but=THRESHOLDS)
    given = [name for name in THRESHOLDS if name in table]
    if len(given) != 1 or not isinstance(table[given[0]], int | float):
        raise InputError(
            f"{chosen.origin['detector', index]}: give a number as threshold or as wakes_per_hour"
        )
    value = float(table[given[0]])
    return Judge(table["kind"], detector, value if given == ["threshold"] else Budget(value))
