import io
import wave
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.data import recordings
from axonal.data.recordings import cochlea, delta_spikes, fsdd, nmnist, read_wav


def events(**changes):
    """Three recordings of 2, 0 and 3 events; the first and last train."""
    arrays = {
        "x": np.array([0, 33, 5, 6, 7], np.uint8),
        "y": np.array([1, 2, 33, 4, 4], np.uint8),
        "p": np.array([0, 1, 1, 0, 0], np.uint8),
        "t": np.array([0, 25_000, 999, 1000, 50_000], np.uint32),
        "offsets": np.array([0, 2, 2, 5]),
        "label": np.array([7, 1, 3], np.uint8),
        "is_test": np.array([False, True, False]),
    }
    return arrays | changes


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    path = tmp_path / recordings.NMNIST
    path.parent.mkdir(parents=True)
    return path


def test_recordings_are_split_and_binned(place):
    np.savez(place, **events())
    train, test = nmnist("train"), nmnist("test")
    assert train.labels.tolist() == [7, 3] and test.labels.tolist() == [1]
    frames = train.frames(3, 0.01)
    assert frames.shape == (2, 3, 2, 34, 34) and frames.dtype == np.uint8
    assert np.argwhere(frames).tolist() == [
        [0, 0, 0, 1, 0],
        [0, 2, 1, 2, 33],
        [1, 0, 0, 4, 6],
        [1, 0, 1, 33, 5],
    ], "the event at 50 ms is beyond three steps"
    assert not test.frames(3, 0.01).any()
    with pytest.raises(InputError, match="split"):
        nmnist("validation")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.array([0, 34, 5, 6, 7])}, "an event's x lies outside"),
        ({"x": np.zeros(4)}, "offsets don't fit"),
        ({"offsets": np.array([0, 3, 2, 5])}, "offsets don't fit"),
        ({"label": np.zeros(2)}, "labels don't fit"),
        ({"t": np.array([-1, 0, 0, 0, 0])}, "before its recording"),
        ({"x": np.array([object()] * 5)}, "can't use"),
    ],
)
def test_damaged_recordings_are_refused(place, changes, message):
    np.savez(place, **events(**changes))
    with pytest.raises(FileError, match=message):
        nmnist("train")


@settings(max_examples=60)
@given(
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
def test_broken_archives_never_surprise(place, cut, flips):
    np.savez_compressed(raw := io.BytesIO(), **events())
    content = bytearray(raw.getvalue())
    for at, value in flips:
        content[int(at * (len(content) - 1))] = value
    place.write_bytes(content[: max(1, int(cut * len(content)))])
    with suppress(FileError):
        nmnist("train")


def test_an_archive_that_unpacks_to_too_much_is_refused(place, monkeypatch):
    monkeypatch.setattr(recordings, "LARGEST", 100)
    np.savez_compressed(place, **events())
    with pytest.raises(FileError, match="it would unpack to"):
        nmnist("train")
    with zipfile.ZipFile(place, "w"):
        pass
    with pytest.raises(FileError, match="can't use"):
        nmnist("train")


def write_wav(path, samples, rate=8000, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype(f"<i{width}").tobytes())


def test_spoken_digits_are_split_by_their_index(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    folder = tmp_path / recordings.FSDD
    with pytest.raises(FileError, match="holds no recordings"):
        fsdd("train")
    folder.mkdir(parents=True)
    for index in (0, 4, 5):
        write_wav(folder / f"3_ann_{index}.wav", np.arange(index, index + 4))
    for other in ("notes_of_mine.wav", "a_b_c_d.wav", "3_ann_x.wav"):
        write_wav(folder / other, np.arange(4))
    assert [s[0] * 32768 for s in fsdd("test").signals] == [0, 4]
    train = fsdd("train")
    assert train.labels.tolist() == [3] and len(train) == 1


def test_sounds_of_another_form_are_refused(tmp_path):
    path = tmp_path / "a.wav"
    for options in ({"rate": 16000}, {"channels": 2}, {"width": 4}):
        write_wav(path, np.zeros(8), **options)
        with pytest.raises(FileError, match=r"can't use .*channels of"):
            read_wav(path, 8000)
    with pytest.raises(FileError, match="can't use"):
        read_wav(tmp_path / "none.wav", 8000)
    write_wav(path, np.zeros(0))
    with pytest.raises(FileError, match="holds no sound"):
        read_wav(path, 8000)


@settings(max_examples=100)
@given(cut=st.floats(0, 1), at=st.integers(0, 60), value=st.integers(0, 255))
def test_broken_sounds_never_surprise(tmp_path, cut, at, value):
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(20))
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content[: int(cut * len(content))])
    with suppress(FileError):
        assert len(read_wav(path, 8000)) <= 20


def test_a_tone_is_loudest_in_its_own_band():
    rate, t = 8000, np.arange(4000) / 8000
    bands = [
        int(cochlea(np.sin(2 * np.pi * f * t).astype(np.float32), rate)[10:40].mean(0).argmax())
        for f in (150, 500, 1500, 3000)
    ]
    assert bands == sorted(bands) and bands[-1] - bands[0] > 20
    quiet = cochlea(np.zeros(800, np.float32), rate)
    assert np.isfinite(quiet).all()


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=30), st.floats(0.1, 2))
def test_delta_spikes_follow_their_signal(values, threshold):
    slow = np.clip(np.diff(values, prepend=values[0]), -threshold, threshold).cumsum()
    spikes = delta_spikes(slow[:, None].astype(np.float32), threshold)
    followed = slow[0] + threshold * (spikes[:, 0].astype(float) - spikes[:, 1]).cumsum()
    assert np.abs(followed - slow).max() <= threshold * 1.001 + 1e-4
    assert not (spikes[:, 0] & spikes[:, 1]).any()
