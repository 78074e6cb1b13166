"""A watch assembled from settings."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..core import files
from ..core.errors import InputError
from . import settings as config
from .delivery.outbox import Outbox
from .delivery.sinks import SINKS
from .detectors import DETECTORS, Budget, WindowBudget
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
kind = "context"
calibration = {calibration}
{budget}

[wake]
off_ratio = 0.95
preroll = {span}
postroll = {span}
update = {span}
longest = {longest}
"""
EVENT_WINDOW, EVENT_BUDGET = 0.1, 6.0  # seconds, and wakes an hour
SOUND = 0.01  # seconds between rows, below which windows of a tenth of a second are made of them
SPAN, RARE = 64, 2000  # windows of an event's surroundings, and for one wake by chance
SHARE, LEAST, MOST = 0.15, 128, 2000  # of a file that is taken for normal, in windows
LIVE = 500  # windows of anything else
SINK = """
[[sink]]
kind = "webhook"
url = {url}
"""


def read(
    source: str,
    options: Mapping[str, Any] | None = None,
    window: float | None = None,
    wakes_per_hour: float | None = None,
    webhook: str = "",
) -> tuple[Settings, str]:
    """Read the settings in a TOML file, or make default ones for a file of events or samples.

    Args:
        source: the TOML file, or the recording.
        options: of the source; this and what follows are for default settings.
        window: seconds of a window; None for a tenth of a second, and of tables for each row.
        wakes_per_hour: the budget; None for 6, and of samples for one in 2,000 windows.
        webhook: where wakes go, if anywhere.

    Returns:
        Settings and their text.

    Raises:
        InputError, FileError: as `settings.read`, or the source can't be opened.
    """
    options = dict(options or {})
    if source.endswith(".toml"):
        if options or webhook or window is not None or wakes_per_hour is not None:
            raise InputError(f"{source} has all settings; write these there too, not as options")
        return config.read(source), Path(source).read_text()
    with closing(open_source(source, **options)) as recording:
        first, times = None, np.empty(0, np.int64)
        for packet in recording:
            first = packet if first is None else first
            times = np.concatenate([times, packet["t"]])
            # Two rows of what is live tell their interval; more are not waited for.
            enough = MOST / SHARE if Path(source).is_file() else 2
            if not channels_of(first) or len(times) >= enough:
                break
    if first is None:
        raise InputError(f"{source} holds nothing to watch")
    lines = [
        f"{name} = {config.toml(value)}\n" for name, value in {"url": source, **options}.items()
    ]
    rest = (
        _for_samples(times, Path(source).is_file(), window, wakes_per_hour)
        if channels_of(first)
        else EVENTS.format(
            window=float(EVENT_WINDOW if window is None else window),
            wakes_per_hour=float(EVENT_BUDGET if wakes_per_hour is None else wakes_per_hour),
        )
    )
    asked = [source, options, window, wakes_per_hour, webhook]
    text = f"# defaults for {json.dumps(asked)}\n[source]\n{''.join(lines)}\n{rest}"
    text += SINK.format(url=config.toml(webhook)) if webhook else ""
    return config.parse(text, "default settings"), text


def _for_samples(
    times: np.ndarray, is_file: bool, window: float | None, wakes_per_hour: float | None
) -> str:
    """Settings for rows at such times: their interval decides on windows and on how long all is."""
    gaps = np.diff(times)
    interval = float(np.median(gaps[gaps > 0])) * 1e-6 if (gaps > 0).any() else 1.0
    if window is None:
        window = 0.0 if interval >= SOUND else EVENT_WINDOW
    each = max(window, interval)
    windows = len(times) * interval / each
    budget = f"windows_per_wake = {RARE}"
    if wakes_per_hour is not None:
        budget = f"wakes_per_hour = {float(wakes_per_hour)}"
    return SAMPLES.format(
        window=float(window),
        calibration=int(min(max(SHARE * windows, LEAST), MOST)) if is_file else LIVE,
        budget=budget,
        span=round(SPAN * each, 6),
        longest=round(RARE * each, 6),
    )


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
            f"{settings.origin['detector', index]}: give a number as threshold, as wakes_per_hour "
            "or as windows_per_wake"
        )
    value = float(table[names[0]])
    if names == ["windows_per_wake"]:
        learning = {"calibration": n} if (n := getattr(detector, "calibration", 0)) else {}
        return Trigger(table["kind"], detector, WindowBudget(value, **learning))
    return Trigger(table["kind"], detector, value if names == ["threshold"] else Budget(value))
