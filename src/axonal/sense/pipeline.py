"""A watch assembled from settings."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import InputError
from . import settings as config
from .delivery.outbox import Outbox
from .delivery.sinks import SINKS
from .detectors import DETECTORS, Budget
from .features import Windows
from .filters import FILTERS
from .origin import origin_of
from .settings import THRESHOLDS, Settings
from .sources import open_source
from .stream import Detector, Filter, Source, channels_of
from .watch import Trigger, Watch

EVENTS = """\
[[filter]]
kind = "hot_pixel"

[[filter]]
kind = "inhibited_trace"

[window]
seconds = {window}
grid = 4

[[detector]]
kind = "rate"
floor = 1.0
rising = true
wakes_per_hour = {wakes_per_hour}
"""

SAMPLES = """\
[window]
seconds = {window}

[[detector]]
kind = "evolving"
wakes_per_hour = {wakes_per_hour}
"""
SINK = """
[[sink]]
kind = "webhook"
url = {url}
"""


def read(
    source: str,
    options: Mapping[str, Any] | None = None,
    window: float = 0.1,
    wakes_per_hour: float = 6.0,
    webhook: str = "",
) -> tuple[Settings, str]:
    """Read the settings in a TOML file, or make default ones for a file of events or samples.

    Args:
        source: the TOML file, or the recording.
        options: of the source; this and what follows are for default settings.
        window: seconds of a window.
        wakes_per_hour: the budget.
        webhook: where wakes go, if anywhere.

    Returns:
        Settings and their text.

    Raises:
        InputError, FileError: as `settings.read`, or the source can't be opened.
    """
    options = dict(options or {})
    if source.endswith(".toml"):
        if options or webhook or (window, wakes_per_hour) != (0.1, 6.0):
            raise InputError(f"{source} has all settings; write these there too, not as options")
        return config.read(source), Path(source).read_text()
    with closing(open_source(source, **options)) as recording:
        first = next(iter(recording), None)
    if first is None:
        raise InputError(f"{source} holds nothing to watch")
    lines = [
        f"{name} = {config.toml(value)}\n" for name, value in {"url": source, **options}.items()
    ]
    rest = SAMPLES if channels_of(first) else EVENTS
    text = f"[source]\n{''.join(lines)}\n" + rest.format(
        window=float(window), wakes_per_hour=float(wakes_per_hour)
    )
    text += SINK.format(url=config.toml(webhook)) if webhook else ""
    return config.parse(text, "default settings"), text


def assemble(
    settings: Settings,
    folder: Path,
    quiet: bool = False,
    detectors: Mapping[str, Callable[..., Detector]] = DETECTORS,
) -> Watch:
    """The watch that settings describe; its state and its outbox lie in `folder`.

    Args:
        settings: its parts.
        folder: made if it isn't there.
        quiet: no sinks, for calibration.
        detectors: what the settings may name, by kind.

    Raises:
        InputError: a part refuses its options. FileError: the source or `folder` can't be used.
            MissingExtra: a part needs a package.
    """
    options = dict(settings.source)
    url = options.pop("url")
    source = open_source(url, **options)
    sinks = {
        f"{table.get('kind')}-{i}": settings.build("sink", i, SINKS)
        for i, table in enumerate(() if quiet else settings.sink)
    }
    return Watch(
        source,
        filters_of(settings, source),
        Windows(settings.window.seconds, source.width, source.height, settings.window.grid),
        [_trigger(settings, i, detectors) for i in range(len(settings.detector))],
        settings.wake,
        settings.watch.name,
        files.writable(folder),
        None if quiet else Outbox(folder / "outbox", sinks),
        settings.watch.checkpoint,
        settings.watch.learn,
        settings.fingerprint(),
        origin_of(url, options),
    )


def filters_of(settings: Settings, source: Source) -> list[Filter]:
    """The filters that settings describe, of the size of a source."""
    size = source.width, source.height
    return [settings.build("filter", i, FILTERS, *size) for i in range(len(settings.filter))]


def _trigger(settings: Settings, index: int, detectors: Mapping[str, Any]) -> Trigger:
    """A detector with its threshold, or with a budget of wakes that sets it."""
    table = settings.detector[index]
    detector = settings.build("detector", index, detectors, omit=THRESHOLDS)
    names = [name for name in THRESHOLDS if name in table]
    if len(names) != 1 or not isinstance(table[names[0]], int | float):
        raise InputError(
            f"{settings.origin['detector', index]}: give a number as threshold or as wakes_per_hour"
        )
    value = float(table[names[0]])
    return Trigger(table["kind"], detector, value if names == ["threshold"] else Budget(value))
