"""Recordings as events and as sound: N-MNIST, and spoken digits through a cochlea of filters.

N-MNIST: Orchard et al. 2015 (Front. Neurosci. 9:437), here 1,000 + 100 recordings in one .npz.
FSDD: recordings 0 to 4 of each speaker and digit are its test set.
"""

import re
import wave
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core import auditory
from ..core.errors import FileError
from .images import check_split, root

NMNIST = "sensor/nmnist_small/nmnist_small.npz"
FSDD = "fsdd/recordings"
SIZE = (2, 34, 34)  # N-MNIST: polarity, rows, columns
LARGEST = 1 << 30  # bytes that a file may unpack to
FIELDS = ("x", "y", "p", "t", "offsets", "label", "is_test")


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings of an event camera, one after another.

    Attributes:
        x, y, p: column, row and polarity of each event, [E].
        t: microseconds since its recording began, [E].
        offsets: the first event of each recording, and the end of the last one, [N + 1].
        labels: [N] int64.
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, step: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """The step (of `step` seconds) and the flat index of each event, by recording."""
        recordings = []
        for first, end in zip(self.offsets, self.offsets[1:], strict=False):
            at = slice(int(first), int(end))
            index = np.ravel_multi_index((self.p[at], self.y[at], self.x[at]), SIZE)
            recordings.append(((self.t[at] * 1e-6 / step).astype(np.int64), index))
        return recordings

    def frames(self, steps: int, step: float) -> np.ndarray:
        """Whether there was an event, in each of so many steps: [N, T, 2, 34, 34] uint8."""
        frames = np.zeros((len(self), steps, int(np.prod(SIZE))), np.uint8)
        for i, (t, index) in enumerate(self.steps(step)):
            frames[i, t[t < steps], index[t < steps]] = 1
        return frames.reshape(len(self), steps, *SIZE)


def nmnist(split: str) -> Recordings:
    """N-MNIST's `split` ("train", 1,000, or "test", 100).

    Raises:
        InputError: another split. FileError: the file is missing or damaged.
    """
    check_split(split)
    path = root() / NMNIST
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > LARGEST:
                raise ValueError(f"it would unpack to {size:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.int64) for name in FIELDS}
        return _split(arrays, split == "test")
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise FileError(
            f"can't use {path}: {error}; put the recordings there, under $AXONAL_DATA"
        ) from error


def _split(arrays: dict[str, np.ndarray], test: bool) -> Recordings:
    t, offsets, label = arrays["t"], arrays["offsets"], arrays["label"]
    lengths = {len(arrays[name]) for name in ("x", "y", "p", "t")}
    if lengths != {int(offsets[-1])} or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("its offsets don't fit its events")
    if not len(label) == len(arrays["is_test"]) == len(offsets) - 1:
        raise ValueError("its labels don't fit its recordings")
    for name, limit in zip("pyx", SIZE, strict=True):
        if len(t) and not 0 <= arrays[name].min() <= arrays[name].max() < limit:
            raise ValueError(f"an event's {name} lies outside [0, {limit})")
    if len(t) and t.min() < 0:
        raise ValueError("an event lies before its recording")
    chosen = np.flatnonzero(arrays["is_test"].astype(bool) == test)
    events = [np.arange(offsets[i], offsets[i + 1]) for i in chosen]
    rows = np.concatenate(events) if events else np.zeros(0, np.int64)
    ends = np.cumsum([0, *map(len, events)])
    return Recordings(*(arrays[name][rows] for name in "xypt"), ends, label[chosen])


@dataclass(frozen=True)
class Sounds:
    """Labelled sounds: `signals`, [samples] float32 in [-1, 1] each, `rate` in Hz, `labels` [N]."""

    signals: list[np.ndarray]
    rate: int
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def fsdd(split: str) -> Sounds:
    """Spoken digits, `split` "train" (2,700) or "test" (300), in 8 kHz.

    Raises:
        InputError: another split. FileError: the folder is missing, or a file is damaged.
    """
    check_split(split)
    folder = root() / FSDD
    names = [re.fullmatch(r"(\d)_[a-z]+_(\d+)\.wav", path.name) for path in folder.glob("*.wav")]
    names = [name for name in names if name and (int(name[2]) < 5) == (split == "test")]
    if not names:
        raise FileError(f"{folder} holds no recordings; put FSDD's there, under $AXONAL_DATA")
    names.sort(key=lambda name: name[0].removesuffix(".wav").split("_"))
    signals = [read_wav(folder / name[0], 8000) for name in names]
    return Sounds(signals, 8000, np.array([int(name[1]) for name in names]))


def read_wav(path: Path, rate: int) -> np.ndarray:
    """Read a mono file of 16 bits at `rate` Hz: [samples] float32 in [-1, 1].

    Raises:
        FileError: it is missing, damaged, or of another form.
    """
    try:
        with wave.open(str(path)) as file:
            form = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if form != (1, 2, rate):
                raise ValueError(f"it has {form[0]} channels of {form[1]} bytes at {form[2]} Hz")
            if file.getnframes() > path.stat().st_size:
                raise ValueError("its header announces more than it holds")
            raw = file.readframes(file.getnframes())
        if len(raw) < 2:
            raise ValueError("it holds no sound")
    except (OSError, EOFError, ValueError, RuntimeError, wave.Error) as error:
        reason = str(error) or "it is cut off"
        raise FileError(f"can't use {path}: {reason}; fetch it again") from error
    return np.frombuffer(raw[: len(raw) & ~1], "<i2").astype(np.float32) / 32768


def cochlea(
    signal: np.ndarray, rate: int, channels: int = 32, hop: float = 0.01, floor: float = 1e-4
) -> np.ndarray:
    """The logarithm of the power in bands of hearing, [T, channels], `hop` seconds a step.

    Gammatone filters of fourth order (Patterson et al. 1992), |H(f)|^2 = (1 + ((f - c) / b)^2)^-4,
    with centres c and widths b of `core.auditory`, on the spectrum of Hann windows of two and a
    half hops. Scaled by the signal's own root mean square; power below `floor` counts as `floor`.
    """
    width, step = round(2.5 * hop * rate), round(hop * rate)
    padded = np.pad(signal / (np.sqrt(np.mean(signal**2)) + 1e-9), (0, width))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)[::step]
    power = np.abs(np.fft.rfft(windows * np.hanning(width), 512)) ** 2 / width
    f = np.fft.rfftfreq(512, 1 / rate)
    centre = auditory.centres(80.0, 0.47 * rate, channels)
    gain = (1 + ((f[:, None] - centre) / auditory.bandwidths(centre)) ** 2) ** -4.0
    return np.log(np.maximum(power @ (gain / gain.sum(0)), floor)).astype(np.float32)


def delta_spikes(values: np.ndarray, threshold: float) -> np.ndarray:
    """Encode values [T, N] as steps up and down of `threshold`, [T, 2 N] uint8, at most one a step.

    Step-forward coding (Kasabov et al. 2016): a baseline moves by the threshold where the value
    is further away than that.
    """
    baseline, spikes = values[0].copy(), np.zeros((len(values), 2, values.shape[1]), np.uint8)
    for t, now in enumerate(values):
        up, down = now - baseline > threshold, baseline - now > threshold
        baseline += threshold * (up.astype(np.float32) - down)
        spikes[t] = up, down
    return spikes.reshape(len(values), -1)
