"""`axonal watch`: from settings to a running watch, its live view, its page, and calibration."""

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core import files
from ..core.errors import InputError
from ..deploy.engine import Engine
from ..report import charts
from ..report import watch as timeline
from ..sense import checkpoint, settings
from ..sense.delivery.outbox import Outbox
from ..sense.delivery.sinks import SINKS
from ..sense.detectors import DETECTORS, Budget, Classifier
from ..sense.features import Windows
from ..sense.filters import FILTERS
from ..sense.settings import THRESHOLDS, Settings
from ..sense.sources import open_source
from ..sense.stream import EVENT, Source, State, channels_of
from ..sense.watch import STATE, Judge, Watch

CONFIG = "watch.toml"
SAMPLE = 1 << 22  # events that filters are calibrated with
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


class Network(Classifier):
    """A spiking network in the engine as a detector: a window is a step, its features the input.

    Args:
        graph: a NIR file, a network that ships, or a folder that train made (the last two need
            torch to be traced).
        target: the class that is looked for.
        windows: how many of the last ones are averaged.
        dt, discretisation: of a NIR file, see `graphs.graph_of`.

    Raises:
        InputError, FileError: as `graphs.graph_of`, or the graph has several inputs or outputs.
    """

    def __init__(
        self,
        graph: str,
        target: int,
        windows: int = 1,
        dt: float | None = None,
        discretisation: str | None = None,
    ):
        from .inspect import graph_of

        made = graph_of(graph, dt, discretisation)
        if len(made.inputs) != 1 or len(made.outputs) != 1:
            raise InputError(f"{graph} has {len(made.inputs)} inputs, {len(made.outputs)} outputs")
        self.engine = Engine(made, threads=1)
        self.stream, self.input = self.engine.stream(), made.inputs[0]
        self.shape = made.shapes[self.input]
        super().__init__(self._step, target, windows)

    def _step(self, x: np.ndarray) -> np.ndarray:
        if x.size != math.prod(self.shape):
            raise InputError(f"a window has {x.size} features, the network takes {self.shape}")
        given = x.astype(np.float32).reshape(1, *self.shape)
        [sent] = self.stream.push({self.input: given}).values()
        return sent.to_dense().ravel()

    def state(self) -> State:
        """The network's memory, and the probabilities that are averaged."""
        return super().state() | {"network": self.stream.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where the detector stood that gave `state`."""
        super().restore({k: v for k, v in state.items() if k != "network"})
        self.stream = self.engine.stream(dict(state.get("network", {})))


DETECTING = {**DETECTORS, "network": Network}


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


def assemble(chosen: Settings, folder: Path, quiet: bool = False) -> Watch:
    """The watch that settings describe; its state and its outbox are kept in `folder`.

    Args:
        chosen: the settings.
        folder: made if it isn't there.
        quiet: no sinks, for calibration.

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
        [_judge(chosen, i) for i in range(len(chosen.detector))],
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


def _judge(chosen: Settings, index: int) -> Judge:
    table = chosen.detector[index]
    detector = chosen.build("detector", index, DETECTING, but=THRESHOLDS)
    given = [name for name in THRESHOLDS if name in table]
    if len(given) != 1 or not isinstance(table[given[0]], int | float):
        raise InputError(
            f"{chosen.origin['detector', index]}: give a number as threshold or as wakes_per_hour"
        )
    value = float(table[given[0]])
    return Judge(table["kind"], detector, value if given == ["threshold"] else Budget(value))


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
    made = assemble(chosen, folder)
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
    seconds = max(tally.seconds, 1e-6)
    unit = "samples" if made.windows.channels else "events"
    state = Text("awake", "bold green") if made.cascade.awake else Text("asleep", "dim")
    first = made.judges[0]
    score = f"{first.latest:.3f} of {first.threshold:.3f}"
    rows = {
        made.cascade.source: state,
        "seen": f"{timeline.lasting(tally.seconds)} of the stream",
        unit: f"{charts.si(tally.events_in)} in, {charts.si(tally.kept)} kept",
        "a second": f"{charts.si(tally.events_in / seconds)} in, {charts.si(tally.kept / seconds)} kept",
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
    made = assemble(dataclasses.replace(chosen, source={"url": sample}), folder, quiet=True)
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
