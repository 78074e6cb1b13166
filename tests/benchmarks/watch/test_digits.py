import numpy as np
import pytest

from axonal.data.recordings import Recordings
from axonal.sense.filters import STCF, LIFTrace
from benchmarks.watch import digits, scenes
from benchmarks.watch.digits import Following, Scene


@pytest.fixture
def crosses():
    """Three recordings of a cross that is drawn again and again for 0.2 s."""
    at = np.arange(34)
    x, y = np.concatenate([at, np.full(34, 17)]), np.concatenate([np.full(34, 17), at])
    t = np.sort(np.tile(np.linspace(0, 200_000, 60).astype(np.int64), 68))
    x, y = np.tile(x, 180), np.tile(y, 180)
    offsets = np.arange(4) * len(t)
    return Recordings(x, y, np.ones_like(x), np.tile(t, 3), offsets, np.arange(3))


@pytest.fixture
def short(monkeypatch, crosses):
    """Quieter noise, and fewer filters."""
    monkeypatch.setattr(scenes, "RATES", (0.2, 1.0))
    monkeypatch.setattr(digits, "CHAINS", ((LIFTrace, (1.0,)), (STCF, (1.0,))))
    monkeypatch.setattr(digits, "nmnist", lambda split: crosses)


def test_a_scene_shows_digits_where_it_says_so(crosses):
    scene = Scene(crosses, 3)
    quiet = Scene(None, 3)
    for minute in range(2):
        packet, seen = scene.minute(minute)
        assert (np.diff(packet["t"]) >= 0).all()
        assert 60e6 * minute <= packet["t"][0] and packet["t"][-1] < 60e6 * (minute + 1)
        assert len(seen) >= 3 and not quiet.minute(minute)[1]
        for start, end, contrast in seen:
            inside = (packet["t"] >= start * 1e6) & (packet["t"] < (end - scenes.LATE) * 1e6)
            on_cross = inside & ((packet["x"] == 17) | (packet["y"] == 17))
            assert on_cross.sum() > 0.9 * contrast * 68 * 60


def test_the_threshold_follows_the_rate(short):
    rng = np.random.default_rng(0)
    passed = []
    for rate in (0.2, 5.0, 20.0):
        follows = Following(STCF, (0.2, 1.0, 5.0, 20.0), 0)
        assert follows.limits == sorted(follows.limits)
        parts = [scenes.poisson(rng, 5.0 * k, rate * 34**2) for k in range(4)]
        packet = scenes.in_order(np.concatenate(parts, 1))
        passed.append(len(follows(packet)) / 20 / 34**2)
    assert max(passed) < 3 * digits.PASSES


def test_events_that_pass_are_those_of_packets_cut_at_windows(short):
    packet, _ = Scene(None, 0).minute(0)
    one, two = (Following(STCF, (0.2, 1.0), 0) for _ in range(2))
    halves = np.split(packet, [np.searchsorted(packet["t"], 30_000_000)])
    assert (one(packet) == np.concatenate([two(half) for half in halves])).all()


def test_figures_name_every_contender_and_find_the_crosses(short):
    figures = digits.figures(minutes=3)
    for kind in ("lif", "lif_fixed", "evolving", "rate", "stcf", "stcf_best"):
        assert 0 <= figures[f"digits_{kind}_recall_at_budget"] <= 1
        assert figures[f"digits_{kind}_false_per_hour"] >= 0
    assert figures["digits_lif_recall_at_budget"] == 1
    assert figures["digits_lif_calls_avoided"] > 0.8
    assert all(np.isfinite(value) for value in figures.values())
