"""Kernels of learning by events: neurons in continuous time, and adjoints that go back in it.

A membrane v' = -a v + y behind a current y' = -b y has closed forms from one event to the next, as
have their adjoints.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from ...ops.threads import run_in_parts

jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
RUNAWAY = 1e-3  # steps between two spikes of a neuron that no working network comes near


def shared(work: Callable[[int, int], Any], batch: int) -> list[Any]:
    """Run `work` on all samples, a share on each of torch's threads."""
    threads = max(1, min(torch.get_num_threads(), batch))
    return run_in_parts(lambda _, first, last: work(first, last), batch, threads, threads)


@jit
def decays(a, b, gap):
    """e^(-a gap), e^(-b gap), and v after `gap` of v' = -a v + y, y' = -b y from v = 0, y = 1."""
    slow, apart = min(a, b), abs(a - b)
    rise = gap if apart == 0 else -math.expm1(-apart * gap) / apart
    return math.exp(-a * gap), math.exp(-b * gap), math.exp(-slow * gap) * rise


@jit
def _crossing(v, y, a, b, threshold, gap):
    """When v, below the threshold and rising, meets it; infinity if not within `gap`.

    With y > 0 v is concave as long as it rises: Newton's steps come to the crossing from the left,
    and where there is none they pass the maximum.
    """
    t = 0.0
    for _ in range(100):
        em, es, k = decays(a, b, t)
        h = em * v + k * y
        slope = es * y - a * h
        if slope <= 0 or t > gap:
            return np.inf
        step = (threshold - h) / slope
        t += step
        if step <= 1e-15 * (1 + t):
            break
    return t


@jit
def _move(v, y, a, b, threshold, now, gap, found, count):
    """All neurons through `gap` without input; their spikes go to `found` from `count` on."""
    em, es, k = decays(a, b, gap)
    v_was, y_was, may = v.copy(), y.copy(), np.empty(len(v), np.bool_)
    for n in range(len(v)):
        after, y_after = em * v_was[n] + k * y_was[n], es * y_was[n]
        peaks = (v_was[n] + y_was[n] * gap >= threshold) & (y_after < a * after)
        may[n] = (y_was[n] > a * v_was[n]) & (peaks | (after >= threshold))
        v[n], y[n] = after, y_after
    for n in np.flatnonzero(may):
        left, v_n, y_n = gap, v_was[n], y_was[n]
        while y_n > a * v_n:
            t = _crossing(v_n, y_n, a, b, threshold, left)
            if t > left:
                break
            if count == len(found):
                found = np.concatenate((found, np.empty_like(found)))
            runs_away = left < gap and t < RUNAWAY
            left, v_n, y_n = left - t, 0.0, y_n * math.exp(-b * t)
            slope = np.inf if runs_away else y_n - a * threshold
            found[count, 1], found[count, 2], found[count, 3] = now + gap - left, n, slope
            count += 1
            if runs_away:
                return found, count
        em_n, es_n, k_n = decays(a, b, left)
        v[n], y[n] = em_n * v_n + k_n * y_n, es_n * y_n
    return found, count


@jit
def integrate(first, last, weight, a, b, threshold, steps, came):
    """Drives neurons at rest by the spikes that `came` (start, time, index, size).

    Returns:
        Their spikes as rows (sample, time, index, slope of v); the last slope is infinite if a
        neuron ran away.
    """
    start, time, index, size = came
    found, count = np.empty((1024, 4)), 0
    for s in range(first, last):
        v, y, now = np.zeros(weight.shape[1]), np.zeros(weight.shape[1]), 0.0
        for e in range(start[s], start[s + 1] + 1):
            until = time[e] if e < start[s + 1] else steps
            if until > now:
                began = count
                found, count = _move(v, y, a, b, threshold, now, until - now, found, count)
                found[began:count, 0], now = s, until
                if count and found[count - 1, 3] == np.inf:
                    return found[:count]
            if e < start[s + 1]:
                y += size[e] * weight[index[e]]
    return found[:count]


@jit
def _fade(v, y, a, b, gap):
    """The adjoints of all neurons, `gap` earlier."""
    if gap > 0:
        em, es, k = decays(a, b, gap)
        exact = v.dtype.type  # numbers in the weights' precision, or loops widen
        em, es, k = exact(em), exact(es), exact(k)
        for n in range(len(v)):
            y[n] = es * y[n] + k * v[n]
            v[n] = em * v[n]


@jit
def retrace(first, last, weight, law, came, sent, to_weight, to_value):
    """A layer's backward pass: from the last spike to the first, read at those that came.

    Args:
        first, last, weight: the samples; of the layer, [N, C].
        law: a, b, and the shares of the adjoints of v and y in the gradients of a weight and, times
            the weight, of a value.
        came: start, time, index and size of the spikes that were fed.
        sent: start, time and index of its own, and by each the factor and rise of v's adjoint.
        to_weight, to_value: gradients to add to and, unless it is empty, to write.
    """
    (a, b, to_w, to_v), (start, time, index, size) = law, came
    own_start, own_time, own_index, keep, add = sent
    v, y = np.zeros(weight.shape[1], weight.dtype), np.zeros(weight.shape[1], weight.dtype)
    exact = v.dtype.type
    for s in range(first, last):
        v[:], y[:] = 0, 0
        now, k = 0.0, own_start[s + 1] - 1
        for e in range(start[s + 1] - 1, start[s] - 1, -1):
            while k >= own_start[s] and own_time[k] >= time[e]:
                _fade(v, y, a, b, now - own_time[k])
                now, n = own_time[k], own_index[k]
                v[n] = keep[k] * v[n] + add[k]
                k -= 1
            if k == own_start[s + 1] - 1:  # nothing follows that it could have caused
                continue
            _fade(v, y, a, b, now - time[e])
            now, row, sums = time[e], weight[index[e]], to_weight[index[e]]
            p, q = exact(size[e] * to_w[0]), exact(size[e] * to_w[1])
            for n in range(len(v)):
                sums[n] += p * v[n] + q * y[n]
            if len(to_value):
                p, q, total = exact(size[e] * to_v[0]), exact(size[e] * to_v[1]), exact(0)
                for n in range(len(v)):
                    total += row[n] * (p * v[n] + q * y[n])
                to_value[e] = total
