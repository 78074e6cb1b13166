import numpy as np
import pytest

from axonal.core.errors import FileError, InputError
from axonal.sense.stream import events
from benchmarks.watch import filtering


def edges(seed):
    """Edges that cross the sensor's middle in 0.2 s."""
    random = np.random.default_rng(seed)
    x = np.repeat(np.arange(40, 80), 100)
    t = (x - 40) * 5_000 + random.integers(0, 4_000, len(x))
    order = np.argsort(t, kind="stable")
    y = random.integers(40, 70, len(x))
    return events(t[order], x[order], y[order], random.integers(0, 2, len(x)))


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Six recordings of 0.2 s on disk, few rates and few filters to be offered."""
    recordings = [edges(seed) for seed in range(6)]
    path = tmp_path / filtering.CLIPS
    path.parent.mkdir(parents=True)
    events = np.concatenate(recordings)
    offsets = np.cumsum([0, *map(len, recordings)])
    np.savez(path, **{name: events[name] for name in "txyp"}, offsets=offsets)
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    monkeypatch.setattr(filtering, "LASTS", 200_000)
    monkeypatch.setattr(filtering, "PARTS", {"whole clips": 200_000, "first 300 ms": 100_000})
    monkeypatch.setattr(filtering, "RATES", (5, 10))
    monkeypatch.setattr(filtering, "OFFERED", filtering.OFFERED[:2] + filtering.OFFERED[-1:])
    return recordings


def test_figures_follow_from_the_seed(few):
    figures = filtering.figures(seed=1, rounds=3)
    for rate in (5, 10):
        area = figures[f"filter_auc_{rate}hz"]
        assert 0.8 < area["low"] <= area["value"] <= area["high"] <= 1
        name = f"{rate} Hz, whole clips]"
        assert figures[f"AUC [LIF trace, {name}"] == area["value"]
        gap = area["value"] - figures[f"AUC [{filtering.BEST}, {name}"]
        assert figures[f"filter_margin_min_{rate}hz"] <= gap + 1e-3
    assert figures["filter_margin_min"] == figures["filter_margin_min_5hz"]
    assert figures["lif_filter_mev_s"]["low"] > 0 < figures["lif_filter_vs_dv"]["low"]
    again = filtering.figures(seed=1, rounds=3)
    same = [key for key in figures if key.startswith(("AUC", "filter_auc", "filter_margin"))]
    assert all(again[key] == figures[key] for key in same)


def test_another_answer_of_the_peer_is_no_race(few, monkeypatch):
    monkeypatch.setattr(filtering, "BackgroundActivity", filtering.TimeSurface)
    with pytest.raises(InputError, match="compare equals"):
        filtering.speed(seed=0, rounds=3)


def test_clips_come_as_they_were_written_or_not_at_all(few, tmp_path):
    read = filtering.clips()
    assert len(read) == 6
    for one, own in zip(read, few, strict=True):
        np.testing.assert_array_equal(one, own)
    (tmp_path / filtering.CLIPS).write_bytes(b"PK")
    with pytest.raises(FileError, match="AXONAL_DATA"):
        filtering.clips()


def test_noise_has_its_rate_everywhere_and_leaves_the_clip_alone(few):
    packet, signal = filtering.add_noise(few[0], 200_000, 10, (3, 0))
    np.testing.assert_array_equal(np.sort(packet[signal]), np.sort(few[0]))
    assert (np.diff(packet["t"]) >= 0).all()
    noise = packet[~signal]
    assert len(noise) == pytest.approx(10 * 128 * 128 * 0.2, rel=0.05)
    for name, top in (("t", 200_000), ("x", 128), ("y", 128), ("p", 2)):
        assert noise[name].mean() == pytest.approx((top - 1) / 2, rel=0.05)


def test_areas_are_those_of_all_pairs():
    random = np.random.default_rng(0)
    scores = np.r_[random.integers(0, 6, 60), [-np.inf] * 5].astype(np.float32)
    signal = random.random(65) < 0.4
    mine, theirs = scores[signal][:, None], scores[~signal]
    pairs = (mine > theirs).mean() + (mine == theirs).mean() / 2
    assert filtering.auc(scores, signal) == pytest.approx(pairs)
