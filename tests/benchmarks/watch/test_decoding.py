"""The bench of readers: recordings made longer, and proofs that refuse."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from axonal.core.errors import FileError, InputError
from axonal.sense.formats import open_file
from axonal.sense.stream import events
from benchmarks.harness.recordings import save
from benchmarks.watch import decoding

COUNT = 300


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    t = np.arange(COUNT) * 50 + 10
    packet = events(t, np.arange(COUNT) % 34, np.arange(COUNT) % 7, np.arange(COUNT) % 2)
    folder = tmp_path / decoding.FOLDER
    save(folder / "faery_evt2.raw", [packet], 34, 34)
    words = np.stack([8 << 12 | t >> 12, 6 << 12 | t % 4096, packet["y"], 2 << 12 | packet["x"]], 1)
    head = b"% evt 3.0\n% geometry 34x34\n% end\n"
    (folder / "expelliarmus_evt3.raw").write_bytes(head + words.astype("<u2").tobytes())
    (folder / "tonic_sample.aedat4").write_bytes(b"")
    digits = tmp_path / decoding.DIGITS
    digits.mkdir(parents=True)
    rows = [bytes((1, 2, 0, time >> 8, time & 255)) for time in (5, 40_000)]
    (digits / "1.bin").write_bytes(b"".join(rows))
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    monkeypatch.setattr(decoding, "EVENTS", 5 * COUNT)
    return tmp_path


class Fake:
    def __init__(self, name, late=0):
        self.name, self.late = name, late

    def ask(self, *, do, file, out=None, times=0, watch=False):
        if times:
            Path(out).write_bytes(b"")
        elif out:
            read = np.concatenate(list(open_file(file)))
            columns = {name: read[name].astype(np.int64) for name in "xyp"}
            np.savez(out, **columns, t=read["t"] + self.late)
        elif not watch and not file.endswith(".aedat4"):
            return {"events": sum(map(len, open_file(file))), "seconds": 1e-3}
        return {"grew": 5_000_000, "events": 7, "seconds": 1e-6}


def stand_in(monkeypatch, late=0):
    @contextmanager
    def worker(name, root, threads):
        yield Fake(name, late if name == "faery" else 0)

    monkeypatch.setattr(decoding.peers, "worker", worker)


def test_figures_of_what_workers_say(recordings, monkeypatch, tmp_path):
    stand_in(monkeypatch)
    figures = decoding.figures(2, tmp_path)
    assert figures["evt2_mev_s"] == {"value": 1.5, "low": 1.5, "high": 1.5}
    assert figures["nmnist_mev_s"]["value"] == 1.5 and figures["evt3_vs_faery"]["value"] == 1
    assert figures["dv-processing_aedat4_mev_s"]["value"] == 7 and figures["decode_hour_mb"] == 5


def test_an_hour_is_an_hour(recordings, tmp_path):
    path = decoding._long(recordings / decoding.FOLDER / "faery_evt2.raw", tmp_path, "evt2")
    t = np.concatenate(list(open_file(path)))["t"]
    assert len(t) == 5 * COUNT and t[-1] - t[0] == pytest.approx(3.6e9 * 4 / 5, rel=1e-4)


def test_other_events_or_missing_recordings_are_refused(recordings, monkeypatch, tmp_path):
    stand_in(monkeypatch, late=1)
    with pytest.raises(InputError, match=r"faery reads other events in .*evt2"):
        decoding.figures(1, tmp_path)
    (recordings / decoding.FOLDER / "faery_evt2.raw").unlink()
    with pytest.raises(FileError, match=r"faery_evt2\.raw is missing"):
        decoding.figures(1, tmp_path)
