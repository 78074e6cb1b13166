import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.neuron import Dynamics


@given(
    st.sampled_from(["binary", "integer"]),
    st.floats(0, 1),
    st.floats(1e-3, 10),
    st.sampled_from(["subtract", "zero", "none"]),
    st.booleans(),
)
def test_survives_a_dictionary(emit, decay, threshold, reset, detach):
    neuron = Dynamics(emit=emit, decay=decay, threshold=threshold, reset=reset, detach_reset=detach)
    assert Dynamics.from_dict(neuron.to_dict()) == neuron
    assert neuron.state_size == 1


def test_a_delta_neuron_remembers_what_it_sent():
    assert Dynamics(emit="delta", reset="none", threshold=0.0).state_size == 2


@given(st.floats(0.1, 1e4), st.floats(1e-3, 10))
def test_decay_from_tau_halves_like_an_exponential(tau, dt):
    decay = Dynamics.decay_from_tau(tau, dt)
    assert 0 <= decay <= 1
    assert decay**2 == pytest.approx(Dynamics.decay_from_tau(tau, 2 * dt), rel=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"emit": "ternary"}, "not binary, integer or delta"),
        ({"reset": "hard"}, "not subtract, zero or none"),
        ({"decay": -0.1}, "outside"),
        ({"decay": 1.1}, "outside"),
        ({"decay": math.nan}, "outside"),
        ({"threshold": 0.0}, "above 0"),
        ({"threshold": math.nan}, "above 0"),
        ({"threshold": math.inf}, "finite"),
        ({"gain": math.nan}, "finite"),
        ({"emit": "delta", "reset": "none", "threshold": -1.0}, "above 0"),
        ({"levels": 0}, "0 levels"),
        ({"levels": 2}, "2 levels with binary"),
        ({"emit": "delta"}, "keeps its sum"),
    ],
)
def test_what_has_no_meaning_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Dynamics(**values)


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_time_constants_are_positive(tau, dt):
    with pytest.raises(InputError, match="must be above 0"):
        Dynamics.decay_from_tau(tau, dt)
