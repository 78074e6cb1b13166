import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from axonal.core.errors import FileError, InputError
from benchmarks.harness import peers


def test_a_worker_answers_and_tells_why_it_died(tmp_path):
    drive = np.zeros((4, 1, 3), np.float32)
    drive[1, 0, 2] = 1.5
    np.save(tmp_path / "x.npy", drive)
    with peers.worker("axonal", tmp_path, threads=1) as peer:
        assert peer.ask(do="run", x=str(tmp_path / "x.npy"), out=str(tmp_path / "s.npz"))["rate"]
        assert np.load(tmp_path / "s.npz")["spikes"].nonzero() == (1, 0, 2)
        size = {"n": 4, "steps": 3, "batch": 2}
        for what in ("layer", "linear", "neuron", "copy"):
            (seconds,) = peer.ask(do="time", what=what, **size)["seconds"]
            assert seconds > 0
        with pytest.raises(FileError, match=r"worker of axonal died .* (TypeError|missing)"):
            peer.ask(do="time", what="layer")
        with pytest.raises(FileError, match="died"):
            peer.ask(do="time", what="layer", **size)


def test_peers_are_compared_by_spikes_and_gradients(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(0.3, 1, (9, 2, 5)).astype("f4"))
    with peers.worker("axonal", tmp_path, 1) as a, peers.worker("axonal", tmp_path, 1) as b:
        b.name = "other"

        def beside(own, variant):
            return peers.compare(a, b, tmp_path, tmp_path / "x.npy", own, variant)

        same, other = beside("bench", "bench"), beside("bench of norse", "bench")
        late = beside("spyx lif", "bench")
    assert same["equal"] == 1 and same["gradient"] == 0 and same["spikes"] > 0
    assert other["equal"] == 1 and other["gradient"] > 0.01
    assert late["equal"] < 1


def test_a_peer_of_no_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="no peer 'brian'; there are snntorch"):
        peers.interpreter("brian", tmp_path)


def test_an_environment_that_fails_leaves_no_stamp(monkeypatch, tmp_path):
    monkeypatch.setattr(peers.venv, "create", lambda folder, **_: None)

    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no such package\n")

    monkeypatch.setattr(peers.subprocess, "run", refuse)
    with pytest.raises(FileError, match=r"can't install norse .* no such package"):
        peers.interpreter("norse", tmp_path)
    assert not list(tmp_path.rglob(".complete"))


def test_an_environment_is_set_up_once(monkeypatch, tmp_path):
    folders = []
    monkeypatch.setattr(peers.venv, "create", lambda folder, **_: folders.append(folder))
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: done)
    assert peers.interpreter("norse", tmp_path) == peers.interpreter("norse", tmp_path)
    assert folders == [tmp_path / "norse"] and peers.interpreter("axonal", tmp_path) == Path(
        sys.executable
    )
