import numpy as np
import pytest

from benchmarks.harness.processes import Broker
from benchmarks.harness.recordings import save
from benchmarks.watch import soak


def test_a_day_follows_from_its_seed(monkeypatch):
    monkeypatch.setattr(soak, "FLOOD", 5000)
    first, again = (np.concatenate(list(soak.day(300, 3))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (np.diff(first["t"]) >= 0).all() and first["x"].max() < soak.SIDE
    seconds = np.bincount(first["t"] // 1_000_000, minlength=300)
    assert (seconds == 0).sum() >= 30 and (seconds >= 5000).sum() >= 2


def test_a_disturbed_day_is_the_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "FLOOD", 20_000)
    seconds = 600
    packets = list(soak.day(seconds, 0))
    save(tmp_path / "day.raw", packets, soak.SIDE, soak.SIDE)
    broker = Broker(tmp_path)
    broker.start()
    subscriber = soak.Subscriber(broker.port)
    try:
        figures = soak.soak(tmp_path, broker, subscriber, sum(map(len, packets)), 0, 1, 1)
    finally:
        subscriber.close()
        broker.stop()
    assert figures["soak_events_lost"] == figures["soak_missing_wakes"] == 0
    assert figures["soak_duplicate_wakes"] == 0 and figures["soak_wakes"] > 1
    assert figures["soak_hours"] == pytest.approx(seconds / 3600, abs=0.01)
