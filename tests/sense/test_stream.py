import numpy as np
import pytest

from axonal.core.errors import InputError
from axonal.sense import checkpoint
from axonal.sense.stream import Stateful, channels_of, columns, events, rows, samples

EVENTS = events([1, 5], [2, 3], [0, 4], [1, 0])


class Inner(Stateful):
    STATE = ("n",)

    def __init__(self, n=0):
        self.n = n


class Outer(Stateful):
    STATE = ("array", "later", "packet", "number", "many", "inner")

    def __init__(self, size=3):
        self.array, self.later, self.packet = np.zeros(size), np.empty((2, 0)), EVENTS[:0]
        self.number, self.many, self.inner = 0.5, [], Inner()


def used():
    stage = Outer()
    stage.array[:], stage.later, stage.packet = 1.0, np.ones((2, 4)), EVENTS
    stage.number, stage.many, stage.inner.n = 2.5, [1.5, 2.5], 7
    return stage


def test_a_state_survives_a_file_and_is_a_copy(tmp_path):
    stage, other = used(), Outer()
    checkpoint.write(tmp_path / "s", stage.state())
    other.restore(checkpoint.read(tmp_path / "s"))
    assert (other.number, other.many, other.inner.n) == (2.5, [1.5, 2.5], 7)
    np.testing.assert_array_equal(other.packet, EVENTS)
    np.testing.assert_array_equal(other.later, stage.later)
    state = stage.state()
    stage.array[0], stage.many[0] = 9, 9
    assert state["array"][0] == 1 and state["many"][0] == 1.5
    stage.restore(Outer().state())  # back to the beginning, when less was known
    assert stage.later.shape == (2, 0) and not len(stage.packet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array": np.zeros(4)}, "Outer: the state's array doesn't fit"),
        ({"array": np.zeros(3, np.float32)}, "array doesn't fit"),
        ({"array": np.zeros((3, 1))}, "array doesn't fit"),
        ({"later": np.zeros((3, 4))}, "later doesn't fit"),
        ({"packet": samples(np.zeros(2), np.zeros((2, 3)))}, "packet doesn't fit"),
        ({"more": 1}, "a state has array, .*; begin anew, or use the Outer that wrote it"),
    ],
)
def test_a_state_of_another_kind_is_refused_and_changes_nothing(change, message):
    stage = Outer()
    with pytest.raises(InputError, match=message):
        stage.restore(used().state() | change)
    assert stage.number == 0.5 and not stage.many and not stage.array.any()


def test_packets_are_taken_apart_and_put_together():
    packet = samples(np.array([3, 9]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (channels_of(packet), channels_of(EVENTS)) == (2, 0)
    for one in (packet, EVENTS):
        again = rows(columns(one))
        assert again.dtype == one.dtype and (again == one).all()
