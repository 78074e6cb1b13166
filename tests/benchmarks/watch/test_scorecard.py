import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from benchmarks.watch import scorecard

intervals = st.lists(
    st.tuples(st.floats(0, 90), st.floats(0, 10)).map(lambda pair: (pair[0], sum(pair))),
    max_size=6,
)


def test_a_hit_a_miss_and_a_false_wake():
    truth = [(10.0, 12.0), (50.0, 51.0)]
    card = scorecard.score([(11.0, 13.0), (80.0, 81.0)], truth, 100.0)
    assert (card.events, card.recalled, card.wakes, card.false_wakes) == (2, 1, 2, 1)
    assert card.latency.tolist() == [1.0] and card.duty == pytest.approx(0.03)
    assert card.false_per_hour == pytest.approx(36)
    assert card.figures()["latency_median_ms"] == 1000


def test_tolerance_lets_a_wake_come_early():
    assert scorecard.score([(8.0, 9.0)], [(10.0, 12.0)], 20.0).recalled == 0
    early = scorecard.score([(8.0, 9.0)], [(10.0, 12.0)], 20.0, tolerance=1.5)
    assert (early.recalled, early.false_wakes, early.latency.tolist()) == (1, 0, [0.0])


@given(intervals, intervals)
def test_always_on_recalls_everything_and_saves_nothing(wakes, truth):
    card = scorecard.score([(0.0, 100.0)], truth, 100.0)
    assert card.recalled == len(truth) and card.duty == 1
    card = scorecard.score(wakes, truth, 100.0)
    assert 0 <= card.recalled <= len(truth) and card.false_wakes <= len(wakes)
    assert 0 <= card.duty <= min(1, sum(b - a for a, b in wakes) / 100 + 1e-9)
    assert scorecard.score(wakes[::-1], truth, 100.0).duty == pytest.approx(card.duty)


def test_no_wake_and_no_event():
    card = scorecard.score([], [], 3600.0)
    assert np.isnan(card.recall) and card.false_per_hour == 0 and card.calls_avoided == 1


def test_random_wakes_fill_their_duty():
    wakes = scorecard.random_wakes(0.25, 2.0, 1000.0, seed=0)
    assert scorecard.covered(wakes) == pytest.approx(250)
    assert wakes == scorecard.random_wakes(0.25, 2.0, 1000.0, seed=0)


@pytest.mark.parametrize("bad", [([], [], 0.0), ([(2.0, 1.0)], [], 5.0)])
def test_odd_times_are_refused(bad):
    with pytest.raises(InputError, match="interval"):
        scorecard.score(*bad)
