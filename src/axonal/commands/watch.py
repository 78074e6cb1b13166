"""`axonal watch`: from settings to a running watch, its live view, its page, and calibration."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core import files
from ..core.errors import InputError
from ..deploy.detector import EngineDetector
from ..report import charts
from ..report.watch import agreement, causes, delivered, duration, learning, verdict, watch_page
from ..sense import checkpoint
from ..sense.detectors import DETECTORS
from ..sense.origin import origin_of
from ..sense.pipeline import assemble, filters_of, read
from ..sense.settings import Settings, parse
from ..sense.sources import open_source
from ..sense.stream import EVENT
from ..sense.watch import STATE_FILE, Trigger, Watch
from .console import console

SETTINGS_FILE, DEFAULT_FILE = "watch.toml", "settings.toml"  # of a calibration; default ones
SAMPLE = 1 << 22  # events that filters are calibrated with


def _network(
    graph: str,
    target: int,
    windows: int = 1,
    dt: float | None = None,
    discretisation: str | None = None,
) -> EngineDetector:
    """A detector of a NIR file, of a network that ships, or of a folder that train made."""
    from .inspect import graph_of  # torch may come with it, which a watch without a network lacks

    return EngineDetector(graph_of(graph, dt, discretisation), target, windows)


ALL_DETECTORS = {**DETECTORS, "network": _network}


def watch(
    source: str,
    folder: Path | None,
    report: Path | None,
    live: bool = True,
    fresh: bool = False,
    labels: str | None = None,
    **options: Any,
) -> str:
    """Watch until the source ends or is interrupted; go on from an earlier run in `folder`.

    Args:
        source: settings, or what is watched with default ones.
        folder: of the state; None for one named like the source, and with a number behind where
            another source has that.
        report: the page.
        live: show what goes on.
        fresh: begin anew; wakes that were sent before are not sent again.
        labels: a column of the source, of which what isn't 0 marks anomalies.
        options: as of `pipeline.read`.
    """
    settings, text = read(source, **options)
    marked = _marked(settings, labels) if labels else None
    folder = folder or _folder(source, settings)
    state = folder / STATE_FILE
    if not source.endswith(".toml"):
        settings, text = _default_settings(
            folder / DEFAULT_FILE, settings, text, state.exists() and not fresh
        )
    if report is not None and report.suffix != ".html":
        raise InputError(f"{report} is no name for a page; let it end in .html")
    pipeline = assemble(settings, folder, detectors=ALL_DETECTORS)
    since = datetime.fromtimestamp(state.stat().st_mtime) if state.exists() else None
    if fresh:
        state.unlink(missing_ok=True)
    for note in getattr(pipeline.source, "notes", ()):
        console.print(f"{source}: {note}")
    try:
        with _live_view(live) as show, _stoppable():
            pipeline.run(show)
    finally:
        if pipeline.outbox is not None:
            pipeline.outbox.close(timeout=10.0)
        if report is not None:
            files.write(report, watch_page(pipeline, settings, text, marked))
    sentences = [
        _news(pipeline, source, since),
        verdict(pipeline, settings),
        causes(pipeline),
        agreement(pipeline, marked) if marked is not None else "",
        learning(pipeline),
        _gaps(pipeline),
        delivered(pipeline),
        f"State, wakes and clips lie in {folder.resolve()}.",
        f"The page is {report.resolve()}." if report else "",
    ]
    return " ".join(filter(None, sentences))


def _default_settings(
    path: Path, settings: Settings, text: str, goes_on: bool
) -> tuple[Settings, str]:
    """The default settings that a watch began with, if it goes on with the same options.

    They follow how long a file was then; those of a new watch are written to `path`.
    """
    content = text.encode(errors="surrogateescape")  # names of files are bytes
    if not goes_on:
        files.write(path, content)
    elif (
        path.is_file() and (before := path.read_bytes()).split(b"\n")[0] == content.split(b"\n")[0]
    ):
        text = before.decode(errors="surrogateescape")
        return parse(text, str(path)), text
    return settings, text


def _marked(settings: Settings, column: str) -> np.ndarray:
    """The spans [N, 2] of microseconds, first to last row, in which a column isn't 0."""
    options = {**settings.source, "columns": [column]}
    with closing(open_source(options.pop("url"), **options)) as source:
        packets = [*source]
    if not packets:
        return np.empty((0, 2), np.int64)
    t = np.concatenate([packet["t"] for packet in packets])
    on = np.concatenate([packet["value"][:, 0] for packet in packets]) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return np.stack([t[edges[::2]], t[edges[1::2] - 1]], 1)


def _folder(source: str, settings: Settings) -> Path:
    """The folder of the state, named like the source: the first that is of no other source."""
    named = "watch" if ":" in source or source == "-" else Path(source).stem
    if source.endswith(".toml"):
        return Path(source).parent / named
    options = {name: value for name, value in settings.source.items() if name != "url"}
    now = origin_of(settings.source["url"], options)
    for number in count(1):
        folder = Path(named if number == 1 else f"{named}-{number}")
        if not (folder / STATE_FILE).exists():
            return folder
        before = checkpoint.read(folder / STATE_FILE).get("origin")
        if not before or before["url"] == now["url"]:
            return folder
    raise AssertionError("numbers have no end")


def _news(watch: Watch, source: str, since: datetime | None) -> str:
    """A sentence if an earlier run had seen all of it."""
    if watch.resumed is None or watch.tally.events_in > watch.resumed.events_in:
        return ""
    return f"Nothing new in {source} since {since:%Y-%m-%d %H:%M:%S}; what was seen before:"


def _gaps(watch: Watch) -> str:
    """A sentence on what the source lacked."""
    missing = getattr(watch.source, "missing", 0)
    lost = f"{watch.tally.dropped:,} rows could not be read." if watch.tally.dropped else ""
    if not missing:
        return lost
    return f"{missing:,} cells were missing; the values before them were taken. {lost}".strip()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Take SIGTERM, which ends services, as an interruption from the keyboard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _live_view(live: bool) -> Iterator[Callable[[Watch], None] | None]:
    """Show a watch while it runs; nothing if not `live`."""
    if not live:
        yield None
        return
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as view:
        yield lambda watch: view.update(_table(watch), refresh=False)


def _table(watch: Watch) -> Table:
    """The counts of a watch now."""
    tally, first = watch.tally, watch.triggers[0]
    state = Text("awake", "bold green") if watch.cascade.awake else Text("asleep", "dim")

    def flow(seconds: float) -> str:
        counts = [charts.si(n / seconds) for n in (tally.events_in, tally.events_out)]
        return f"{counts[0]} in, {counts[1]} passed"

    rows = {
        watch.cascade.source: state,
        "seen": f"{duration(tally.seconds)} of the stream",
        "samples" if watch.windows.channels else "events": flow(1),
        "a second": flow(max(tally.seconds, 1e-6)),
        "score": _score(first),
        "wakes": f"{tally.wakes}, {100 * tally.duty:.2g} % of the time",
        "dropped": f"{tally.dropped:,}",
    }
    if status := getattr(watch.source, "status", ""):
        rows["source"] = status
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, "dim"), value if isinstance(value, Text) else Text(value))
    return table


def _score(trigger: Trigger) -> str:
    """The latest score beside the threshold, or how long there is none yet."""
    if state := trigger.learning:
        more = duration(state[0])
        return f"{trigger.latest:.3f}, highest {state[1]:.3f}; learning for about {more} more"
    return f"{trigger.latest:.3f} of {trigger.threshold:.3f}"


def calibrate(source: str, sample: str, folder: Path, noise: float) -> str:
    """Learn from a sample of normal life, and write settings and a state that begin from there.

    Filters that can be calibrated get the threshold that lets through `noise` events a second and
    pixel of chance; detectors learn, and those with a budget of wakes set their thresholds.

    Raises:
        InputError: `folder` holds a calibration already, or as `assemble`. FileError,
            MissingExtra: as `assemble`.
    """
    target = folder / SETTINGS_FILE
    if target.exists():
        raise InputError(f"{target} is there already; choose another folder with --out")
    settings, _ = read(source)
    _check_shapes(settings, sample)
    tables = [dict(table) for table in settings.filter]
    for index, threshold in _thresholds(settings, sample, noise).items():
        tables[index]["threshold"] = threshold
    settings = dataclasses.replace(settings, filter=tuple(tables))
    calm = dataclasses.replace(settings, source={"url": sample})
    pipeline = assemble(calm, folder, quiet=True, detectors=ALL_DETECTORS)
    with _live_view(True) as show:
        pipeline.run(show)
    (folder / STATE_FILE).unlink()
    checkpoint.write(target.with_suffix("") / STATE_FILE, pipeline.calibration())
    files.write(target, settings.dump())
    seconds = duration(pipeline.tally.seconds)
    return f"Calibrated on {seconds} of {sample}: now run axonal watch {target}"


def _check_shapes(settings: Settings, sample: str) -> None:
    """Refuse a sample that has other columns, or another camera, than what will be watched."""
    options = dict(settings.source)
    url = options.pop("url")
    if not Path(url).exists():  # a live source says nothing before it comes
        return
    with closing(open_source(url, **options)) as a, closing(open_source(sample)) as b:
        shapes = [(source.width, source.height) for source in (a, b)]
        kinds = [next(iter(source), np.empty(0, EVENT)).dtype == EVENT for source in (a, b)]
    if shapes[0] != shapes[1] or kinds[0] != kinds[1]:
        names = [
            f"{'events' if k else 'samples'} of {w} x {h}"
            for k, (w, h) in zip(kinds, shapes, strict=True)
        ]
        raise InputError(
            f"{sample} has {names[1]}, and {url} has {names[0]}; take what will be watched"
        )


def _thresholds(settings: Settings, sample: str, noise: float) -> dict[int, float]:
    """The threshold of each filter that can be calibrated, on what those before it pass."""
    packets, count = [], 0
    with closing(open_source(sample)) as source:
        filters = filters_of(settings, source)
        for packet in source if filters else ():
            packets, count = [*packets, packet], count + len(packet)
            if count >= SAMPLE:
                break
    packet = np.concatenate(packets) if packets else np.empty(0, EVENT)
    thresholds: dict[int, float] = {}
    for index, stage in enumerate(filters):
        if (calibration := getattr(stage, "calibrate", None)) is not None:
            thresholds[index] = calibration(packet, noise).threshold
        packet = stage(packet)
    return thresholds
