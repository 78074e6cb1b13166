from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError
from axonal.sense import checkpoint

STATE = {
    "a": {"v": np.arange(6.0).reshape(2, 3), "n": 3, "f": float("inf"), "s": "x", "none": None},
    "b": np.zeros((0, 4), np.uint8),
    "flag": np.bool_(True),
    "list": [1, 2.5],
}


def test_a_state_survives(tmp_path):
    checkpoint.write(tmp_path / "s", STATE)
    state = checkpoint.read(tmp_path / "s")
    np.testing.assert_array_equal(state["a"]["v"], STATE["a"]["v"])
    assert state["b"].shape == (0, 4) and state["b"].dtype == np.uint8
    assert (state["flag"], state["list"]) == (True, [1, 2.5])
    rest = {k: v for k, v in state["a"].items() if k != "v"}
    assert rest == {"n": 3, "f": float("inf"), "s": "x", "none": None}


@given(st.binary(max_size=200))
def test_noise_is_refused(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(noise)
    with pytest.raises(FileError, match="can't go on from"):
        checkpoint.read(path)


@given(st.data())
def test_a_damaged_state_is_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "state"
    checkpoint.write(path, STATE)
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content) - 1))
    content[cut] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([cut, len(content)]))]))
    with suppress(FileError):
        checkpoint.read(path)


def test_keys_of_version_1_are_renamed_and_a_newer_version_is_refused(tmp_path, monkeypatch):
    old = {"judge-0": {"limit": {"told": 3}}, "watch": {"taken": 1, "tally": {"kept": 2}}}
    new = {"trigger-0": {"limit": {"count": 3}}, "watch": {"offset": 1, "tally": {"events_out": 2}}}
    for version, state in (("1", new), ("2", old)):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "VERSION", version)
            checkpoint.write(tmp_path / "s", old)
        assert checkpoint.read(tmp_path / "s") == state
    monkeypatch.setattr(checkpoint, "VERSION", "3")
    checkpoint.write(tmp_path / "s", new)
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"version 3.*remove it"):
        checkpoint.read(tmp_path / "s")


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(FileError, match="remove it"):
        checkpoint.read(tmp_path / "none")
