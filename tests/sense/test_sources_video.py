"""Frames into events: the compiled pixels and their equations; videos, folders, cameras."""

import math
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.sources import Pixels, Simulator, Video, video
from axonal.sense.stream import EVENT

F = np.float32
PIXELS = {
    **video.PRESETS,
    "rough": Pixels(cutoff_hz=100, leak_hz=20.0, shot_hz=40.0, refractory_s=0.008, seed=5),
}


class Reference:
    """The equations of `Simulator`, a pixel and an event at a time."""

    def __init__(self, width, height, pixels):
        draws = np.random.default_rng(pixels.seed).normal(size=(2, width * height))
        self.on, self.off = np.maximum(pixels.threshold + pixels.mismatch * draws, 0.01).astype(F)
        self.pixels, self.width, self.frames = pixels, width, 0

    def events(self, frame, t):
        """(t, x, y, p, label) of each event."""
        level = frame.ravel().astype(F)
        log = np.where(level <= 20, level * F(math.log(20) / 20), np.log(np.maximum(level, 1)))
        rows, self.frames = [], self.frames + 1
        if self.frames == 1:
            self.light, self.sent, self.t = log, log.copy(), t
            self.leaked, self.fired = np.zeros_like(log), np.full(log.size, -math.inf)
            return rows
        dt, past, self.t = t - self.t, self.t, t
        seconds, share = F(min(dt * 1e-6, 1.0)), (level + 20) / F(275)
        eps = np.minimum(share * (F(2 * math.pi * self.pixels.cutoff_hz) * seconds), F(1))
        self.light = (F(1) - eps) * self.light + eps * log
        leak = F(self.pixels.leak_hz) * seconds * self.on
        self.sent, self.leaked = self.sent - leak, self.leaked + leak
        change, moved = self.light - self.sent, self.light - self.sent - self.leaked
        shot = min(self.pixels.shot_hz / 2 * float(seconds), 0.5)
        chance = F(shot) * (1 - F(0.75) * share)
        rng = np.random.default_rng([self.pixels.seed, self.frames - 1])
        draws = rng.random(log.size, F) if shot else np.full(log.size, F(0.5))
        for i in range(log.size):
            up = change[i] > 0
            theta = self.on[i] if up else -self.off[i]
            n = math.floor(change[i] / theta + video.SLACK)
            for k in range(1, n + 1):
                label = not up or moved[i] / theta + video.SLACK >= k
                if self.fire(i, past + int(dt * (k / n)), up, label, rows):
                    self.sent[i] += theta
            if shot:
                up = draws[i] > 0.5
                u = float(1 - float(draws[i]) if up else draws[i]) / float(chance[i])
                if u < 1 and self.fire(i, past + int(dt * u), up, False, rows):
                    self.sent[i] = self.light[i]
        return sorted(rows, key=lambda event: event[0])

    def fire(self, i, t, up, label, rows):
        if t - self.fired[i] <= round(self.pixels.refractory_s * 1e6):
            return False
        self.fired[i], self.leaked[i] = t, 0
        rows.append((t, i % self.width, i // self.width, int(up), bool(label)))
        return True


def moving(count, width, height, seed):
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height, width + count)).astype(np.uint8)
    return [scene[:, i : i + width] for i in range(count)]


@pytest.mark.parametrize("name", PIXELS)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 7), st.integers(50, 2_000_000))
def test_the_compiled_pixels_are_the_equations(name, seed, width, height, step):
    camera, reference = (make(width, height, PIXELS[name]) for make in (Simulator, Reference))
    for i, frame in enumerate(moving(4, width, height, seed)):
        t = i * step - 10**6
        packet, expected = camera.events(frame, t), reference.events(frame, t)
        rows = [(*map(int, e), bool(s)) for e, s in zip(packet, camera.labels, strict=True)]
        assert rows == expected
        assert ((packet["t"] >= t - step) & (packet["t"] <= t)).all()


def test_a_restored_simulator_goes_on():
    frames = moving(6, 12, 8, 1)
    first = Simulator(12, 8, "noisy")
    for i, frame in enumerate(frames[:3]):
        first.events(frame, 10_000 * i)
    second = Simulator(12, 8, "noisy")
    second.restore(first.state())
    for i, frame in enumerate(frames[3:], 3):
        np.testing.assert_array_equal(*(s.events(frame, 10_000 * i) for s in (first, second)))
    with pytest.raises(InputError, match="doesn't fit"):
        Simulator(12, 9).restore(first.state())


def test_a_constant_scene_is_silent_and_noise_is_labelled():
    frame = np.full((40, 50), 30, np.uint8)
    clean, noisy = Simulator(50, 40, "clean"), Simulator(50, 40, "noisy")
    noise = 0
    for i in range(100):
        assert len(clean.events(frame, 10_000 * i)) == 0
        noise += len(noisy.events(frame, 10_000 * i))
        assert not noisy.labels.any()
    rate = noise / (50 * 40 * 0.99)
    expected = 5.0 * (1 - 0.75 * 50 / 275) + 0.1
    assert abs(rate - expected) < 0.15 * expected


def test_a_long_pause_is_bounded():
    camera = Simulator(30, 20, "noisy")
    frame = np.full((20, 30), 100, np.uint8)
    camera.events(frame, 0)
    assert len(camera.events(frame, 1 << 59)) < 5 * 600


def test_light_is_signal_and_its_thresholds_are_counted():
    camera = Simulator(100, 10, Pixels(mismatch=0.0, cutoff_hz=math.inf, leak_hz=0, shot_hz=0))
    camera.events(np.full((10, 100), 40, np.uint8), 0)
    up = camera.events(np.full((10, 100), 100, np.uint8), 100_000)
    assert len(up) == 1000 * 4 and up["p"].all() and camera.labels.all()  # ln(100/40) = 4.58 x 0.2
    assert np.unique(up["t"]).tolist() == [25_000, 50_000, 75_000, 100_000]
    down = camera.events(np.full((10, 100), 40, np.uint8), 200_000)
    assert len(down) == 1000 * 4 and not down["p"].any()


def test_bars_that_pass_again_and_again_are_balanced():
    camera, polarities = Simulator(64, 16, "clean"), []
    for i in range(240):
        frame = np.full((16, 64), 60, np.uint8)
        frame[:, (np.arange(6) + i) % 64] = 200
        polarities.append(camera.events(frame, 10_000 * i)["p"])
    p = np.concatenate(polarities[64:])
    assert len(p) > 20_000 and 0.97 < p.mean() / (1 - p.mean()) < 1.03


BLACK = np.zeros((2, 2), np.uint8)
ABSURD = {
    "huge": (lambda: Simulator(1 << 20, 1 << 20), "give 1 to"),
    "empty": (lambda: Simulator(0, 5), "give 1 to"),
    "preset": (lambda: Simulator(5, 5, "dirty"), "there are default, clean, noisy"),
    "threshold": (lambda: Pixels(threshold=0.0), "threshold"),
    "negative": (lambda: Pixels(leak_hz=-1.0), "0 or more"),
    "nan": (lambda: Pixels(shot_hz=math.nan), "0 or more"),
    "floats": (lambda: Simulator(2, 2).events(BLACK.astype(float), 0), "uint8"),
    "shape": (lambda: Simulator(3, 2).events(BLACK, 0), "uint8"),
    "late": (lambda: Simulator(2, 2).events(BLACK, 1 << 62), "frame 0"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_options_are_refused(name):
    make, message = ABSURD[name]
    with pytest.raises(InputError, match=message):
        make()


def test_frames_must_go_on_in_time():
    camera = Simulator(2, 2)
    camera.events(np.zeros((2, 2), np.uint8), 5)
    with pytest.raises(InputError, match="the one before at 5 us"):
        camera.events(np.zeros((2, 2), np.uint8), 5)


def rows(source):
    return np.concatenate([np.empty(0, EVENT), *source])


@pytest.fixture
def stack():
    return np.stack(moving(8, 32, 24, 3))


def test_npy_and_pictures_give_the_same_events(stack, tmp_path):
    np.save(tmp_path / "clip.npy", stack)
    (tmp_path / "clip").mkdir()
    for i, frame in enumerate(stack):
        cv2.imwrite(str(tmp_path / "clip" / f"{i:03}.png"), frame)
    stacked, pictures = (Video(tmp_path / name, fps=100) for name in ("clip.npy", "clip"))
    assert (stacked.width, stacked.height) == (32, 24)
    packet = rows(stacked)
    np.testing.assert_array_equal(packet, rows(pictures))
    assert stacked.position == 8 and packet["t"][-1] <= 70_000 and len(packet) > 1000
    first, later = (Video(tmp_path / "clip.npy", fps=100) for _ in range(2))
    iterator = iter(first)
    before = [next(iterator) for _ in range(5)]
    first.close()
    later.seek(first.position)
    later.simulator.restore(first.simulator.state())
    np.testing.assert_array_equal(rows([*before, *later]), packet)


def test_a_video_file(stack, tmp_path):
    path = str(tmp_path / "clip.avi")
    out = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 50, (32, 24), isColor=False)
    for frame in stack:
        out.write(frame)
    out.release()
    source = Video(path)
    packet = rows(source)
    assert source.position == 8 and len(packet) > 1000 and packet["t"][-1] <= 140_000
    source = Video(path)
    next(iter(source))
    source.close()
    assert list(source) == []


class Camera:
    """A stand-in for cv2.VideoCapture: three frames, then nothing, as often as it is opened."""

    opened = 0

    def __init__(self, number):
        Camera.opened += 1
        self.left = 3

    def get(self, setting):
        return 0.0

    def set(self, setting, value):
        pass

    def read(self):
        self.left -= 1
        frame = np.full((4, 5, 3), 40 * (self.left + 2), np.uint8)
        return (True, frame) if self.left >= 0 else (False, None)

    def release(self):
        pass


def test_a_camera_that_goes_away_is_opened_again(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(video, "PAUSE_S", 0.001)
    ticks = iter(range(0, 10**12, 10**7))
    source, sizes = Video(0, clock=lambda: next(ticks)), []
    before = Camera.opened
    for packet in source:
        sizes.append(len(packet))
        if len(sizes) == 7:
            source.close()
    assert Camera.opened == before + 3 and sum(sizes) > 0 and source.position == 7


def test_files_without_frames_are_refused(tmp_path):
    with pytest.raises(FileError, match="no frames"):
        Video(tmp_path)
    with pytest.raises(FileError, match="no frames"):
        Video(tmp_path / "missing.avi")
    with pytest.raises(FileError, match="can't read"):
        Video(tmp_path / "missing.npy")
    (tmp_path / "empty.npy").touch()
    with pytest.raises(FileError, match="can't read"):
        Video(tmp_path / "empty.npy")
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    with pytest.raises(FileError, match="float64"):
        Video(tmp_path / "flat.npy")


@pytest.mark.parametrize("sides", [0, 3, 100_000])
def test_a_damaged_or_absurd_picture_is_refused(tmp_path, sides, capfd):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", sides, sides, 8, 0, 0, 0, 0))
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"junk"))
    with pytest.raises(FileError, match=r"0\.png"):
        Video(tmp_path)
    capfd.readouterr()  # the decoder's own words


def test_pixels_from_a_configuration():
    assert video.Simulator(4, 4, {"shot_hz": 1.0}).config == video.Pixels(shot_hz=1.0)
    with pytest.raises(InputError, match="unknown field 'shot'"):
        video.Simulator(4, 4, {"shot": 1.0})
