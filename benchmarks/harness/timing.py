"""Jobs timed in turn, round by round, so that a disturbance of the machine meets them all."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PAUSE = 0.02  # seconds in which the threads of the job before come to rest
Job = TypeVar("Job", bound=Hashable)


@dataclass(frozen=True)
class Timings:
    """Seconds of one call in each round, by name; ours is the first."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def fastest_other(self) -> str:
        """The name of the fastest of the others."""
        others = list(self.seconds)[1:]
        return min(others, key=lambda name: statistics.median(self.seconds[name]))

    @property
    def speedup(self) -> dict[str, float]:
        """The time of the fastest of the others over ours: median, least and most of the rounds."""
        ours, *_ = self.seconds.values()
        return ratio(self.seconds[self.fastest_other], ours)


def time_in_turn(
    calls: Mapping[str, Callable[[], Any]], rounds: int, at_least: float = 0.05
) -> Timings:
    """Time every call for `at_least` seconds in each of `rounds`, after two calls each."""

    def repeated(call: Callable[[], Any]) -> Callable[[], float]:
        call()
        began = time.perf_counter()
        call()
        count = max(1, round(at_least / (time.perf_counter() - began)))

        def seconds() -> float:
            time.sleep(PAUSE)
            began = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - began) / count

        return seconds

    return Timings(take_turns({name: repeated(call) for name, call in calls.items()}, rounds))


def take_turns(
    jobs: Mapping[Job, Callable[[], float]],
    rounds: int,
    describe: Callable[[Job], str] | None = None,
) -> dict[Job, list[float]]:
    """Run every job once in each of `rounds`, one after another.

    Args:
        jobs: each returns its seconds, or its speed.
        rounds: how often.
        describe: what a progress bar says of a job; None for no bar.

    Returns:
        What each job returned, round by round.
    """
    returned: dict[Job, list[float]] = {job: [] for job in jobs}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, disable=describe is None) as bar:
        task = bar.add_task("rounds", total=rounds * len(jobs))
        for _ in range(rounds):
            for job, call in jobs.items():
                bar.update(task, description=describe(job) if describe else "")
                returned[job].append(call())
                bar.advance(task)
    return returned


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the most."""
    parts = {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(part, 4) for name, part in parts.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """The spread of the ratios of two series, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])
