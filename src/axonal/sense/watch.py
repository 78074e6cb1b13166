"""A watch: a source, its filters, windows and detectors, and an outbox for wakes, in one loop."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FileError, InputError
from . import checkpoint
from .clip import Preroll, picture
from .delivery.outbox import Outbox
from .detectors import Budget, WindowBudget
from .detectors.budget import odds
from .features import Window, Windows
from .origin import Origin, difference
from .stream import Detector, Filter, Follower, Source, State, Stateful
from .wake import Cascade, Policy, Step, Wake

POINTS = 1024  # of a timeline
CAUSES = 3  # channels that a wake names
REMEMBERED = 1000  # messages
PICTURES, LARGEST = 24, 320  # clips that are drawn, and pixels of a side
STATE_FILE = "state.safetensors"
LOG = logging.getLogger(__name__)


class Trigger(Stateful):
    """A detector and its threshold: a fixed number, or a budget of false wakes that sets itself.

    A budget learns from the `odds` of scores.
    """

    def __init__(self, name: str, detector: Detector, threshold: float | Budget | WindowBudget):
        self.name, self.detector, self.limit = name, detector, threshold
        self.STATE = ("detector",) if isinstance(threshold, int | float) else ("detector", "limit")
        self.ahead: deque[tuple[float, np.ndarray]] = deque()  # scores, and what channels add
        self.channels = np.empty(0)
        self.current: float | None = None  # the score of this window, if it was asked for
        self.latest = float("nan")

    @property
    def threshold(self) -> float:
        """The number that a score has to reach now."""
        if isinstance(self.limit, int | float):
            return self.limit
        limit = self.limit.threshold
        return limit / (1 + limit) if limit < np.inf else limit

    @property
    def learning(self) -> tuple[float, float] | None:
        """While there is no threshold: the seconds it still takes, and the highest score so far."""
        if isinstance(self.limit, int | float) or (state := self.limit.learning) is None:
            return None
        seconds, highest = state
        return seconds, highest / (1 + highest) if highest > -np.inf else 0.0

    def score(self, x: np.ndarray) -> float:
        """Score a window, and remember that for `learn`."""
        self.current = None
        if self.ahead:
            score, self.channels = self.ahead.popleft()
        else:
            score = float(self.detector.score_one(x))
        self.current = self.latest = score
        return score

    def follow(self, x: np.ndarray) -> bool:
        """Score and learn windows x [T, F] at once, where the detector can; `score` returns these.

        Returns:
            Whether it can. They are learned, and `learn` has their scores alone to learn then.
        """
        if not isinstance(self.detector, Follower) or not np.isfinite(x).all():
            return False
        scores = self.detector.follow(x)
        self.ahead.extend(zip(scores.tolist(), self.detector.channels, strict=True))
        return True

    def learn(self, x: np.ndarray, t_us: int, learned: bool = False) -> None:
        """Learn from a window that was scored, unless it is `learned`, and move the threshold."""
        score, self.current = self.current, None
        if score is None or not np.isfinite(score):
            return
        if not learned:
            self.detector.learn_one(x)
        if not isinstance(self.limit, int | float):
            self.limit.update(float(odds(score)), t_us)


class Timeline(Stateful):
    """The course of a watch in at most `POINTS` spans; when they are full, neighbours become one.

    Each span: its first t (us), events in, events out, greatest score, greatest threshold, and
    whether a wake was open.
    """

    STATE = ("spans", "count", "width", "inside")

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
        finite = [v if np.isfinite(v) else 0.0 for v in (score, threshold)]
        span[3:] = np.maximum(span[3:], [*finite, awake])
        self.inside += 1

    def _halve(self) -> None:
        a, b = self.spans[::2], self.spans[1::2]
        merged = [a[:, :1], a[:, 1:3] + b[:, 1:3], np.maximum(a[:, 3:], b[:, 3:])]
        self.spans[: POINTS // 2], self.spans[POINTS // 2 :] = np.concatenate(merged, 1), 0
        self.count, self.width = POINTS // 2, 2 * self.width


@dataclass
class Tally:
    """Counts of a watch: events before and after the filters, windows, wakes, and times.

    `dropped` events were lost before the filters. `awake` windows had a wake open. `first_us` and
    `last_us` are the ends of the windows, `latest_us` the last event's time.
    """

    events_in: int = 0
    events_out: int = 0
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


@dataclass(eq=False)
class Watch:
    """Filters, windows, triggers and a cascade over a source; wakes go to an outbox.

    All of its memory lies in `state()`, the source's position too: `run` writes it to `folder` as
    it goes and begins from what lies there. A wake reaches the outbox before the state that follows
    it, and ids follow from content: whatever is seen twice after a crash is sent once.

    Attributes:
        every: seconds of the stream between two states on disk.
        learn: as `settings.General` says.
        tally: counts; `tally.dropped` is what the source has named as lost, over all runs.
        timeline: of rates, scores and wakes, bounded.
        wakes: the last messages.
        origin: of the source, as `origin_of` describes it: a state goes on with no other.
        resumed: the counts that an earlier run left, None in a first one.
        pictures: PNGs of the last `PICTURES` clips, by the id of their wake.
        causes: the channels that were strangest at a wake of this run, by its id.
    """

    source: Source
    filters: Sequence[Filter]
    windows: Windows
    triggers: Sequence[Trigger]
    policy: Policy
    name: str
    folder: Path
    outbox: Outbox | None = None
    every: float = 60.0
    learn: str = "always"
    fingerprint: str = ""
    origin: Origin = field(default_factory=dict)

    def __post_init__(self):
        steps = [Step(t.name, t.score, lambda trigger=t: trigger.threshold) for t in self.triggers]
        self.cascade = Cascade(steps, self.policy, self.name, self.fingerprint)
        self.preroll = Preroll(self.policy.preroll)
        self.tally, self.timeline = Tally(), Timeline()
        self.wakes: deque[Wake] = deque(maxlen=REMEMBERED)
        self.pictures: dict[str, bytes] = {}
        self.causes: dict[str, list[str]] = {}
        self.resumed: Tally | None = None
        self.earlier = 0  # dropped in earlier runs
        # Rows after `position` that this run has read, and that an earlier run had.
        self.position, self.offset, self.skip = self.source.position, 0, 0
        self.saved_us: int | None = None

    def run(self, show: Callable[["Watch"], None] | None = None) -> Tally:
        """Watch until the source ends; `show(watch)` is called after each packet.

        Raises:
            FileError: the source or the state is damaged, or the state can't be written.
        """
        self.resume()
        try:
            for packet in self.source:
                self.push(packet)
                if show is not None:
                    show(self)
            self._judge(self.windows.advance(self.tally.latest_us + self.windows.period))
            self._send(self.cascade.finish(self.tally.last_us))
        finally:
            self.save()
            self.source.close()
        return self.tally

    def push(self, packet: np.ndarray) -> None:
        """Filter a packet, and judge the windows that it closes."""
        packet = self._unread(packet)
        passed = packet
        for stage in self.filters:
            passed = stage(passed)
        self.tally.events_in += len(packet)
        self.tally.events_out += len(passed)
        self.tally.dropped = self.earlier + self.source.dropped
        if len(packet):
            self.tally.latest_us = int(packet["t"][-1])
        self.preroll.add(passed)
        self._judge(self.windows.push(packet, passed))
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

    def _unread(self, packet: np.ndarray) -> np.ndarray:
        """The packet less what an earlier run has read of it, where a source cut it up."""
        if self.source.position != self.position:
            self.position, self.offset = self.source.position, 0
        else:
            self.offset += len(packet)
        skip = min(self.skip, len(packet))
        self.skip -= skip
        return packet[skip:]

    def _judge(self, windows: Iterable[Window]) -> None:
        windows = [*windows]
        together = self.learn == "always" and len(windows) > 0
        together = together and self.triggers[0].follow(np.stack([w.x for w in windows]))
        for window in windows:
            wakes = self.cascade.step(window.t_end_us, window.x, window.n_in, window.n_out)
            first = self.triggers[0]
            score = first.current if first.current is not None else float("nan")
            awake = self.cascade.awake
            self.timeline.add(window, score, first.threshold, awake)
            if self.learn == "always" or (self.learn == "calm" and not awake):
                for trigger in self.triggers:
                    trigger.learn(window.x, window.t_end_us, together and trigger is first)
            tally = self.tally
            tally.windows += 1
            tally.awake += awake
            tally.failures = self.cascade.failures
            tally.first_us = window.t_start_us if tally.first_us < 0 else tally.first_us
            tally.last_us = window.t_end_us
            self._send(wakes)

    def _send(self, wakes: Sequence[Wake]) -> None:
        for wake in wakes:
            clip = None
            if wake.type == "new":
                self.tally.wakes += 1
                self.causes[wake.id] = self._cause()
                for old in list(self.causes)[:-REMEMBERED]:
                    del self.causes[old]
                clip = self.preroll.clip(wake.t_wake_us)
            self.wakes.append(wake)
            if clip is not None and len(clip):
                self._draw(wake.id, clip)
            if self.outbox is not None:
                self.outbox.put(wake, clip)

    def _cause(self) -> list[str]:
        """The channels that were strangest in the window that woke; none where nobody knows."""
        strange, names = self.triggers[0].channels, getattr(self.source, "names", [])
        if not len(strange):
            return []
        order = [i for i in np.argsort(-strange)[:CAUSES] if strange[i] >= strange.max() / 2]
        known = len(names) == len(strange)
        return [names[i] if known else f"channel {i}" for i in order]

    def _draw(self, name: str, clip: np.ndarray) -> None:
        width, height = self.source.width, self.source.height
        size = (min(width, LARGEST), min(height, LARGEST)) if height > 1 else ()
        self.pictures[name] = picture(clip, *size)
        for old in list(self.pictures)[:-PICTURES]:
            del self.pictures[old]

    def parts(self) -> dict[str, Any]:
        """Every stage that has a state, by name."""
        parts: dict[str, Any] = {f"filter-{i}": stage for i, stage in enumerate(self.filters)}
        parts |= {f"trigger-{i}": trigger for i, trigger in enumerate(self.triggers)}
        parts |= {"windows": self.windows, "cascade": self.cascade}
        parts |= {"preroll": self.preroll, "timeline": self.timeline}
        return parts | ({"source": self.source} if hasattr(self.source, "state") else {})

    def state(self) -> State:
        """The state that a restart needs: of every part, of the source, and the counts."""
        states = {name: part.state() for name, part in self.parts().items()}
        own = {"position": self.position, "offset": self.offset, "tally": vars(self.tally).copy()}
        return {**states, "watch": own, "fingerprint": self.fingerprint, "origin": self.origin}

    def calibration(self) -> State:
        """The part of the state that another stream can begin with: what the triggers know."""
        triggers = {k: v for k, v in self.state().items() if k.startswith("trigger-")}
        return {**triggers, "fingerprint": self.fingerprint}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`, or begin with `calibration()`; thresholds of filters are settings.

        Raises:
            InputError: the state is of other filters, windows or detectors, or another source.
        """
        if state.get("fingerprint") != self.fingerprint:
            raise InputError("it is of other filters, windows or detectors")
        before = state.get("origin")  # files of before have none
        if before and self.origin and (reason := difference(before, self.origin)):
            raise InputError(reason)
        limits = [stage.threshold for stage in self.filters]
        for name, part in self.parts().items():
            if name in state:
                part.restore(state[name])
        for stage, limit in zip(self.filters, limits, strict=True):
            stage.threshold = limit
        if own := state.get("watch"):
            self.tally, self.resumed = Tally(**own["tally"]), Tally(**own["tally"])
            self.earlier = self.tally.dropped
            self.position, self.skip = own["position"], own["offset"]
            self.source.seek(self.position)
            if (since := getattr(self.source, "since", None)) is not None:
                since(self.tally.latest_us)

    def save(self) -> None:
        """Write the state, and pass the counts to sinks that publish them."""
        if self.outbox is not None:
            for sink in self.outbox.sinks.values():
                if (stats := getattr(sink, "stats", None)) is not None:
                    stats(vars(self.tally))
        checkpoint.write(self.folder / STATE_FILE, self.state())
        self.saved_us = self.tally.last_us

    def resume(self) -> None:
        """Go on from the state in `folder`, if there is one.

        Raises:
            FileError: it is damaged. InputError: it is of another watch.
        """
        path = self.folder / STATE_FILE
        if path.exists():
            try:
                self.restore(checkpoint.read(path))
            except (InputError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"can't go on from {path}: {error}; begin anew with --fresh, or keep both in "
                    "folders of their own with --state"
                ) from error
