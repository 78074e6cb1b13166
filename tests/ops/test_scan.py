from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.neuron import Dynamics
from axonal.ops.scan import op, reference, scan
from axonal.ops.surrogate import SURROGATES
from axonal.testing import check_op

kinds = st.one_of(
    st.builds(
        partial(Dynamics, emit="binary"),
        reset=st.sampled_from(["subtract", "zero", "none"]),
        detach_reset=st.booleans(),
    ),
    st.builds(
        partial(Dynamics, emit="integer"),
        reset=st.sampled_from(["subtract", "zero", "none"]),
        levels=st.integers(1, 5),
        detach_reset=st.booleans(),
    ),
    st.builds(
        partial(Dynamics, emit="delta", reset="none"),
        negative_slope=st.sampled_from([0.0, 0.1, 1.0]),
    ),
)


def draw(dynamics: Dynamics, steps: int, batch: int, neurons: int, seed: int, dtype):
    """x, state, decay, gain and threshold."""
    torch.manual_seed(seed)
    return (
        torch.randn(steps, batch, neurons, dtype=dtype),
        torch.randn(dynamics.state_size, batch, neurons, dtype=dtype),
        torch.rand(neurons, dtype=dtype),
        torch.rand(neurons, dtype=dtype) + 0.5,
        torch.rand(neurons, dtype=dtype) / 2 + 0.3,
    )


def both(dynamics: Dynamics, surrogate: str = "atan", slope: float = 2.0):
    """The fused scan and the reference, as functions of the same tensors."""

    def fused(x, state, decay, gain, threshold):
        named = {"decay": decay, "gain": gain, "threshold": threshold}
        return scan(x, state, dynamics, **named, surrogate=surrogate, slope=slope)

    def plain(*tensors):
        return reference.scan(*tensors, dynamics, surrogate, slope)

    return fused, plain


@given(
    kinds,
    st.sampled_from(list(SURROGATES)),
    st.floats(0.5, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9)),
    st.integers(0, 99),
)
def test_fused_equals_reference(dynamics, surrogate, slope, sizes, seed):
    inputs = draw(dynamics, *sizes, seed, torch.float64)
    check_op(*both(dynamics, surrogate, slope), inputs, rtol=1e-9, atol=1e-9)


@given(kinds, st.integers(0, 99))
def test_float32_spikes_equal_the_reference_to_the_last_bit(dynamics, seed):
    inputs = draw(dynamics, 12, 3, 40, seed, torch.float32)
    fused, plain = both(dynamics)
    assert all(map(torch.equal, fused(*inputs), plain(*inputs)))
    check_op(fused, plain, inputs, rtol=1e-3, atol=1e-4)


def test_blocks_narrower_than_the_population():
    dynamics = Dynamics(decay=0.9)
    inputs = draw(dynamics, 1500, 2, 50, 0, torch.float64)
    check_op(*both(dynamics), inputs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "dynamics",
    [
        Dynamics(reset="zero"),
        Dynamics(emit="integer", levels=3),
        Dynamics(emit="delta", reset="none", threshold=0.2),
    ],
    ids=lambda dynamics: dynamics.emit,
)
def test_opcheck(dynamics):
    tensors = [t.requires_grad_() for t in draw(dynamics, 3, 2, 4, 0, torch.float32)]
    d = dynamics
    rules = (d.emit, d.reset, d.levels, d.negative_slope, d.detach_reset, "atan", 2.0)
    torch.library.opcheck(op.fused, (*tensors, *rules))
    spikes, final = (t.detach() for t in op.fused(*tensors, *rules))
    plain = [t.detach() for t in tensors]
    torch.library.opcheck(op.fused_backward, (spikes, final, *plain, *rules))


def test_one_compiled_graph_with_the_same_gradients():
    dynamics = Dynamics(decay=0.9)
    inputs = draw(dynamics, 4, 2, 6, 0, torch.float32)
    fused, plain = both(dynamics)
    check_op(torch.compile(fused, fullgraph=True, backend="aot_eager"), plain, inputs)


def test_images_and_parameters_for_each_channel():
    dynamics = Dynamics(decay=0.9)
    x, decay = torch.randn(5, 2, 3, 4, 4), torch.rand(3, 1, 1)
    threshold = torch.rand(3, 1, 1) + 0.5

    def fused(x, decay, threshold):
        return scan(x, None, dynamics, decay=decay, threshold=threshold)

    def plain(x, decay, threshold):
        gain, state = torch.tensor(1.0), torch.zeros(1, 2, 3, 4, 4)
        return reference.scan(x, state, decay, gain, threshold, dynamics, "atan", 2.0)

    check_op(fused, plain, (x, decay, threshold))


def test_strided_inputs():
    x = torch.randn(4, 2, 6, 3).transpose(2, 3)
    expected = scan(x.contiguous(), None, Dynamics())
    assert all(map(torch.equal, scan(x, None, Dynamics()), expected))


@pytest.mark.parametrize("shape", [(3, 2), (3, 0, 4), (3, 2, 0), (3, 2, 4, 0)])
def test_no_neuron_axis_and_empty_axes(shape):
    x = torch.ones(shape, requires_grad=True)
    spikes, state = scan(x, None, Dynamics())
    assert spikes.shape == x.shape and state.shape == (1, *x.shape[1:])
    spikes.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def train_of(dynamics: Dynamics, drive: float, steps: int) -> list[int]:
    """The steps, counted from 1, in which a constant drive makes a neuron fire."""
    spikes, _ = scan(torch.full((steps, 1), drive, dtype=torch.float64), None, dynamics)
    return (spikes[:, 0].nonzero().flatten() + 1).tolist()


def test_golden_train_of_the_subtracting_reset():
    expected = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40]
    assert train_of(Dynamics(decay=0.9), 0.45, 40) == expected


def test_golden_train_of_the_reset_to_zero():
    assert train_of(Dynamics(decay=0.9, reset="zero"), 0.45, 40) == list(range(3, 40, 3))


def test_spikes_fire_at_the_threshold_itself():
    assert train_of(Dynamics(threshold=0.5), 0.5, 3) == [1, 2, 3]


@given(st.lists(st.integers(-16, 48), min_size=1, max_size=8), st.integers(1, 6))
def test_an_integer_spike_is_its_binary_sub_steps(eighths, levels):
    """Binary IFs (subtract, threshold 1) that start at 1/2, driven by h once and then by nothing,
    fire clip(floor(h + 1/2), 0, levels) times in `levels` sub-steps; starting at rest and driven
    by that integer, as often. Any linear map of the sums is the sum of the maps."""
    h = torch.tensor(eighths, dtype=torch.float64) / 8
    integer, _ = scan(h[None, None], None, Dynamics(emit="integer", levels=levels))
    weights = torch.randn(len(h), 3, dtype=torch.float64)
    for start, drive in ((0.5, h), (0.0, integer[0, 0])):
        sub_steps = torch.zeros(levels, 1, len(h), dtype=torch.float64)
        sub_steps[0, 0] = drive
        binary, _ = scan(sub_steps, torch.full_like(sub_steps[:1], start), Dynamics())
        assert torch.equal(binary.sum(0), integer[0])
        torch.testing.assert_close((binary @ weights).sum(0), integer[0] @ weights)


@given(st.integers(0, 99), st.floats(0, 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_what_a_delta_neuron_holds_back_stays_below_its_threshold(seed, threshold, slope):
    torch.manual_seed(seed)
    x = torch.randn(20, 2, 5, dtype=torch.float64)
    dynamics = Dynamics(emit="delta", reset="none", threshold=threshold, negative_slope=slope)
    spikes, state = scan(x, None, dynamics)
    activation = torch.nn.functional.leaky_relu(x.cumsum(0), slope)
    residue = (activation - spikes.cumsum(0)).abs()
    assert residue.max() <= threshold + 1e-12
    torch.testing.assert_close(state[0], x.sum(0))
    torch.testing.assert_close(state[1], spikes.sum(0))


def test_a_delta_neuron_without_change_sends_nothing():
    dynamics = Dynamics(emit="delta", reset="none", threshold=0.0)
    x = torch.zeros(5, 1, 4)
    x[0] = torch.randn(4)
    spikes, _ = scan(x, None, dynamics)
    assert torch.equal(spikes[0], x[0].relu()) and not spikes[1:].any()


def test_bfloat16_runs_the_reference_and_autocast_float32():
    x = torch.rand(3, 2, 4, dtype=torch.bfloat16)
    assert scan(x, None, Dynamics())[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        spikes, state = scan(x, None, Dynamics())
    assert spikes.dtype == state.dtype == torch.float32


X = torch.zeros(3, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(0, 2, 4)}, "at least one step"),
        ({"x": torch.zeros(3)}, "T, B"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "floating"),
        ({"state": torch.zeros(1, 3, 4)}, r"\[1, 3, 4\].*\[1, 2, 4\].*pass back"),
        ({"state": torch.zeros(2, 2, 4)}, r"\[1, 2, 4\] is needed"),
        ({"state": torch.zeros(1, 2, 4, dtype=torch.float64)}, "float64"),
        ({"state": torch.zeros(1, 2, 4, device="meta")}, "on meta"),
        ({"decay": torch.ones(3)}, r"decay is .*broadcast to \[4\]"),
        ({"gain": torch.ones(1, 4)}, "gain is"),
        ({"threshold": torch.ones(4, dtype=torch.float64)}, "threshold is .*dtype"),
        ({"surrogate": "step"}, "choose one of"),
        ({"slope": 0.0}, "slope"),
        ({"slope": float("nan")}, "slope"),
        ({"x": torch.full((3, 2, 4), torch.nan)}, "8 membranes turned NaN, from x;"),
        ({"x": X + 1, "threshold": torch.full((4,), torch.nan)}, "NaN, from threshold"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        scan(**{"x": X, "state": None, "dynamics": Dynamics()} | arguments)


def test_a_nan_in_the_state_is_named():
    with pytest.raises(InputError, match="from the state"):
        scan(X, torch.full((1, 2, 4), torch.nan), Dynamics())
