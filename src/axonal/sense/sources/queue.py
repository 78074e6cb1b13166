"""Back-pressure: a bounded queue between a source and whoever is slower, which counts its drops."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ...core.errors import InputError
from ..stream import Source
from .wrapped import Wrapped

SMALL = 4096  # events: packets that wait are joined up to here, so that tiny ones cost no memory
IDLE_S = 0.1  # of silence, after which an empty packet tells the reader of a live source
GRACE_S, PATIENCE_S = 0.05, 5.0  # for the thread to end by itself; and once its source is closed


class Buffered(Wrapped):
    """Reads `source` in a thread of its own into a queue of at most `capacity_events`.

    Iterate it once. What was read is delivered in order, or counted in `dropped` beside what the
    source itself lost; an error of the source is raised after what came before it. What a closed
    queue still held is neither, and lies behind `position`.

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
        self._held = self._lost = self._told = 0
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._ended = self._closed = False

    @property
    def dropped(self) -> int:
        """Events lost before `position`, by the source or here; at the end, all that were lost."""
        return self._told

    @property
    def now(self) -> int | None:
        """A live source's, unless something older waits here."""
        return None if self._queue else getattr(self.source, "now", None)

    def __iter__(self) -> Iterator[np.ndarray]:
        self._thread = threading.Thread(target=self._read, name="axonal-source", daemon=True)
        self._thread.start()
        packet: np.ndarray | None = None
        try:
            while (taken := self._take()) is not None:
                if taken:
                    packet, self.position, _ = taken
                    yield packet
                elif packet is not None and self.now is not None:
                    yield packet[:0]
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread, its source, and the iteration, from any thread."""
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
        """The oldest packet, nothing after a silence, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended or self._closed, IDLE_S)
            if self._closed:
                return None
            if self._ended and not self._queue:
                self._told = self.source.dropped + self._lost
                return None
            if not self._queue:
                return ()
            taken = self._queue.popleft()
            self._held -= len(taken[0])
            self._told = taken[2] + self._lost
            self._changed.notify_all()
            return taken

    def _put(self, packet: np.ndarray, before: int, after: int) -> bool:
        """Queues the packet, in pieces if need be; False once closed."""
        with self._changed:
            if self._drops:
                packet = self._make_room(packet)
            for start in range(0, len(packet), self._capacity):
                piece = packet[start : start + self._capacity]
                room, last = self._capacity - len(piece), start + len(piece) == len(packet)
                self._changed.wait_for(lambda room=room: self._closed or self._held <= room)
                if self._closed:
                    break
                self._held += len(piece)
                if last and self._queue and len(self._queue[-1][0]) + len(piece) <= SMALL:
                    piece = np.concatenate([self._queue.pop()[0], piece])
                self._queue.append((piece, after if last else before, self.source.dropped))
                self._changed.notify_all()
            return not self._closed

    def _make_room(self, packet: np.ndarray) -> np.ndarray:
        """Drops the oldest until the packet fits, and of a larger packet its own oldest part."""
        over = max(0, len(packet) - self._capacity)
        if over:
            packet = packet[over:].copy()  # a view would keep the whole one in memory
        excess = max(0, self._held + len(packet) - self._capacity)
        self._lost += over + excess
        self._held -= excess
        while excess:
            oldest, after, lost = self._queue.popleft()
            if len(oldest) > excess:
                self._queue.appendleft((oldest[excess:], after, lost))
            excess -= min(excess, len(oldest))
        return packet
