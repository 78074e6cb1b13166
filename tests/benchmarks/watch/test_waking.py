import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError
from axonal.sense.wake import Policy
from benchmarks.watch import waking
from benchmarks.watch.scorecard import score

POLICY = Policy(postroll=0.0, off_ratio=1.0)


def ends(count: int) -> np.ndarray:
    return (np.arange(count) + 1) * 1_000_000


def test_wakes_last_from_the_first_window_that_reaches_the_threshold():
    wakes = waking.wake_intervals(ends(6), np.array([0, 2, 3, 0, 0, 2.0]), 1.0, POLICY)
    assert [start for start, _ in wakes] == [2.0, 6.0]
    assert wakes[0][1] == 3.0  # when the last window that kept it open ended


@given(st.lists(st.integers(0, 20), min_size=3, max_size=40), st.integers(0, 4))
def test_the_rarest_threshold_lets_so_many_bursts_pass_and_is_the_lowest(values, bursts):
    scores = np.array(values, float)
    limit = waking.burst_threshold(ends(len(scores)), scores, bursts, 1.0)
    assert len(waking.wake_intervals(ends(len(scores)), scores, limit, POLICY)) <= bursts
    if limit > scores.min():
        assert (scores >= np.nextafter(limit, -np.inf)).sum() > (scores >= limit).sum()


def test_an_evolving_network_is_surprised_by_what_it_did_not_learn():
    x = np.random.default_rng(0).normal(size=(300, 3))
    x[250:] += 30
    scores = waking.surprises(x, 200)
    assert scores[250:].min() > scores[200:250].max()
    assert (waking.surprises(x[:260], 200) == scores[:260]).all()


def test_chance_wakes_as_long():
    card = score([(10.0, 20.0), (30.0, 40.0)], [(12.0, 13.0)], 100.0)
    assert waking.by_chance(card, [(12.0, 13.0)], 100.0, 0).duty == pytest.approx(card.duty)


def test_damaged_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    (tmp_path / "some.npz").write_bytes(b"no zip")
    with pytest.raises(FileError, match=r"some\.npz"):
        waking.arrays("some.npz")
