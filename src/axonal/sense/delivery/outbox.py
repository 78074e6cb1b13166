"""Wakes that outlive a crash: written down before they are sent, sent until they are taken."""

import logging
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from ...core import files
from ...core.errors import AxonalError, FileError, InputError
from ..stream import columns, rows
from ..wake import Wake
from .journal import Journal, store

Event = Mapping[str, Any]  # a CloudEvent, as `Wake.cloudevent` makes it
LANE = "delivered", "retried", "dead", "undelivered"
COUNTS = "put", "duplicates", "unsaved", "clips_lost", *LANE
LOG = logging.getLogger(__name__)


class Retry(AxonalError):
    """Not delivered, but it may be later; not before `after` seconds."""

    def __init__(self, message: str, after: float = 0.0):
        super().__init__(message)
        self.after = after


class Refused(AxonalError):
    """Not delivered, and sending the same again will not help."""


class Sink(Protocol):
    """Where wakes go: each is asked from a thread of its own, in order, and closed by it.

    `send` returns when the message is delivered. `Refused` is final; after any other error the
    message is sent again.
    """

    def send(self, event: Event, clip: np.ndarray | None) -> None: ...

    def close(self) -> None: ...


class Outbox:
    """Takes messages of wakes, and sees that every sink gets each of them, in order.

    A message is in the journal, synchronised with the disk, before anything is sent; each sink has
    a note of how far it has come, written after each message. So whenever the process is killed
    and begun again, a sink gets every message that `put` has returned for, in order, and each once
    but for one: the message under way when the process was killed comes again, with the same id.
    A message put again, since the stream is seen again after a crash, has the id of the first and
    is kept once, as long as the journal knows it: among the last `limit` messages.

    A message that a sink refuses, or fails to take `tries` times, goes to the sink's dead letters,
    NAME.dead.jsonl. A sink that falls behind by more than `limit` loses the oldest ("undelivered").
    When the journal can't be written (a full disk), the message is sent all the same, without its
    clip and without these promises ("unsaved"). One process at a time uses a folder.

    Args:
        folder: where journal, notes, dead letters and clips lie.
        sinks: by name (letters, digits, - and _). A new one begins with the next message.
        tries: of a message.
        backoff: seconds before the second try, at most; doubles, and is drawn from its upper half.
        longest: seconds between two tries, also where a server asks for more.
        seed: of those draws.
        limit: messages that the journal keeps, and each file of dead letters.
        clip_bytes: of all clips; the oldest go.

    Raises:
        InputError: a sink's name, or no tries. FileError: the folder can't be used.
    """

    def __init__(
        self,
        folder: str | Path,
        sinks: Mapping[str, Sink],
        *,
        tries: int = 20,
        backoff: float = 0.5,
        longest: float = 300.0,
        seed: int = 0,
        limit: int = 10_000,
        clip_bytes: int = 1 << 30,
    ):
        if odd := [name for name in sinks if not re.fullmatch(r"[\w-]+", name, re.ASCII)]:
            raise InputError(f"Outbox: a sink's name has letters, digits, - and _, not {odd[0]!r}")
        if tries < 1 or limit < 1:
            raise InputError("Outbox: tries and limit are at least 1")
        self.folder, self.tries, self.seed = files.writable(folder), tries, seed
        self.backoff, self.longest, self.clip_bytes = backoff, longest, clip_bytes
        self.sinks = dict(sinks)
        self.changed, self.closing, self.stop = threading.Condition(), False, threading.Event()
        self.tally, self.unsaved = Counter[str](), dict[int, Event]()
        self.clips = {p: p.stat().st_size for p in sorted(self.folder.glob("clips/*.npz"))}
        self.journal = Journal(self.folder / "journal.jsonl", limit)
        try:
            self.lanes = [_Lane(self, name, sink) for name, sink in sinks.items()]
        except FileError:
            self.journal.close()
            raise
        # A number was given to a message that was sent but never saved: it is not used again.
        self.end = max([max(self.journal.lines, default=-1) + 1, *(x.next for x in self.lanes)])
        for lane in self.lanes:
            lane.start()

    def put(self, wake: Wake, clip: np.ndarray | None = None) -> bool:
        """Take a message and the rows around it; False if it was taken before. Never blocks long.

        Raises:
            InputError: the outbox is closed.
        """
        event = wake.cloudevent()
        with self.changed:
            if self.closing:
                raise InputError("Outbox: it is closed")
            unsaved = {e["id"] for e in self.unsaved.values()}
            if event["id"] in unsaved or event["id"] in self.journal.ids:
                self.tally["duplicates"] += 1
                return False
            if clip is not None and len(clip):
                event["data"]["preroll_ref"] = self._keep(clip)
            try:
                self.journal.append(self.end, event["id"], {"event": event})
            except FileError as error:
                LOG.error("a wake is sent without being saved: %s", error)
                self.tally["unsaved"] += 1
                self.unsaved[self.end] = event
                if len(self.unsaved) > self.journal.limit:
                    del self.unsaved[min(self.unsaved)]
            self.tally["put"] += 1
            self.end += 1
            self.changed.notify_all()
        return True

    def counters(self) -> dict[str, int]:
        """What became of messages since the start, over all sinks; "queued" wait to be sent.

        put, duplicates, unsaved and clips_lost count messages put; delivered, retried, dead,
        undelivered and queued count them for each sink.
        """
        found = self.tally.copy()
        for lane in self.lanes:
            found.update(lane.tally)
        queued = sum(self.end - lane.next for lane in self.lanes)
        return {**{name: found[name] for name in COUNTS}, "queued": queued}

    def close(self, timeout: float = 10.0) -> bool:
        """Let sinks finish; whether they have. After `timeout` seconds the rest stays on disk.

        A sink that is sending just then gets as long again to come to its end.
        """
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self._join(timeout)
        with self.changed:
            self.stop.set()
            self.journal.close()
        self._join(timeout)
        return not self.counters()["queued"]

    def _join(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        for lane in self.lanes:
            lane.join(max(0.0, until - time.monotonic()))

    def _next(self, lane: "_Lane") -> Event | None:
        """A lane's next message, empty if it is lost; None when the lane has to end."""
        with self.changed:
            self.changed.wait_for(lambda: self.closing or lane.next < self.end)
            if lane.next >= self.end or self.stop.is_set():
                return None
            kept = self.journal.read(lane.next) or {}
            return self.unsaved.get(lane.next) or kept.get("event", {})

    def _clip(self, reference: str) -> np.ndarray | None:
        """What lies there; None where nothing does any more, or it is damaged."""
        if not reference:
            return None
        try:
            with open(self.folder / reference, "rb") as file:
                return rows(dict(np.load(file, allow_pickle=False)))
        except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile):
            return None

    def _keep(self, clip: np.ndarray) -> str:
        name = f"clips/{self.end:012}.npz"
        save = partial(np.savez, allow_pickle=False, **columns(clip))
        try:
            path = store(self.folder / name, save)
        except FileError as error:
            LOG.error("a wake goes without its clip: %s", error)
            self.tally["clips_lost"] += 1
            return ""
        self.clips[path] = path.stat().st_size
        while len(self.clips) > 1 and (
            sum(self.clips.values()) > self.clip_bytes or len(self.clips) > self.journal.limit
        ):
            oldest = next(iter(self.clips))
            oldest.unlink(missing_ok=True)
            del self.clips[oldest]
        return name


class _Lane(threading.Thread):
    """What delivers to one sink."""

    def __init__(self, box: Outbox, name: str, sink: Sink):
        super().__init__(name=f"outbox-{name}", daemon=True)
        self.box, self.sink, self.tally = box, sink, Counter[str]()
        self.random = random.Random(f"{box.seed}/{name}")
        self.dead = box.folder / f"{name}.dead.jsonl"
        self.note = box.folder / f"{name}.next"
        try:
            self.next = int(self.note.read_text())
        except FileNotFoundError:
            self.next = max(box.journal.lines, default=-1) + 1
            self._write()
        except ValueError as error:
            raise FileError(f"{self.note} is damaged; remove it to send what comes now") from error

    def run(self) -> None:
        while (event := self.box._next(self)) is not None:
            if not event:
                self.tally["undelivered"] += 1
            elif not self._deliver(event, self.box._clip(event["data"]["preroll_ref"])):
                break
            self.next += 1
            try:
                self._write()
            except FileError as error:
                LOG.error("what was sent will be sent again after a restart: %s", error)
        self.sink.close()

    def _write(self) -> None:
        store(self.note, lambda file: file.write(str(self.next).encode()))

    def _deliver(self, event: Event, clip: np.ndarray | None) -> bool:
        """Send, again and again; False if the outbox closes first."""
        told, pause = "", 0.0
        for attempt in range(self.box.tries):
            if self.box.stop.wait(pause):
                return False
            self.tally["retried"] += attempt > 0
            try:
                self.sink.send(event, clip)
            except Refused as error:
                told = str(error)
                break
            except Exception as error:
                told = str(error) or repr(error)
                pause = self.box.backoff * 2 ** min(attempt, 32) * self.random.uniform(0.5, 1)
                pause = min(max(pause, getattr(error, "after", 0.0)), self.box.longest)
            else:
                self.tally["delivered"] += 1
                return True
        LOG.error("%s did not take %s: %s", self.name, event["id"], told)
        try:
            with closing(Journal(self.dead, self.box.journal.limit)) as dead:
                dead.append(self.next, event["id"], {"error": told, "event": event})
            self.tally["dead"] += 1
        except FileError as error:
            LOG.error("nor can it be kept: %s", error)
            self.tally["undelivered"] += 1
        return True
