"""Kernels of learning by events: neurons in continuous time, and adjoints that go back in it.

Both visit only events. A membrane v' = -a v + y behind a current y' = -b y has closed forms
between them, as have their adjoints.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract"},
}
RUNAWAY = 1e-3  # steps between two spikes of a neuron that no working network comes near


def shared(work: Callable[[int, int], Any], batch: int) -> list[Any]:
    """`work` on all samples, a share to each of torch's threads."""
    threads = max(1, min(torch.get_num_threads(), batch))
    shares = [(batch * i // threads, batch * (i + 1) // threads) for i in range(threads)]
    if threads == 1:
        return [work(*shares[0])]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda share: work(*share), shares))


@njit(**OPTIONS)
def decays(a, b, gap):
    """e^(-a gap), e^(-b gap), and v after `gap` of v' = -a v + y, y' = -b y from v = 0, y = 1."""
    slow, apart = min(a, b), abs(a - b)
    rise = gap if apart == 0 else -math.expm1(-apart * gap) / apart
    return math.exp(-a * gap), math.exp(-b * gap), math.exp(-slow * gap) * rise


@njit(**OPTIONS)
def _crossing(v, y, a, b, threshold, gap):
    """When v, below the threshold and rising, meets it within `gap`; infinity if it does not.

    With y > 0 it rises to one maximum, where -a v + y = 0, and falls.
    """
    em, es, k = decays(a, b, gap)
    low, high = 0.0, gap
    if em * v + k * y < threshold:
        if es * y >= a * (em * v + k * y):
            return np.inf
        q, apart = (y - a * v) / (b * y), b - a
        high = q if apart == 0 else -math.log1p(-apart * q) / apart
        em, es, k = decays(a, b, high)
        if em * v + k * y < threshold:
            return np.inf
    t = low
    for _ in range(100):
        em, es, k = decays(a, b, t)
        above = em * v + k * y - threshold
        low, high = (t, high) if above < 0 else (low, t)
        slope = es * y - a * (above + threshold)
        step = t - above / slope if slope > 0 else high
        step = step if low <= step <= high else (low + high) / 2
        if abs(step - t) <= 1e-15 * (1 + t) or above == 0:
            break
        t = step
    return t


@njit(**OPTIONS)
def _move(v, y, a, b, threshold, now, gap, found, count):
    """All neurons through `gap` without input; their spikes go to `found` from `count` on."""
    em, es, k = decays(a, b, gap)
    before, may, some = np.stack((v, y)), np.empty(len(v), np.bool_), 0
    for n in range(len(v)):
        after, y_after = em * v[n] + k * y[n], es * y[n]
        peaks = (v[n] + y[n] * gap >= threshold) & (y_after < a * after) & (y[n] > a * v[n])
        may[n] = (after >= threshold) | peaks
        some += may[n]
        v[n], y[n] = after, y_after
    for n in range(len(v) * (some > 0)):
        if may[n]:
            left, v_n, y_n = gap, before[0, n], before[1, n]
            while y_n > a * v_n:
                t = _crossing(v_n, y_n, a, b, threshold, left)
                if t > left:
                    break
                if count == len(found):
                    found = np.concatenate((found, np.empty_like(found)))
                row, again = found[count], left < gap
                left, v_n, y_n = left - t, 0.0, y_n * math.exp(-b * t)
                row[0], row[1], row[2] = now + gap - left, n, y_n - a * threshold
                count += 1
                if again and t < RUNAWAY:
                    row[2] = np.inf
                    return found, count
            em_n, es_n, k_n = decays(a, b, left)
            v[n], y[n] = em_n * v_n + k_n * y_n, es_n * y_n
    return found, count


@njit(**OPTIONS)
def integrate(first, last, weight, a, b, threshold, steps, came):
    """Drives neurons at rest by the spikes that `came` (start, time, index, size).

    Returns:
        Their spikes as rows (time, index, slope of v), and how many each sample has. A slope of
        infinity in the last row says that a neuron ran away.
    """
    start, time, index, size = came
    counts = np.zeros(last - first, np.int64)
    found, count = np.empty((1024, 3)), 0
    for s in range(first, last):
        v, y = np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
        now, began = 0.0, count
        for e in range(start[s], start[s + 1] + 1):
            until = time[e] if e < start[s + 1] else steps
            if until > now:
                found, count = _move(v, y, a, b, threshold, now, until - now, found, count)
                now = until
                if count and found[count - 1, 2] == np.inf:
                    return found[:count], counts
            if e < start[s + 1]:
                row = weight[index[e]]
                for n in range(len(y)):
                    y[n] += size[e] * row[n]
        order = np.argsort(found[began:count, 0])
        found[began:count] = found[began:count][order]
        counts[s - first] = count - began
    return found[:count], counts


@njit(**OPTIONS)
def _fade(v, y, a, b, gap, factors):
    """The adjoints of all neurons, `gap` earlier."""
    if gap > 0:
        factors[0], factors[1], factors[2] = decays(a, b, gap)
        em, es, k = factors[0], factors[1], factors[2]
        for n in range(len(v)):
            y[n] = es * y[n] + k * v[n]
            v[n] = em * v[n]


@njit(**OPTIONS)
def _mix(v, y, shares, size, factors, out):
    """What is read of the adjoints."""
    factors[0], factors[1] = size * shares[0], size * shares[1]
    p, q = factors[0], factors[1]
    for n in range(len(v)):
        out[n] = p * v[n] + q * y[n]


@njit(**OPTIONS)
def _dot(row, reads, total):
    for n in range(len(row)):
        total += row[n] * reads[n]
    return total


@njit(**OPTIONS)
def retrace(first, last, weight, law, came, sent, to_weight, to_value):
    """A layer's backward pass: from the last spike to the first, read at those that came.

    Args:
        first, last: the samples.
        weight: [N, C], of the layer.
        law: a, b, and the shares of the adjoints of v and y that make the gradients of a weight
            and, times the weight, of a value.
        came: start, time, index and size of the spikes that were fed.
        sent: start, time and index of its own, what each multiplies the adjoint of v with, and
            what it adds.
        to_weight, to_value: gradients to add to and to write; none for [0].
    """
    (a, b, to_w, to_v), (start, time, index, size) = law, came
    own_start, own_time, own_index, keep, add = sent
    v, y = np.zeros(weight.shape[1], weight.dtype), np.zeros(weight.shape[1], weight.dtype)
    at_w, at_v = np.zeros_like(v), np.zeros_like(v)
    factors = np.zeros(4, weight.dtype)  # numbers in the weights' precision, or loops widen
    for s in range(first, last):
        v[:], y[:] = 0, 0
        now, k, last_size = 0.0, own_start[s + 1] - 1, 0.0
        for e in range(start[s + 1] - 1, start[s] - 1, -1):
            while k >= own_start[s] and own_time[k] >= time[e]:
                _fade(v, y, a, b, now - own_time[k], factors)
                now, n, last_size = own_time[k], own_index[k], 0.0
                v[n] = keep[k] * v[n] + add[k]
                k -= 1
            if k == own_start[s + 1] - 1:  # nothing follows that it could have caused
                continue
            if time[e] < now or size[e] != last_size:
                _fade(v, y, a, b, now - time[e], factors)
                now, last_size = time[e], size[e]
                _mix(v, y, to_w, last_size, factors, at_w)
                _mix(v, y, to_v, last_size, factors, at_v)
            sums = to_weight[index[e]]
            for n in range(len(at_w)):
                sums[n] += at_w[n]
            if len(to_value):
                to_value[e] = _dot(weight[index[e]], at_v, factors[3])
