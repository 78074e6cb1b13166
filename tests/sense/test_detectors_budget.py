import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError, NotFinite
from axonal.sense.detectors import Budget
from axonal.sense.detectors.budget import LEAST, return_level

LIFE = {
    "normal": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "beta": lambda rng, n: rng.beta(1, 9, size=n),
    "mostly zero": lambda rng, n: rng.exponential(size=n) * (rng.random(n) < 0.05),
}


@pytest.mark.parametrize("name", LIFE)
def test_new_life_wakes_within_a_factor_of_three_of_the_budget(name):
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(8):
        budget = Budget(12.0, memory=1.0)  # 12 wakes in the 3,600 blocks that it learns from
        level = budget.fit(LIFE[name](rng, 3600), 3600.0)
        rates.append(3600 * (LIFE[name](rng, 200_000) >= level).mean())
    assert 12 / 3 < np.mean(rates) < 12 * 3
    assert min(rates) > 12 / 4 and max(rates) < 12 * 4


def test_wakes_rarer_than_any_peak_are_extrapolated():
    rng = np.random.default_rng(2)
    levels = [return_level(rng.exponential(size=1000), 1e-5) for _ in range(20)]
    assert 9 < np.median(levels) < 14  # ln(1e5) = 11.5; the largest of 1,000 is about 7


def test_a_burst_is_one_wake():
    rng = np.random.default_rng(3)
    scores = rng.exponential(size=600)
    once, often = (Budget(60.0, merge=1.0, memory=1.0) for _ in range(2))
    for second, score in enumerate(scores.tolist()):
        once.update(score, second * 1_000_000)
        for part in range(5):
            often.update(score, second * 1_000_000 + part * 200_000)
    assert once.threshold == often.threshold


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=12, max_size=60), st.integers(0, 60))
def test_a_restored_budget_goes_on(scores, cut):
    first, second = (Budget(100.0, memory=30 / 3600) for _ in range(2))
    for second_of, score in enumerate(scores[:cut]):
        first.update(score, second_of * 1_000_000)
    second.restore(first.state())
    for i, score in enumerate(scores[cut:], cut):
        assert first.update(score, i * 1_000_000) == second.update(score, i * 1_000_000)


def test_it_follows_drift_and_starts_without_a_threshold():
    rng, budget = np.random.default_rng(4), Budget(36.0, memory=500 / 3600)
    assert budget.update(1.0, 0) == budget.threshold == np.inf
    levels = []
    for row, score in enumerate((rng.random(3000) + 3 * (np.arange(3000) >= 1500)).tolist()):
        levels.append(budget.update(score, row * 1_000_000))
    assert levels[1499] < 1.5 and 3.5 < levels[-1] < 4.5
    assert len(budget.state()["peaks"]) == 500


def test_scores_that_come_seldom_wake_as_often_an_hour():
    peaks = np.random.default_rng(5).exponential(size=1000).tolist()
    dense, sparse = Budget(60.0), Budget(6.0)
    for row, peak in enumerate(peaks):
        pause = 36_000 * (row > 500)  # ten hours of silence change little
        dense.update(peak, row * 1_000_000)
        sparse.update(peak, (10 * row + pause) * 1_000_000)
    assert sparse.threshold == pytest.approx(dense.threshold, rel=0.02)


def test_equal_scores_never_wake():
    assert Budget(1.0).fit(np.zeros(100), 100.0) > 0
    assert Budget(1.0).fit(np.full(100, 0.7), 100.0) > 0.7


def test_impossible_budgets_are_refused():
    for wakes, options in ((0.0, {}), (3600.0, {}), (np.nan, {}), (1.0, {"merge": 0.0}),
                           (1.0, {"memory": 0.001}), (1.0, {"memory": 1e9})):  # fmt: skip
        with pytest.raises(InputError):
            Budget(wakes, **options)
    budget = Budget(1.0)
    with pytest.raises(NotFinite):
        budget.update(np.nan, 0)
    with pytest.raises(InputError, match=r"5\.0 s are less than 10 times"):
        budget.fit(np.ones(100), 5.0)


def test_a_threshold_is_more_than_rounding():
    budget = Budget(6.0)
    for second in range(60):
        budget.update(0.0, second * 1_000_000)
    assert budget.threshold == LEAST
