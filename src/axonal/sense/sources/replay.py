"""Recorded packets at the pace at which they were recorded, or faster."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...core.errors import InputError
from ..stream import Source
from .wrapped import Wrapped

INTERVAL_S = 0.02  # packets are cut here, so that their first events don't wait for their last


class Replay(Wrapped):
    """Hands packets on when their last event is due; when it is late, at once.

    Args:
        source: what to replay.
        speed: 1 for real time, 10 for ten times that, infinite for as fast as possible.
        longest_pause_s: a gap in the recording is waited for no longer than this.
        clock: seconds that go on.
        sleep: waits so many seconds; by default no longer than until `close`.

    Raises:
        InputError: a speed that is not positive, or a pause that is not finite.
    """

    def __init__(
        self,
        source: Source,
        speed: float = 1.0,
        longest_pause_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] | None = None,
    ):
        if not (speed > 0 and 0 <= longest_pause_s < math.inf):
            raise InputError(
                f"Replay: speed {speed}, pause {longest_pause_s} s; give positive ones"
            )
        super().__init__(source)
        self._closed = threading.Event()
        self._speed, self._longest = speed * 1e6, longest_pause_s
        self._clock, self._sleep = clock, sleep or self._closed.wait
        self._zero: float | None = None  # what the clock would have shown at t = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for packet in self.source:
            after, start = self.source.position, 0
            while start < len(packet):
                t = packet["t"][start:]
                limit = min(int(t[0]) + int(min(INTERVAL_S * self._speed, 2**62)), 2**63 - 1)
                end = start + int(np.searchsorted(t, limit, "right"))
                self._wait(int(t[0]), int(packet["t"][end - 1]))
                if self._closed.is_set():
                    return
                if end == len(packet):
                    self.position = after
                yield packet[start:end]
                start = end

    def close(self) -> None:
        """Ends the iteration and its pause, from any thread."""
        self._closed.set()
        super().close()

    def _wait(self, first: int, last: int) -> None:
        now = self._clock()
        if self._zero is None:
            self._zero = now - first / self._speed
        pause = self._zero + last / self._speed - now
        self._zero -= max(0.0, pause - self._longest)
        if pause > 0:
            self._sleep(min(pause, self._longest))
