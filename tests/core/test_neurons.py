import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.neurons import (
    RENAMED,
    AdaptiveCurrent,
    AdaptiveThreshold,
    AdEx,
    BalancedResonate,
    Burst,
    Delta,
    Dynamics,
    Izhikevich,
    Leaky,
    Resonate,
    Signed,
    decay_from_tau,
)
from axonal.nn import Neuron
from axonal.ops.scan import reference, scan
from axonal.testing import check_neuron, check_op

KINDS = pytest.mark.parametrize("kind", Dynamics.KINDS.values(), ids=lambda kind: kind.__name__)


@KINDS
def test_every_kind_survives_a_dictionary(kind):
    neuron = kind()
    assert Dynamics.from_dict(neuron.to_dict()) == kind.from_dict(kind.to_dict(neuron)) == neuron
    assert len(neuron.rest) == neuron.state_size == len(neuron.state_names)


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


OLD = {  # what earlier versions wrote, and the same in today's names
    '{"kind": "AdaptiveThreshold", "gain": 2.0, "decay": 0.8, "fade": 0.5, "rise": 0.3}': (
        AdaptiveThreshold(gain=2.0, decay=0.8, rho=0.5, beta=0.3)
    ),
    '{"kind": "AdaptiveCurrent", "decay": 0.8, "fade": 0.5, "couple": 0.2, "kick": 0.7}': (
        AdaptiveCurrent(decay=0.8, beta=0.5, a=0.2, b=0.7)
    ),
    '{"kind": "AdEx", "capacity": 200.0, "leak": 10.0, "rest_potential": -70.0, "onset": -50.0, '
    '"sharpness": 3.0, "tau": 30.0, "couple": 2.0, "kick": 60.0, "back": -58.0, "dt": 0.2}': (
        AdEx(
            capacitance=200.0,
            leak=10.0,
            rest_potential=-70.0,
            onset=-50.0,
            slope_factor=3.0,
            tau_w=30.0,
            a=2.0,
            b=60.0,
            v_reset=-58.0,
            dt=0.2,
        )
    ),
    '{"kind": "BalancedResonate", "omega": 5.0, "damping": -1.2, "fade": 0.8, "dt": 0.02}': (
        BalancedResonate(omega=5.0, damping=-1.2, gamma=0.8, dt=0.02)
    ),
}


@pytest.mark.parametrize("text", OLD)
def test_a_file_with_the_names_of_before_is_read(text, tmp_path):
    (tmp_path / "neuron.json").write_text(text)
    values = json.loads((tmp_path / "neuron.json").read_text())
    assert Dynamics.from_dict(values) == OLD[text]
    assert RENAMED[values["kind"]].keys() <= values.keys()
    old, new = next(iter(RENAMED[values["kind"]].items()))
    with pytest.raises(InputError, match=f"unknown field '{old}'"):
        Dynamics.from_dict({**values, new: 0.5})  # both: which is meant?


def test_names_of_before_belong_to_their_kind_alone():
    assert {json.loads(text)["kind"] for text in OLD} == RENAMED.keys()
    with pytest.raises(InputError, match="unknown field 'fade'; the fields are gain"):
        Dynamics.from_dict({"kind": "Leaky", "fade": 0.9})


def test_refractory_neurons_carry_how_long_they_wait():
    assert Leaky(refractory=3).state_names == ("v", "wait")
    assert Izhikevich(refractory=1).rest == (-65.0, -13.0, 0.0)


@given(st.floats(0.1, 1e4), st.floats(1e-3, 10))
def test_decay_from_tau_halves_like_an_exponential(tau, dt):
    decay = decay_from_tau(tau, dt)
    assert 0 <= decay <= 1
    assert decay**2 == pytest.approx(decay_from_tau(tau, 2 * dt), rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Dynamics, {}, "choose a kind: .*Leaky"),
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
        (Signed, {"emit": "binary"}, "choose emit 'integer' or 'multiple'"),
        (Signed, {"reset": "zero"}, "not one of subtract"),
        (Signed, {"negative_slope": -0.1}, "outside"),
        (Burst, {"emit": "ternary"}, "choose emit"),
        (Burst, {"window": 0.0}, "window 0.0 must be above 0"),
        (AdEx, {"tau_w": 0.0}, "tau_w 0.0 must be above 0"),
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

    def detach(self, x):
        return x

    def straight_through(self, value, gradient):
        return value

    def surrogate(self, x):
        return 0.0


@KINDS
def test_equations_run_on_plain_numbers(kind):
    from types import SimpleNamespace

    neuron = kind()
    s, state = neuron.step(Numbers(), 0.0, neuron.rest, SimpleNamespace(**neuron.constants()))
    assert s == 0 and len(state) == neuron.state_size


SHIFTS = {"integer": 0.5, "multiple": 0.0}
eighths = st.integers(-24, 24).map(lambda n: n / 8)  # sums of these are exact


@given(
    st.lists(st.tuples(eighths, eighths, eighths), min_size=2, max_size=6),
    st.sampled_from(list(SHIFTS)),
    st.integers(1, 3),
    st.sampled_from([0.5, 1.0]),
    st.integers(0, 4),
)
def test_a_burst_sends_the_quantised_sum_of_its_window(drives, emit, levels, threshold, wait):
    """Whatever comes before the window, while it fires, and after that is ignored."""
    window = len(drives)
    x = torch.full((wait + 3 * window, 3), 5.0, dtype=torch.float64)
    x[wait : wait + window] = torch.tensor(drives, dtype=torch.float64)
    neuron = {"emit": emit, "levels": levels, "threshold": threshold, "window": window}
    spikes, state = scan(x, None, Burst(opens=wait + window, **neuron))
    count = torch.floor(x[wait : wait + window].sum(0) / threshold + SHIFTS[emit])
    assert torch.equal(spikes.sum(0), count.clamp(0, levels * window))
    assert not spikes[: wait + window].any() and not spikes[wait + 2 * window :].any()
    assert (spikes <= levels).all() and (state[1] == len(x)).all()


@given(
    st.lists(st.integers(0, 16), min_size=1, max_size=12),
    st.sampled_from([-1, 1]),
    st.sampled_from(list(SHIFTS)),
    st.sampled_from([0.0, 0.125, 0.5, 1.0]),
)
def test_signed_spikes_add_up_to_a_leaky_relu(drives, sign, emit, slope):
    """Within half a threshold, or a whole one for "multiple" and for leaks, where no step needs
    more levels."""
    x = sign * torch.tensor(drives, dtype=torch.float64)[:, None] / 8
    dynamics = Signed(emit=emit, levels=4, threshold=0.5, negative_slope=slope)
    spikes, _ = scan(x, None, dynamics)
    wanted = torch.nn.functional.leaky_relu(x.cumsum(0), slope)
    error = (wanted - 0.5 * spikes.cumsum(0)).abs().max()
    nearest = emit == "integer" and (sign > 0 or slope in (0, 1))
    assert error <= 0.25 if nearest else error < 0.5
    assert (spikes * sign >= 0).all()  # no spike that calls for another of the other sign


@given(st.lists(st.integers(-24, 24), min_size=1, max_size=12))
def test_a_signed_neuron_of_slope_one_takes_back_what_it_sent(drives):
    x = torch.tensor(drives, dtype=torch.float64)[:, None] / 8
    spikes, (v,) = scan(x, None, Signed(levels=4, negative_slope=1.0))
    torch.testing.assert_close(x.sum(0), spikes.sum(0) + v)
    assert ((x.cumsum(0) - spikes.cumsum(0)).abs() <= 0.5).all()


CONVERTED = [
    Neuron(Signed(levels=7, threshold=0.3, negative_slope=0.1)),
    Neuron(Signed(emit="multiple", decay=0.9, negative_slope=1.0, detach_reset=False)),
    Neuron(Signed(levels=3), values={"negative_slope": torch.tensor([0.0, 0.2, 0.0, 1.0])}),
    Neuron(Signed(refractory=2), values={"threshold": torch.tensor([0.2, 0.4, 0.6, 0.8])}),
    Neuron(Burst(opens=4, window=3, levels=2, threshold=0.5)),
    Neuron(Burst(opens=3, window=3, emit="multiple"), values={"threshold": torch.rand(3, 1)}),
]


@pytest.mark.parametrize("neuron", CONVERTED, ids=repr)
def test_neurons_of_converted_networks_conform(neuron):
    torch.manual_seed(0)
    x = torch.randn(9, 3, 3, 4)
    check_neuron(neuron, x)
    dynamics, values = neuron.dynamics, {name: neuron.value(name) for name in neuron.varying}
    assert neuron(x)[0].any() and dynamics.graded == (dynamics.levels > 1)

    def fused(x):
        return scan(x, None, dynamics, **{k: v.double() for k, v in values.items()})

    def plain(x):
        constants = {k: v.double().expand(x.shape[2:]) for k, v in values.items()}
        state = x.new_zeros(dynamics.state_size, *x.shape[1:])
        return reference.scan(x, state, constants, dynamics, "atan", 2.0)

    check_op(fused, plain, [x.double()], rtol=1e-9, atol=1e-9)


def test_a_slope_of_zero_has_finite_gradients():
    slope = torch.zeros(4, requires_grad=True)
    x = torch.randn(6, 2, 4, requires_grad=True)
    spikes, (v,) = scan(x, None, Signed(detach_reset=False), negative_slope=slope)
    (spikes.sum() + v.square().sum()).backward()
    assert not (spikes < 0).any()
    assert x.grad.isfinite().all() and slope.grad.isfinite().all()
