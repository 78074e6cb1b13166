"""Sources around another source: a bounded queue, which counts its drops, and a replay."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from ...core.errors import InputError
from ..stream import Source

SMALL = 4096  # events: packets that wait are joined up to here, so that tiny ones cost no memory
IDLE_S = 0.1  # of silence, after which an empty packet tells the reader of a live source
GRACE_S, PATIENCE_S = 0.05, 5.0  # for the thread to end by itself; and once its source is closed
INTERVAL_S = 0.02  # a replay cuts packets here, so that first events don't wait for last ones


class Wrapper:
    """A source around another, with all that the other has and a subclass doesn't change.

    Attributes:
        source: the other.
        position: where the last packet ended that was handed on in full; of one that was cut, the
            parts handed on before come once more after a restart.
    """

    dropped: int

    def __init__(self, source: Source):
        self.source, self.position = source, source.position
        self.width, self.height = source.width, source.height

    def __getattr__(self, name: str) -> Any:
        if name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def seek(self, position: int) -> None:
        """Go on at a position; before iterating."""
        self.source.seek(position)
        self.position = position

    def close(self) -> None:
        self.source.close()


class Buffered(Wrapper):
    """A source that is read in a thread of its own into a queue of at most `capacity_events`.

    Iterate it once. What was read is delivered in order, or counted in `dropped` beside what the
    source itself lost; an error of the source is raised after what came before it. What a closed
    queue still holds is neither, and lies behind `position`.

    Args:
        source: its `close`, called from another thread, should end its iteration.
        capacity_events: larger packets are cut.
        when_full: "drop" gives up the oldest, for what comes live; "wait" holds the source up.

    Raises:
        InputError: a capacity below 1, or another word for `when_full`.
    """

    def __init__(
        self,
        source: Source,
        capacity_events: int = 1 << 20,
        when_full: Literal["drop", "wait"] = "drop",
    ):
        if capacity_events < 1 or when_full not in ("drop", "wait"):
            raise InputError(
                f"Buffered: capacity {capacity_events}, when_full {when_full!r}; "
                "give at least 1 event, and 'drop' or 'wait'"
            )
        super().__init__(source)
        self._capacity, self._drops = capacity_events, when_full == "drop"
        # Each with the position after it, and what its source had lost by then.
        self._queue: deque[tuple[np.ndarray, int, int]] = deque()
        self._changed = threading.Condition()
        self._size = self._lost = self._dropped = 0
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._ended = self._closed = False

    @property
    def dropped(self) -> int:
        """Events lost before `position`, by the source or here; at the end, all that were lost."""
        return self._dropped

    @property
    def now(self) -> int | None:
        """The time of a live source, unless something older waits here."""
        return None if self._queue else getattr(self.source, "now", None)

    def __iter__(self) -> Iterator[np.ndarray]:
        self._thread = threading.Thread(target=self._read, name="axonal-source", daemon=True)
        self._thread.start()
        packet: np.ndarray | None = None
        try:
            while (entry := self._take()) is not None:
                if entry:
                    packet, self.position, _ = entry
                    yield packet
                elif packet is not None and self.now is not None:
                    yield packet[:0]
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._join(GRACE_S)  # a file is not closed under a thread that needs no waking
        self.source.close()
        self._join(PATIENCE_S)

    def _join(self, seconds: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _read(self) -> None:
        """Queue what the source gives, until its end."""
        before = self.position
        try:
            for packet in self.source:
                after = self.source.position
                if not self._put(packet, before, after):
                    break
                before = after
        except Exception as error:
            if not self._closed:
                self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self) -> tuple[np.ndarray, int, int] | tuple[()] | None:
        """Take the oldest entry; an empty one after a silence, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended or self._closed, IDLE_S)
            if self._closed:
                return None
            if self._ended and not self._queue:
                self._dropped = self.source.dropped + self._lost
                return None
            if not self._queue:
                return ()
            entry = self._queue.popleft()
            self._size -= len(entry[0])
            self._dropped = entry[2] + self._lost
            self._changed.notify_all()
            return entry

    def _put(self, packet: np.ndarray, before: int, after: int) -> bool:
        """Queue the packet, in pieces if need be; False once closed."""
        with self._changed:
            if self._drops:
                packet = self._make_room(packet)
            for start in range(0, len(packet), self._capacity):
                piece = packet[start : start + self._capacity]
                room, last = self._capacity - len(piece), start + len(piece) == len(packet)
                self._changed.wait_for(lambda room=room: self._closed or self._size <= room)
                if self._closed:
                    break
                self._size += len(piece)
                if last and self._queue and len(self._queue[-1][0]) + len(piece) <= SMALL:
                    piece = np.concatenate([self._queue.pop()[0], piece])
                self._queue.append((piece, after if last else before, self.source.dropped))
                self._changed.notify_all()
            return not self._closed

    def _make_room(self, packet: np.ndarray) -> np.ndarray:
        """Drop the oldest until the packet fits, and of a larger packet its own oldest part."""
        over = max(0, len(packet) - self._capacity)
        if over:
            packet = packet[over:].copy()  # a view would hold all of it in memory
        excess = max(0, self._size + len(packet) - self._capacity)
        self._lost += over + excess
        self._size -= excess
        while excess:
            oldest, after, lost = self._queue.popleft()
            if len(oldest) > excess:
                self._queue.appendleft((oldest[excess:], after, lost))
            excess -= min(excess, len(oldest))
        return packet


class Replay(Wrapper):
    """A source whose packets come when their last event is due, or at once when that is past.

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
