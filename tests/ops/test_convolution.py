from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, max_pool2d

from axonal.ops.convolution import convolution, cpu, op, reference
from axonal.testing import check_op, poisoned

LAST = torch.channels_last
shapes = st.tuples(
    st.integers(1, 21),  # samples
    st.sampled_from([1, 2, 5, 12, 16, 33]),  # inputs
    st.sampled_from([1, 3, 8, 16, 20, 65]),  # outputs
    st.tuples(st.integers(1, 5), st.integers(1, 4)),  # kernel
    st.tuples(st.integers(0, 3), st.integers(0, 2)),  # padding
    st.tuples(st.integers(0, 5), st.integers(0, 6)),  # how much larger than the kernel x is
)


@contextmanager
def following(gather=1.0, scatter=1.0, outer=1.0):
    """Events up to these shares, for maps of any size."""
    shares = {"GATHER": gather, "SCATTER": scatter, "OUTER": outer}
    with patch.multiple(op, NARROWEST=0, SMALLEST=0, **shares):
        yield


def drawn(samples, inputs, outputs, kernel, more, rate=0.3, seed=0):
    """x that lies channels last and is zero but for a share, a weight and a bias."""
    torch.manual_seed(seed)
    size = [k + n for k, n in zip(kernel, more, strict=True)]
    x = torch.randn(samples, inputs, *size) * (torch.rand(samples, inputs, *size) < rate)
    return x.to(memory_format=LAST), torch.randn(outputs, inputs, *kernel), torch.randn(outputs)


def both(padding, end=lambda y: y):
    """The convolution and its definition, as functions of the same tensors."""
    forms = convolution, reference.convolution
    return [lambda *tensors, f=f: (end(f(*tensors, padding)),) for f in forms]


@settings(max_examples=60)
@given(shapes, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.booleans(), st.integers(0, 99))
def test_events_yield_what_the_definition_does(shape, rate, pooled, seed):
    samples, inputs, outputs, kernel, padding, more = shape
    tensors = drawn(samples, inputs, outputs, kernel, more, rate, seed)
    end = (lambda y: max_pool2d(y, 2, ceil_mode=True)) if pooled else (lambda y: y)
    with following():
        check_op(*both(padding, end), tensors, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shares", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 0)])
def test_passes_by_events_and_dense_ones_mix(shares):
    x, weight, bias = drawn(9, 12, 16, (3, 3), (4, 5))
    with following(*shares):
        check_op(*both((1, 1)), [x, weight, bias], rtol=1e-4, atol=1e-4)
        f, g = both((1, 0))
        check_op(lambda x, w: f(x, w, None), lambda x, w: g(x, w, None), [x, weight], atol=1e-4)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradients_that_are_wanted(wanted):
    results = []
    for run in both((0, 0)):
        x, weight, bias = drawn(6, 5, 8, (3, 3), (4, 4))
        ends = [t.requires_grad_() for t, want in zip((x, weight), wanted, strict=True) if want]
        with following():
            results += torch.autograd.grad(run(x, weight, bias)[0].square().sum(), ends)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_operators_keep_the_contract_of_torch():
    x, weight, bias = drawn(4, 12, 16, (3, 2), (4, 5))
    grad = torch.randn(4, 16, 5, 6).to(memory_format=LAST)
    with following():
        for last in (bias, None):
            tensors = [t if t is None else t.clone().requires_grad_() for t in (x, weight, last)]
            torch.library.opcheck(op.fused, (*tensors, (0, 0)))
        for wanted in ((True, True, True), (False, True, False), (True, False, True)):
            torch.library.opcheck(op.fused_backward, (grad, x, weight, (0, 0), wanted))


def test_one_compiled_graph_with_the_same_gradients():
    run, plain = both((1, 1))
    with following():
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        check_op(compiled, plain, drawn(4, 12, 16, (3, 3), (4, 5)), rtol=1e-4, atol=1e-4)


def test_silence_answers_with_the_bias():
    x, weight, bias = drawn(5, 12, 16, (3, 3), (4, 5), rate=0.0)
    with following():
        y = convolution(x, weight, bias)
        assert torch.equal(y, bias[:, None, None].expand_as(y))
        assert not convolution(x, weight).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "gradient"])
def test_what_is_not_finite_comes_out_as_of_torch(value, where):
    tensors = dict(zip(("x", "weight", "bias"), drawn(5, 12, 16, (3, 3), (6, 7)), strict=True))
    tensors["gradient"] = torch.randn(5, 16, 7, 8) * (torch.rand(5, 16, 7, 8) < 0.2)
    tensors[where][tuple(n // 2 for n in tensors[where].shape)] = value
    results = []
    for run in (convolution, conv2d):
        x, weight, bias = (tensors[n].clone().requires_grad_() for n in ("x", "weight", "bias"))
        with following():
            y = run(x, weight, bias)
            results.append([y, *torch.autograd.grad(y, (x, weight, bias), tensors["gradient"])])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_samples_do_not_see_each_other():
    x, weight, bias = drawn(37, 12, 16, (3, 3), (6, 7))
    grad = torch.randn(37, 16, 9, 10).to(memory_format=LAST)
    y = cpu.forward(x, weight, bias, (1, 1))
    to_x, _, _ = cpu.backward(grad, x, weight, (1, 1), (True, True))
    for i in (0, 20, 36):
        assert torch.equal(cpu.forward(x[i : i + 1], weight, bias, (1, 1))[0], y[i])
        alone = cpu.backward(grad[i : i + 1], x[i : i + 1], weight, (1, 1), (True, False))
        assert torch.equal(alone[0][0], to_x[i])


def test_three_threads_equal_one(monkeypatch):
    x, weight, bias = drawn(37, 12, 16, (3, 3), (6, 7))
    grad, runs = torch.randn(37, 16, 7, 8).to(memory_format=LAST), []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        grads = cpu.backward(grad, x, weight, (0, 0), (True, True))
        runs.append([cpu.forward(x, weight, bias, (0, 0)), *grads])
    assert all(map(torch.equal, *runs))


def test_memory_that_lies_otherwise():
    x, weight, bias = drawn(6, 12, 16, (3, 3), (6, 7))
    expected = conv2d(x, weight, bias)
    twice = torch.empty(6, 12, 9, 20)[..., ::2].copy_(x)
    with following(), poisoned():
        for form in (x, x.contiguous(), twice, x.expand(6, -1, -1, -1)):
            for taps in (weight, weight.to(memory_format=LAST), weight.mT.contiguous().mT):
                torch.testing.assert_close(convolution(form, taps, bias), expected)
                y = op.fused(form, taps, bias, (0, 0))
                assert y.is_contiguous(memory_format=LAST)
                torch.testing.assert_close(y, expected)


def test_whatever_kernels_do_not_do_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(op, "fused", None)
    x, weight, bias = drawn(6, 12, 16, (3, 3), (6, 7))
    with following():
        for dtype in (torch.float64, torch.bfloat16):
            assert convolution(x.to(dtype), weight.to(dtype), bias.to(dtype)).dtype == dtype
        with torch.autocast("cpu", torch.bfloat16):
            assert convolution(x, weight, bias).dtype == torch.bfloat16
        assert convolution(x.contiguous(), weight, bias).shape == (6, 16, 7, 8)
        assert convolution(x[0], weight, bias).shape == (16, 7, 8)
        with pytest.raises(RuntimeError, match="expected input"):
            convolution(x[:, 1:], weight, bias)
    assert convolution(x, weight, bias).shape == (6, 16, 7, 8), "small ones too"


def test_share_is_counted():
    x = torch.zeros(130, 3, 4, 5).to(memory_format=LAST)
    assert cpu.share(x) == 0
    x[:, 0] = torch.nan
    assert cpu.share(x) == pytest.approx(1 / 3)
