"""The scan on CPUs: each thread takes a block of neurons through all of time, in cache.

The backward pass runs its block forward again and keeps what it needs in the block's scratch, so
training stores its inputs alone. Loops over a row are split by the
step of the equations they compute: short loops over few arrays vectorise.

Arithmetic follows `reference.py` operation by operation, so spikes are equal to the last bit.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..surrogate import SURROGATES

EMITS, RESETS = ("binary", "integer", "delta"), ("subtract", "zero", "none")
BINARY, INTEGER, DELTA = range(3)
SUBTRACT, ZERO, _ = range(3)
SCRATCH = 2**16  # values of one scratch array, [T, width]: three of them fit a core's L2 cache
THREADS = numba.get_num_threads()  # the most that Numba was started with

compiled = njit(error_model="numpy")  # a check for division by zero would stop vectorisation


class Rules(NamedTuple):
    """What the kernels branch on, as numbers: the parts of `Dynamics`, and the surrogate."""

    emit: int
    reset: int
    levels: int
    negative_slope: float
    detach_reset: bool
    surrogate: int
    slope: float

    @classmethod
    def of(cls, emit, reset, levels, negative_slope, detach_reset, surrogate, slope) -> "Rules":
        """The rules that these names stand for."""
        codes = EMITS.index(emit), RESETS.index(reset), levels, negative_slope, detach_reset
        return cls(*codes, list(SURROGATES).index(surrogate), slope)


def _link(code, derivative, otherwise):
    """`otherwise`, preceded by a test for the surrogate `code`: the table as a chain of ifs."""
    g = njit(error_model="numpy", fastmath=True)(derivative)

    @compiled
    def fill(surrogate, slope, h, threshold, out):
        if surrogate == code:
            for n in range(out.size):
                out[n] = g(h[n] - threshold[n], slope)
        else:
            otherwise(surrogate, slope, h, threshold, out)

    return fill


@compiled
def _fill(surrogate, slope, h, threshold, out):
    out[:] = np.nan


for _code, _row in enumerate(SURROGATES.values()):
    _fill = _link(_code, _row.derivative, _fill)


@compiled
def _copy(out, a):
    for n in range(out.size):  # out[:] = a would first look for overlap
        out[n] = a[n]


@compiled
def _step(rules, x, v, r, decay, gain, threshold, h, s):
    """Charge into h, fire into s, reset v and r in place."""
    zero = h.dtype.type(0)
    for n in range(h.size):
        h[n] = decay[n] * v[n] + gain[n] * x[n]
    if rules.emit == BINARY:
        for n in range(h.size):
            s[n] = h[n] >= threshold[n]
    elif rules.emit == INTEGER:
        half, most = h.dtype.type(0.5), h.dtype.type(rules.levels)
        for n in range(h.size):
            s[n] = min(max(np.floor(h[n] / threshold[n] + half), zero), most)
    else:
        below = h.dtype.type(rules.negative_slope)
        for n in range(h.size):
            change = (h[n] if h[n] > 0 else below * h[n]) - r[n]
            s[n] = change if abs(change) >= threshold[n] else zero
            r[n] += s[n]
    if rules.reset == SUBTRACT:
        for n in range(h.size):
            v[n] = h[n] - threshold[n] * s[n]
    elif rules.reset == ZERO:
        for n in range(h.size):
            v[n] = h[n] if s[n] == 0 else 0
    else:
        _copy(v, h)


@compiled
def _fire_backward(rules, h, threshold, by_h, by_threshold):
    """ds/dh and ds/dthreshold of one row."""
    if rules.emit == BINARY:
        _fill(rules.surrogate, rules.slope, h, threshold, by_h)
        for n in range(h.size):
            by_threshold[n] = -by_h[n]
    elif rules.emit == INTEGER:
        for n in range(h.size):
            u = h[n] / threshold[n]
            by_h[n] = 1 / threshold[n] if -0.5 < u < rules.levels + 0.5 else 0
            by_threshold[n] = -by_h[n] * u
    else:
        for n in range(h.size):
            by_h[n] = 1 if h[n] > 0 else rules.negative_slope
            by_threshold[n] = 0


@compiled
def _send_backward(rules, h, s, threshold, grad_v, grad_r, grad_s):
    """Adds to grad_s, the gradient of the spikes, what reached them through the next state."""
    if rules.emit == DELTA:
        for n in range(h.size):
            grad_s[n] += grad_r[n]
            grad_r[n] -= grad_s[n]
    if rules.detach_reset:
        return
    if rules.reset == SUBTRACT:
        for n in range(h.size):
            grad_s[n] -= threshold[n] * grad_v[n]
    elif rules.reset == ZERO:
        for n in range(h.size):
            grad_s[n] -= h[n] * grad_v[n] if s[n] <= 1 else 0


@compiled
def _add_product(out, a, b):
    for n in range(out.size):
        out[n] += a[n] * b[n]


@compiled
def _step_backward(rules, x, v, s, decay, gain, by_h, by_threshold, grad_s, grad_v, grad_x, sums):
    """Through reset and charge: grad_v of the membrane after the step becomes that before it."""
    if rules.reset == SUBTRACT:
        for n in range(s.size):
            sums[2, n] -= s[n] * grad_v[n]
    elif rules.reset == ZERO:
        for n in range(s.size):
            grad_v[n] = grad_v[n] if s[n] == 0 else 0
    _add_product(sums[2], grad_s, by_threshold)
    _add_product(grad_v, grad_s, by_h)
    _add_product(sums[0], grad_v, v)
    _add_product(sums[1], grad_v, x)
    for n in range(s.size):
        grad_x[n] = grad_v[n] * gain[n]
    for n in range(s.size):
        grad_v[n] *= decay[n]


@compiled
def _forward_block(rules, at, x, state, decay, gain, threshold, spikes, final):
    b, lo, hi = at
    v, r, h = state[0, b, lo:hi].copy(), state[-1, b, lo:hi].copy(), np.empty(hi - lo, x.dtype)
    for t in range(len(x)):
        _step(rules, x[t, b, lo:hi], v, r, decay, gain, threshold, h, spikes[t, b, lo:hi])
    final[-1, b, lo:hi] = r  # first: where v is all the state, it takes this place
    final[0, b, lo:hi] = v


@compiled
def _backward_block(
    rules, at, x, state, decay, gain, threshold, grad_spikes, grad_state, grad_x, grads
):
    """Runs the block forward into scratch, then backward; grad_state is that of the last state,
    then of the first. grads [3, B, N] are those of decay, gain and threshold."""
    b, lo, hi = at
    v, r = state[0, b, lo:hi].copy(), state[-1, b, lo:hi].copy()
    before, h = np.empty((len(x), hi - lo), x.dtype), np.empty((len(x), hi - lo), x.dtype)
    s, sums = np.empty_like(h), np.zeros((3, hi - lo), x.dtype)
    for t in range(len(x)):
        _copy(before[t], v)
        _step(rules, x[t, b, lo:hi], v, r, decay, gain, threshold, h[t], s[t])
    grad_v, grad_r = grad_state[0, b, lo:hi].copy(), grad_state[-1, b, lo:hi].copy()
    grad_s, by_h, by_threshold = np.empty_like(v), np.empty_like(v), np.empty_like(v)
    for t in range(len(x) - 1, -1, -1):
        _copy(grad_s, grad_spikes[t, b, lo:hi])
        _send_backward(rules, h[t], s[t], threshold, grad_v, grad_r, grad_s)
        _fire_backward(rules, h[t], threshold, by_h, by_threshold)
        row, out = x[t, b, lo:hi], grad_x[t, b, lo:hi]
        _step_backward(
            rules, row, before[t], s[t], decay, gain, by_h, by_threshold, grad_s, grad_v, out, sums
        )
    grads[:, b, lo:hi] = sums
    grad_state[-1, b, lo:hi] = grad_r
    grad_state[0, b, lo:hi] = grad_v


@compiled
def _block(task, shape, width):
    """Which sample, and which neurons from and to, are the work of `task`."""
    per_sample = -(-shape[2] // width)
    lo = task % per_sample * width
    return task // per_sample, lo, min(lo + width, shape[2])


@njit(parallel=True, cache=True)
def _forward(rules, width, tasks, x, state, decay, gain, threshold, spikes, final):
    for task in prange(tasks):
        at = _block(task, x.shape, width)
        mine = slice(at[1], at[2])
        a, g, theta = decay[mine], gain[mine], threshold[mine]
        _forward_block(rules, at, x, state, a, g, theta, spikes, final)


@njit(parallel=True, cache=True)
def _backward(
    rules, width, tasks, x, state, decay, gain, threshold, grad_spikes, grad_state, grad_x, grads
):
    for task in prange(tasks):
        at = _block(task, x.shape, width)
        mine = slice(at[1], at[2])
        a, g, theta = decay[mine], gain[mine], threshold[mine]
        _backward_block(rules, at, x, state, a, g, theta, grad_spikes, grad_state, grad_x, grads)


def _launch(kernel, rules: Rules, x: Tensor, *tensors: Tensor) -> None:
    """Runs `kernel` on the memory of x [T, B, N] and `tensors`, on as many threads as torch's."""
    steps, batch, neurons = x.shape
    width = max(1, min(neurons, max(16, SCRATCH // steps)))
    tasks = batch * -(-neurons // width)
    numba.set_num_threads(min(torch.get_num_threads(), THREADS))
    arrays = [tensor.detach().contiguous().numpy() for tensor in (x, *tensors)]
    kernel(rules, width, tasks, *arrays)


def forward(rules: Rules, x: Tensor, state: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The scan of x [T, B, N] from state [K, B, N]; parameters are decay, gain, threshold [N].

    Returns:
        Spikes [T, B, N] and the last state [K, B, N].
    """
    spikes = torch.empty(x.shape, dtype=x.dtype)
    final = torch.empty(state.shape, dtype=x.dtype)
    _launch(_forward, rules, x, state, *parameters, spikes, final)
    return spikes, final


def backward(
    rules: Rules, grad_spikes: Tensor, grad_final: Tensor, x: Tensor, *inputs: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x and of `inputs`: the first state, decay, gain and threshold."""
    grad_x = torch.empty(x.shape, dtype=x.dtype)
    grad_state = grad_final.clone(memory_format=torch.contiguous_format)
    grads = torch.empty((3, *x.shape[1:]), dtype=x.dtype)
    _launch(_backward, rules, x, *inputs, grad_spikes, grad_state, grad_x, grads)
    decay, gain, threshold = (grad.sum(0) for grad in grads)  # an operator's outputs share nothing
    return grad_x, grad_state, decay, gain, threshold
