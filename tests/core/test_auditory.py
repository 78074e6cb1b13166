import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core import auditory


def erb(f):
    return 24.7 * (0.00437 * f + 1)


@given(st.floats(20, 1000), st.floats(1.1, 20), st.integers(2, 64))
def test_neighbours_are_equally_many_bandwidths_apart(low, ratio, count):
    centres = auditory.centres(low, low * ratio, count)
    assert (centres[0], centres[-1]) == pytest.approx((low, low * ratio))
    steps = np.diff(np.log(centres + 1 / 0.00437))
    np.testing.assert_allclose(steps, steps[0])


def test_widths_are_those_of_the_papers():
    assert auditory.bandwidths(np.array([1000.0]))[0] == pytest.approx(1.019 * 132.639, rel=1e-6)
    f = np.linspace(100, 8000, 200_001)
    passed = np.sum((f[1] - f[0]) / erb(f))  # bandwidths from 100 to 8000 Hz, by integration
    count = 21.4 * np.log10((1 + 0.00437 * 8000) / (1 + 0.00437 * 100))
    assert passed == pytest.approx(count, rel=5e-3)
