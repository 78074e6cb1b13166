import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.neurons import AdEx, BalancedResonate, Current, Delta, Dynamics, Izhikevich, Leaky
from axonal.ops import threads
from axonal.ops.scan import cpu, op, parallel, reference, scan
from axonal.ops.scan.marks import MARK
from axonal.ops.surrogate import SURROGATES
from axonal.testing import check_op

resets = st.sampled_from(["subtract", "zero", "none"])
spikes = st.one_of(
    st.fixed_dictionaries({"emit": st.sampled_from(["binary", "ternary"]), "reset": resets}),
    st.fixed_dictionaries(
        {
            "emit": st.sampled_from(["integer", "multiple"]),
            "reset": resets,
            "levels": st.integers(1, 5),
        }
    ),
    st.fixed_dictionaries({"emit": st.just("graded"), "levels": st.integers(1, 4)}),
)


@st.composite
def kinds_of_neurons(draw):
    kind = draw(st.sampled_from(list(Dynamics.KINDS.values())))
    options = {"detach_reset": draw(st.booleans())}
    if kind is Delta:
        return Delta(negative_slope=draw(st.sampled_from([0.0, 0.1, 1.0])), **options)
    options |= {"above": draw(st.booleans()), "refractory": draw(st.sampled_from([0, 0, 2]))}
    if len(kind.RESETS) > 1:
        options |= draw(spikes)
        if "late" in kind.RESETS and draw(st.sampled_from([False, False, True])):
            options["reset"] = "late"
    return kind(**options)


def inputs_of(dynamics: Dynamics, steps: int, batch: int, neurons: int, seed: int, dtype):
    """x, state, and a value near its constant for each parameter."""
    torch.manual_seed(seed)
    rest = torch.tensor(dynamics.rest, dtype=dtype)[:, None, None]
    around = torch.randn(dynamics.state_size, batch, neurons, dtype=dtype)
    driven = {Izhikevich: 60.0, AdEx: 2e4, BalancedResonate: 300.0}.get(type(dynamics), 2.0)
    parameters = []
    for name, value in dynamics.constants().items():
        drawn = torch.rand(neurons, dtype=dtype)
        near = drawn if name in dynamics.UNIT else value * (0.7 + 0.6 * drawn)
        parameters.append(near if value or name in dynamics.UNIT else near + drawn)
    return [driven * torch.randn(steps, batch, neurons, dtype=dtype), rest + around, *parameters]


def both(dynamics: Dynamics, surrogate: str = "atan", slope: float = 2.0):
    """The fused scan and the reference, as functions of the same tensors."""
    names = list(dynamics.constants())

    def fused(x, state, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return scan(x, state, dynamics, surrogate=surrogate, slope=slope, **named)

    def plain(x, state, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return reference.scan(x, state, named, dynamics, surrogate, slope)

    return fused, plain


@settings(max_examples=30)  # each compiles two kernels
@given(
    kinds_of_neurons(),
    st.sampled_from(list(SURROGATES)),
    st.floats(0.5, 5),
    st.tuples(st.sampled_from([1, 2, 7, MARK, MARK + 9]), st.integers(1, 4), st.integers(1, 9)),
    st.integers(0, 99),
)
def test_fused_equals_reference(dynamics, surrogate, slope, sizes, seed):
    inputs = inputs_of(dynamics, *sizes, seed, torch.float64)
    check_op(*both(dynamics, surrogate, slope), inputs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", Dynamics.KINDS.values(), ids=lambda kind: kind.__name__)
def test_float32_spikes_equal_the_reference_to_the_last_bit(kind):
    dynamics = kind()
    inputs = inputs_of(dynamics, 40, 3, 40, 0, torch.float32)
    fused, plain = both(dynamics)
    if kind is not AdEx:  # the exponentials of torch and Numba differ in the last bit
        assert all(map(torch.equal, fused(*inputs), plain(*inputs)))
    assert fused(*inputs)[0].any(), "a test without spikes shows nothing"


def test_gradients_in_float32():
    check_op(*both(Leaky()), inputs_of(Leaky(), 12, 3, 40, 0, torch.float32), rtol=1e-3, atol=1e-4)


def test_blocks_narrower_than_the_population(monkeypatch):
    monkeypatch.setattr(cpu, "WIDTH", cpu.STRIP + cpu.LANES)
    dynamics = Leaky(decay=0.9)
    inputs = inputs_of(dynamics, 5 * MARK + 3, 2, 2 * cpu.STRIP + 70, 0, torch.float64)
    check_op(*both(dynamics), inputs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("of_torch", [True, False])
def test_three_threads_equal_one(monkeypatch, of_torch):
    inputs = inputs_of(Leaky(), 40, 7, 300, 0, torch.float64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    if not of_torch:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    monkeypatch.setattr(cpu, "WIDTH", 64)
    check_op(*both(Leaky()), inputs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("of_torch", [True, False])
def test_an_error_in_a_thread_is_raised(monkeypatch, of_torch):
    def fail():
        raise KeyboardInterrupt

    if not of_torch:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        threads.run_in_threads(fail, 2)


@pytest.mark.parametrize("used", [0, 1])
def test_gradients_through_the_spikes_or_the_state_alone(used):
    inputs = inputs_of(Leaky(), MARK + 5, 2, 5, 0, torch.float64)
    fused, plain = both(Leaky())
    only = slice(used, used + 1)
    check_op(lambda *t: fused(*t)[only], lambda *t: plain(*t)[only], inputs)


def test_constants_alone_equal_constants_as_tensors():
    dynamics = Leaky(decay=0.9, gain=0.7, threshold=0.4)
    x = torch.randn(9, 3, 5, dtype=torch.float64)

    def alike(x):
        return scan(x, None, dynamics)

    def varied(x):
        values = {n: torch.full((5,), v).double() for n, v in dynamics.constants().items()}
        return scan(x, None, dynamics, **values)

    check_op(
        alike, lambda x: reference.scan(x, x.new_zeros(1, 3, 5), {}, dynamics, "atan", 2.0), [x]
    )
    check_op(alike, varied, [x])


@pytest.mark.parametrize(
    "dynamics",
    [Leaky(reset="zero"), Leaky(emit="integer", levels=3), Delta(threshold=0.2), Current()],
    ids=repr,
)
def test_opcheck(dynamics):
    x, state, *values = (t.float() for t in inputs_of(dynamics, MARK + 1, 2, 4, 0, torch.float64))
    rules = (dynamics.text, ",".join(dynamics.constants()), "atan", 2.0)
    for drive in (x, x[:1]):
        steps = MARK + 1
        tensors = [t.detach().requires_grad_() for t in (drive, state, torch.stack(values))]
        torch.library.opcheck(op.fused, (*tensors, steps, *rules))
        spikes, final, marks = (t.detach() for t in op.fused(*tensors, steps, *rules))
        sent = (spikes, final, tensors[0].detach(), marks, tensors[2].detach())
        torch.library.opcheck(op.fused_backward, (*sent, *rules))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dynamics", [Leaky(decay=0.9), Current(reset="zero")], ids=repr)
def test_what_stays_the_same_is_passed_once(dynamics, dtype):
    torch.manual_seed(0)
    steps = 2 * MARK + 3
    x = torch.rand(1, 3, 5, dtype=dtype)
    weights = torch.linspace(-1, 1, steps)[:, None, None].to(dtype)

    def run(x, count):
        x, decay = x.clone().requires_grad_(), torch.full((5,), 0.9, requires_grad=True)
        decay = decay.to(torch.float64 if dtype == torch.float64 else torch.float32)
        decay.retain_grad()
        spikes, state = scan(x, None, dynamics, steps=count, decay=decay)
        ((spikes * weights).sum() + state.sum()).backward()
        return spikes, state, x.grad.float().sum(0), decay.grad

    held, repeated = run(x, steps), run(x.expand(steps, 3, 5), None)
    assert held[0].any()
    for actual, expected in zip(held, repeated, strict=True):
        rough = {"rtol": 2e-2, "atol": 2e-1} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(actual, expected, **rough)
    for wrong in ({"steps": 0}, {"steps": 4, "x": x.expand(2, 3, 5)}):
        with pytest.raises(InputError, match="no one step that stays"):
            scan(**{"x": x, "state": None, "dynamics": dynamics} | wrong)


def test_one_compiled_graph_with_the_same_gradients():
    dynamics = Leaky(decay=0.9)
    inputs = inputs_of(dynamics, 4, 2, 6, 0, torch.float32)
    fused, plain = both(dynamics)
    check_op(torch.compile(fused, fullgraph=True, backend="aot_eager"), plain, inputs)


def test_images_and_parameters_for_each_channel():
    dynamics = Leaky(decay=0.9)
    x, decay = torch.randn(5, 2, 3, 4, 4), torch.rand(3, 1, 1)
    threshold = torch.rand(3, 1, 1) + 0.5

    def fused(x, decay, threshold):
        return scan(x, None, dynamics, decay=decay, threshold=threshold)

    def plain(x, decay, threshold):
        values, state = {"decay": decay, "threshold": threshold}, torch.zeros(1, 2, 3, 4, 4)
        return reference.scan(x, state, values, dynamics, "atan", 2.0)

    check_op(fused, plain, (x, decay, threshold))


@given(st.integers(1, 20), st.sampled_from(["binary", "integer"]), st.integers(0, 99))
def test_all_steps_at_once_equal_one_after_another(steps, emit, seed):
    dynamics = Leaky(decay=0.9, reset="none", emit=emit)
    inputs = inputs_of(dynamics, steps, 2, 5, seed, torch.float64)
    assert parallel.suits(dynamics) and not parallel.suits(Leaky())

    def both_forms(form):
        def run(x, state, gain, threshold, decay):
            values = {"gain": gain, "threshold": threshold, "decay": decay}
            return form.scan(x, state, values, dynamics, "atan", 2.0)

        return run

    check_op(both_forms(parallel), both_forms(reference), inputs, rtol=1e-9, atol=1e-9)


def test_strided_inputs():
    x = torch.randn(4, 2, 6, 3).transpose(2, 3)
    expected = scan(x.contiguous(), None, Leaky())
    assert all(map(torch.equal, scan(x, None, Leaky()), expected))


@pytest.mark.parametrize("shape", [(3, 2), (3, 0, 4), (3, 2, 0), (3, 2, 4, 0)])
def test_no_neuron_axis_and_empty_axes(shape):
    x = torch.ones(shape, requires_grad=True)
    spikes, state = scan(x, None, Leaky())
    assert spikes.shape == x.shape and state.shape == (1, *x.shape[1:])
    spikes.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def train_of(dynamics: Dynamics, drive: float, steps: int) -> list[int]:
    """The steps, counted from 1, in which a constant drive makes a neuron fire."""
    spikes, _ = scan(torch.full((steps, 1), drive, dtype=torch.float64), None, dynamics)
    return (spikes[:, 0].nonzero().flatten() + 1).tolist()


def test_golden_train_of_the_subtracting_reset():
    expected = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40]
    assert train_of(Leaky(decay=0.9), 0.45, 40) == expected


def test_golden_train_of_the_reset_to_zero():
    assert train_of(Leaky(decay=0.9, reset="zero"), 0.45, 40) == list(range(3, 40, 3))


def test_spikes_fire_at_the_threshold_itself():
    assert train_of(Leaky(threshold=0.5), 0.5, 3) == [1, 2, 3]


@given(st.lists(st.integers(-16, 48), min_size=1, max_size=8), st.integers(1, 6))
def test_an_integer_spike_is_its_binary_sub_steps(eighths, levels):
    """Binary IFs (subtract, threshold 1) that start at 1/2, driven by h once and then by nothing,
    fire clip(floor(h + 1/2), 0, levels) times in `levels` sub-steps; starting at rest and driven
    by that integer, as often. Any linear map of the sums is the sum of the maps."""
    h = torch.tensor(eighths, dtype=torch.float64) / 8
    integer, _ = scan(h[None, None], None, Leaky(emit="integer", levels=levels))
    weights = torch.randn(len(h), 3, dtype=torch.float64)
    for start, drive in ((0.5, h), (0.0, integer[0, 0])):
        sub_steps = torch.zeros(levels, 1, len(h), dtype=torch.float64)
        sub_steps[0, 0] = drive
        binary, _ = scan(sub_steps, torch.full_like(sub_steps[:1], start), Leaky())
        assert torch.equal(binary.sum(0), integer[0])
        torch.testing.assert_close((binary @ weights).sum(0), integer[0] @ weights)


@given(st.integers(0, 99), st.floats(0, 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_what_a_delta_neuron_holds_back_stays_below_its_threshold(seed, threshold, slope):
    torch.manual_seed(seed)
    x = torch.randn(20, 2, 5, dtype=torch.float64)
    dynamics = Delta(threshold=threshold, negative_slope=slope)
    spikes, state = scan(x, None, dynamics)
    activation = torch.nn.functional.leaky_relu(x.cumsum(0), slope)
    residue = (activation - spikes.cumsum(0)).abs()
    assert residue.max() <= threshold + 1e-12
    torch.testing.assert_close(state[0], x.sum(0))
    torch.testing.assert_close(state[1], spikes.sum(0))


def test_a_delta_neuron_without_change_sends_nothing():
    dynamics = Delta(threshold=0.0)
    x = torch.zeros(5, 1, 4)
    x[0] = torch.randn(4)
    spikes, _ = scan(x, None, dynamics)
    assert torch.equal(spikes[0], x[0].relu()) and not spikes[1:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_membranes_in_float32(dtype):
    dynamics, names = Leaky(decay=0.9, emit="integer", levels=300), ("decay", "threshold")
    neurons = cpu.STRIP + 44
    x = (40 * torch.randn(12, 3, neurons)).to(dtype)
    values = [torch.rand(neurons), torch.rand(neurons) + 0.1]

    def half(x, *values):
        return scan(x, None, dynamics, **dict(zip(names, values, strict=True)))

    def plain(x, *values):
        constants, rest = dict(zip(names, values, strict=True)), torch.zeros(1, 3, neurons)
        spikes, state = reference.scan(x.float(), rest, constants, dynamics, "atan", 2.0)
        return spikes.to(x.dtype), state

    spikes, state = half(x, *values)
    assert (spikes.dtype, state.dtype) == (dtype, torch.float32)
    assert torch.equal(spikes, plain(x, *values)[0]) and torch.equal(state, plain(x, *values)[1])
    check_op(half, plain, (x, *values), rtol=2e-2, atol=2e-2)


X = torch.zeros(3, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(0, 2, 4)}, "at least one step"),
        ({"x": torch.zeros(3)}, "T, B"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "floating"),
        ({"state": torch.zeros(1, 3, 4)}, r"\[1, 3, 4\].*\[1, 2, 4\].*pass back"),
        ({"state": torch.zeros(2, 2, 4)}, r"\[1, 2, 4\] in torch.float32 is needed"),
        ({"state": torch.zeros(1, 2, 4, dtype=torch.float64)}, "float64"),
        ({"state": torch.zeros(1, 2, 4, device="meta")}, "on meta"),
        ({"decay": torch.ones(3)}, r"decay is .*broadcast to \[4\]"),
        ({"gain": torch.ones(1, 4)}, "gain is"),
        ({"tau": torch.ones(4)}, "no parameter 'tau'; there are gain"),
        ({"threshold": torch.ones(4, dtype=torch.float64)}, "threshold is .*float32"),
        ({"surrogate": "step"}, "choose one of"),
        ({"slope": 0.0}, "slope"),
        ({"slope": float("nan")}, "slope"),
        ({"x": torch.full((3, 2, 4), torch.nan)}, "8 neurons turned NaN, from x;"),
        ({"x": X + 1, "threshold": torch.full((4,), torch.nan)}, "NaN, from a parameter"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        scan(**{"x": X, "state": None, "dynamics": Leaky()} | arguments)


def test_a_nan_in_the_state_is_named():
    with pytest.raises(InputError, match="from the state"):
        scan(X, torch.full((1, 2, 4), torch.nan), Leaky())


@pytest.mark.parametrize("decay", [None, torch.rand(3, 1, 1)], ids=["alike", "varying"])
def test_memory_keeps_its_order(decay):
    torch.manual_seed(0)
    x = torch.rand(40, 2, 3, 4, 5)
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (40, 2))
    values = {} if decay is None else {"decay": decay}
    results = []
    for drive in (x, last):
        drive = drive.detach().requires_grad_()
        state = torch.zeros(1, 2, 3, 4, 5)
        for part in drive.split(20):
            spikes, state = scan(part, state, Leaky(decay=0.9), **values)
        (spikes.square().sum() + state.sum()).backward()
        assert spikes.stride() == part.stride()
        results.append((spikes, state, drive.grad))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
