import numpy as np
import pytest

from axonal.core.errors import InputError
from axonal.sense import checkpoint
from axonal.sense.stream import Remembering, channels_of, columns, events, rows, sampled

EVENTS = events([1, 5], [2, 3], [0, 4], [1, 0])


class Inner(Remembering):
    KEPT = ("n",)

    def __init__(self, n=0):
        self.n = n


class Outer(Remembering):
    KEPT = ("array", "later", "packet", "number", "many", "inner")

    def __init__(self, size=3):
        self.array, self.later, self.packet = np.zeros(size), np.empty((2, 0)), EVENTS[:0]
        self.number, self.many, self.inner = 0.5, [], Inner()


def used():
    one = Outer()
    one.array[:], one.later, one.packet = 1.0, np.ones((2, 4)), EVENTS
    one.number, one.many, one.inner.n = 2.5, [1.5, 2.5], 7
    return one


def test_what_is_kept_survives_a_file_and_is_nobody_else_s(tmp_path):
    one, other = used(), Outer()
    checkpoint.write(tmp_path / "s", one.state())
    other.restore(checkpoint.read(tmp_path / "s"))
    assert (other.number, other.many, other.inner.n) == (2.5, [1.5, 2.5], 7)
    np.testing.assert_array_equal(other.packet, EVENTS)
    np.testing.assert_array_equal(other.later, one.later)
    state = one.state()
    one.array[0], one.many[0] = 9, 9
    assert state["array"][0] == 1 and state["many"][0] == 1.5
    one.restore(Outer().state())  # back to the beginning, when less was known
    assert one.later.shape == (2, 0) and not len(one.packet)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"array": np.zeros(4)}, "Outer: the state's array doesn't fit"),
        ({"array": np.zeros(3, np.float32)}, "array doesn't fit"),
        ({"array": np.zeros((3, 1))}, "array doesn't fit"),
        ({"later": np.zeros((3, 4))}, "later doesn't fit"),
        ({"packet": sampled(np.zeros(2), np.zeros((2, 3)))}, "packet doesn't fit"),
        ({"more": 1}, "a state has array, .*; begin anew, or use the Outer that wrote it"),
    ],
)
def test_a_state_of_another_kind_is_refused_and_changes_nothing(change, said):
    one = Outer()
    with pytest.raises(InputError, match=said):
        one.restore(used().state() | change)
    assert one.number == 0.5 and not one.many and not one.array.any()


def test_packets_are_taken_apart_and_put_together():
    packet = sampled(np.array([3, 9]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (channels_of(packet), channels_of(EVENTS)) == (2, 0)
    for one in (packet, EVENTS):
        again = rows(columns(one))
        assert again.dtype == one.dtype and (again == one).all()
