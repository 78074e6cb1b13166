"""The queue and the replay, around sources that are slow, fail, end, or are closed."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.sources import Buffered, Replay
from axonal.sense.stream import EVENT


def numbered(count, first=0, step=1):
    packet = np.zeros(count, EVENT)
    packet["t"] = (first + np.arange(count)) * step
    return packet


class Packets:
    """A source of packets; `fails` raises after them, `waits` blocks until it is closed."""

    width = height = 1

    def __init__(self, packets, fails=False, waits=False, lost=0):
        self.packets, self.fails, self.waits = packets, fails, waits
        self.dropped, self.position, self.closed = lost, 0, threading.Event()

    def __iter__(self):
        for packet in self.packets[self.position :]:
            if self.closed.is_set():
                return
            self.position += 1
            yield packet
        if self.waits:
            assert self.closed.wait(5)
        if self.fails:
            raise FileError("broken at byte 7")

    def seek(self, position):
        self.position = position

    def close(self):
        self.closed.set()


def cut(sizes):
    ends = np.cumsum([0, *sizes])
    return [numbered(n, first) for n, first in zip(sizes, ends, strict=False)]


SIZES = st.lists(st.integers(0, 40), max_size=12)


@given(SIZES, st.integers(1, 50), st.sampled_from(["drop", "wait"]))
@settings(max_examples=60, deadline=None)
def test_events_are_delivered_or_counted(sizes, capacity, when_full):
    source = Buffered(Packets(cut(sizes), lost=5), capacity, when_full)
    packets = list(source)
    t = np.concatenate([p["t"] for p in packets]) if packets else np.zeros(0, np.int64)
    assert len(t) + source.dropped - 5 == sum(sizes)
    assert (np.diff(t) > 0).all() and all(0 < len(p) <= capacity for p in packets)
    if when_full == "wait":
        assert source.dropped == 5 and len(t) == sum(sizes)
        full = [i + 1 for i, n in enumerate(sizes) if n]
        assert source.position == (full[-1] if full else 0)


@given(SIZES, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_the_newest_stay_when_nobody_reads(sizes, capacity):
    inner = Packets(cut(sizes), waits=True)
    source = Buffered(inner, capacity)
    for before, packet in enumerate(inner.packets):
        source._put(packet, before, before + 1)
    queue = [packet for packet, *_ in source._queue]
    t = np.concatenate([numbered(0), *queue])["t"]
    total = sum(sizes)
    np.testing.assert_array_equal(t, np.arange(max(0, total - capacity), total))
    while source._queue:
        source._take()
    assert source.dropped == total - len(t)


def test_a_slow_reader_holds_a_waiting_source_up():
    inner = Packets(cut([10] * 50))
    source = Buffered(inner, 25, "wait")
    iterator = iter(source)
    first = next(iterator)
    assert inner.position <= 5  # 25 events in the queue, those delivered, and one packet before it
    assert len(first) + sum(map(len, iterator)) == 500 and source.dropped == 0


def test_position_lags_behind_a_packet_that_was_cut():
    source = Buffered(Packets([numbered(10)]), 4, "wait")
    assert [(len(p), source.position) for p in source] == [(4, 0), (4, 0), (2, 1)]


def test_an_error_comes_after_what_came_before_it():
    packets = []
    with pytest.raises(FileError, match="byte 7"):
        packets.extend(Buffered(Packets(cut([3, 4]), fails=True), 100))
    assert sum(map(len, packets)) == 7


@pytest.mark.parametrize("when_full", ["drop", "wait"])
def test_close_while_blocked_ends_reader_and_thread(when_full):
    before = threading.active_count()
    inner = Packets(cut([5, 5]), waits=True)
    source = Buffered(inner, 5, when_full)
    iterator = iter(source)
    next(iterator)  # the thread now waits for room, or for its peer
    threading.Timer(0.05, source.close).start()
    assert sum(map(len, iterator)) <= 5
    assert inner.closed.is_set()
    assert not source._thread.is_alive() and threading.active_count() <= before + 1


def test_leaving_the_loop_ends_the_thread():
    source = Buffered(Packets(cut([5] * 10)), 5, "wait")
    iterator = iter(source)
    next(iterator)
    iterator.close()
    assert not source._thread.is_alive()


def test_a_restart_goes_on_where_it_was():
    recording = cut([3, 4, 5])
    first = Buffered(Packets(recording), 100, "wait")
    iterator = iter(first)
    packets = [next(iterator)]
    first.close()
    second = Buffered(Packets(recording), 100, "wait")
    second.seek(first.position)
    packets += list(second)
    np.testing.assert_array_equal(np.concatenate(packets)["t"], np.arange(12))


@pytest.mark.parametrize("wrong", [{"capacity_events": 0}, {"when_full": "panic"}])
def test_a_wrong_queue_is_refused(wrong):
    with pytest.raises(InputError, match="Buffered"):
        Buffered(Packets([]), **wrong)


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_replay_keeps_the_pace(speed):
    clock = Clock()
    packets = [numbered(300, first, 1000) for first in (0, 300)]
    replay = Replay(Packets(packets), speed, clock=clock, sleep=clock.sleep)
    t = []
    for packet in replay:
        t += packet["t"].tolist()
        assert clock.now - 100 == pytest.approx(packet["t"][-1] * 1e-6 / speed, abs=1e-6)
    assert t == [1000 * i for i in range(600)] and max(clock.slept) < 0.022
    assert replay.position == 2


def test_replay_at_full_speed_never_sleeps():
    clock = Clock()
    packets = list(Replay(Packets(cut([5, 5])), math.inf, clock=clock, sleep=clock.sleep))
    assert list(map(len, packets)) == [5, 5] and clock.slept == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
@settings(deadline=None)
def test_no_gap_hangs_a_replay(times):
    clock = Clock()
    packet = np.zeros(len(times), EVENT)
    packet["t"] = sorted(times)
    replay = Replay(Packets([packet]), 1, 2.0, clock=clock, sleep=clock.sleep)
    assert sum(map(len, replay)) == len(times)
    assert sum(clock.slept) <= 2.0 * len(times)  # and none of them for ever


def test_close_interrupts_a_pause():
    replay = Replay(Packets([numbered(2, 0, 50_000_000)]), 1)
    iterator = iter(replay)
    next(iterator)
    threading.Timer(0.05, replay.close).start()
    assert list(iterator) == []


def test_after_a_gap_the_pace_goes_on():
    clock = Clock()
    packet = numbered(3)
    packet["t"] = 0, 10**12, 10**12 + 500_000
    list(Replay(Packets([packet]), 1, 3.0, clock=clock, sleep=clock.sleep))
    assert clock.slept == pytest.approx([3.0, 0.5], abs=1e-3)


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_wrong_speed_is_refused(speed):
    with pytest.raises(InputError, match="speed"):
        Replay(Packets([]), speed)


@given(SIZES, st.integers(1, 50), st.integers(0, 2**30))
@settings(max_examples=60, deadline=None)
def test_what_is_dropped_lies_before_the_position(sizes, capacity, seed):
    """At every state, delivered + dropped is how far the source has come by then."""
    inner, draw = Packets(cut(sizes), waits=True), np.random.default_rng(seed)
    source, delivered, ends = Buffered(inner, capacity), 0, np.cumsum([0, *sizes])
    for before, packet in enumerate(inner.packets):
        source._put(packet, before, before + 1)
        if draw.random() < 0.5 and source._queue:
            packet, source.position, _ = source._take()
            delivered += len(packet)
            assert int(packet["t"][-1]) + 1 == delivered + source.dropped
            assert delivered + source.dropped <= ends[before + 1]
