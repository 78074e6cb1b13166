"""The watch: a source, what filters and judges it, and who hears of it, in one loop."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FileError, InputError
from . import checkpoint
from .clip import Preroll, picture
from .delivery.outbox import Outbox
from .detectors import Budget
from .detectors.budget import odds
from .features import Window, Windows
from .stream import Detector, Filter, Remembering, Source, State
from .wake import Cascade, Policy, Step, Wake

POINTS = 1024  # of a timeline
PICTURED, LARGEST = 24, 320  # clips that are drawn, and pixels of a side
STATE = "state.safetensors"
LOG = logging.getLogger(__name__)


class Judge(Remembering):
    """A detector and its threshold: a fixed number, or a budget of false wakes that sets itself.

    A budget is told the `odds` of scores.
    """

    def __init__(self, name: str, detector: Detector, threshold: float | Budget):
        self.name, self.detector, self.limit = name, detector, threshold
        self.KEPT = ("detector", "limit") if isinstance(threshold, Budget) else ("detector",)
        self.asked: float | None = None  # the score of this window, if this judge was asked
        self.latest = float("nan")

    @property
    def threshold(self) -> float:
        """What a score has to reach now."""
        if not isinstance(self.limit, Budget):
            return self.limit
        limit = self.limit.threshold
        return limit / (1 + limit) if limit < np.inf else limit

    def score(self, x: np.ndarray) -> float:
        """The detector's score, remembered for `learn`."""
        self.asked = None
        self.asked = self.latest = float(self.detector.score_one(x))
        return self.asked

    def learn(self, x: np.ndarray, t_us: int) -> None:
        """Learn from a window that was asked about, and move the threshold."""
        asked, self.asked = self.asked, None
        if asked is None or not np.isfinite(asked):
            return
        self.detector.learn_one(x)
        if isinstance(self.limit, Budget):
            self.limit.update(float(odds(asked)), t_us)


class Timeline(Remembering):
    """What a watch saw, in at most `POINTS` spans; when they are full, neighbours become one.

    Each span: its first t (us), events in, events out, greatest score, greatest threshold, and
    whether a wake was open.
    """

    KEPT = ("spans", "count", "width", "inside")

    def __init__(self):
        self.spans = np.zeros((POINTS, 6))
        self.count, self.width, self.inside = 0, 1, 0  # windows a span has, and the last one has

    def add(self, window: Window, score: float, threshold: float, awake: bool) -> None:
        """Note a window."""
        if self.count == 0 or self.inside == self.width:
            if self.count == POINTS:
                self._halve()
            self.spans[self.count] = window.t_start_us, 0, 0, 0, 0, 0
            self.count, self.inside = self.count + 1, 0
        span = self.spans[self.count - 1]
        span[1:3] += window.n_in, window.n_out
        # NaN (no score) and infinity (no threshold yet) leave what the span has
        shown = [v if np.isfinite(v) else 0.0 for v in (score, threshold)]
        span[3:] = np.maximum(span[3:], [*shown, awake])
        self.inside += 1

    def _halve(self) -> None:
        a, b = self.spans[::2], self.spans[1::2]
        merged = [a[:, :1], a[:, 1:3] + b[:, 1:3], np.maximum(a[:, 3:], b[:, 3:])]
        self.spans[: POINTS // 2], self.spans[POINTS // 2 :] = np.concatenate(merged, 1), 0
        self.count, self.width = POINTS // 2, 2 * self.width


@dataclass
class Tally:
    """What passed: events in and kept, dropped before that, windows, wakes, and when.

    `first_us` and `last_us` are the ends of the windows, `latest_us` the last event's time.
    """

    events_in: int = 0
    kept: int = 0
    dropped: int = 0
    windows: int = 0
    awake: int = 0
    wakes: int = 0
    failures: int = 0
    first_us: int = -1
    last_us: int = -1
    latest_us: int = -1

    @property
    def seconds(self) -> float:
        """From the first window's start to the last one's end."""
        return (self.last_us - self.first_us) * 1e-6

    @property
    def duty(self) -> float:
        """The share of windows in which a wake was open."""
        return self.awake / max(self.windows, 1)


class Watch:
    """Filters, windows, judges and a cascade over a source; wakes go to an outbox.

    Everything that it remembers lies in `state()`, the source's position too: `run` writes it to
    `folder` as it goes and begins from what it finds there. A wake reaches the outbox's journal
    before the state that follows it, and ids follow from content: whatever is seen twice after a
    crash is sent once.

    Attributes:
        tally: counts; `tally.dropped` is what the source has named as lost, over all runs.
        timeline: of rates, scores and wakes, bounded.
        wakes: the last messages.
        pictures: PNGs of the last `PICTURED` clips, by the id of their wake.
    """

    def __init__(
        self,
        source: Source,
        filters: Sequence[Filter],
        windows: Windows,
        judges: Sequence[Judge],
        policy: Policy,
        name: str,
        folder: Path,
        outbox: Outbox | None = None,
        every: float = 60.0,
        learn: str = "always",
        fingerprint: str = "",
    ):
        self.source, self.filters, self.windows, self.judges = source, filters, windows, judges
        steps = [Step(one.name, one.score, lambda one=one: one.threshold) for one in judges]
        self.cascade = Cascade(steps, policy, name, fingerprint)
        self.preroll = Preroll(policy.preroll)
        self.folder, self.outbox, self.every, self.when = folder, outbox, every, learn
        self.tally, self.timeline = Tally(), Timeline()
        self.wakes: deque[Wake] = deque(maxlen=1000)
        self.pictures: dict[str, bytes] = {}
        self.fingerprint = fingerprint
        self.before = 0  # dropped in earlier runs
        self.position, self.taken, self.skip = source.position, 0, 0
        self.saved_us: int | None = None

    def run(self, seen: Callable[["Watch"], None] | None = None) -> Tally:
        """Watch until the source ends; `seen(watch)` is called after each packet.

        Raises:
            FileError: the source or the state is damaged, or the state can't be written.
        """
        self.resume()
        try:
            for packet in self.source:
                self.take(packet)
                if seen is not None:
                    seen(self)
            self._judge(self.windows.advance(self.tally.latest_us + self.windows.period))
            self._tell(self.cascade.finish(self.tally.last_us))
        finally:
            self.save()
            self.source.close()
        return self.tally

    def take(self, packet: np.ndarray) -> None:
        """Filter a packet, and judge the windows that it closes."""
        packet = self._new(packet)
        kept = packet
        for one in self.filters:
            kept = one(kept)
        self.tally.events_in += len(packet)
        self.tally.kept += len(kept)
        self.tally.dropped = self.before + self.source.dropped
        if len(packet):
            self.tally.latest_us = int(packet["t"][-1])
        self.preroll.add(kept)
        self._judge(self.windows.push(packet, kept))
        now = getattr(self.source, "now", None)  # live sources know how late it is in silence
        if now is not None:
            self._judge(self.windows.advance(now))
        last = self.tally.last_us
        if self.saved_us is None or last - self.saved_us >= self.every * 1e6:
            try:
                self.save()
            except FileError as error:  # a full disk must not end a watch
                LOG.error("the state was not saved, a kill would lose what came since: %s", error)
                self.saved_us = last

    def _new(self, packet: np.ndarray) -> np.ndarray:
        """The packet less what an earlier run has seen of it, where a source cut it up."""
        if self.source.position != self.position:
            self.position, self.taken = self.source.position, 0
        else:
            self.taken += len(packet)
        seen = min(self.skip, len(packet))
        self.skip -= seen
        return packet[seen:]

    def _judge(self, windows: Iterable[Window]) -> None:
        for window in windows:
            wakes = self.cascade.step(window.t_end_us, window.x, window.n_in, window.n_out)
            first = self.judges[0]
            score = first.asked if first.asked is not None else float("nan")
            awake = self.cascade.awake
            self.timeline.add(window, score, first.threshold, awake)
            if self.when == "always" or (self.when == "calm" and not awake):
                for one in self.judges:
                    one.learn(window.x, window.t_end_us)
            tally = self.tally
            tally.windows += 1
            tally.awake += awake
            tally.failures = self.cascade.failures
            tally.first_us = window.t_start_us if tally.first_us < 0 else tally.first_us
            tally.last_us = window.t_end_us
            self._tell(wakes)

    def _tell(self, wakes: Sequence[Wake]) -> None:
        for wake in wakes:
            clip = None
            if wake.type == "new":
                self.tally.wakes += 1
                clip = self.preroll.clip(wake.t_wake_us)
            self.wakes.append(wake)
            if clip is not None and len(clip):
                self._draw(wake.id, clip)
            if self.outbox is not None:
                self.outbox.put(wake, clip)

    def _draw(self, name: str, clip: np.ndarray) -> None:
        width, height = self.source.width, self.source.height
        size = (min(width, LARGEST), min(height, LARGEST)) if height > 1 else ()
        self.pictures[name] = picture(clip, *size)
        for old in list(self.pictures)[:-PICTURED]:
            del self.pictures[old]

    def parts(self) -> dict[str, Any]:
        """Everything that remembers, by name."""
        lists = {"filter": self.filters, "judge": self.judges}
        found = {f"{name}-{i}": one for name, many in lists.items() for i, one in enumerate(many)}
        found |= {"windows": self.windows, "cascade": self.cascade}
        found |= {"preroll": self.preroll, "timeline": self.timeline}
        return found | ({"source": self.source} if hasattr(self.source, "state") else {})

    def state(self) -> State:
        """What a restart needs: of every part, of the source, and the counts."""
        states = {name: part.state() for name, part in self.parts().items()}
        about = {"position": self.position, "taken": self.taken, "tally": vars(self.tally).copy()}
        return {**states, "watch": about, "fingerprint": self.fingerprint}

    def learned(self) -> State:
        """The part of the state that another stream can begin with: what the judges know."""
        judges = {k: v for k, v in self.state().items() if k.startswith("judge-")}
        return {**judges, "fingerprint": self.fingerprint}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`, or begin with `learned()`; thresholds of filters are settings.

        Raises:
            InputError: the state is of other filters, windows or detectors.
        """
        if state.get("fingerprint") != self.fingerprint:
            raise InputError(
                "the state is of other filters, windows or detectors; remove it to begin anew"
            )
        limits = [one.threshold for one in self.filters]
        for name, part in self.parts().items():
            if name in state:
                part.restore(state[name])
        for one, limit in zip(self.filters, limits, strict=True):
            one.threshold = limit
        if about := state.get("watch"):
            self.tally = Tally(**about["tally"])
            self.before = self.tally.dropped
            self.position, self.skip = about["position"], about["taken"]
            self.source.seek(self.position)
            if (since := getattr(self.source, "since", None)) is not None:
                since(self.tally.latest_us)

    def save(self) -> None:
        """Write the state, and tell the counts to sinks that publish them."""
        if self.outbox is not None:
            for sink in self.outbox.sinks.values():
                if (stats := getattr(sink, "stats", None)) is not None:
                    stats(vars(self.tally))
        checkpoint.write(self.folder / STATE, self.state())
        self.saved_us = self.tally.last_us

    def resume(self) -> bool:
        """Go on from the state in `folder`, if there is one.

        Raises:
            FileError: it is damaged. InputError: it is of another watch.
        """
        path = self.folder / STATE
        if found := path.exists():
            try:
                self.restore(checkpoint.read(path))
            except (InputError, KeyError, TypeError, ValueError) as error:
                raise InputError(f"can't go on from {path}: {error}") from error
        return found
