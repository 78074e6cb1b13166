"""`axonal watch`: from settings to a running watch, its live view, its page, and calibration."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core import files
from ..core.errors import InputError
from ..deploy.detector import Network
from ..report import charts
from ..report import watch as timeline
from ..sense import checkpoint
from ..sense.detectors import DETECTORS
from ..sense.pipeline import _filters, assemble, read
from ..sense.settings import Settings
from ..sense.sources import open_source
from ..sense.stream import EVENT
from ..sense.watch import STATE, Watch
from .inspect import graph_of

CONFIG = "watch.toml"
SAMPLE = 1 << 22  # events that filters are calibrated with


def _network(
    graph: str,
    target: int,
    windows: int = 1,
    dt: float | None = None,
    discretisation: str | None = None,
) -> Network:
    """A detector of a NIR file, of a network that ships, or of a folder that train made."""
    return Network(graph_of(graph, dt, discretisation), target, windows)


DETECTING = {**DETECTORS, "network": _network}


def watch(what: str, folder: Path, report: Path | None, live: bool = True) -> str:
    """Watch until the source ends or is interrupted; go on from an earlier run in `folder`.

    Returns:
        A sentence that says what was found and where it lies.

    Raises:
        InputError, FileError, MissingExtra: as `assemble` and `Watch.run`.
    """
    chosen, text = read(what)
    if report is not None and report.suffix != ".html":
        raise InputError(f"{report} is no name for a page; let it end in .html")
    made = assemble(chosen, folder, detectors=DETECTING)
    try:
        with _shown(made, live) as seen, _stoppable():
            made.run(seen)
    finally:
        if made.outbox is not None:
            made.outbox.close(timeout=10.0)
        if report is not None:
            files.write(report, timeline.page_of(made, chosen, text))
    said = [f"{timeline.verdict(made, chosen)} State, wakes and clips lie in {folder.resolve()}."]
    return " ".join([*said, *([f"The page is {report.resolve()}."] if report else [])])


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which ends services, is heard as an interruption from the keyboard is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown(made: Watch, live: bool) -> Iterator[Callable[[Watch], None] | None]:
    if not live:
        yield None
        return
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as view:
        yield lambda one: view.update(_view(one), refresh=False)


def _view(made: Watch) -> Table:
    tally, source = made.tally, made.source
    view = Table.grid(padding=(0, 2))

    def rate(count: int) -> str:
        return charts.si(count / max(tally.seconds, 1e-6))

    unit = "samples" if made.windows.channels else "events"
    state = Text("awake", "bold green") if made.cascade.awake else Text("asleep", "dim")
    first = made.judges[0]
    score = f"{first.latest:.3f} of {first.threshold:.3f}"
    rows = {
        made.cascade.source: state,
        "seen": f"{timeline.lasting(tally.seconds)} of the stream",
        unit: f"{charts.si(tally.events_in)} in, {charts.si(tally.kept)} kept",
        "a second": f"{rate(tally.events_in)} in, {rate(tally.kept)} kept",
        "score": score,
        "wakes": f"{tally.wakes}, {100 * tally.duty:.2g} % of the time",
        "dropped": f"{tally.dropped:,}",
    }
    if status := getattr(source, "status", ""):
        rows["source"] = status
    for name, value in rows.items():
        view.add_row(Text(name, "dim"), value if isinstance(value, Text) else Text(str(value)))
    return view


def calibrate(what: str, sample: str, folder: Path, noise: float) -> str:
    """Learn from a sample of normal life, and write settings and a state that begin from there.

    Filters that can be calibrated get the threshold that lets through `noise` events a second and
    pixel of chance; detectors learn, and those with a budget of wakes set their thresholds.

    Raises:
        InputError: `folder` holds a calibration already, or as `assemble`. FileError,
            MissingExtra: as `assemble`.
    """
    target = folder / CONFIG
    if target.exists():
        raise InputError(f"{target} is there already; choose another folder with --out")
    chosen, _ = read(what)
    tables = [dict(table) for table in chosen.filter]
    for index, threshold in enumerate(_thresholds(chosen, sample, noise)):
        if threshold is not None:
            tables[index]["threshold"] = threshold
    chosen = dataclasses.replace(chosen, filter=tuple(tables))
    calm = dataclasses.replace(chosen, source={"url": sample})
    made = assemble(calm, folder, quiet=True, detectors=DETECTING)
    with _shown(made, True) as seen:
        made.run(seen)
    (folder / STATE).unlink()
    checkpoint.write(target.with_suffix("") / STATE, made.learned())
    files.write(target, chosen.dump())
    lasted = timeline.lasting(made.tally.seconds)
    return f"Calibrated on {lasted} of {sample}: now run axonal watch {target}"


def _thresholds(chosen: Settings, sample: str, noise: float) -> list[float | None]:
    """Of each filter that can be calibrated the threshold, given what those before it leave."""
    held, count = [], 0
    with closing(open_source(sample)) as source:
        filters = _filters(chosen, source)
        for packet in source if filters else ():
            held, count = [*held, packet], count + len(packet)
            if count >= SAMPLE:
                break
    packet = np.concatenate(held) if held else np.empty(0, EVENT)
    found: list[float | None] = []
    for one in filters:
        able = getattr(one, "calibrate", None) is not None
        found += [one.calibrate(packet, noise).threshold if able else None]
        packet = one(packet)
    return found
