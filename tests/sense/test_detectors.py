import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError, NotFinite
from axonal.sense.detectors import DETECTORS, Classifier, Cusum, Evolving, Rate
from axonal.sense.detectors.base import Alarm
from axonal.sense.detectors.evolving import FREE, first_spike, resonate
from axonal.sense.detectors.predictor import BETA, KAPPA, RHO, advance
from axonal.sense.settings import build

SMALL = {"trees": {"window": 20, "height": 4}, "evolving": {"neurons": 8, "memory": 300.0}}
NAMES = sorted(DETECTORS)


def make(name):
    return DETECTORS[name](**SMALL.get(name, {}))


def wave(count, features=3, seed=0):
    rng = np.random.default_rng(seed)
    phase = np.arange(count)[:, None] * 0.3 + np.arange(features)
    return np.sin(phase) + 0.05 * rng.normal(size=(count, features))


def scores_of(detector, rows):
    scores = []
    for x in rows:
        scores.append(detector.score_one(x))
        detector.learn_one(x)
    return np.array(scores)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_detector_goes_on_and_later_rows_change_no_earlier_score(name):
    rows = wave(90)
    straight = scores_of(make(name), rows)
    for cut in (0, 1, 17, 40, 55):
        first, second = make(name), make(name)
        before = scores_of(first, rows[:cut])
        second.restore(first.state())
        assert np.array_equal(np.append(before, scores_of(second, rows[cut:])), straight)
    assert (straight >= 0).all() and (straight <= 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_scoring_changes_nothing_and_names_are_read_in_order(name):
    detector, named = make(name), make(name)
    for x in wave(60):
        before = detector.state()
        score = detector.score_one(x)
        assert same(detector.state(), before)
        x_named = dict(zip("abc", x.tolist(), strict=True))
        assert named.score_one(x_named) == score
        detector.learn_one(x)
        named.learn_one(x_named)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_and_change_nothing(name, bad):
    detector = make(name)
    scores_of(detector, wave(5))
    before = detector.state()
    for call in (detector.score_one, detector.learn_one):
        with pytest.raises(NotFinite, match="feature 1"):
            call([0.0, bad, 0.0])
        for wrong in ([1.0], [[1.0, 2.0, 3.0]], ["a", "b", "c"], []):
            with pytest.raises(InputError):
                call(wrong)
    assert same(detector.state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_strange_values_score_high(name):
    detector, rows = make(name), wave(400)
    usual = scores_of(detector, rows)[200:]
    assert detector.score_one(rows[7] + 30) > np.quantile(usual, 0.99)


@pytest.mark.parametrize("name", ["evolving", "predictor", "rate", "trees"])
def test_a_new_mean_is_strange_and_then_usual(name):
    options = {"rate": {"memory": 50.0}, "predictor": {"memory": 50.0}} | SMALL
    detector, rows = DETECTORS[name](**options.get(name, {})), wave(600)
    calm = scores_of(detector, rows).mean()
    shifted = scores_of(detector, rows + 5)
    assert shifted[:3].max() > max(0.3, calm)
    assert shifted[-100:].mean() < (shifted[:3].max() + calm) / 2


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_constant(name):
    def size(state):
        inner = state.values() if isinstance(state, dict) else None
        return np.size(state) if inner is None else sum(map(size, inner))

    detector = make(name)
    rows = 3 * np.random.default_rng(1).normal(size=(1000, 3))
    scores_of(detector, rows[:600])  # by then a period is known
    early = size(detector.state())
    scores_of(detector, rows[600:])
    assert size(detector.state()) == early


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_kind_is_refused(name):
    with pytest.raises(InputError, match="a state has"):
        make(name).restore({"nothing": 1})


def test_names_and_options_are_checked():
    with pytest.raises(InputError, match=r"detector: kind is one of rate, cusum.*not 'nose'"):
        build("detector", DETECTORS, {"kind": "nose"})
    with pytest.raises(InputError, match=r"detector: 'rate' has no option 'smell'; it takes"):
        build("detector", DETECTORS, {"kind": "rate", "smell": 1})
    wrong = [
        ("evolving", {"vigilance": 1.0}), ("evolving", {"neurons": 0}),
        ("evolving", {"spans": [-1.0]}), ("evolving", {"rest": 0.5}),
        ("predictor", {"ticks": 0}), ("predictor", {"memory": 0.0}),
        ("rate", {"limit": 0.0}), ("cusum", {"slack": -1.0}),
    ]  # fmt: skip
    for name, options in wrong:
        with pytest.raises(InputError):
            DETECTORS[name](**options)
    with pytest.raises(InputError, match="2 spans for 3 features"):
        Evolving(spans=(0, 1)).learn_one([1.0, 2.0, 3.0])


def test_the_alarm_follows_its_equations():
    alarm, novelty = Alarm(10.0, 0.01, 4.0), [0.0, 0.2, 0.05, 0.0, 0.9, 0.9, 0.1]
    power = theta = 0.0
    for step, n in enumerate(novelty, 1):
        drive = np.log(1 + n / (np.sqrt(power) + 0.01))
        assert alarm.score(n) == pytest.approx(1 - np.exp(-max(0, drive - theta * 0.9)))
        theta = max(theta * 0.9, drive)
        power += (n * n - power) * max(1 / step, 1 / 4)
        alarm.learn(n)
    assert alarm.score(0.9) == 0  # it rests
    for _ in range(100):
        alarm.learn(0.0)
    assert alarm.score(0.9) > 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_the_first_spike_is_the_nearest_field(seed, neurons, features):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(-4, 5, (2, neurons, features)) / 4, axis=0)
    x, span = rng.integers(-8, 9, features) / 4, rng.integers(0, 4, features) / 1.0
    won = rng.integers(-1, 3, neurons)
    outside = np.maximum(np.maximum(ends[0] - x, x - ends[1]), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        delays = np.where(outside > 0, outside / span, 0)  # no span: none in time
    latency = np.where(won >= 0, np.minimum(delays.max(1), 1), 1)
    first, winner = first_spike(x, *ends, won, span)
    assert first == pytest.approx(latency.min())
    assert winner == (np.argmin(latency) if latency.min() < 1 else -1)


def test_resonance_stretches_the_winner_and_merges_neurons_inside_it():
    low, high = np.array([[0.0], [0.5], [3.0]]), np.array([[0.2], [0.6], [3.1]])
    won = np.array([1, 2, 3])
    resonate(np.array([0.8]), low, high, won, 0, 9)
    assert (low[0], high[0]) == (0.0, 0.8)
    assert won.tolist() == [9, FREE, 3]


def test_a_full_repository_replaces_the_neuron_that_won_least_recently():
    detector = Evolving(neurons=2, vigilance=0.05, spans=(1.0,))
    for x in (0.0, 10.0, 0.0, 20.0):
        detector.learn_one([x])
    assert sorted(detector.low[:, 0].tolist()) == [0.0, 20.0]
    assert detector.score_one([0.0]) == 0 and detector.won.tolist() == [3, 4]


def test_evolving_counts_its_spikes_and_synapses():
    detector = Evolving(spans=(1.0, 1.0))
    for x in ([0.0, 0.0], [5.0, 5.0], [0.1, 0.0]):
        detector.learn_one(x)
    total = detector.counts().totals()
    assert 3 * total["synops"] == (0 + 1 + 2) * 2  # neurons that were there, of 2 synapses each
    assert 3 * total["spikes"] == 2 + 2 + (2 + 1)
    assert detector.counts().samples == 3


def test_adaptive_neurons_follow_their_equations():
    current = np.array([0.5, 3.0, 9.0])
    v, a, trace = np.zeros((3, 3))
    fired, h, adapted = 0, np.zeros(3), np.zeros(3)
    for _ in range(40):
        h = BETA * h + (1 - BETA) * current
        s = h >= 1 + KAPPA * adapted
        h, adapted, fired = h - s, RHO * adapted + (1 - RHO) * s, fired + s.sum()
    assert advance(current, v, a, trace, 40) == fired > 0
    assert np.allclose(v, h) and np.allclose(a, adapted)


def test_the_predictor_learns_to_predict():
    detector, rows = DETECTORS["predictor"](rate=0.3), wave(1500, features=1)
    errors = []
    for x in rows:
        errors.append(detector._measure(x))
        detector.learn_one(x)
    steps = np.abs(np.diff(detector.standard(rows)[:, 0]))
    assert np.mean(errors[-300:]) < 0.3 * np.mean(steps * 3)
    assert np.mean(errors[-300:]) < 0.6 * np.mean(errors[5:50])
    assert detector.counts().total("spikes") > 0


def test_cusum_finds_a_small_shift_that_the_level_does_not():
    rng = np.random.default_rng(3)
    calm, shifted = rng.normal(0, 1, (2000, 1)), rng.normal(1.0, 1, (40, 1))
    level, sums = Rate(), Cusum(limit=12.0)
    quiet = scores_of(level, calm)[200:].max(), scores_of(sums, calm)[200:].max()
    assert scores_of(level, shifted).max() < quiet[0]
    assert scores_of(sums, shifted).max() > quiet[1]


def test_a_classifier_averages_the_probability_of_its_target():
    detector = Classifier(lambda x: [0.0, x, 0.0], target=1, windows=2)
    p = np.exp(2) / (np.exp(2) + 2)
    assert detector.score_one(2.0) == pytest.approx(p)
    detector.learn_one(2.0)
    assert detector.score_one(0.0) == pytest.approx((p + 1 / 3) / 2)
    other = Classifier(detector.run, target=1, windows=2)
    other.restore(detector.state())
    assert other.score_one(0.0) == detector.score_one(0.0) == pytest.approx(1 / 3)
    with pytest.raises(NotFinite):
        detector.score_one(np.nan)
    with pytest.raises(InputError, match="3 classes"):
        Classifier(detector.run, target=3).score_one(1.0)
    with pytest.raises(InputError):
        Classifier(detector.run, target=1, windows=0)


def test_with_a_floor_constant_values_are_not_strange_at_once():
    plain, floored = Rate(), Rate(floor=1.0)
    for detector in (plain, floored):
        for _ in range(50):
            detector.learn_one([0.0])
    assert plain.score_one([0.5]) > 0.99 and floored.score_one([0.5]) < 0.2
    assert Rate(floor=1.0).score_one([9.0]) == 0.0
    rising = Rate(floor=1.0, rising=True)
    rising.learn_one([0.0])
    assert rising.score_one([-9.0]) == 0.0 and rising.score_one([9.0]) == 0.75
