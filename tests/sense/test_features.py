import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.sense.features import LONGEST_GAP, Windows
from axonal.sense.stream import events, sample_type, samples

WIDTH, HEIGHT = 10, 6


def camera(seed: int, n: int, span: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, span, n))
    return events(t, draw.integers(0, WIDTH, n), draw.integers(0, HEIGHT, n), t % 2)


def cut(windows: Windows, packets, select=lambda packet: packet) -> list[tuple]:
    closed = [w for packet in packets for w in windows.push(packet, select(packet))]
    closed += windows.advance(10**9)
    return [(w.t_start_us, w.t_end_us, w.n_in, w.n_out, w.x.tolist()) for w in closed]


@given(st.integers(0, 99), st.lists(st.integers(0, 60), max_size=5))
def test_chunks_don_t_matter(seed, cuts):
    packet = camera(seed, 60, 5_000_000)
    straight = cut(Windows(0.1, WIDTH, HEIGHT, grid=3), [packet])
    parts = cut(Windows(0.1, WIDTH, HEIGHT, grid=3), np.split(packet, sorted(cuts)))
    assert straight == parts


def test_counts_are_those_of_the_events():
    packet = camera(0, 500, 3_000_000)
    windows = cut(Windows(0.1, WIDTH, HEIGHT, grid=2), [packet], lambda p: p[p["p"] == 1])
    assert sum(w[2] for w in windows[:30]) == 500
    assert sum(w[3] for w in windows) == int((packet["p"] == 1).sum())
    for start, end, _, _, x in windows[:30]:
        mine = packet[(packet["t"] >= start) & (packet["t"] < end) & (packet["p"] == 1)]
        cells = np.histogram2d(mine["y"], mine["x"], (2, 2), ((0, HEIGHT), (0, WIDTH)))[0]
        np.testing.assert_allclose(x, 2 * (np.sqrt(cells.ravel() + 3 / 8) - np.sqrt(3 / 8)))


def test_a_finer_grid_than_the_sensor_has_a_cell_a_pixel():
    windows = Windows(0.1, 3, 1, grid=8)
    [window] = [*windows.push(p := events([1], [2], [0], [1]), p), *windows.advance(100_000)]
    np.testing.assert_allclose(window.x, [0, 0, 2 * (np.sqrt(11 / 8) - np.sqrt(3 / 8))])


def test_samples_have_mean_and_spread():
    packet = np.zeros(4, sample_type(2))
    packet["t"], packet["value"] = [0, 10, 20, 30], [[1, 0], [3, 0], [1, 0], [3, 8]]
    windows = Windows(0.001, 2, 1)
    [window] = [*windows.push(packet, packet), *windows.advance(1000)]
    np.testing.assert_allclose(window.x, [2, 1, 2, np.sqrt(12)])


def test_each_row_can_be_a_window():
    packet = np.zeros(3, sample_type(1))
    packet["t"], packet["value"][:, 0] = [5, 7, 7], [1, 2, 3]
    windows = list(Windows(0, 1, 1).push(packet, packet))
    assert [(w.t_start_us, w.x[0]) for w in windows] == [(5, 1), (7, 2), (7, 3)]


def test_silence_has_windows_but_a_leap_of_time_costs_nothing():
    windows = Windows(0.1, 4, 4)
    first, late = events([0], [0], [0], [0]), events([2**60], [0], [0], [0])
    assert not list(windows.push(first, first))
    assert len(list(windows.push(late, late))) == 1
    windows = Windows(0.1, 4, 4)
    list(windows.push(first, first))
    assert len(list(windows.advance(100_000 * LONGEST_GAP))) == LONGEST_GAP


@given(st.integers(0, 99), st.integers(0, 60))
def test_restored_windows_go_on(seed, place):
    packet = camera(seed, 60, 2_000_000)
    first, second = Windows(0.1, WIDTH, HEIGHT), Windows(0.1, WIDTH, HEIGHT)
    straight = cut(Windows(0.1, WIDTH, HEIGHT), [packet])
    before = list(first.push(packet[:place], packet[:place]))
    second.restore(first.state())
    rest = cut(second, [packet[place:]])
    assert [w[:4] for w in straight] == [
        *[(w.t_start_us, w.t_end_us, w.n_in, w.n_out) for w in before],
        *[w[:4] for w in rest],
    ]


@pytest.mark.parametrize("bad", [(-1, 4), (float("nan"), 4), (0.1, 0), (1e-9, 4)])
def test_odd_windows_are_refused(bad):
    with pytest.raises(InputError, match="windows of"):
        Windows(bad[0], 4, 4, grid=bad[1])


def test_events_have_no_rows_of_their_own():
    packet = events([1], [0], [0], [0])
    with pytest.raises(InputError, match="give events a length"):
        list(Windows(0, 4, 4).push(packet, packet))


@pytest.mark.parametrize("rate", [2.0, 20.0, 2000.0])
def test_noise_of_any_rate_has_a_deviation_of_one(rate):
    count = np.random.default_rng(0).poisson(rate, 2000)
    t = np.repeat(np.arange(len(count)) * 1000, count)
    packet = events(t, t * 0, t * 0, t * 0)
    x = [w.x[0] for w in Windows(0.001, 1, 1).push(packet, packet)]
    assert 0.9 < np.std(x) < 1.1


def test_gaps_between_samples_are_no_windows():
    windows = Windows(1.0, 1, 1)
    t = np.array([0.0, 0.5, 4.2, 9.9]) * 1e6
    packet = samples(t, np.arange(4.0)[:, None])
    cut = [*windows.push(packet, packet), *windows.advance(60_000_000)]
    assert [w.t_start_us for w in cut] == [0, 4_000_000, 9_000_000]
    assert [w.n_in for w in cut] == [2, 1, 1]
