"""Inner loops in vectors are what their docstrings say, for every size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from axonal.ops import simd

SIZES = st.integers(0, 300)


@njit
def weigh(sums, weights, scale, events, span, row, part):
    simd.weigh(sums, weights, scale, events, span, row, part)


@njit
def slide(sums, weights, scale, events, line, cells):
    return simd.slide(sums, weights, scale, events, line, cells)


@njit
def nonzero(row, size):
    return simd.nonzero(row, size)


@njit
def emit(row, size, base, at, events):
    return simd.emit(row, size, base, at, events)


def widened(weights):
    if weights.dtype == np.uint16:
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return weights.astype(np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int8])
@settings(deadline=None, max_examples=40)
@given(size=SIZES, part=st.tuples(st.integers(0, 5), st.integers(0, 5)), seed=st.integers(0, 99))
def test_weigh_adds_every_event_of_its_part_in_order(kind, size, part, seed):
    rng = np.random.default_rng(seed)
    plain = rng.integers(-100, 100, 7 + 9 * 310)
    weights = plain.astype(kind) if kind != np.uint16 else bfloat16(plain / 7)
    idx, val = rng.permutation(9)[:5], rng.standard_normal(5).astype(np.float32)
    sums = rng.standard_normal(size + 4).astype(np.float32)
    expected, known = sums.astype(np.float64), widened(weights)
    for e in range(*part):
        expected[3 : 3 + size] += val[e] * known[7 + idx[e] * 310 :][:size].astype(np.float64) / 2
    weigh(sums, weights, np.float32(0.5), (idx, val), (3, size), (7, 310), part)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(sums[[0, 1, 2, -1]], expected.astype(np.float32)[[0, 1, 2, -1]])


def bfloat16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@settings(deadline=None, max_examples=60)
@given(
    size=st.one_of(st.sampled_from([1, 4, 8, 12, 16, 48, 64, 96, 128]), st.integers(1, 150)),
    shape=st.tuples(st.integers(1, 25), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    pad=st.integers(0, 3),
    lines=st.sampled_from([1, simd.LINES]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_slide_is_rows_of_a_convolution(size, shape, pad, lines, share, seed):
    rng, (wide, reach, step, inputs) = np.random.default_rng(seed), shape
    count = max(0, (wide + 2 * pad - reach) // step + 1)
    x = np.where(rng.random((wide, inputs)) < share, rng.integers(1, 9, (wide, inputs)), 0)
    weights = rng.integers(-9, 9, (lines, reach, inputs, size)).astype(np.float32)
    padded = np.pad(x, ((pad, pad), (0, 0)))
    parts = [padded[i * step :][:reach] for i in range(count)]
    expected = [[np.einsum("ri,rin->n", part, w) for part in parts] for w in weights[::-1]]
    flat, cells = np.flatnonzero(x), np.arange(wide + 1)
    events = flat + 5 * inputs, x.ravel()[flat].astype(np.float32)  # the cells are 5 to wide + 4
    begins = np.searchsorted(flat, cells * inputs)
    before = np.concatenate([[0.0], np.cumsum(x.sum(1))])
    sums, mark = np.zeros((lines, count + 3, size), np.float32), np.zeros((lines, count + 3), "u1")
    up, cell = count + 3, (lines - 1) * (count + 3) + 2  # each line of outputs above the one before
    line = lines, cell, up, count, size, -pad, step, reach, 5, wide, 0, reach, inputs
    places = begins, before, mark.reshape(-1)
    work = slide(sums.reshape(-1), weights.ravel(), np.float32(1), events, line, places)
    assert work == lines * sum(part.sum() for part in parts)
    np.testing.assert_array_equal(mark[:, 2:-1], [[part.any() for part in parts]] * lines)
    np.testing.assert_array_equal(sums[:, 2:-1], np.reshape(expected, (lines, count, size)))
    assert not mark[:, [0, 1, -1]].any() and not sums[:, [0, 1, -1]].any()


@settings(deadline=None, max_examples=60)
@given(size=SIZES, share=st.sampled_from([0.0, 0.03, 0.5, 1.0]), seed=st.integers(0, 99))
def test_what_is_not_zero_is_counted_and_emitted(size, share, seed):
    rng = np.random.default_rng(seed)
    row = np.where(rng.random(size + 5) < share, rng.standard_normal(size + 5), 0)
    row = row.astype(np.float32)
    at = np.flatnonzero(row[:size])
    idx, val = np.full(size + 9, -1), np.zeros(size + 9, np.float32)
    assert nonzero(row, size) == len(at)
    assert emit(row, size, 1000, 4, (idx, val)) == 4 + len(at)
    np.testing.assert_array_equal(idx[4 : 4 + len(at)], 1000 + at)
    np.testing.assert_array_equal(val[4 : 4 + len(at)], row[at])
    assert (idx[:4] == -1).all() and (idx[4 + len(at) :] == -1).all()


def test_a_number_that_is_none_is_not_lost():
    row = np.array([0, np.nan, -0.0, np.inf], np.float32)
    idx, val = np.zeros(4, np.int64), np.zeros(4, np.float32)
    assert nonzero(row, 4) == emit(row, 4, 0, 0, (idx, val)) == 2
    np.testing.assert_array_equal(val[:2], row[[1, 3]])
