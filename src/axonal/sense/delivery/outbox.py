"""An outbox of wakes: written to disk before they are sent, and sent until every sink has them."""

import json
import logging
import os
import random
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from ...core import files
from ...core.errors import AxonalError, FileError, InputError
from ..stream import columns, rows
from ..wake import Wake

Event = Mapping[str, Any]  # a CloudEvent, as `Wake.cloudevent` makes it
COUNTS = "put", "duplicates", "unsaved", "clips_lost", "delivered", "retried", "dead", "undelivered"
LOCK_S = 1.0  # to wait for a process that is just ending
SETTINGS = "locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"
SCHEMA = (
    "CREATE TABLE message (n INTEGER PRIMARY KEY, id TEXT UNIQUE, event TEXT)",
    "CREATE TABLE sink (name TEXT PRIMARY KEY, next INTEGER)",
    "CREATE TABLE dead_letter (sink TEXT, n INTEGER, error TEXT, event TEXT)",
    "PRAGMA user_version = 1",
)
TRIM = (  # dead letters of a sink, but for the newest so many
    "DELETE FROM dead_letter WHERE sink = ?1 AND n <= "
    "(SELECT n FROM dead_letter WHERE sink = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)"
)
LOG = logging.getLogger(__name__)


class Retry(AxonalError):
    """A failure that may pass: the message is sent again, not before `after` seconds."""

    def __init__(self, message: str, after: float = 0.0):
        super().__init__(message)
        self.after = after


class Refused(AxonalError):
    """A failure that stays: sending the same message again will not help."""


class Sink(Protocol):
    """A destination of wakes, called from a thread of its own, in order, and closed by it.

    `send` returns when the message is delivered. `Refused` is final; after any other error the
    message is sent again.
    """

    def send(self, event: Event, clip: np.ndarray | None) -> None: ...

    def close(self) -> None: ...


class Outbox:
    """A queue of messages on disk, from which every sink gets each of them, in order.

    A message is in the database, synchronised with the disk, before anything is sent; how far each
    sink has come is written after each message. So whenever the process is killed and begun again,
    a sink gets every message that `put` has returned for, in order, and each once but for one: the
    message under way when the process was killed comes again, with the same id. A message put
    again, since the stream is seen again after a crash, has the id of the first and is stored once,
    as long as it is among the last `limit` messages.

    A message that a sink refuses, or fails to take `tries` times, goes to the table `dead_letter`.
    A sink that falls behind by more than `limit` loses the oldest ("undelivered"). When the
    database can't be written (a full disk), the message is sent all the same, without its clip and
    without these promises ("unsaved"). One process at a time opens a folder. What an earlier
    version left there as journal.jsonl and NAME.next is taken over into the database.

    Args:
        folder: where the database, outbox.sqlite, and the clips lie.
        sinks: by name (letters, digits, - and _). A new one begins with the next message.
        tries: of a message.
        backoff: seconds before the second try, at most; doubles, and is drawn from its upper half.
        longest: seconds between two tries, also where a server asks for more.
        seed: of those draws.
        limit: messages that are stored, and dead letters of each sink.
        clip_bytes: of all clips; the oldest go.

    Raises:
        InputError: a sink's name, or no tries. FileError: the folder can't be used, or another
            process uses it, or the database is damaged.
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
        self.backoff, self.longest = backoff, longest
        self.limit, self.clip_bytes = limit, clip_bytes
        self.sinks = dict(sinks)
        self.changed, self.closing, self.stop = threading.Condition(), False, threading.Event()
        self.tally, self.unsaved = Counter[str](), dict[int, Event]()
        self.clips = {p: p.stat().st_size for p in sorted(self.folder.glob("clips/*.npz"))}
        self.path = self.folder / "outbox.sqlite"
        start = self._open()
        self.deliveries = [_Delivery(self, name, sinks[name], start[name]) for name in sinks]
        for delivery in self.deliveries:
            delivery.start()

    def _open(self) -> dict[str, int]:
        """Open the database for this process alone; the next message of each sink.

        A write-ahead log takes one synchronisation with the disk a commit. Locked exclusively it
        needs no shared memory, which couldn't be had on a full disk.
        """
        old: list[Path] = []
        with _errors(self.path), ExitStack() as stack:
            database = sqlite3.connect(self.path, LOCK_S, check_same_thread=False)
            database.isolation_level = None  # a transaction begins where BEGIN stands
            stack.callback(database.close)
            for setting in SETTINGS:
                database.execute(f"PRAGMA {setting}")
            [state] = database.execute("PRAGMA quick_check(1)").fetchone()
            [version] = database.execute("PRAGMA user_version").fetchone()
            if state != "ok" or version > 1:
                raise sqlite3.DatabaseError(f"{state}, version {version} and not 1")
            with database:
                database.execute("BEGIN")
                if version == 0:
                    for statement in SCHEMA:
                        database.execute(statement)
                    old = _take_over(self.folder, database)
                progress = dict(database.execute("SELECT name, next FROM sink").fetchall())
                [end] = database.execute("SELECT IFNULL(MAX(n) + 1, 0) FROM message").fetchone()
                # A message that was sent and never saved has a number too, which isn't used again.
                self.end = max(end, *progress.values(), 0)
                new = {name: self.end for name in self.sinks if name not in progress}
                database.executemany("INSERT INTO sink VALUES (?, ?)", new.items())
            stack.pop_all()
        for file in old:
            file.unlink(missing_ok=True)
        self.database = database
        return progress | new

    def put(self, wake: Wake, clip: np.ndarray | None = None) -> bool:
        """Take a message and the rows around it; False if it was taken before. Never blocks long.

        Raises:
            InputError: the outbox is closed.
        """
        event = wake.cloudevent()
        with self.changed:
            if self.closing:
                raise InputError("Outbox: it is closed")
            unsaved = any(e["id"] == event["id"] for e in self.unsaved.values())
            if unsaved or self._value("SELECT id FROM message WHERE id = ?", event["id"]):
                self.tally["duplicates"] += 1
                return False
            if clip is not None and len(clip):
                event["data"]["preroll_ref"] = self._store(clip)
            try:
                with self._transaction() as database:
                    row = self.end, event["id"], json.dumps(event)
                    database.execute("INSERT INTO message VALUES (?, ?, ?)", row)
                    database.execute("DELETE FROM message WHERE n <= ?", (self.end - self.limit,))
            except FileError as error:
                LOG.error("a wake is sent without being saved: %s", error)
                self.tally["unsaved"] += 1
                self.unsaved[self.end] = event
                if len(self.unsaved) > self.limit:
                    del self.unsaved[min(self.unsaved)]
            self.tally["put"] += 1
            self.end += 1
            self.changed.notify_all()
        return True

    def counters(self) -> dict[str, int]:
        """Count what became of messages since the start, over all sinks; "queued" wait to be sent.

        put, duplicates, unsaved and clips_lost count messages put; delivered, retried, dead,
        undelivered and queued count them for each sink.
        """
        tally = self.tally.copy()
        for delivery in self.deliveries:
            tally.update(delivery.tally)
        queued = sum(self.end - delivery.next for delivery in self.deliveries)
        return {**{name: tally[name] for name in COUNTS}, "queued": queued}

    def close(self, timeout: float = 10.0) -> bool:
        """Let sinks finish, and return whether they have.

        After `timeout` seconds the rest stays on disk. A sink that is sending just then gets as
        long again to come to its end.
        """
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self._join(timeout)
        with self.changed:
            self.stop.set()
        self._join(timeout)
        self._release()
        return not self.counters()["queued"]

    def _join(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        for delivery in self.deliveries:
            delivery.join(max(0.0, until - time.monotonic()))

    def _release(self) -> None:
        """Close the database, unless a sink is still sending: then its thread will."""
        with self.changed:
            if not any(delivery.running for delivery in self.deliveries):
                self.database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when it ends; FileError if that can't be."""
        with _errors(self.path), self.changed, self.database:
            self.database.execute("BEGIN")
            yield self.database

    def _value(self, query: str, argument: int | str) -> Any:
        """The value that a query finds; None if there is none, or if the disk fails."""
        try:
            with _errors(self.path):
                row = self.database.execute(query, (argument,)).fetchone()
        except FileError as error:
            LOG.error("%s", error)
            return None
        return row[0] if row else None

    def _next(self, number: int) -> Event | None:
        """Wait for a message; empty if it is lost, None when no more come."""
        with self.changed:
            self.changed.wait_for(lambda: self.closing or number < self.end)
            if number >= self.end or self.stop.is_set():
                return None
            if number in self.unsaved:
                return self.unsaved[number]
            text = self._value("SELECT event FROM message WHERE n = ?", number)
            return {} if text is None else json.loads(text)

    def _clip(self, reference: str) -> np.ndarray | None:
        """Load a clip; None where there is none any more, or it is damaged."""
        if not reference:
            return None
        try:
            with open(self.folder / reference, "rb") as file:
                return rows(dict(np.load(file, allow_pickle=False)))
        except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile):
            return None

    def _store(self, clip: np.ndarray) -> str:
        """Write a clip, synchronised with the disk, and drop the oldest ones; its name."""
        name = f"clips/{self.end:012}.npz"

        def fill(partial: Path) -> None:
            with open(partial, "wb") as file:
                np.savez(file, allow_pickle=False, **columns(clip))
                file.flush()
                os.fsync(file.fileno())

        try:
            path = files.write(self.folder / name, fill)
        except FileError as error:
            LOG.error("a wake goes without its clip: %s", error)
            self.tally["clips_lost"] += 1
            return ""
        self.clips[path] = path.stat().st_size
        while len(self.clips) > 1 and (
            sum(self.clips.values()) > self.clip_bytes or len(self.clips) > self.limit
        ):
            oldest = next(iter(self.clips))
            oldest.unlink(missing_ok=True)
            del self.clips[oldest]
        return name


class _Delivery(threading.Thread):
    """A thread that delivers to one sink, from the message number `next` on."""

    def __init__(self, outbox: Outbox, name: str, sink: Sink, next: int):
        super().__init__(name=f"outbox-{name}", daemon=True)
        self.outbox, self.label, self.sink, self.next = outbox, name, sink, next
        self.tally, self.running = Counter[str](), True
        self.random = random.Random(f"{outbox.seed}/{name}")

    def run(self) -> None:
        try:
            while (event := self.outbox._next(self.next)) is not None:
                error = self._deliver(event) if event else ""
                if error is None:
                    break
                self.tally["undelivered"] += not event
                self._advance(event, error)
            self.sink.close()
        finally:
            self.running = False
            self.outbox._release()

    def _advance(self, event: Event, error: str) -> None:
        """Write that the message is done with; as a dead letter, if there is an error."""
        self.next += 1
        try:
            with self.outbox._transaction() as database:
                done = self.next, self.label
                database.execute("UPDATE sink SET next = ? WHERE name = ?", done)
                if error:
                    letter = self.label, self.next - 1, error, json.dumps(event)
                    database.execute("INSERT INTO dead_letter VALUES (?, ?, ?, ?)", letter)
                    database.execute(TRIM, (self.label, self.outbox.limit))
            self.tally["dead"] += bool(error)
        except FileError as failure:
            LOG.error("what was sent will be sent again after a restart: %s", failure)
            self.tally["undelivered"] += bool(error)

    def _deliver(self, event: Event) -> str | None:
        """Send an event until it is taken; "" or the last error, None if the outbox closes."""
        outbox, pause, reason = self.outbox, 0.0, ""
        clip = outbox._clip(event["data"]["preroll_ref"])
        for attempt in range(outbox.tries):
            if outbox.stop.wait(pause):
                return None
            self.tally["retried"] += attempt > 0
            try:
                self.sink.send(event, clip)
            except Refused as error:
                reason = str(error) or repr(error)
                break
            except Exception as error:
                reason = str(error) or repr(error)
                pause = outbox.backoff * 2 ** min(attempt, 32) * self.random.uniform(0.5, 1)
                pause = min(max(pause, getattr(error, "after", 0.0)), outbox.longest)
            else:
                self.tally["delivered"] += 1
                return ""
        LOG.error("%s did not take %s: %s", self.name, event["id"], reason)
        return reason


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn an error of the database into one that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise FileError(
            f"can't use {path}: {error}; free space, end whatever process uses it, or move it away "
            "to begin anew"
        ) from error


def _take_over(folder: Path, database: sqlite3.Connection) -> list[Path]:
    """Insert what an earlier version left: a journal, a line a message, and a note a sink.

    Raises:
        FileError: the journal can't be read, or a note is damaged.
    """
    journal, notes = folder / "journal.jsonl", sorted(folder.glob("*.next"))
    try:
        lines = journal.read_bytes().splitlines() if journal.exists() else []
    except OSError as error:
        raise FileError(f"can't open {journal}: {error.strerror}; move it away") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            row = int(record["n"]), str(record["id"]), json.dumps(record["event"])
            database.execute("INSERT OR REPLACE INTO message VALUES (?, ?, ?)", row)
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            LOG.error("%s, line %d is damaged and left out: %r", journal, number, error)
    for note in notes:
        try:
            row = note.stem, int(note.read_text())
        except ValueError as error:
            raise FileError(f"{note} is damaged; remove it to send what comes now") from error
        database.execute("INSERT INTO sink VALUES (?, ?)", row)
    return [journal, *notes]
