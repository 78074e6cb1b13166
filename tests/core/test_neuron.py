import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.kinds import AdEx, BalancedResonate, Delta, Izhikevich, Leaky, Resonate
from axonal.core.neuron import Dynamics, decay_from_tau

KINDS = pytest.mark.parametrize("kind", Dynamics.KINDS.values(), ids=lambda kind: kind.__name__)


@KINDS
def test_every_kind_survives_a_dictionary(kind):
    neuron = kind()
    assert Dynamics.from_dict(neuron.to_dict()) == kind.from_dict(kind.to_dict(neuron)) == neuron
    assert len(neuron.rest) == neuron.state_size == len(neuron.names)


@given(
    st.sampled_from(["binary", "integer"]),
    st.floats(0, 1),
    st.floats(1e-3, 10),
    st.sampled_from(["subtract", "zero", "late", "none"]),
    st.booleans(),
)
def test_values_survive_a_dictionary(emit, decay, threshold, reset, detach):
    neuron = Leaky(emit=emit, decay=decay, threshold=threshold, reset=reset, detach_reset=detach)
    assert Dynamics.from_dict(neuron.to_dict()) == neuron


def test_refractory_neurons_carry_how_long_they_wait():
    assert Leaky(refractory=3).names == ("v", "wait")
    assert Izhikevich(refractory=1).rest == (-65.0, -13.0, 0.0)


@given(st.floats(0.1, 1e4), st.floats(1e-3, 10))
def test_decay_from_tau_halves_like_an_exponential(tau, dt):
    decay = decay_from_tau(tau, dt)
    assert 0 <= decay <= 1
    assert decay**2 == pytest.approx(decay_from_tau(tau, 2 * dt), rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Dynamics, {}, "choose a kind: Leaky"),
        (Leaky, {"emit": "quaternary"}, "not one of binary, ternary"),
        (Leaky, {"reset": "hard"}, "not one of subtract, zero, late, none"),
        (Izhikevich, {"reset": "subtract"}, "not one of zero"),
        (Leaky, {"decay": -0.1}, "outside"),
        (Leaky, {"decay": 1.1}, "outside"),
        (Leaky, {"decay": math.nan}, "finite"),
        (Leaky, {"threshold": 0.0}, "above 0"),
        (Leaky, {"threshold": math.nan}, "finite"),
        (Leaky, {"threshold": math.inf}, "finite"),
        (Leaky, {"gain": math.nan}, "finite"),
        (Leaky, {"levels": 0}, "0 levels"),
        (Leaky, {"levels": 2}, "2 levels with binary"),
        (Leaky, {"refractory": -1}, "-1 refractory"),
        (Leaky, {"emit": "graded", "reset": "zero"}, "subtract it"),
        (Leaky, {"emit": "membrane"}, "give it reset .none."),
        (Leaky, {"emit": "membrane", "reset": "none", "refractory": 1}, "no spikes"),
        (Delta, {"threshold": -1.0}, "at least 0"),
        (Delta, {"emit": "integer"}, "leave emit"),
        (Delta, {"negative_slope": 2.0}, "outside"),
        (AdEx, {"tau": 0.0}, "tau 0.0 must be above 0"),
        (Izhikevich, {"dt": -1.0}, "dt -1.0 must be above 0"),
    ],
)
def test_what_has_no_meaning_is_refused(kind, values, message):
    with pytest.raises(InputError, match=message):
        kind(**values)


@pytest.mark.parametrize("values", [{}, {"kind": "Hodgkin"}, [], {"kind": "Leaky", "tau": 3}])
def test_a_dictionary_of_something_else_is_refused(values):
    with pytest.raises(InputError, match="unknown"):
        Dynamics.from_dict(values)


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_time_constants_are_positive(tau, dt):
    with pytest.raises(InputError, match="must be above 0"):
        decay_from_tau(tau, dt)


def test_resonators_from_their_frequency():
    neuron = Resonate.at(omega=0.3, damping=0.1, dt=2.0)
    assert (neuron.cosine, neuron.sine) == (math.cos(0.6), math.sin(0.6))
    assert neuron.decay == math.exp(-0.2)
    with pytest.raises(InputError, match="damping"):
        Resonate.at(omega=0.3, damping=-0.1)
    with pytest.raises(InputError, match="omega"):
        BalancedResonate.at(omega=200.0)


class Numbers:
    """The algebra of plain numbers: equations need neither torch nor a compiler."""

    exp, floor = staticmethod(np.exp), staticmethod(np.floor)

    def where(self, condition, yes, no):
        return yes if condition else no

    def hold(self, x):
        return x

    def through(self, value, gradient):
        return value

    def surrogate(self, x):
        return 0.0


@KINDS
def test_equations_run_on_plain_numbers(kind):
    from types import SimpleNamespace

    neuron = kind()
    s, state = neuron.step(Numbers(), 0.0, neuron.rest, SimpleNamespace(**neuron.constants()))
    assert s == 0 and len(state) == neuron.state_size
