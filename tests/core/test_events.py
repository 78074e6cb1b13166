import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from axonal.core.errors import InputError
from axonal.core.events import Events


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
        elements=st.sampled_from([0.0, 0.0, 1.0, -2.5]),
    )
)
def test_dense_to_events_and_back(dense):
    events = Events.from_dense(dense)
    assert len(events) == np.count_nonzero(dense)
    np.testing.assert_array_equal(events.to_dense(), dense)


def test_events_at_one_place_and_time_add_up():
    events = Events(np.array([1, 1]), np.array([2, 2]), np.array([0.5, 1.0]), (2, 3))
    assert events.to_dense().tolist() == [[0, 0, 0], [0, 0, 1.5]]


def test_no_events_at_all():
    nothing = np.array([], np.int64)
    assert Events(nothing, nothing, nothing, (0, 4)).to_dense().shape == (0, 4)


@pytest.mark.parametrize(
    ("t", "address", "value", "shape", "message"),
    [
        ([0], [0, 1], [1], (2, 2), "lengths"),
        ([], [], [], (), "dense shape"),
        ([], [], [], (2, -1), "dense shape"),
        ([1, 0], [0, 0], [1, 1], (2, 2), "backwards"),
        ([2], [0], [1], (2, 2), "outside"),
        ([-1], [0], [1], (2, 2), "outside"),
        ([0], [4], [1], (2, 2, 2), "outside"),
        ([0], [-1], [1], (2, 2), "outside"),
    ],
)
def test_what_does_not_fit_is_refused(t, address, value, shape, message):
    with pytest.raises(InputError, match=message):
        Events(np.array(t), np.array(address), np.array(value), shape)


def test_a_number_has_no_time_axis():
    with pytest.raises(InputError, match="time axis"):
        Events.from_dense(np.array(1.0))
