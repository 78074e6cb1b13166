"""Encoders of samples, and the synthetic radar that makes some."""

import math
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.sense.sources import Cochlea, Encoded, Radar, SendOnDelta, open_source
from axonal.sense.sources.encoders import FLOOR
from axonal.sense.stream import EVENT, sample_type

RATE = 8000
NOTHING = np.empty(0, EVENT)


def sample_packet(values, step=1000):
    values = np.asarray(values, np.float32)
    packet = np.empty(len(values), sample_type(values.shape[1]))
    packet["value"], packet["t"] = values, step * np.arange(len(values))
    return packet


def tone(frequency, seconds=0.5, loud=0.5, microphones=1):
    t = np.arange(round(seconds * RATE)) / RATE
    wave = loud * np.sin(2 * np.pi * frequency * t)
    return sample_packet(np.stack([wave] * microphones, 1), 1_000_000 // RATE)


KINDS = {
    "delta": lambda: SendOnDelta([0.3, 0.1]),
    "cochlea": lambda: Cochlea(RATE, 6, microphones=2, tau_s=0.001, threshold=0.2),
}


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), max_size=6))
def test_pieces_and_restarts_change_nothing(kind, seed, sizes):
    rng = np.random.default_rng(seed)
    packet = sample_packet(np.cumsum(rng.normal(0, 0.3, (sum(sizes), 2)), 0).clip(-3, 3))
    straight = KINDS[kind]()
    expected = np.concatenate([straight.encode(packet), straight.flush()])
    assert (np.diff(expected["t"]) >= 0).all()
    assert expected["x"].max(initial=0) < straight.width
    assert expected["y"].max(initial=0) < straight.height
    parts, encoder, at = [], KINDS[kind](), 0
    for size in sizes:
        again = KINDS[kind]()
        again.restore(encoder.state())
        encoder, at = again, at + size
        parts.append(encoder.encode(packet[at - size : at]))
    np.testing.assert_array_equal(np.concatenate([NOTHING, *parts, encoder.flush()]), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_no_numbers_are_refused(kind):
    packet = sample_packet(np.zeros((5, 2)))
    packet["value"][3, 1] = math.nan
    with pytest.raises(InputError, match="sample 3"):
        KINDS[kind]().encode(packet)
    with pytest.raises(InputError, match="2 channels"):
        KINDS[kind]().encode(sample_packet(np.zeros((5, 3))))


@pytest.mark.parametrize("kind", ["delta", "cochlea"])
def test_a_state_of_another_size_is_refused(kind):
    other = {"delta": SendOnDelta([1.0] * 3), "cochlea": Cochlea(RATE, 9)}
    with pytest.raises(InputError, match="doesn't fit"):
        KINDS[kind]().restore(other[kind].state())


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50), st.floats(0.08, 3))
def test_counting_deltas_follows_the_value(values, threshold):
    sent = SendOnDelta(threshold).encode(sample_packet(np.array(values)[:, None]))
    values = np.array(values, np.float32).astype(float)
    steps = np.zeros(len(values))
    np.add.at(steps, sent["t"] // 1000, np.where(sent["p"], 1, -1))
    followed = values[0] + threshold * np.cumsum(steps)
    assert (abs(followed - values) <= threshold * (1 + 1e-9)).all()


def test_a_constant_value_sends_nothing_and_a_leap_is_bounded():
    encoder = SendOnDelta([1e-6])
    assert len(encoder.encode(sample_packet(np.full((100, 1), 3.0)))) == 0
    assert len(encoder.encode(sample_packet([[3e38]]))) == 256
    assert len(encoder.encode(sample_packet([[3e38]]))) == 0


@pytest.mark.parametrize("thresholds", [[], [0.0], [-1.0], [math.nan], [[1.0]]])
def test_wrong_thresholds_are_refused(thresholds):
    with pytest.raises(InputError, match="thresholds"):
        SendOnDelta(thresholds)


def reference(values, cochlea, threshold, tau_s):
    """Row, channel and direction of events, by impulse responses and a loop in plain Python."""
    rows = []
    for c, centre in enumerate(cochlea.centres):
        band = 2 * np.pi * 1.019 * 24.7 * (0.00437 * centre + 1) / RATE
        pole = np.exp(2j * np.pi * centre / RATE - band)
        answer = np.zeros(len(values), complex)
        impulse = pole ** np.arange(len(values))
        answer = values * 2 * (1 - np.exp(-band)) ** 4
        for _ in range(4):
            answer = np.convolve(answer, impulse)[: len(values)]
        energy, level = 0.0, 0
        for i, rectified in enumerate(np.maximum(answer.real, 0)):
            energy += (1 - math.exp(-1 / (tau_s * RATE))) * (rectified**2 - energy)
            height = (math.log(energy + FLOOR) - math.log(FLOOR)) / threshold
            while abs(height - level) >= 1:
                up = height > level
                level += 1 if up else -1
                rows.append((i, c, int(up)))
    return sorted(rows)


def test_the_cochlea_is_its_equations():
    packet = tone(700, 0.05)
    encoder = Cochlea(RATE, 4, low=200, high=2000, threshold=0.7, tau_s=0.005)
    sent = encoder.encode(packet)
    expected = reference(packet["value"][:, 0].astype(float), encoder, 0.7, 0.005)
    rows = sent["t"] * RATE // 1_000_000
    parts = np.stack([rows, sent["x"], sent["p"]], 1).tolist()
    assert sorted(map(tuple, parts)) == expected and len(parts) > 20


@pytest.mark.parametrize("frequency", [300, 800, 2000])
def test_a_tone_is_loudest_at_its_own_place(frequency):
    encoder = Cochlea(RATE, 24)
    sent = encoder.encode(tone(frequency))
    rising = np.bincount(sent["x"][sent["p"] == 1], minlength=24)
    falling = np.bincount(sent["x"][sent["p"] == 0], minlength=24)
    nearest = int(np.argmin(abs(encoder.centres - frequency)))
    assert abs(int(np.argmax(rising - falling)) - nearest) <= 1
    # Half a wave of amplitude 1/2 has the energy 1/16.
    energy = FLOOR * math.exp(0.5 * encoder._level[nearest])
    assert 0.4 < 16 * energy < 1.5


def test_a_steady_tone_falls_silent_and_silence_says_nothing():
    encoder = Cochlea(RATE, 24)
    assert len(encoder.encode(sample_packet(np.zeros((4000, 1))))) == 0
    sent = encoder.encode(tone(800, 1.0))
    assert (sent["t"] < 500_000).mean() > 0.95


def test_microphones_are_rows():
    sent = Cochlea(RATE, 8, microphones=2).encode(tone(800, microphones=2))
    first, second = (sent[sent["y"] == y] for y in (0, 1))
    assert len(first) > 0 and (first["x"] == second["x"]).all()


@pytest.mark.parametrize(
    "wrong", [{"high": 4000.0}, {"channels": 0}, {"low": 0}, {"channels": 10**9}, {"threshold": 0}]
)
def test_a_wrong_cochlea_is_refused(wrong):
    with pytest.raises(InputError, match="Cochlea"):
        Cochlea(RATE, **wrong)


def test_encoded_is_a_source():
    radar = Radar(3, duration_s=2.0)
    source = Encoded(radar, SendOnDelta([3.0] * 64))
    packets = list(source)
    assert (source.width, source.height, source.dropped) == (64, 1, 0)
    assert source.position == radar.position == 40 and sum(map(len, packets)) > 0
    assert source.intervals is radar.intervals
    again = Encoded(Radar(3, duration_s=2.0), SendOnDelta([3.0] * 64))
    again.restore(source.state())
    again.seek(40)
    assert sum(map(len, again)) == 0


def test_a_radar_sees_walks_and_goes_on_anywhere():
    radar = Radar(1, duration_s=120.0)
    packet = np.concatenate(list(radar))
    assert len(packet) == 2400 and np.isfinite(packet["value"]).all()
    t, value = packet["t"], packet["value"]
    first, end = radar.intervals.T
    there = ((t[:, None] >= first) & (t[:, None] < end)).any(1)
    assert 0.1 < there.mean() < 0.9 and (first[1:] >= end[:-1]).all()
    above = (value - np.median(value, 0)).max(1)  # dB
    assert np.median(above[there]) > np.median(above[~there]) + 3
    again = Radar(1, duration_s=120.0)
    again.seek(1000)
    np.testing.assert_array_equal(np.concatenate(list(again)), packet[1000:])


def test_a_radar_can_be_closed_and_refused():
    radar = Radar()
    next(iter(radar))
    radar.close()
    assert list(radar) == []
    with pytest.raises(InputError, match="Radar"):
        Radar(bins=2)


def test_a_cochlea_has_the_rate_of_its_source(tmp_path):
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 48000, 0, "NONE", ""))
        tone = 16000 * np.sin(2 * np.pi * 1000 * np.arange(24000) / 48000)
        out.writeframes(tone.astype("<i2").tobytes())
    source = open_source(str(path), encoder={"kind": "cochlea"})
    sent = np.concatenate(list(source))
    centre = source.encoder.centres[np.bincount(sent["x"]).argmax()]
    assert 900 < centre < 1100
    with pytest.raises(InputError, match="rate 16000, but the source has 48000 samples a second"):
        open_source(str(path), encoder={"kind": "cochlea", "rate": 16000})
