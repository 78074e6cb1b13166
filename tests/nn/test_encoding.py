import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.nn import encoding

GRID = torch.linspace(0, 1, 2001, dtype=torch.float64)
STEPS = st.integers(2, 20)
CODES = [
    encoding.Latency(steps=9),
    encoding.Latency(steps=9, kind="log"),
    encoding.Phase(steps=9),
    encoding.Burst(steps=10),
]
SIGNALS = [encoding.Delta, encoding.SendOnDelta, encoding.SigmaDelta]
PATHS = st.lists(st.floats(-3, 3), min_size=1, max_size=30)
THRESHOLDS = st.floats(0.05, 2)


def value(code, x):
    return code.decode(code.encode(x))


def error(code, x=GRID):
    return (value(code, x) - x).abs().max().item()


def signal(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


def followed(code, x):
    """The decoded signal and its distance from x."""
    decoded, _ = code.decode(code.encode(x)[0])
    return decoded, (decoded - x).abs()


def train(code, *x):
    return code.encode(torch.tensor(x, dtype=torch.float64)).T.int().tolist()


@pytest.mark.parametrize("code", CODES, ids=repr)
def test_values_keep_shape_and_type_and_samples_apart(code):
    torch.manual_seed(0)
    x = torch.rand(3, 2, 4)
    spikes = code.encode(x)
    assert spikes.shape == (code.steps, 3, 2, 4) and spikes.dtype == x.dtype
    assert code.decode(spikes).shape == x.shape
    x[0] = 1  # the company changes, the rest stays
    assert code.encode(x)[:, 1:].equal(spikes[:, 1:])
    assert code.encode(x[1:2]).equal(spikes[:, 1:2])
    assert code.encode(x.double())[:, 0].equal(code.encode(x[:1])[:, 0].double())
    assert set(spikes.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("code", CODES, ids=repr)
def test_zero_is_silence(code):
    assert not code.encode(torch.zeros(2, 3)).any()


def test_latency_sends_the_larger_the_earlier():
    x = (1.0, 0.5, 0.26, 0.1, 0.009, 0.0)
    linear, log = encoding.Latency(steps=5), encoding.Latency(steps=5, kind="log")
    times = [[t for t, s in enumerate(row) if s] for row in train(linear, *x)]
    assert times == [[0], [2], [3], [4], [], []]
    times = [[t for t, s in enumerate(row) if s] for row in train(log, *x)]
    assert times == [[0], [1], [1], [2], [], []]


@given(STEPS, st.floats(0.001, 0.5))
def test_latency_is_within_its_bound_and_exact_on_its_grid(steps, least):
    linear = encoding.Latency(steps=steps, least=least)
    assert error(linear) <= max(least, 1 / (2 * (steps - 1))) + 1e-12
    log = dataclasses.replace(linear, kind="log")
    sent = GRID[least <= GRID]
    ratio = (value(log, sent) / sent).log().abs().max()
    assert ratio <= -math.log(least) / (2 * (steps - 1)) + 1e-12
    assert not value(log, GRID[least > GRID]).any()
    for code in (linear, log):
        spikes = torch.eye(steps)
        grid = code.decode(spikes)
        sent = grid >= least
        assert code.encode(grid)[:, sent].equal(spikes[:, sent])
        assert (code is linear) or sent.all()


@given(st.integers(1, 24))
def test_phases_are_binary_digits(steps):
    code = encoding.Phase(steps=steps)
    loss = GRID - value(code, GRID)
    assert loss.min() >= 0 and loss.max() <= 2.0**-steps
    digits = torch.linspace(0, 2**steps - 1, 33, dtype=torch.float64).floor() / 2**steps
    assert value(code, digits).equal(digits)


def test_phases_of_the_paper():
    assert train(encoding.Phase(steps=8), 192 / 256, 1 / 256, 1.0) == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 5))
def test_bursts_fit_and_decode_within_their_bound(most, shortest, more):
    fields = {"most": most, "shortest": shortest, "longest": shortest + more}
    code = encoding.Burst(steps=64, **fields)
    spikes = code.encode(GRID)
    assert spikes.sum(0).equal(torch.ceil(most * GRID))
    off = (value(code, GRID) - GRID).abs()
    assert off.max() <= 1 / (2 * most) + 1e-12
    many = spikes.sum(0) > 1
    if more and many.any():
        assert off[many].max() <= 1 / (2 * more) + 1e-12
    last = int(spikes.any(1).nonzero().max())
    with pytest.raises(InputError, match="take as many"):
        encoding.Burst(steps=last, **fields)


def test_a_burst():
    code = encoding.Burst(steps=10)
    assert train(code, 1.0, 0.5, 0.1) == [
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("kind", SIGNALS)
def test_signals_in_pieces_are_one_stream_and_samples_don_t_meet(kind):
    torch.manual_seed(1)
    code, x = kind(threshold=0.4, start=-1.0), torch.randn(12, 3, 2)
    spikes, last = code.encode(x)
    assert spikes.shape == x.shape and spikes.dtype == x.dtype and spikes.any()
    decoded, end = code.decode(spikes)
    pieces, values, state, held = [], [], None, None
    for part in x.split([1, 4, 7]):
        sent, state = code.encode(part, state)
        x_part, held = code.decode(sent, held)
        pieces, values = [*pieces, sent], [*values, x_part]
    assert torch.cat(pieces).equal(spikes) and state.equal(last)
    torch.testing.assert_close(torch.cat(values), decoded)
    torch.testing.assert_close(held, end)
    alone, _ = code.encode(x[:, 1:2])
    assert alone.equal(spikes[:, 1:2])


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_at_its_start_is_silent(kind):
    code = kind(threshold=0.3, start=-2.5)
    spikes, state = code.encode(torch.full((5, 2), -2.5))
    assert not spikes.any() and code.decode(spikes)[0].eq(-2.5).all()
    assert not code.encode(torch.full((5, 2), -2.5), state)[0].any()


@given(PATHS, THRESHOLDS)
def test_a_delta_code_loses_at_most_a_known_amount_a_step(path, threshold):
    x = signal(*path)
    change = torch.diff(x, dim=0, prepend=x.new_zeros(1, 1)).abs()
    _, off = followed(encoding.Delta(threshold=threshold), x)
    assert (off <= (change - threshold).clamp_min(threshold).cumsum(0) + 1e-9).all()


@given(PATHS, THRESHOLDS, st.floats(-5, 5))
def test_graded_changes_keep_any_signal_within_their_bound(path, threshold, start):
    x, options = signal(*path), {"threshold": threshold, "start": start}
    for kind, bound in ((encoding.SendOnDelta, 1.0), (encoding.SigmaDelta, 0.5)):
        _, off = followed(kind(**options), x)
        assert (off <= bound * threshold + 1e-9).all()


@given(PATHS, THRESHOLDS)
def test_each_signal_code_is_its_equation(path, threshold):
    """As a loop over time, which the codes don't have."""
    x, before, b, carried = signal(*path), 0.0, 0.0, 0.0
    expected = {kind: [] for kind in SIGNALS}
    for now in path:
        d, before = now - before, now
        if min(abs(abs(c) - threshold) for c in (d, now - b)) < 1e-9:
            return  # a tie that rounding decides
        expected[encoding.Delta].append(math.copysign(1, d) * (abs(d) >= threshold))
        s = (now - b) * (abs(now - b) >= threshold)
        expected[encoding.SendOnDelta].append(s)
        b += s
        carried += d / threshold  # O'Connor and Welling: round, and carry the rest on
        if abs(carried % 1 - 0.5) < 1e-9:
            return
        expected[encoding.SigmaDelta].append(math.floor(carried + 0.5))
        carried -= expected[encoding.SigmaDelta][-1]
    for kind, spikes in expected.items():
        torch.testing.assert_close(kind(threshold=threshold).encode(x)[0], signal(*spikes))


def test_the_codes_of_a_jump_and_a_slow_fall():
    x = signal(0.25, 2.25, 2.0, 1.5, 1.25, 1.25, 0.0)
    sent = {kind: kind(threshold=1.0).encode(x)[0].flatten().tolist() for kind in SIGNALS}
    assert sent[encoding.Delta] == [0, 1, 0, 0, 0, 0, -1]
    assert sent[encoding.SendOnDelta] == [0, 2.25, 0, 0, -1, 0, -1.25]
    assert sent[encoding.SigmaDelta] == [0, 2, 0, 0, -1, 0, -1]


@pytest.mark.parametrize("code", CODES, ids=repr)
@pytest.mark.parametrize("bad", [-0.1, 1.01, math.nan, math.inf])
def test_values_outside_the_unit_interval_are_refused(code, bad):
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        code.encode(torch.tensor([0.5, bad]))


@pytest.mark.parametrize("code", CODES, ids=repr)
def test_integers_and_trains_of_another_length_are_refused(code):
    with pytest.raises(InputError, match="floating"):
        code.encode(torch.ones(2, dtype=torch.int64))
    for train in (torch.zeros(code.steps + 1, 2, 5), torch.zeros(code.steps, 2).long()):
        with pytest.raises(InputError, match="no floating train"):
            code.decode(train)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (encoding.Phase, {"steps": 0}, "at least 1 step"),
        (encoding.Latency, {"steps": 1}, "at least 2 steps"),
        (encoding.Latency, {"steps": 4, "least": 0.0}, "least in"),
        (encoding.Latency, {"steps": 4, "kind": "square"}, "'linear' or 'log'"),
        (encoding.Phase, {"steps": 25}, "24 digits"),
        (encoding.Burst, {"steps": 9}, "up to 10 steps"),
        (encoding.Burst, {"steps": 9, "shortest": 3, "longest": 2}, "longest not below"),
        (encoding.Delta, {"threshold": 0.0}, "threshold above 0"),
        (encoding.SendOnDelta, {"threshold": math.nan}, "threshold above 0"),
        (encoding.SigmaDelta, {"threshold": 1.0, "start": math.inf}, "both finite"),
    ],
)
def test_numbers_that_make_no_code_are_refused(kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(**options)


def test_the_families_are_no_codes_themselves():
    with pytest.raises(InputError, match="has _send"):
        encoding.Code(steps=1).encode(torch.zeros(1))
    with pytest.raises(InputError, match="has _read"):
        encoding.Code(steps=1).decode(torch.zeros(1, 1))
    with pytest.raises(InputError, match="choose Delta"):
        encoding.SignalCode(threshold=1.0).encode(torch.zeros(1, 1))


@pytest.mark.parametrize("kind", SIGNALS)
def test_signals_that_are_none_are_refused(kind):
    code = kind(threshold=0.5)
    for x in (torch.zeros(3), torch.zeros(0, 2), torch.zeros(3, 2).long()):
        with pytest.raises(InputError, match=r"not floating \[T, B"):
            code.encode(x)
    with pytest.raises(InputError, match="NaN or infinite"):
        code.encode(torch.tensor([[math.nan]]))
    _, state = code.encode(torch.zeros(3, 2))
    for wrong in (state[:, :1], state.float()):
        with pytest.raises(InputError, match="pass back"):
            code.encode(torch.zeros(3, 2), wrong)
