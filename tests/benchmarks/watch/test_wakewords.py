import dataclasses
import json
import wave

import numpy as np
import pytest
import torch

from axonal.core.errors import FileError
from benchmarks.watch import listening, voices, wakewords
from benchmarks.watch.voices import RATE, Speech

SMALL = dataclasses.replace(listening.NETWORK, layers=("8", "8r"))


def tone(pitches, seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.concatenate([np.sin(2 * np.pi * pitch * t) for pitch in pitches]).astype(np.float32)


@pytest.fixture
def speech():
    """A word that rises, and others that don't."""
    words = [voices.normalise(tone((300, 900, 2000), 0.3 + 0.01 * k)) for k in range(3)]
    digits = [voices.normalise(tone((pitch,), 0.3)) for pitch in (250, 600, 1500)]
    return Speech(words, digits, [voices.normalise(tone((1800, 500), 0.3))])


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """A few files where the recordings lie."""
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    quiet = rng.normal(0, 20, 16_000)
    loud = (16_000 * tone((300, 900), 0.4, 16_000)).astype(np.int16)
    files = {f"alexa_{k:03}": np.concatenate([quiet, loud, quiet]) for k in range(24)}
    files |= {f"computer_{k:03}": np.concatenate([quiet, loud[::-1], quiet]) for k in range(24)}
    files |= {"oww_clip": rng.normal(0, 3000, 16_000 * 10), voices.KEYWORDS: quiet.repeat(12)}
    path = tmp_path / voices.WAKEWORDS
    path.parent.mkdir(parents=True)
    np.savez(path, **{name: x.astype(np.int16) for name, x in files.items()})
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
        with wave.open(str(folder / f"3_{speaker}_0.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
            file.writeframes((8000 * tone((500,), 0.3)).astype("<i2").tobytes())
    return tmp_path


def test_no_recording_is_in_two_parts(recordings):
    parts = {name: voices.read_speech(name) for name in voices.SPEAKERS}
    for kind in ("wakewords", "digits"):
        counts = [len(getattr(part, kind)) for part in parts.values()]
        assert sum(counts) == {"wakewords": 24, "digits": 6}[kind] and min(counts) > 0
    for part in parts.values():
        for sound in (*part.wakewords, *part.digits):
            assert np.sqrt(np.mean(sound**2)) == pytest.approx(voices.LEVEL, rel=1e-3)


def test_words_are_cut_out_of_their_silence(recordings):
    (word, *_) = voices.read_speech("test").wakewords
    assert len(word) == round((voices.WORD + 2 * voices.LEAD) * RATE)
    power = np.square(word).reshape(10, -1).mean(1)
    assert power[1:9].min() > 100 * max(power[0], power[9])


def test_missing_recordings_are_named(recordings):
    for path in (recordings / "fsdd" / "recordings").glob("*theo*"):
        path.unlink()
    for path in (recordings / "fsdd" / "recordings").glob("*yweweler*"):
        path.unlink()
    with pytest.raises(FileError, match="no test recordings"):
        voices.read_speech("test")


def test_halving_keeps_low_tones_and_drops_what_would_fold():
    low, high = (voices.decimate(tone((pitch,), 0.5, 16_000))[100:-100] for pitch in (500, 6000))
    assert np.sqrt(np.mean(low**2)) == pytest.approx(np.sqrt(0.5), rel=0.01)
    assert np.abs(high).max() < 0.01


def test_mixtures_hold_words_where_they_say_at_their_loudness(speech):
    rng = np.random.default_rng(1)
    signal, spans = voices.mixture(speech, 20.0, 20.0, rng, every=3.0)
    assert len(spans) >= 4 and {word for _, _, word in spans} == {0, 1, 2}
    assert all(0 <= a < b <= 20 for a, b, _ in spans)
    again, same = voices.mixture(speech, 20.0, 20.0, np.random.default_rng(1), every=3.0)
    assert (again == signal).all() and same == spans
    quiet, none = voices.mixture(speech, 20.0, 20.0, rng)
    assert not none and len(quiet) == 20 * RATE


def test_scrambling_keeps_the_sounds_and_loses_the_word():
    signal, other = np.arange(1000.0), np.arange(2000.0, 3000)
    for seed in range(20):
        x = voices.scramble(signal, other, np.random.default_rng(seed))
        assert set(x) <= {*signal, *other} and len(x) >= 999
        assert not np.isin(x[:300], signal[:300]).all() or (x[-300:] > 1999).all()


def test_a_cochleagram_is_the_same_in_pieces(speech):
    signal, _ = voices.mixture(speech, 2.0, 10.0, np.random.default_rng(0))
    frames, cochleagram = voices.Cochleagram()(signal), voices.Cochleagram()
    pieces = np.concatenate([cochleagram(part) for part in np.split(signal, [RATE // 2, RATE])])
    assert frames.shape == (100, 2 * voices.CHANNELS) and (frames == pieces).all()


def test_examples_end_with_the_word_or_without(speech):
    batch = listening.examples(speech, 40, 0)
    steps = round(listening.LENGTH / voices.STEP)
    assert batch["events"].shape == (40, steps, 2 * voices.CHANNELS)
    assert set(batch["label"].tolist()) == {0, 1}


def test_augmented_examples_are_moved_and_lose_events_but_gain_none():
    events = torch.zeros(64, 5, 2 * voices.CHANNELS)
    events[:, 2, 10] = 3
    moved = listening.augment(events, torch.Generator().manual_seed(0))
    assert moved.shape == events.shape
    assert set(moved[:, 2, 8:13].unique().tolist()) == {0, 3}
    assert moved.count_nonzero() == moved[:, 2, 8:13].count_nonzero() > 32


def test_the_listener_trains_once_and_every_figure_is_a_number(speech, monkeypatch, tmp_path):
    small = {"steps": 3, "batch": 8, "warmup": 1, "log_every": 1}
    plain = listening.recipe
    monkeypatch.setattr(listening, "NETWORK", SMALL)
    for room in (listening, wakewords):
        monkeypatch.setattr(room, "read_speech", lambda part: speech)
    monkeypatch.setattr(listening, "recipe", lambda seed: plain(seed, 16, **small))
    monkeypatch.setattr(wakewords, "DECIBELS", (20,))
    figures = wakewords.figures(0, tmp_path, hours=1 / 60)
    card = json.loads((tmp_path / "wakewords-0" / "trained.json").read_text())
    assert figures["wakewords_train_seconds"] == card["seconds"]
    for name in ("wakewords_missed", "wakewords_missed_at_budget", "loudness_missed"):
        assert 0 <= figures[name]["low"] <= figures[name]["high"] <= 100
    json.dumps(figures, allow_nan=False)
    monkeypatch.setattr(listening, "fit", None)  # it is not called again
    graph, _ = listening.train_listener(0, tmp_path)
    assert graph.inputs


def test_a_stream_says_what_the_network_says(speech, tmp_path):
    torch.manual_seed(0)
    network = listening.SpikingClassifier(SMALL).eval()
    graph = listening.trace(network.network, torch.zeros(1, 1, 2 * voices.CHANNELS))
    stream = wakewords.listen(graph, speech, 1, 0)
    signal, _ = voices.mixture(speech, 60.0, wakewords.DECIBELS[0], np.random.default_rng(0))
    with torch.inference_mode():
        frames = torch.from_numpy(voices.Cochleagram()(signal))[:, None]
        y = network.network(frames)[0][:, 0].reshape(-1, listening.WINDOW, 2).mean(1).numpy()
    assert np.allclose(stream.scores, y[:, 1] - y[:, 0], atol=1e-3)
    assert stream.synops > 0 and stream.seconds == 60
