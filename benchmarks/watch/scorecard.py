"""Quality of wakes: recall, false wakes, latency, duty and calls avoided."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from axonal.core.errors import InputError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scorecard:
    """Wakes beside what truly happened.

    Attributes:
        events, recalled: labelled intervals, and those in which (tolerance before) a wake falls.
        wakes, false_wakes: all, and those that no labelled interval explains.
        hours: of the stream.
        latency: seconds from the start of each recalled interval to its first wake, [recalled];
            0 where one was awake already.
        duty: share of the time in which the large model is awake.
    """

    events: int
    recalled: int
    wakes: int
    false_wakes: int
    hours: float
    latency: np.ndarray
    duty: float

    @property
    def recall(self) -> float:
        """The share of events that were woken on; NaN where there were none."""
        return self.recalled / self.events if self.events else float("nan")

    @property
    def false_per_hour(self) -> float:
        """False wakes an hour."""
        return self.false_wakes / self.hours

    @property
    def calls_avoided(self) -> float:
        """The share of calls that a model saves which is called only while awake."""
        return 1 - self.duty

    def figures(self) -> dict[str, float]:
        """All of it as numbers for a table; latencies in ms, NaN where nothing was hit."""
        milliseconds = self.latency * 1e3 if len(self.latency) else np.array([np.nan])
        median, p95 = np.percentile(milliseconds, [50, 95])
        return {
            "recall": self.recall,
            "false_per_hour": self.false_per_hour,
            "latency_median_ms": float(median),
            "latency_p95_ms": float(p95),
            "duty": self.duty,
            "calls_avoided": self.calls_avoided,
        }


def score(
    wakes: Sequence[Interval],
    truth: Sequence[Interval],
    seconds: float,
    tolerance: float = 0.0,
) -> Scorecard:
    """Judge wakes [(start, end)] by labelled intervals [(start, end)], all in seconds.

    An interval is recalled if the model is awake at any time from `tolerance` before its start to
    its end; a wake is false if it overlaps no interval so widened. A wake that lasts over several
    intervals recalls them all, and pays with duty.

    Raises:
        InputError: no duration, or an interval that ends before it starts.
    """
    if not seconds > 0 or any(not a <= b for a, b in [*wakes, *truth]):
        raise InputError(f"a stream of {seconds} s, or an interval that ends before it starts")
    latency = []
    for start, end in truth:
        hits = [max(a - start, 0.0) for a, b in wakes if a <= end and b >= start - tolerance]
        latency += [min(hits)] if hits else []
    false = sum(not any(a <= end and b >= t - tolerance for t, end in truth) for a, b in wakes)
    duty = covered([(max(a, 0.0), min(b, seconds)) for a, b in wakes]) / seconds
    counts = len(truth), len(latency), len(wakes), false
    return Scorecard(*counts, seconds / 3600, np.array(latency), duty)


def covered(intervals: Sequence[Interval]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return float(total)


def random_wakes(duty: float, length: float, seconds: float, seed: int) -> list[Interval]:
    """Draw wakes of `length` seconds at random that fill `duty`: the control that knows nothing."""
    generator = np.random.default_rng(seed)
    slots = max(int(seconds / length), 1)
    chosen = generator.permutation(slots)[: round(duty * slots)]
    return [(float(k * length), float((k + 1) * length)) for k in np.sort(chosen)]
