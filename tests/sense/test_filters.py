import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.sense.filters import (
    FILTERS,
    LEVELS,
    STCF,
    BackgroundActivity,
    HotPixel,
    LIFTrace,
    Refractory,
    TimeSurface,
    reference,
)
from axonal.sense.stream import EVENT, events, sample_type

LOW, HIGH = -(2**63), 2**63 - 1
NAMES = pytest.mark.parametrize("name", FILTERS)
CORRELATIONS = ("background_activity", "stcf", "time_surface", "lif_trace")


def packet_of(rows, start=0):
    """Events from (gap, x, y, p)."""
    gaps, x, y, p = zip(*rows, strict=True) if rows else ((), (), (), ())
    return events(start + np.cumsum(np.array(gaps, np.int64)), x, y, p)


def noise(rate, seconds, width, height, seed):
    """Poisson noise of `rate` events per second and pixel."""
    random = np.random.default_rng(seed)
    n = random.poisson(rate * seconds * width * height)
    t = np.sort(random.integers(0, round(seconds * 1e6), n))
    return events(t, *(random.integers(0, top, n) for top in (width, height, 2)))


def streams(width=7, height=5):
    gap = st.sampled_from([0, 1, 30, 4_000, 25_000, 10**6, 10**10])
    row = st.tuples(gap, st.integers(0, width - 1), st.integers(0, height - 1), st.integers(0, 1))
    return st.lists(row, max_size=60).map(packet_of)


def built(name, width=7, height=5, **options):
    return FILTERS[name](width, height, **options)


@NAMES
@settings(max_examples=30, deadline=None)
@given(packet=streams(), cuts=st.lists(st.integers(0, 60), max_size=3))
def test_packets_and_restarts_change_no_bit(name, packet, cuts):
    straight = built(name).score(packet)
    parts, stage = [], built(name)
    for part in np.split(packet, sorted(min(c, len(packet)) for c in cuts)):
        parts.append(stage.score(part))
        other = built(name, threshold=123.0)
        other.restore(stage.state())
        assert other.threshold == stage.threshold
        stage.score(packet[-1:])  # what the first stage does later doesn't reach the other
        stage = other
    np.testing.assert_array_equal(np.concatenate(parts), straight)


SHAPE = (5, 7)


def own_ages(packet, shape):
    last, ages = np.full(shape, -np.inf), []
    for _, now, pixel, _ in reference.walk(packet):
        ages.append(now - last[pixel])
        last[pixel] = now
    return np.array(ages, float)


def inhibited(packet, shape, radius, tau, limits):
    scores, w, before = reference.lif(packet, shape, radius, tau), 0.0, 0.0
    for e, now, _, _ in reference.walk(packet):
        w, before = w * np.exp((before - now) / tau) + 1, now
        scores[e] -= np.interp(w / (tau * 1e-6 * shape[0] * shape[1]), LEVELS, limits)
    return scores


DEFINITIONS = {
    "inhibited_trace": (inhibited, ({}, {"radius": 1, "tau": 300.0, "passes": 1.0})),
    "lif_trace": (reference.lif, ({}, {"radius": 1, "tau": 300.0}, {"radius": 0, "tau": 1e6})),
    "time_surface": (reference.surface, ({}, {"radius": 3, "tau": 300.0})),
    "stcf": (
        reference.recent,
        ({}, {"k": 8}, {"radius": 2, "k": 3, "same_polarity": True}, {"own": True}),
    ),
    "background_activity": (reference.recent, ({}, {"radius": 2})),
    "hot_pixel": (reference.hot, ({}, {"tau": 900.0})),
    "refractory": (own_ages, ({},)),
}


def defined(name, packet, options):
    """The reference's scores, by the options that it takes or their defaults."""
    stage, definition = built(name, **options), DEFINITIONS[name][0]
    names = list(inspect.signature(definition).parameters)[2:]
    return definition(packet, SHAPE, *(getattr(stage, name) for name in names))


@NAMES
@settings(max_examples=40, deadline=None)
@given(packet=streams())
def test_kernels_compute_what_the_reference_defines(name, packet):
    for options in DEFINITIONS[name][1]:
        scores = built(name, **options).score(packet)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, defined(name, packet, options), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["lif_trace", "time_surface", "hot_pixel"])
def test_traces_stay_exact_over_many_moves_of_their_base(name):
    # 300 us of tau: 2 s are 6,700 of them, 170 times the most that a base is kept for
    packet = noise(rate=400, seconds=2.0, width=7, height=5, seed=1)
    expected = defined(name, packet, {"tau": 300.0})
    np.testing.assert_allclose(built(name, tau=300.0).score(packet), expected, rtol=1e-5, atol=1e-9)


@NAMES
@settings(max_examples=30, deadline=None)
@given(
    packet=streams(), dx=st.integers(0, 3), dy=st.integers(0, 3), dt=st.integers(LOW, HIGH - 10**12)
)
def test_time_and_place_are_relative(name, packet, dx, dy, dt):
    here, there = packet.copy(), packet.copy()
    for moved, right, down in ((here, 10, 10), (there, 10 + dx, 10 + dy)):  # far from every rim
        moved["x"] += np.uint16(right)
        moved["y"] += np.uint16(down)
    there["t"] += dt
    np.testing.assert_array_equal(built(name, 31, 31).score(there), built(name, 31, 31).score(here))


@NAMES
def test_silence_gives_silence_and_a_lonely_event_no_support(name):
    stage = built(name)
    assert stage(np.empty(0, EVENT)).shape == (0,) and stage.score(np.empty(0, EVENT)).shape == (0,)
    passed = stage(events([5], [3], [2], [1]))
    assert passed.dtype == EVENT and len(passed) == (name not in (*CORRELATIONS, "inhibited_trace"))


@NAMES
def test_all_of_int64_is_time(name):
    stage = built(name)
    packet = events([LOW, LOW, LOW + 1, 0, HIGH - 1, HIGH], [3, 4, 3, 3, 3, 4], [2] * 6, [1] * 6)
    scores = np.concatenate([stage.score(packet[:3]), stage.score(packet[3:])])
    first = built(name).score(packet[:1])
    assert not np.isnan(scores).any() and scores[0] == first[0]
    if name == "lif_trace":
        np.testing.assert_allclose(scores, [1, 2, 3, 1, 1, 2], rtol=1e-4)
    if name == "refractory":
        np.testing.assert_allclose(scores, [np.inf, np.inf, 1, 2.0**63, 2.0**63, 2.0**64])


@NAMES
@pytest.mark.parametrize(
    ("row", "message"),
    [((9, 7, 0), r"event 2 .* at \(7, 0\)"), ((9, 0, 5), r"\(0, 5\)"), ((6, 0, 0), "and 6 us")],
)
def test_impossible_events_are_refused_and_change_nothing(name, row, message):
    good, stage, other = events([5, 7], [1, 2], [1, 1], [0, 1]), built(name), built(name)
    t, x, y = row
    with pytest.raises(InputError, match=message):
        stage.score(np.concatenate([good, events([t], [x], [y], [1])]))
    np.testing.assert_array_equal(stage.score(good), other.score(good))
    with pytest.raises(InputError, match=r"event 0 .* before 7 us"):
        stage.score(events([6], [0], [0], [1]))
    for packet in (np.zeros(3, sample_type(1)), np.zeros((2, 2), EVENT), np.zeros(3)):
        with pytest.raises(InputError, match="packets of events"):
            stage.score(packet)


def test_options_out_of_range_are_refused():
    for name in FILTERS:
        for size in ((0, 3), (3, -1), (3, 70_000), (2.5, 3)):
            with pytest.raises(InputError):
                FILTERS[name](*size)
        with pytest.raises(InputError, match="threshold"):
            built(name, threshold=float("nan"))
    for k in (0, 9):
        with pytest.raises(InputError, match="k is from 1 to the 8"):
            STCF(4, 4, k=k)
    for name in ("lif_trace", "time_surface", "hot_pixel"):
        for tau in (0.0, -1.0, float("inf"), float("nan")):
            with pytest.raises(InputError, match="tau"):
                built(name, tau=tau)
    with pytest.raises(InputError, match="another size"):
        LIFTrace(7, 5).restore(LIFTrace(7, 5, radius=1).state())


def test_packets_of_any_layout():
    packet = noise(50, 0.2, 7, 5, 0)
    expected = LIFTrace(7, 5).score(packet[::2].copy())
    read_only = packet.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(LIFTrace(7, 5).score(packet[::2]), expected)
    np.testing.assert_array_equal(LIFTrace(7, 5).score(read_only[::2]), expected)


def test_each_score_on_a_few_events():
    def scores(stage, *rows):
        t, x, y, p = zip(*rows, strict=True)
        return stage.score(events(t, x, y, p)).tolist()

    assert scores(Refractory(9, 9), (0, 1, 1, 1), (900, 1, 1, 0), (1950, 1, 1, 0)) == [
        np.inf,
        900,
        1050,
    ]
    baf = BackgroundActivity(9, 9)
    rows = ((0, 4, 4, 1), (10, 4, 4, 1), (30, 5, 5, 0), (40, 7, 5, 0))
    assert scores(baf, *rows) == [-np.inf, -np.inf, -20, -np.inf]
    assert scores(STCF(9, 9, radius=2), *rows) == [-np.inf, -np.inf, -np.inf, -np.inf]
    assert scores(STCF(9, 9, radius=3), *rows)[3] == -30
    assert scores(STCF(9, 9, k=1, same_polarity=True), *rows)[2] == -np.inf
    lif = LIFTrace(9, 9, tau=10.0)
    expected = [1, 1 + np.exp(-1), 1 + np.exp(-2) + np.exp(-3), 1 + np.exp(-1)]
    np.testing.assert_allclose(scores(lif, *rows), expected, rtol=1e-6)
    expected = np.array([0, np.exp(-1), 0, 0]) / 9
    np.testing.assert_allclose(scores(TimeSurface(9, 9, tau=10.0), *rows), expected, rtol=1e-6)


def test_hot_pixels_go_and_edges_stay():
    quiet = noise(1, 4.0, 16, 16, 0)
    quiet = quiet[(quiet["x"] != 3) | (quiet["y"] != 0)]
    t = np.arange(0, 4_000_000, 5_000)
    hot = events(t, np.full_like(t, 3), np.zeros_like(t), np.ones_like(t))  # at the sensor's rim
    n = np.arange(16 * 16 * 15)
    edge = events(n * 1000, n // 16 % 16, n % 16, np.ones_like(n))
    for clean, least in ((quiet, 0.999), (edge, 0.98)):
        both = np.concatenate([clean, hot])
        order = np.argsort(both["t"], kind="stable")
        passed = HotPixel(16, 16).score(both[order]) >= HotPixel(16, 16).threshold
        is_hot = order >= len(clean)
        assert passed[~is_hot].mean() > least and passed[is_hot].mean() < 0.05


@pytest.mark.parametrize("name", CORRELATIONS)
def test_chance_passes_at_the_rate_that_was_asked_for(name):
    stage = built(name, 32, 32)
    before = stage.state()
    assert stage.calibrate(noise(5, 4.0, 32, 32, seed=0), rate=0.5, seed=3) is stage
    np.testing.assert_array_equal(stage.state()["map"], before["map"])
    fresh = noise(5, 4.0, 32, 32, seed=1)
    stage.score(noise(5, 4.0, 32, 32, seed=2))
    fresh["t"] += 4_000_000
    assert len(stage(fresh)) / (4.0 * 32 * 32) == pytest.approx(0.5, rel=0.15)
    again = dataclasses.replace(stage).calibrate(noise(5, 4.0, 32, 32, seed=0), rate=0.5, seed=3)
    assert again.threshold == stage.threshold


def test_a_sample_without_time_or_a_rate_below_0_calibrates_nothing():
    stage, sample = LIFTrace(8, 8), noise(5, 1.0, 8, 8, 0)
    for bad, rate in ((sample[:0], 1.0), (sample[:1], 1.0), (sample, -1.0), (sample, np.nan)):
        with pytest.raises(InputError, match="calibrate"):
            stage.calibrate(bad, rate)
    assert stage.threshold == LIFTrace(8, 8).threshold
    none = stage.calibrate(sample, 0.0).threshold
    assert none > stage.calibrate(sample, 1.0).threshold > 1
    assert stage.calibrate(sample, 1e6).threshold == -np.inf


def test_a_moving_edge_stands_out_of_noise():
    random = np.random.default_rng(0)
    clean = noise(5, 1.0, 64, 64, 0)
    x = np.repeat(np.arange(64), 64)
    t = x * 15_000 + random.integers(0, 10_000, len(x))
    y = np.tile(np.arange(64), 64)
    both = np.concatenate([clean, events(t, x, y, np.ones_like(x))])
    order = np.argsort(both["t"], kind="stable")
    signal = order >= len(clean)
    for name in CORRELATIONS:
        scores = built(name, 64, 64).score(both[order])
        assert np.median(scores[signal]) > np.quantile(scores[~signal], 0.8), name


@pytest.mark.parametrize("rate", [1.0, 7.0, 30.0])
def test_an_inhibited_trace_lets_as_much_noise_through_at_any_rate(rate):
    stage = built("inhibited_trace", 32, 32, passes=0.2)
    passed = stage(noise(rate, 8, 32, 32, seed=1))
    assert 0.07 < len(passed) / 8 / 32**2 < 0.5
