import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.delivery import outbox
from axonal.sense.delivery.outbox import Outbox, Refused, Retry
from axonal.sense.stream import EVENT, events, sample_type
from axonal.sense.wake import Wake

CLIP = events([1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 0])


def wake(k: int, kind: str = "new", source: str = "door") -> Wake:
    return Wake(
        type=kind,
        id=f"w{k}",
        n=0,
        source=source,
        t_start_us=k,
        t_wake_us=k,
        t_end_us=k,
        score=0.9,
        threshold=0.5,
        reason="rate",
        n_events_in=2,
        n_events_out=1,
    )


class Recorder:
    """A sink that records what it gets, after it has called `act(event)`."""

    def __init__(self, act=lambda event: None):
        self.act, self.ids, self.clips, self.closed = act, [], [], False

    def send(self, event, clip):
        self.act(event)
        self.ids.append(event["data"]["id"])
        self.clips.append(clip)

    def close(self):
        self.closed = True


def select(folder, query):
    """Rows of the database of an outbox that is closed."""
    database = sqlite3.connect(folder / "outbox.sqlite")
    result = database.execute(query).fetchall()
    database.close()
    return result


def drain(box):
    """Wait until all sinks have come to the end."""
    with box.changed:
        end = box.end
    while any(delivery.next < end for delivery in box.deliveries):
        time.sleep(1e-3)


def failing(times: int, error: Exception):
    """Raise `error` so many times."""
    left = [times]

    def act(event):
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return act


def test_each_sink_gets_everything_in_order_and_once(tmp_path):
    first, second = Recorder(), Recorder(failing(3, Retry("busy")))
    box = Outbox(tmp_path, {"first": first, "second": second}, backoff=1e-3)
    assert all(box.put(wake(k), CLIP if k == 2 else None) for k in range(6))
    assert not box.put(wake(3)) and not box.put(wake(0)) and box.put(wake(3, "end"))
    assert box.close() and first.closed and second.closed
    assert first.ids == second.ids == [f"w{k}" for k in [0, 1, 2, 3, 4, 5, 3]]
    assert first.clips[2].dtype == EVENT and (first.clips[2] == CLIP).all()
    assert [c is None for c in first.clips] == [k != 2 for k in range(7)]
    counts = {name: n for name, n in box.counters().items() if n}
    assert counts == {"put": 7, "duplicates": 2, "delivered": 14, "retried": 3}
    with pytest.raises(InputError, match="closed"):
        box.put(wake(9))


def test_after_a_restart_only_undelivered_messages_are_sent(tmp_path):
    release = threading.Event()
    slow = Recorder(lambda event: release.wait(10) if event["data"]["id"] == "w1" else None)
    gone = Recorder(failing(99, Retry("down", after=1e9)))
    box = Outbox(tmp_path, {"slow": slow, "gone": gone})
    for k in range(3):
        box.put(wake(k), CLIP)
    assert not box.close(0.0)
    release.set()
    for delivery in box.deliveries:
        delivery.join(10)
    again = {"slow": Recorder(), "gone": Recorder(), "fresh": Recorder()}
    box = Outbox(tmp_path, again)
    assert not box.put(wake(1), CLIP) and box.put(wake(7))
    assert box.close()
    assert slow.ids + again["slow"].ids == ["w0", "w1", "w2", "w7"]
    assert again["gone"].ids == ["w0", "w1", "w2", "w7"] and again["fresh"].ids == ["w7"]
    assert (again["gone"].clips[2] == CLIP).all()


def test_dead_letters(tmp_path):
    never = Recorder(failing(99, ValueError("no such room")))
    once = Recorder(failing(1, Refused("not allowed")))
    box = Outbox(tmp_path, {"never": never, "once": once}, tries=3, backoff=1e-3, limit=2)
    for k in range(7):
        box.put(wake(k))
        drain(box)
    assert box.close()
    letters = select(tmp_path, "SELECT error, event FROM dead_letter WHERE sink = 'never'")
    assert [json.loads(event)["data"]["id"] for _, event in letters] == ["w5", "w6"]
    assert letters[-1][0] == "no such room"
    errors = select(tmp_path, "SELECT error FROM dead_letter WHERE sink = 'once'")
    assert errors == [("not allowed",)]
    counts = box.counters()
    assert (counts["dead"], counts["retried"], counts["delivered"]) == (8, 14, 6)


def test_waits_grow_and_are_bounded(tmp_path, monkeypatch):
    pauses = []
    sink = Recorder(failing(6, Retry("busy", after=0.0)))
    box = Outbox(tmp_path, {"a": sink, "b": Recorder(failing(1, Retry("", 7.0)))}, longest=5.0)
    monkeypatch.setattr(box.stop, "wait", lambda pause: pauses.append(pause))
    box.put(wake(0))
    assert box.close()
    assert 5.0 in pauses  # 7 were asked for
    grown = sorted(p for p in pauses if 0 < p < 5.0)
    assert len(grown) >= 3 and all(0.25 * 2**k <= p <= 0.5 * 2**k for k, p in enumerate(grown))


def test_the_disk_stays_bounded(tmp_path):
    sink, sizes = Recorder(), []
    box = Outbox(tmp_path, {"a": sink}, limit=5, clip_bytes=3000)
    for k in range(43):
        box.put(wake(k), np.zeros(50, EVENT))
        drain(box)
    assert box.close() and len(sink.ids) == 43
    assert select(tmp_path, "SELECT COUNT(*) FROM message") == [(5,)]
    assert 1 <= len(list((tmp_path / "clips").iterdir())) <= 2
    box = Outbox(tmp_path, {"a": sink}, limit=5, clip_bytes=3000)
    assert not box.put(wake(42)) and box.put(wake(43), np.zeros(50, EVENT)) and box.close()
    assert sum(path.stat().st_size for path in (tmp_path / "clips").iterdir()) <= 3000
    box = Outbox(tmp_path, {}, limit=5)
    for k in range(100, 1500):
        box.put(wake(k, source="door" * 500))
        sizes += [sum(path.stat().st_size for path in tmp_path.glob("outbox.*"))]
    assert box.close() and max(sizes[700:]) <= max(sizes[:700]) < 5e6


def test_a_sink_that_falls_far_behind_loses_the_oldest_and_says_so(tmp_path):
    release = threading.Event()
    slow, quick = Recorder(lambda event: release.wait(10)), Recorder()
    box = Outbox(tmp_path, {"slow": slow, "quick": quick}, limit=4)
    for k in range(20):
        box.put(wake(k))
        while len(quick.ids) <= k:
            time.sleep(1e-3)
    release.set()
    assert box.close()
    assert len(quick.ids) == 20 and slow.ids[-4:] == ["w16", "w17", "w18", "w19"]
    assert box.counters()["undelivered"] == 20 - len(slow.ids) > 0


def test_on_a_full_disk_wakes_are_sent_all_the_same(tmp_path, monkeypatch, caplog):
    sink = Recorder()
    box = Outbox(tmp_path, {"a": sink}, limit=100)
    box.put(wake(0))
    drain(box)
    sync = os.fsync

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox.os, "fsync", full)  # of clips
    box.database.execute("PRAGMA max_page_count = 1")  # no more pages than there are
    long = "door" * 5000
    assert box.put(wake(1, source=long), CLIP) and box.put(wake(2, source=long))
    monkeypatch.setattr(outbox.os, "fsync", sync)
    box.database.execute("PRAGMA max_page_count = 1000000")
    assert box.put(wake(3), CLIP) and not box.put(wake(2)) and box.close()
    assert sink.ids == ["w0", "w1", "w2", "w3"]
    counts = box.counters()
    assert (counts["unsaved"], counts["clips_lost"], counts["delivered"]) == (2, 1, 4)
    assert select(tmp_path, "SELECT id FROM message") == [("w0/new/0",), ("w3/new/0",)]
    assert "No space left" in caplog.text and "disk is full; free space" in caplog.text


def test_numbers_of_unsaved_messages_are_not_used_again(tmp_path):
    box = Outbox(tmp_path, {"a": Recorder()})
    box.database.execute("PRAGMA max_page_count = 1")
    box.put(wake(0, source="door" * 5000))
    assert box.close() and box.counters()["unsaved"] == 1
    sink = Recorder()
    box = Outbox(tmp_path, {"a": sink})
    assert box.put(wake(1)) and box.close() and sink.ids == ["w1"]


def test_a_clip_that_is_lost_or_damaged_delays_nothing(tmp_path):
    packet = np.zeros(2, sample_type(3))
    box = Outbox(tmp_path, {"a": Recorder(failing(99, Retry("down")))}, backoff=60.0)
    for k in range(4):
        box.put(wake(k), packet)
    assert not box.close(0.05)
    clips = sorted((tmp_path / "clips").iterdir())
    clips[0].unlink()
    clips[1].write_bytes(b"PK\3\4 and then nothing")
    clips[2].write_bytes(b"")
    sink = Recorder()
    assert Outbox(tmp_path, {"a": sink}).close()
    assert [clip is None for clip in sink.clips] == [True, True, True, False]
    assert sink.clips[3].dtype == sample_type(3)


def test_impossible_outboxes_are_refused(tmp_path, monkeypatch):
    for options in [{"tries": 0}, {"limit": 0}]:
        with pytest.raises(InputError, match="at least 1"):
            Outbox(tmp_path, {}, **options)
    with pytest.raises(InputError, match=r"'\.\./a'"):
        Outbox(tmp_path, {"../a": Recorder()})
    (tmp_path / "file").touch()
    with pytest.raises(FileError):
        Outbox(tmp_path / "file" / "b", {})
    monkeypatch.setattr(outbox, "LOCK_S", 0.0)
    box = Outbox(tmp_path, {})
    with pytest.raises(FileError, match=r"locked.* end whatever process uses it"):
        Outbox(tmp_path, {})
    box.close()
    (tmp_path / "outbox.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(FileError, match=r"not a database.* move it away"):
        Outbox(tmp_path, {})
    (tmp_path / "outbox.sqlite").unlink()
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(FileError, match="unable to open"):
        Outbox(tmp_path, {})


def before(folder):
    """An outbox as versions before the database left it: four messages, of which `a` has had two.

    The third one's line was damaged, the last one's was cut off by a crash.
    """
    folder.mkdir()
    (folder / "clips").mkdir()
    columns = {name: CLIP[name] for name in EVENT.names}
    np.savez(folder / "clips" / "000000000003.npz", **columns)
    lines = []
    for k in range(5):
        event = wake(k).cloudevent()
        event["data"]["preroll_ref"] = "clips/000000000003.npz" if k == 3 else ""
        lines.append(json.dumps({"n": k, "id": event["id"], "event": event}))
    lines[2], lines[4] = lines[2].replace(":", ";"), lines[4][:50]
    (folder / "journal.jsonl").write_text("\n".join(lines))
    (folder / "a.next").write_text("2")
    (folder / "old.next").write_text("4")


def test_an_outbox_of_before_is_taken_over_and_its_wakes_are_delivered(tmp_path, caplog):
    before(tmp_path / "box")
    sinks = {"a": Recorder(), "fresh": Recorder()}
    box = Outbox(tmp_path / "box", sinks)
    assert not box.put(wake(1)) and box.put(wake(4)) and box.close()
    assert sinks["a"].ids == ["w3", "w4"] and sinks["fresh"].ids == ["w4"]
    assert (sinks["a"].clips[0] == CLIP).all()
    assert box.counters()["undelivered"] == 1 and "line 3 is damaged" in caplog.text
    left = {path.name for path in (tmp_path / "box").iterdir()}
    assert left == {"clips", "outbox.sqlite"}
    assert dict(select(tmp_path / "box", "SELECT name, next FROM sink"))["old"] == 4


def test_a_damaged_outbox_of_before_is_refused_and_left_as_it_is(tmp_path):
    before(tmp_path / "box")
    note, journal = tmp_path / "box" / "a.next", tmp_path / "box" / "journal.jsonl"
    note.write_text("")
    with pytest.raises(FileError, match=r"a\.next is damaged; remove it"):
        Outbox(tmp_path / "box", {"a": Recorder()})
    note.unlink()
    content = journal.read_bytes()
    journal.unlink()
    journal.mkdir()
    with pytest.raises(FileError, match="can't open"):
        Outbox(tmp_path / "box", {})
    journal.rmdir()
    journal.write_bytes(content)
    sink = Recorder()
    assert Outbox(tmp_path / "box", {"old": sink, "a": Recorder()}).close() and sink.ids == []


@settings(max_examples=30)
@given(st.integers(0, 40_000), st.binary(max_size=40))
def test_a_log_cut_off_by_a_crash_has_the_messages_before_it(tmp_path, cut, noise):
    crashed = tmp_path / "crashed"
    if not crashed.exists():
        box = Outbox(tmp_path / "box", {})
        for k in range(8):
            box.put(wake(k))
        shutil.copytree(tmp_path / "box", crashed)
        box.close()
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    shutil.copytree(crashed, tmp_path / "again")
    log = tmp_path / "again" / "outbox.sqlite-wal"
    log.write_bytes(log.read_bytes()[:cut] + noise)
    box = Outbox(tmp_path / "again", {})
    assert box.put(wake(50)) and box.close()
    ids = [id for (id,) in select(tmp_path / "again", "SELECT id FROM message ORDER BY n")]
    assert ids == [f"w{k}/new/0" for k in (*range(len(ids) - 1), 50)]


@settings(max_examples=30)
@given(st.integers(0, 40_000), st.integers(0, 255))
def test_a_damaged_database_is_refused_or_read(tmp_path, place, value):
    path = tmp_path / "outbox.sqlite"
    path.unlink(missing_ok=True)
    box = Outbox(tmp_path, {})
    for k in range(8):
        box.put(wake(k))
    box.close()
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= value
    path.write_bytes(content)
    message = "move it away"
    try:
        box = Outbox(tmp_path, {"a": Recorder()})
        box.put(wake(99))
        assert box.close()
    except FileError as error:
        message = str(error)
    assert "move it away" in message


KILLED = """
import itertools, os, random, signal, sqlite3, sys
from pathlib import Path
from axonal.sense.delivery.outbox import Outbox
from axonal.sense.wake import Wake
import numpy as np

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
steps, last = itertools.count(), draw.randrange(4, 150)  # calls and statements until death
connect = sqlite3.connect


def step(*_):
    if next(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(call):
    def wrapped(*arguments, **named):
        step()
        try:
            return call(*arguments, **named)
        finally:
            step()
    return wrapped


def traced(*arguments, **named):
    database = connect(*arguments, **named)
    database.set_trace_callback(step)
    if draw.random() < 0.5:  # and within a statement, wherever the clock finds it: SIGALRM kills
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-3, 0.3))
    return database


class File:
    def __init__(self, name):
        self.path = folder / name

    def write(self, text):
        with open(self.path, "a") as file:
            file.write(text)

    def send(self, event, clip):
        assert (clip is not None) == (event["data"]["type"] == "new"), event
        deadly(self.write)(event["id"] + "\\n")

    def close(self):
        pass


os.fsync, os.replace, os.unlink = deadly(os.fsync), deadly(os.replace), deadly(os.unlink)
sqlite3.connect = traced
box = Outbox(folder / "box", {"a": File("a"), "b": File("b")}, limit=20)
# the stream is seen again from its beginning, as after a crash
for k in range(10):
    for n, kind in enumerate(("new", "end")):
        times = dict(t_start_us=k, t_wake_us=k, t_end_us=k + n)
        rest = dict(score=1.0, threshold=0.5, reason="r", n_events_in=1, n_events_out=1)
        wake = Wake(type=kind, id=f"w{k}", n=n, source="s", **times, **rest)
        box.put(wake, np.zeros(4, [("t", "i8")]) if kind == "new" else None)
sys.exit(not box.close(30))
"""


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_point_nothing_is_lost_and_little_comes_twice(tmp_path, seed):
    draw, deaths = random.Random(seed), 0
    while True:
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(draw.randrange(1 << 30))]
        status = subprocess.run(command, timeout=60).returncode
        if status == 0:
            break
        assert status in (-signal.SIGKILL, -signal.SIGALRM)
        deaths += 1
    assert deaths >= 2
    expected = [f"w{k}/{kind}" for k in range(10) for kind in ("new/0", "end/1")]
    for name in "ab":
        ids = (tmp_path / name).read_text().split()
        unique = [x for i, x in enumerate(ids) if i == 0 or x != ids[i - 1]]
        assert unique == expected  # in order, and a repetition stands beside the first
        assert len(ids) - len(unique) <= deaths
