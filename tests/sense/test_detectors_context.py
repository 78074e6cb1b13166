"""Rows in their context: views beside plain numpy, chunks of any size, gates, new beginnings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError, NotFinite
from axonal.sense.detectors import Context, WindowBudget
from axonal.sense.detectors.context import kernels
from axonal.sense.detectors.context.context import CALM, KEPT, period_of
from axonal.sense.detectors.context.surprise import Surprise
from axonal.sense.detectors.context.views import Courses, History, Reservoir, Shapes, Windows


def waves(rows, channels=2, seed=0, period=20):
    draw, t = np.random.default_rng(seed), np.arange(rows)[:, None]
    phase = np.arange(channels)
    return np.sin(2 * np.pi * t / period + phase) + 0.1 * draw.normal(size=(rows, channels))


def nats(scores):
    return scores / (1 - scores)


def test_a_strange_stretch_stands_out_and_its_channel_is_named():
    x = waves(3000)
    x[2000:2040, 1] = 0.0
    detector = Context(calibration=1000)
    surprise = nats(detector.follow(x))
    calm = np.concatenate([surprise[1200:1990], surprise[2200:]])
    assert np.median(surprise[2010:2040]) > 2 * np.quantile(calm, 0.99)
    assert detector.channels[2010:2040].mean(0).argmax() == 1
    assert detector.period == 20


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_chunks_of_any_size_are_the_whole(cuts):
    x = waves(700)
    whole = Context(calibration=300).follow(x)
    detector = Context(calibration=300)
    parts = [detector.follow(part) for part in np.split(x, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("cut", [5, 128, 333, 650])
def test_it_goes_on_from_a_state_row_by_row(cut):
    x = waves(700)
    whole = Context(calibration=300).follow(x)
    first, second = Context(calibration=300), Context(calibration=300)
    first.follow(x[:cut])
    second.restore(first.state())
    one_by_one = []
    for row in x[cut:]:
        one_by_one.append(second.score_one(row))
        assert second.score_one(row) == one_by_one[-1]  # a score changes nothing
        second.learn_one(row)
    np.testing.assert_array_equal(one_by_one, whole[cut:])


def test_an_anomaly_does_not_become_normal_while_it_lasts_and_drift_does():
    draw, t = np.random.default_rng(0), np.arange(2000 + KEPT + 3000)
    x = np.where(t < 2000, np.sin(t / 10), 3 + np.sin(t / 17)) + 0.1 * draw.normal(size=len(t))
    surprise = nats(Context(calibration=1000).follow(x[:, None]))
    assert surprise[2100 : 2000 + KEPT // 2].reshape(-1, 4)[:, 0].mean() > 2 * CALM
    assert surprise[-1000:].mean() < CALM


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x * 0,
        lambda x: np.concatenate([x[:400] * 0, x[400:]]),  # a channel that appears late
        lambda x: np.repeat(x[:70], 10, 0),
        lambda x: x * 1e30,
        lambda x: np.round(x),
    ],
    ids=["silent", "late", "held", "huge", "coarse"],
)
def test_scores_are_numbers_whatever_comes(make):
    scores = Context(calibration=200).follow(make(waves(700)))
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores < 1).all()


def test_what_can_not_be_followed_is_refused_and_changes_nothing():
    detector = Context(calibration=200)
    detector.follow(waves(300))
    rows = detector.rows
    with pytest.raises(InputError, match=r"rows \[3, 3\] must be \[T, 2\]"):
        detector.follow(waves(3, channels=3))
    with pytest.raises(NotFinite, match="feature 1"):
        detector.follow(np.array([[0.0, np.nan]]))
    assert detector.rows == rows and not len(detector.follow(np.empty((0, 2))))
    with pytest.raises(InputError, match="at least 128 rows"):
        Context(calibration=10)


def test_a_period_is_that_of_the_wave():
    assert period_of(waves(2000, period=33)) == 33
    assert period_of(np.random.default_rng(0).normal(size=(2000, 1))) == 64
    assert period_of(np.zeros((500, 2))) == 64


def seen(x, view, distances=1):
    history = History(x.shape[1], len(x) + 8, distances)
    history.add(x)
    view.learn(history, 0, len(x) // 2, np.full((len(x) // 2, view.kinds), -1.0))
    return history, view.judge(history, 0, len(x))


def test_windows_are_whitened_by_their_covariance():
    x = waves(600)
    view = Windows(2, 20, 0)
    _, d = seen(x, view)
    w = np.lib.stride_tricks.sliding_window_view(x, view.lags, 0).reshape(len(x) - 31, -1)
    known, size = w[: 300 - 31], w.shape[1]
    mean, cov = known.mean(0), np.cov(known.T, bias=True)
    cov = cov + (0.01 + 0.5 * size / (size + len(known))) * np.trace(cov) / size * np.eye(size)
    expected = np.einsum("ti,ij,tj->t", w - mean, np.linalg.inv(cov), w - mean)
    ratio = d[31:, 0] ** 2 * size / expected
    assert (d[:31] == -1).all() and ratio.std() < 1e-6 * ratio.mean()
    assert np.mean(d[31:300, 0] ** 2) == pytest.approx(1.0, rel=0.05)


def test_the_reservoir_is_leaky_neurons():
    x = waves(80)
    view = Reservoir(2, 20, 0)
    history, _ = seen(x, view)
    sent, v, rate = np.zeros(2), np.zeros(128), np.zeros(128)
    for t, row in enumerate(x):
        sent = np.where(np.abs(row - sent) > 0.1, row, sent)
        h = view.decay * v + (1 - view.decay) * (sent @ view.into + view.bias)
        spikes = h >= 1
        v, rate = h - spikes, rate + (spikes - rate) / 16
        np.testing.assert_allclose(history.rates[t], rate, atol=1e-5)
    assert view.spikes > 0 and view.rows == len(x)


def test_shapes_and_courses_are_those_of_the_last_rows():
    x = waves(200)
    shapes, courses = Shapes(2, 20, 0), Courses(2, 20, 0)
    history, _ = seen(x, shapes)
    d = shapes.judge(history, 150, 151).reshape(3, 2)
    last = x[131:151, 0]
    normal = (last - last.mean()) / max(last.std(), 0.1)
    known = shapes.one[0, :, : int(shapes.about[1, 0, 0])].T
    assert d[1, 0] == pytest.approx(np.sqrt(((known - normal) ** 2).mean(1).min()), rel=1e-4)
    assert (shapes.judge(history, 5, 6).reshape(3, 2)[1:] == -1).all()
    _, far = seen(x, courses)
    known = courses.one[:, : int(courses.about[1, 0])].T
    flat = x[131:151].T.reshape(-1)
    assert far[150, 1] == pytest.approx(np.sqrt(((known - flat) ** 2).mean(1).min()), rel=1e-4)


def test_centres_that_are_near_become_one_when_all_are_taken():
    centres, about = np.zeros((1, 8), np.float32), np.array([0.0, 1e-4])
    for value in np.linspace(0, 1, 100, dtype=np.float32):
        kernels.recruit(np.array([value]), centres, about)
    taken = np.sort(centres[0, : int(about[0])])
    assert 3 <= len(taken) <= 8 and (np.diff(taken) ** 2 > about[1] * 0.99).all()
    line = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    assert max(kernels.nearest(x, centres, int(about[0])) for x in line) <= 1.01 * about[1]


def test_surprise_is_the_logarithm_of_how_rare_it_is():
    draw, surprise = np.random.default_rng(0), Surprise(1)
    surprise.learn(draw.exponential(size=(6000, 1)))
    d = np.array([[0.5], [1.0], [2.0], [4.0], [7.0]])
    np.testing.assert_allclose(surprise.nats(d)[:, 0], d[:, 0], rtol=0.15)  # -ln e^-d
    assert surprise.nats(np.array([[-1.0]])) == 0


def test_one_in_so_many_windows_wakes_and_a_long_event_once():
    draw = np.random.default_rng(0)
    events = []
    for _ in range(6):
        budget = WindowBudget(2000, calibration=2000)
        last, count = -100, 0
        for i, value in enumerate(draw.exponential(size=42_000).tolist()):
            if i >= 2000 and value >= budget.threshold:
                count, last = count + (i - last > 64), i
            budget.update(value, i * 1_000_000)
        events.append(count)
    assert 20 / 2 <= np.mean(events) <= 20 * 2
    level = budget.threshold
    for i in range(320):
        budget.update(2 * level, (42_000 + i) * 1_000_000)
    assert level * 1.2 < budget.threshold < level * 1.25


def test_a_window_budget_says_how_long_it_learns_and_goes_on():
    first, second = WindowBudget(500, calibration=200), WindowBudget(500, calibration=200)
    draw = np.random.default_rng(1)
    for i in range(50):
        first.update(float(draw.exponential()), i * 60_000_000)
    seconds, highest = first.learning
    assert seconds == pytest.approx(150 * 60) and highest == first.scores.max()
    second.restore(first.state())
    for i, value in enumerate(draw.exponential(size=800).tolist(), 50):
        assert first.update(value, i * 60_000_000) == second.update(value, i * 60_000_000)
    assert first.learning is None
    with pytest.raises(NotFinite):
        first.update(np.nan, 0)
    with pytest.raises(InputError, match="at least 64"):
        WindowBudget(10)
