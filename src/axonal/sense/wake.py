"""The wake cascade: from scores to events that begin once, go on, and end once."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import numpy as np

from ..core.config import Config
from ..core.errors import InputError, NotFinite
from .stream import Stateful

FAILED = "detector failed"  # the reason of a wake without a score
SHARED = "id", "t_start_us", "t_wake_us", "score", "threshold", "n_events_in", "n_events_out"
NEVER = -(1 << 62)  # us, before every time
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wake:
    """A message about an event: that it began, goes on, or ended.

    Attributes:
        type: "new", "update" or "end".
        id: of the event; the same in each of its messages and when the stream is run again.
        n: the message's number within the event, from 0.
        source: the name of the stream.
        t_start_us, t_wake_us: the first window of the run that led to the wake, and the window in
            which the wake was decided.
        t_end_us: how far the event has come; at the "end", where it ended.
        score, threshold: the highest score so far, and what it had to reach. NaN without one.
        reason: the step that woke, or `FAILED`; at the end "quiet", "longest" or "finished".
        n_events_in, n_events_out: events since t_start_us, before and after the filters.
        preroll_ref: where the clip lies, of `clip.Preroll`; the outbox says so.
    """

    type: str
    id: str
    n: int
    source: str
    t_start_us: int
    t_wake_us: int
    t_end_us: int
    score: float
    threshold: float
    reason: str
    n_events_in: int
    n_events_out: int
    preroll_ref: str = ""

    def cloudevent(self) -> dict[str, Any]:
        """The message in CloudEvents 1.0's JSON format (CNCF, 2019).

        `time` reads t as microseconds since 1970; numbers that JSON lacks become null.
        """
        numbers = (int, float)
        data = {
            k: None if isinstance(v, numbers) and not math.isfinite(v) else v
            for k, v in asdict(self).items()
        }
        event = {
            "specversion": "1.0",
            "id": f"{self.id}/{self.type}/{self.n}",
            "source": quote(self.source),
            "type": f"dev.axonal.wake.{self.type}",
            "datacontenttype": "application/json",
            "data": data,
        }
        try:
            moment = EPOCH + timedelta(microseconds=self.t_end_us)
        except OverflowError:  # beyond the year 9999: `time` is optional
            return event
        return {**event, "time": moment.isoformat().replace("+00:00", "Z")}


@dataclass(frozen=True, kw_only=True)
class Policy(Config):
    """The rules by which scores become an event. Times in seconds.

    Attributes:
        off_ratio: an event goes on while scores reach this share of the thresholds, in (0, 1].
        windows: how many in a row have to reach the thresholds before a wake.
        refractory: from the end of an event to the first window that may lead to the next.
        cooldown: from a wake to the first window that may lead to the next.
        update: between two messages of an event that goes on; inf for none.
        longest: an event ends so long after its wake, whatever the scores are.
        preroll: of the clip that goes with a wake.
        postroll: an event goes on so long after the last window that reached.
        fail: "open": a detector that raises an error or finds no number counts as reached, and
            wakes by the same rules; "closed": it is logged and counted, and does not.
    """

    off_ratio: float = 0.8
    windows: int = 1
    refractory: float = 0.0
    cooldown: float = 0.0
    update: float = 5.0
    longest: float = 300.0
    preroll: float = 5.0
    postroll: float = 1.0
    fail: str = "open"

    def __post_init__(self):
        if not 0 < self.off_ratio <= 1 or self.windows < 1:
            raise InputError("Policy: off_ratio lies in (0, 1], and windows is at least 1")
        if self.fail not in ("open", "closed"):
            raise InputError(f'Policy: fail is "open" or "closed", not {self.fail!r}')
        if not (self.update >= 0 and self.longest >= 0):
            raise InputError("Policy: update and longest are not negative")
        for name in ("refractory", "cooldown", "preroll", "postroll"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"Policy: {name} is a number of seconds, not negative")


@dataclass(frozen=True)
class Step:
    """A stage of the cascade: `score(x)` and the threshold that it has to reach.

    A threshold that moves is a function.
    """

    name: str
    score: Callable[[Any], float]
    threshold: float | Callable[[], float]


@dataclass
class _Progress(Stateful):
    """The event that is open, or the run of windows that may become one."""

    last_us: int = NEVER
    quiet_us: int = NEVER  # no run begins before
    run: int = 0
    open: bool = False
    id: str = ""
    sent: int = 0
    t_start_us: int = NEVER
    t_wake_us: int = NEVER
    active_us: int = NEVER  # the last window that reached the thresholds
    message_us: int = NEVER
    score: float = math.nan
    threshold: float = math.nan
    reason: str = ""
    n_events_in: int = 0
    n_events_out: int = 0
    failures: int = 0


_Progress.STATE = tuple(_Progress.__dataclass_fields__)


class Cascade(Stateful):
    """Steps with early exit, and the policy that turns their scores into events.

    A step is called only when the one before it has reached its threshold; between events, while
    `Policy` forbids a wake, only the first is called. Nothing here looks at a clock.

    Args:
        steps: cheap ones first.
        policy: when to wake.
        source: the stream's name.
        fingerprint: of whatever else makes two runs differ, such as filters and detectors. The ids
            of events are a hash of source, fingerprint, policy, steps and t_start_us, so that the
            same stream watched again, after a crash, has the same ids.

    Attributes:
        calls: of each step, [steps].

    Raises:
        InputError: no steps.
    """

    STATE = ("calls", "now")

    def __init__(
        self, steps: Sequence[Step], policy: Policy, source: str = "watch", fingerprint: str = ""
    ):
        if not steps:
            raise InputError("Cascade: it needs a step")
        self.steps, self.policy, self.source = tuple(steps), policy, source
        self.calls = np.zeros(len(steps), np.int64)
        fixed = [[s.name, None if callable(s.threshold) else s.threshold] for s in steps]
        self.fingerprint = json.dumps([source, fingerprint, policy.to_dict(), fixed])
        self.now = _Progress()

    @property
    def awake(self) -> bool:
        """Whether an event is open."""
        return self.now.open

    @property
    def failures(self) -> int:
        """Failures of detectors, so far."""
        return self.now.failures

    def step(self, t_us: int, x: Any, n_in: int = 0, n_out: int = 0) -> list[Wake]:
        """Judge a window, and return the messages that it leads to.

        Args:
            t_us: its end, after that of the window before.
            x: what steps score.
            n_in, n_out: its events before and after the filters.

        Raises:
            InputError: time did not move on.
        """
        now = self.now
        if t_us <= now.last_us:
            raise InputError(f"Cascade: a window at {t_us} us after one at {now.last_us} us")
        now.last_us = t_us
        reached, score, threshold, reason = self._evaluate(x, t_us)
        if not now.open and not reached:
            now.run = 0
            return []
        if not now.open and now.run == 0:
            now.t_start_us, now.score = t_us, math.nan
            now.n_events_in = now.n_events_out = 0
        now.n_events_in += n_in
        now.n_events_out += n_out
        if reached:
            now.active_us = t_us
            if math.isnan(now.score) or score > now.score:
                now.score, now.threshold, now.reason = score, threshold, reason
        return self._go_on(t_us, reached) if now.open else self._begin(t_us)

    def finish(self, t_us: int) -> list[Wake]:
        """End the event that is open, as the stream ends at t_us."""
        self.now.run = 0
        return self._end(max(t_us, self.now.last_us), "finished") if self.now.open else []

    def _evaluate(self, x: Any, t_us: int) -> tuple[bool, float, float, str]:
        """Whether all steps reach their thresholds; the last one's score, threshold and name."""
        quiet = not self.now.open and t_us < self.now.quiet_us
        score = threshold = math.nan
        for k, step in enumerate(self.steps[:1] if quiet else self.steps):
            self.calls[k] += 1
            try:
                score, limit = float(step.score(x)), step.threshold
                threshold = float(limit() if callable(limit) else limit)
                fault = "no number" if not math.isfinite(score) or math.isnan(threshold) else ""
            except Exception as error:
                if isinstance(error, InputError) and not isinstance(error, NotFinite):
                    raise  # of another shape, as all that follow will be
                fault = repr(error)
            if fault:
                self._log(step, fault)
                return self.policy.fail == "open" and not quiet, math.nan, threshold, FAILED
            if score < (self._off(threshold) if self.now.open else threshold):
                return False, score, threshold, step.name
        return not quiet, score, threshold, self.steps[-1].name

    def _off(self, threshold: float) -> float:
        """The lower threshold of an event that is open."""
        ratio = self.policy.off_ratio
        return threshold * ratio if threshold >= 0 else threshold / ratio

    def _log(self, step: Step, fault: str) -> None:
        self.now.failures += 1
        if self.failures & (self.failures - 1) == 0:  # a broken detector must not fill the log
            LOG.error(
                "detector %s failed (%d failures so far): %s", step.name, self.failures, fault
            )

    def _begin(self, t_us: int) -> list[Wake]:
        now = self.now
        now.run += 1
        if now.run < self.policy.windows:
            return []
        name = f"{self.fingerprint} {now.t_start_us}"
        now.id = hashlib.sha256(name.encode()).hexdigest()[:20]
        now.open, now.run, now.sent, now.t_wake_us = True, 0, 0, t_us
        return [self._message("new", t_us, now.reason)]

    def _go_on(self, t_us: int, reached: bool) -> list[Wake]:
        now, policy = self.now, self.policy
        ends = [(now.t_wake_us + _us(policy.longest), "longest")]
        if not reached:
            ends.append((now.active_us + _us(policy.postroll), "quiet"))
        if t_us >= min(ends)[0]:  # not t_us: after a gap in the stream this window is late
            return self._end(*min(ends))
        late = t_us - now.message_us >= _us(policy.update)
        return [self._message("update", t_us, now.reason)] if late else []

    def _end(self, t_us: int, reason: str) -> list[Wake]:
        now, policy = self.now, self.policy
        now.open = False
        now.quiet_us = max(t_us + _us(policy.refractory), now.t_wake_us + _us(policy.cooldown))
        return [self._message("end", t_us, reason)]

    def _message(self, kind: str, t_us: int, reason: str) -> Wake:
        now = self.now
        now.sent, now.message_us = now.sent + 1, t_us
        shared = {name: getattr(now, name) for name in SHARED}
        own = {"type": kind, "n": now.sent - 1, "t_end_us": t_us, "reason": reason}
        return Wake(source=self.source, **own, **shared)


def _us(seconds: float) -> Any:
    return seconds if math.isinf(seconds) else round(seconds * 1e6)
