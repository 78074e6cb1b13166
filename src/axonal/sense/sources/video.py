"""Frames as events: v2e's model of a camera's pixels, and videos and cameras through it."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from ...core.config import Config
from ...core.errors import FileError, InputError
from ...core.extras import require
from ..stream import EVENT, Stateful, events

LARGEST = 1 << 24  # pixels
LATEST = 1 << 60  # microseconds
LONGEST_S = 1.0  # of noise at once: a longer pause has as much
PAUSE_S = 1.0  # before a camera that is gone is tried again
SLACK = np.float32(1e-4)  # of a threshold, so that rounding swallows no OFF that follows an ON
LEVELS = np.arange(256, dtype=np.float32)
LOG = np.where(LEVELS <= 20, LEVELS * np.float32(math.log(20) / 20), np.log(LEVELS.clip(1)))
SHARE = (LEVELS + 20) / np.float32(275)  # of full light, never 0


@dataclass(frozen=True, kw_only=True)
class Pixels(Config):
    """The properties of a camera's pixels, by default v2e's.

    Attributes:
        threshold, mismatch: mean and standard deviation of the change of log intensity that is
            worth an event, drawn for each pixel and direction, at least 0.01.
        cutoff_hz: of a pixel in full light; it is slower in the dark. Infinite for no filter.
        leak_hz: ON events a second of a pixel at rest.
        shot_hz: noise events a second of a dark pixel; a quarter of that in full light.
        refractory_s: after an event, until the pixel's next one.
        seed: of thresholds and noise.

    Raises:
        InputError: a negative number, or hardly a threshold.
    """

    threshold: float = 0.2
    mismatch: float = 0.03
    cutoff_hz: float = 300.0
    leak_hz: float = 0.01
    shot_hz: float = 0.001
    refractory_s: float = 0.0005
    seed: int = 0

    def __post_init__(self):
        numbers = [x for name, x in vars(self).items() if name != "cutoff_hz"]
        fine = all(0 <= x <= 1e9 for x in numbers) and self.cutoff_hz >= 0
        if not fine or self.threshold < 0.01 or self.leak_hz > 1e3:
            raise InputError(
                f"{self}: give numbers of 0 or more, a threshold from 0.01, a leak up to 1000 Hz"
            )


PRESETS = {
    "default": Pixels(),
    "clean": Pixels(mismatch=0.02, cutoff_hz=math.inf, leak_hz=0.0, shot_hz=0.0),
    "noisy": Pixels(mismatch=0.05, cutoff_hz=30.0, leak_hz=0.1, shot_hz=5.0),
}


class Simulator(Stateful):
    """A camera by v2e's model (Hu, Liu and Delbruck 2021, CVPR Workshops, 1312): frames to events.

    The low-passed logarithm of the light (linear up to 20) is compared with what the pixel sent
    last; each threshold between them is an event, spread evenly since the frame before. Nothing is
    interpolated: what moves by more than about a pixel a frame jumps.

    Args:
        width, height: of the frames.
        pixels: as `Pixels`, as a mapping of its options, or one of `PRESETS`.

    Attributes:
        labels: [E] bool of the last packet: False for shot noise, and where the light alone,
            without the leak, would not have reached the threshold.

    Raises:
        InputError: more than 2^24 pixels or 65,535 in a row, or no such preset.
    """

    STATE = "_pixels", "_fired", "_clock"

    def __init__(
        self, width: int, height: int, pixels: Pixels | Mapping[str, float] | str = "clean"
    ):
        if not (1 <= width <= 65535 and 1 <= height <= 65535 and width * height <= LARGEST):
            raise InputError(f"Simulator: {width} x {height}; give 1 to {LARGEST:,} pixels")
        if isinstance(pixels, str) and pixels not in PRESETS:
            raise InputError(f"Simulator: no pixels {pixels!r}; there are {', '.join(PRESETS)}")
        if isinstance(pixels, Mapping):  # of a configuration
            pixels = Pixels.from_dict(dict(pixels))
        self.config = PRESETS[pixels] if isinstance(pixels, str) else pixels
        self.width, self.height, size = width, height, width * height
        draws = np.random.default_rng(self.config.seed).normal(size=(2, size))
        # thresholds ON and OFF, light, what was sent, and how far that has leaked since
        self._pixels = np.zeros((5, size), np.float32)
        self._pixels[:2] = np.maximum(self.config.threshold + self.config.mismatch * draws, 0.01)
        self._fired = np.full(size, -LATEST)
        self._clock = np.array([0, -LATEST])  # frames so far, and when the last one was
        self.labels = np.empty(0, bool)

    def events(self, frame: np.ndarray, t: int) -> np.ndarray:
        """Return the events between the frame before and this one; none for the first.

        Args:
            frame: [height, width] uint8.
            t: when it was taken, in microseconds.

        Raises:
            InputError: another frame, or a time that is not after the last.
        """
        count, past = (int(x) for x in self._clock)
        if frame.shape != (self.height, self.width) or frame.dtype != np.uint8:
            raise InputError(f"Simulator: {frame.dtype} {frame.shape} is no uint8 of its size")
        if not past < t <= LATEST:
            raise InputError(f"Simulator: frame {count} at {t} us, the one before at {past} us")
        self._clock, levels, dt = np.array([count + 1, t]), frame.ravel(), t - past
        if not count:
            self._pixels[2:4], self.labels = LOG[levels], np.empty(0, bool)
            return np.empty(0, EVENT)
        config, seconds = self.config, np.float32(min(dt * 1e-6, LONGEST_S))
        steps = np.empty(levels.size, np.int32)
        speed = np.float32(2 * math.pi * config.cutoff_hz) * seconds
        leak = np.float32(config.leak_hz) * seconds
        most = _compare(levels, LOG, SHARE, speed, leak, self._pixels, steps)
        shot, draws = min(config.shot_hz / 2 * float(seconds), 0.5), np.empty(0, np.float32)
        if shot:
            draws = np.random.default_rng([config.seed, count]).random(levels.size, np.float32)
            most += np.count_nonzero((draws < shot) | (draws > 1 - shot))
        out, refractory = np.empty((4, most), np.int64), round(config.refractory_s * 1e6)
        chance = np.float32(shot) * (1 - np.float32(0.75) * SHARE)
        times = past, dt, refractory
        size = _fire(levels, steps, draws, chance, times, self._pixels, self._fired, out)
        short = out[0, :size].astype(np.min_scalar_type(dt))  # 16 bits are sorted by digits
        late, place, p, label = out[:, np.argsort(short, kind="stable")]
        self.labels = label.astype(bool)
        return events(past + late, place % self.width, place // self.width, p)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compare(levels, logs, shares, speed, leak, pixels, steps):
    """Advance light and leak, and write to `steps` the thresholds each pixel is away; their sum."""
    on, off, light, sent, leaked = pixels
    total = 0
    for i in range(len(levels)):
        eps = min(shares[levels[i]] * speed, np.float32(1))
        light[i] = (np.float32(1) - eps) * light[i] + eps * logs[levels[i]]
        sent[i] -= leak * on[i]
        leaked[i] += leak * on[i]
        change = light[i] - sent[i]
        theta = on[i] if change > 0 else off[i]
        reached = np.int32(abs(change) / theta + SLACK)
        steps[i] = reached if change > 0 else -reached
        total += reached
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fire(levels, steps, draws, chance, times, pixels, fired, out):
    """Write time since the last frame, place, p and label of each event; their number."""
    on, off, light, sent, leaked = pixels
    late, place, ps, labels = out
    past, dt, refractory = times
    count = 0
    for i in range(len(steps)):
        n, p = abs(steps[i]), steps[i] > 0
        change = light[i] - sent[i] - leaked[i]
        for k in range(1, n + 1):
            after = int(dt * (k / n))
            if past + after - fired[i] > refractory:
                late[count], place[count], ps[count] = after, i, p
                labels[count] = not p or change / on[i] + SLACK >= k
                fired[i], leaked[i], count = past + after, 0, count + 1
                sent[i] += on[i] if p else -off[i]
        if len(draws):
            p = draws[i] > 0.5
            u = (1 - draws[i] if p else draws[i]) / chance[levels[i]]
            if u < 1 and past + int(dt * u) - fired[i] > refractory:
                late[count], place[count], ps[count], labels[count] = int(dt * u), i, p, False
                fired[i], sent[i], leaked[i] = past + int(dt * u), light[i], 0
                count += 1
    return count


class Video:
    """A video file, a folder of pictures, a .npy of frames [T, H, W] uint8, or a camera, as events.

    All but .npy need axonal[video]. A camera that goes away is opened again.

    Args:
        frames: a path, or the number of a camera.
        pixels: of the `Simulator`.
        fps: frames a second; 0 for what a file says, or 30. A camera's bear the time of `clock`.
        clock: nanoseconds.

    Attributes:
        position: the number of the next frame.
        simulator: its `labels` are those of the last packet.
        status: of a camera, in words.

    Raises:
        InputError: as `Simulator`. FileError: it can't be read. MissingExtra: no axonal[video].
    """

    dropped = 0

    def __init__(
        self,
        frames: str | Path | int,
        pixels: Pixels | Mapping[str, float] | str = "clean",
        fps: float = 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ):
        self._frames, self._fps, self._clock = frames, fps, clock
        self.position, self.status, self._closed = 0, "open", threading.Event()
        if (first := next(self._shots(), None)) is None:
            raise FileError(f"{frames}: there are no frames that can be read")
        self.height, self.width = first.shape
        self.simulator = Simulator(self.width, self.height, pixels)

    def __iter__(self) -> Iterator[np.ndarray]:
        live = isinstance(self._frames, int)
        while not self._closed.is_set():
            for frame in self._shots():
                late = self._clock() // 1000 if live else self.position * 1e6 / (self._fps or 30)
                packet, self.status = self.simulator.events(frame, round(late)), "open"
                self.position += 1
                yield packet
                if self._closed.is_set():
                    return
            if not live:
                return
            self.status = "the camera is gone; it is tried again every second"
            self._closed.wait(PAUSE_S)

    def seek(self, position: int) -> None:
        """Go on with that frame, from which the simulator begins, unless it is restored."""
        self.position = position

    def close(self) -> None:
        self._closed.set()

    def _shots(self) -> Iterator[np.ndarray]:
        """Read grey frames from `position` on."""
        path = Path(str(self._frames))
        if path.suffix == ".npy":
            yield from _stack(path)[self.position :]
            return
        cv2 = require("cv2", "video")
        if path.is_dir():
            for name in sorted(path.iterdir())[self.position :]:
                picture = None
                with suppress(cv2.error):  # too large
                    picture = cv2.imread(str(name), cv2.IMREAD_GRAYSCALE)
                if picture is None:
                    raise FileError(f"{name} is no picture that can be read; take it away")
                yield picture
            return
        video = cv2.VideoCapture(self._frames if isinstance(self._frames, int) else str(path))
        try:
            self._fps = self._fps or video.get(cv2.CAP_PROP_FPS)
            video.set(cv2.CAP_PROP_POS_FRAMES, self.position)
            while (read := video.read())[0]:
                yield cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
        finally:
            video.release()


def _stack(path: Path) -> np.ndarray:
    """Map the frames [T, H, W] of a .npy."""
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"can't read {path}: {error}") from error
    if stack.ndim != 3 or stack.dtype != np.uint8:
        raise FileError(f"{path} holds {stack.dtype} {stack.shape}, not uint8 [T, H, W]")
    return stack
