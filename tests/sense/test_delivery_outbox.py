import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.delivery import journal
from axonal.sense.delivery.journal import Journal
from axonal.sense.delivery.outbox import Outbox, Refused, Retry
from axonal.sense.stream import EVENT, events, samples
from axonal.sense.wake import Wake

CLIP = events([1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 0])


def wake(k: int, kind: str = "new") -> Wake:
    return Wake(
        type=kind,
        id=f"w{k}",
        n=0,
        source="door",
        t_start_us=k,
        t_wake_us=k,
        t_end_us=k,
        score=0.9,
        threshold=0.5,
        reason="rate",
        n_events_in=2,
        n_events_out=1,
    )


class Kept:
    """A sink that keeps what it gets, and does what `act(event)` says first."""

    def __init__(self, act=lambda event: None):
        self.act, self.ids, self.clips, self.closed = act, [], [], False

    def send(self, event, clip):
        self.act(event)
        self.ids.append(event["data"]["id"])
        self.clips.append(clip)

    def close(self):
        self.closed = True


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def drain(box):
    """Wait until all sinks have come to the end."""
    with box.changed:
        end = box.end
    while any(lane.next < end for lane in box.lanes):
        time.sleep(1e-3)


def failing(times: int, error: Exception):
    """Raises `error` so many times."""
    left = [times]

    def act(event):
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return act


def test_each_sink_gets_everything_in_order_and_once(tmp_path):
    one, two = Kept(), Kept(failing(3, Retry("busy")))
    box = Outbox(tmp_path, {"one": one, "two": two}, backoff=1e-3)
    assert all(box.put(wake(k), CLIP if k == 2 else None) for k in range(6))
    assert not box.put(wake(3)) and box.put(wake(3, "end"))
    assert box.close() and one.closed and two.closed
    assert one.ids == two.ids == [f"w{k}" for k in [0, 1, 2, 3, 4, 5, 3]]
    assert one.clips[2].dtype == EVENT and (one.clips[2] == CLIP).all()
    assert [c is None for c in one.clips] == [k != 2 for k in range(7)]
    counts = {name: n for name, n in box.counters().items() if n}
    assert counts == {"put": 7, "duplicates": 1, "delivered": 14, "retried": 3}
    with pytest.raises(InputError, match="closed"):
        box.put(wake(9))


def test_what_was_taken_is_not_sent_again_and_what_was_not_is(tmp_path):
    held = threading.Event()
    slow = Kept(lambda event: held.wait(10) if event["data"]["id"] == "w1" else None)
    gone = Kept(failing(99, Retry("down", after=1e9)))
    box = Outbox(tmp_path, {"slow": slow, "gone": gone})
    for k in range(3):
        box.put(wake(k), CLIP)
    assert not box.close(0.0)
    held.set()
    for lane in box.lanes:
        lane.join(10)
    again = {"slow": Kept(), "gone": Kept(), "fresh": Kept()}
    box = Outbox(tmp_path, again)
    assert not box.put(wake(1), CLIP) and box.put(wake(7))
    assert box.close()
    assert slow.ids + again["slow"].ids == ["w0", "w1", "w2", "w7"]
    assert again["gone"].ids == ["w0", "w1", "w2", "w7"] and again["fresh"].ids == ["w7"]
    assert (again["gone"].clips[2] == CLIP).all()


def test_dead_letters(tmp_path):
    never = Kept(failing(99, ValueError("no such room")))
    once = Kept(failing(1, Refused("not allowed")))
    box = Outbox(tmp_path, {"never": never, "once": once}, tries=3, backoff=1e-3, limit=2)
    for k in range(7):
        box.put(wake(k))
        drain(box)
    assert box.close()
    found = lines(tmp_path / "never.dead.jsonl")
    assert [r["event"]["data"]["id"] for r in found][-2:] == ["w5", "w6"] and len(found) <= 4
    assert found[-1]["error"] == "no such room"
    assert [r["error"] for r in lines(tmp_path / "once.dead.jsonl")] == ["not allowed"]
    counts = box.counters()
    assert (counts["dead"], counts["retried"], counts["delivered"]) == (8, 14, 6)


def test_waits_grow_and_are_bounded(tmp_path, monkeypatch):
    pauses = []
    sink = Kept(failing(6, Retry("busy", after=0.0)))
    box = Outbox(tmp_path, {"a": sink, "b": Kept(failing(1, Retry("", 7.0)))}, longest=5.0)
    monkeypatch.setattr(box.stop, "wait", lambda pause: pauses.append(pause))
    box.put(wake(0))
    assert box.close()
    assert 5.0 in pauses  # 7 were asked for
    grown = sorted(p for p in pauses if 0 < p < 5.0)
    assert len(grown) >= 3 and all(0.25 * 2**k <= p <= 0.5 * 2**k for k, p in enumerate(grown))


def test_the_disk_stays_bounded(tmp_path):
    sink = Kept()
    box = Outbox(tmp_path, {"a": sink}, limit=5, clip_bytes=3000)
    for k in range(43):
        box.put(wake(k), np.zeros(50, EVENT))
        drain(box)
    assert box.close() and len(sink.ids) == 43
    assert len(lines(tmp_path / "journal.jsonl")) <= 10
    assert 1 <= len(list((tmp_path / "clips").iterdir())) <= 2
    box = Outbox(tmp_path, {"a": sink}, limit=5, clip_bytes=3000)
    assert not box.put(wake(42)) and box.put(wake(43), np.zeros(50, EVENT)) and box.close()
    assert sum(path.stat().st_size for path in (tmp_path / "clips").iterdir()) <= 3000


def test_a_sink_that_falls_far_behind_loses_the_oldest_and_says_so(tmp_path):
    held = threading.Event()
    slow, quick = Kept(lambda event: held.wait(10)), Kept()
    box = Outbox(tmp_path, {"slow": slow, "quick": quick}, limit=4)
    for k in range(20):
        box.put(wake(k))
        while len(quick.ids) <= k:
            time.sleep(1e-3)
    held.set()
    assert box.close()
    assert len(quick.ids) == 20 and slow.ids[-4:] == ["w16", "w17", "w18", "w19"]
    assert box.counters()["undelivered"] == 20 - len(slow.ids) > 0


def test_on_a_full_disk_wakes_are_sent_all_the_same(tmp_path, monkeypatch, caplog):
    sink = Kept()
    box = Outbox(tmp_path, {"a": sink}, limit=100)
    box.put(wake(0))
    sync = os.fsync

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.os, "fsync", full)
    assert box.put(wake(1), CLIP) and box.put(wake(2))
    monkeypatch.setattr(journal.os, "fsync", sync)
    assert box.put(wake(3), CLIP) and not box.put(wake(2)) and box.close()
    assert sink.ids == ["w0", "w1", "w2", "w3"]
    counts = box.counters()
    assert (counts["unsaved"], counts["clips_lost"], counts["delivered"]) == (2, 1, 4)
    assert [r["id"] for r in lines(tmp_path / "journal.jsonl")] == ["w0/new/0", "w3/new/0"]
    assert "No space left" in caplog.text


def test_numbers_of_what_was_never_saved_are_not_used_again(tmp_path, monkeypatch):
    box = Outbox(tmp_path, {"a": Kept()})
    with monkeypatch.context() as patch:
        patch.setattr(box.journal, "append", lambda *a: (_ for _ in ()).throw(FileError("full")))
        box.put(wake(0))
        assert box.close()
    sink = Kept()
    box = Outbox(tmp_path, {"a": sink})
    assert box.put(wake(1)) and box.close() and sink.ids == ["w1"]


def test_a_clip_that_is_gone_or_damaged_holds_nothing_up(tmp_path):
    packet = np.zeros(2, samples(3))
    box = Outbox(tmp_path, {"a": Kept(failing(99, Retry("down")))}, backoff=60.0)
    for k in range(4):
        box.put(wake(k), packet)
    assert not box.close(0.05)
    found = sorted((tmp_path / "clips").iterdir())
    found[0].unlink()
    found[1].write_bytes(b"PK\3\4 and then nothing")
    found[2].write_bytes(b"")
    sink = Kept()
    assert Outbox(tmp_path, {"a": sink}).close()
    assert [clip is None for clip in sink.clips] == [True, True, True, False]
    assert sink.clips[3].dtype == samples(3)


def test_what_cannot_work_is_refused(tmp_path):
    for options in [{"tries": 0}, {"limit": 0}]:
        with pytest.raises(InputError, match="at least 1"):
            Outbox(tmp_path, {}, **options)
    with pytest.raises(InputError, match=r"'\.\./a'"):
        Outbox(tmp_path, {"../a": Kept()})
    (tmp_path / "a.next").write_text("")
    with pytest.raises(FileError, match="remove it"):
        Outbox(tmp_path, {"a": Kept()})
    with pytest.raises(FileError):
        Outbox(tmp_path / "a.next" / "b", {})
    (tmp_path / "journal.jsonl").unlink()
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(FileError, match="can't open"):
        Outbox(tmp_path, {})


@settings(max_examples=30)
@given(st.integers(0, 400), st.binary(max_size=40), st.booleans())
def test_a_journal_mends_what_a_crash_or_a_disk_did(tmp_path, cut, noise, middle):
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    one = Journal(path, 100)
    for k in range(8):
        one.append(k, f"id{k}", {"x": "äß" * 3})
    one.close()
    content = path.read_bytes()
    cut = min(cut, len(content))
    whole = content[:cut].count(b"\n")
    path.write_bytes(content[:cut] + (noise + b"\n" if middle else noise.replace(b"\n", b"")))
    two = Journal(path, 100)
    assert list(two.lines)[:whole] == list(range(whole))
    two.append(50, "later", {"x": 1})
    two.close()
    three = Journal(path, 100)
    assert three.read(50) == {"n": 50, "id": "later", "x": 1} and three.read(99) is None
    assert all(three.read(k)["id"] == f"id{k}" for k in range(whole))
    three.close()


KILLED = """
import itertools, os, random, signal, sys
from pathlib import Path
from axonal.sense import outbox
from axonal.sense.outbox import Outbox
from axonal.sense.wake import Wake
import numpy as np

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
calls, last = itertools.count(), draw.randrange(4, 60)  # system calls until death


def deadly(call):
    def wrapped(*arguments, **named):
        dies = next(calls) == last
        if dies and draw.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*arguments, **named)
        finally:
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
    return wrapped


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
box = Outbox(folder / "box", {"a": File("a"), "b": File("b")}, limit=12)
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
        assert status == -signal.SIGKILL
        deaths += 1
    assert deaths >= 2
    wanted = [f"w{k}/{kind}" for k in range(10) for kind in ("new/0", "end/1")]
    for name in "ab":
        got = (tmp_path / name).read_text().split()
        once = [x for i, x in enumerate(got) if i == 0 or x != got[i - 1]]
        assert once == wanted  # in order, and a repetition stands beside the first
        assert len(got) - len(once) <= deaths
