"""Who is faster: callables timed in turn, round by round, so that disturbances meet them all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAUSE = 0.02  # seconds in which the threads of the contender before come to rest


@dataclass(frozen=True)
class Contest:
    """Seconds of one call in each round, by contender; ours is the first."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def best(self) -> str:
        """The fastest of the others."""
        others = list(self.seconds)[1:]
        return min(others, key=lambda name: statistics.median(self.seconds[name]))

    @property
    def speedup(self) -> dict[str, float]:
        """The time of the best of the others over ours: median, least and most of the rounds."""
        ours, *_ = self.seconds.values()
        return spread([a / b for a, b in zip(self.seconds[self.best], ours, strict=True)])


def contest(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, at_least: float = 0.05
) -> Contest:
    """Times every contender for `at_least` seconds in each of `rounds`, after two calls each."""
    calls = {}
    for name, call in contenders.items():
        call()
        began = time.perf_counter()
        call()
        calls[name] = max(1, round(at_least / (time.perf_counter() - began)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            time.sleep(PAUSE)
            began = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.perf_counter() - began) / calls[name])
    return Contest(seconds)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the most."""
    parts = {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(part, 4) for name, part in parts.items()}
