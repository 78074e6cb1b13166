"""EventProp: exact gradients of spike times, in continuous time.

The adjoint of a membrane decays in closed form from one event back to the one before, jumps at the
neuron's own spikes, and is read at the spikes that drove it: a read gives the gradient of a weight,
and of the sender's time. Layers are nodes of autograd, with one value for each spike between them.
So the work of a backward pass follows the spikes, and nothing dense is stored.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...core.errors import InputError
from ...core.neurons import Current
from ...nn import Neuron
from ...ops.modes import transformed
from ...ops.threads import run_in_parts
from .base import Rule

RUNAWAY = 1e-3  # steps between two spikes of a neuron that no working network comes near

_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})


class Spikes(NamedTuple):
    """Spikes of a population, sample after sample, each sample's in the order of time.

    Attributes:
        start: where each sample begins, and the last one ends, [B + 1].
        time: in steps, [E].
        index: the neuron, [E].
        size: what multiplies weights, [E].
        value: the times as a tensor to differentiate, [E].
    """

    start: np.ndarray
    time: np.ndarray
    index: np.ndarray
    size: np.ndarray
    value: Tensor

    @property
    def sample(self) -> np.ndarray:
        """The sample of each spike, [E]."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def eventprop() -> Rule:
    """Exact gradients of spike times in continuous time (EventProp).

    Wunderlich and Pehle 2021 (Sci. Rep. 11:12829, arXiv 2009.08378). Networks are `nn.Sequential`
    of `nn.Linear` without bias and `Neuron(Current(reset="zero"))` in turn. Between spikes

        v' = -v / tau_m + y,   y' = -y / tau_s,   decay = e^(-1 / tau_m), synapse = e^(-1 / tau_s)

    with the step as unit of time. A spike at t, of an input at the step t or of a neuron at any
    real time, moves y by k gain w, with k such that v is `drive` gain w one step later: without
    spikes, the membrane h of step n is v(n + 1) exactly. v returns to 0 the moment it meets the
    threshold. With p and q the adjoints of v and y, in backward time p decays with tau_m, q with
    tau_s and gains p K(s), K being v's response to y. At a neuron's own spike, where v rose with
    the slope r, and is worth dL/dt,

        p <- (r + threshold / tau_m) / r p - 1 / r dL/dt

    and for each spike that drove it dL/dw += k gain q,  dL/dt += k gain w (q / tau_s - p).

    Returns:
        A rule for x [T, B, N], zero but for spikes. Its outputs are the times of first spikes
        [B, C] in steps, T of those that are silent, and these have no gradient.

    Raises:
        InputError: The rule: a network of other layers, x elsewhere than on the CPU, a weight that
            is not finite, a neuron that fires twice at once, or a transform of `torch.func`.
    """

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        layers = _layers(network, x)
        spikes = _input_spikes(x.flatten(2))
        for linear, neuron in layers:
            spikes = _layer_spikes(linear.weight, spikes, neuron.dynamics, len(x))
        shape = x.shape[1], layers[-1][0].out_features
        place = torch.from_numpy(spikes.sample * shape[1] + spikes.index)
        times = spikes.value.new_full((math.prod(shape),), len(x))
        times = times.scatter_reduce(0, place, spikes.value, "amin").view(shape).to(x.dtype)
        return objective(times), times.detach()

    return rule


def _layers(network: nn.Module, x: Tensor) -> list[tuple[nn.Linear, Any]]:
    """The pairs of weights and neurons of a network, behind a flattening if there is one."""
    if transformed():
        raise InputError("eventprop: no torch.func transform or forward mode; use backward()")
    if x.device.type != "cpu":
        raise InputError(
            f"eventprop: x is on {x.device}, but events are followed on CPUs; move both"
        )
    layers: list[Any] = list(network) if isinstance(network, nn.Sequential) else [network]
    pairs, rest = [], layers[isinstance(layers[0], nn.Flatten) :]
    width = math.prod(x.shape[2:]) if x.dim() > 2 else 0
    while rest or not pairs:
        linear, neuron, *_ = *rest, None, None
        reads = isinstance(linear, nn.Linear) and linear.in_features == width
        if not (reads and linear.bias is None and _follows(neuron)):
            raise InputError(
                f"eventprop: x {list(x.shape)}, layer {len(layers) - len(rest)}: {linear} and "
                f"{neuron}; it takes [T, B, N], nn.Linear of N inputs without bias and "
                "Neuron(Current(reset='zero')) with decay and synapse above 0 in turn, of fixed "
                "constants"
            )
        pairs, rest, width = [*pairs, (linear, neuron)], rest[2:], linear.out_features
    return pairs


def _follows(neuron: Any) -> bool:
    """Whether a layer is of neurons that have the equations of `eventprop`."""
    dynamics = getattr(neuron, "dynamics", None)
    if not isinstance(neuron, Neuron) or neuron.varying or not isinstance(dynamics, Current):
        return False
    binary = dynamics.emit == "binary" and dynamics.reset == "zero" and not dynamics.refractory
    return binary and min(dynamics.decay, dynamics.synapse) > 0


def _input_spikes(x: Tensor) -> Spikes:
    """The spikes of x [T, B, N]."""
    sample, at, index = x.transpose(0, 1).nonzero().t().contiguous()
    start = torch.searchsorted(sample, torch.arange(x.shape[1] + 1)).numpy()
    time, size = at.double(), x.detach()[at, sample, index]
    return Spikes(start, time.numpy(), index.numpy(), size.numpy(), time)


def _layer_spikes(weight: Tensor, inputs: Spikes, dynamics: Any, steps: int) -> Spikes:
    """The spikes that neurons at rest send until `steps`, driven by `inputs`."""
    a, b = (-math.log(part) for part in (dynamics.decay, dynamics.synapse))
    scale = dynamics.gain * dynamics.drive / _decays(a, b, 1.0)[2]
    scaled = (scale * weight.detach().double()).t().contiguous().numpy()
    if not np.isfinite(scaled).all():
        raise InputError("eventprop: a weight is not finite; look for the step that made it so")

    def work(first: int, last: int) -> np.ndarray:
        return _integrate(first, last, scaled, a, b, dynamics.threshold, float(steps), inputs[:4])

    rows = np.concatenate(_in_threads(work, len(inputs.start) - 1))
    sample, time, index, slope = rows[np.lexsort((rows[:, 1], rows[:, 0]))].T.copy()
    if np.isinf(slope).any():
        raise InputError(
            f"eventprop: a neuron fires twice within {RUNAWAY} steps; make the weights smaller"
        )
    start, value = np.searchsorted(sample, range(len(inputs.start))), torch.from_numpy(time)
    spikes = Spikes(start, time, index.astype(np.int64), np.ones_like(time), value)
    jumps = 1 + a * dynamics.threshold / slope, -1 / slope
    value = _Adjoint.apply(weight, inputs.value, value, ((a, b, scale), inputs, spikes, jumps))
    return spikes._replace(value=value)


class _Adjoint(torch.autograd.Function):
    """A layer: (weight [C, N], input times [E], own times [E'], context) -> its own times.

    The context: decays and scale of the equations, the spikes that drove the layer and its own,
    and at each of these the factor and, for a unit of its time's gradient, the rise of v's adjoint.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: Tensor, own: Tensor, context: tuple) -> Tensor:
        ctx.context = context
        ctx.save_for_backward(weight)
        return own.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (law, inputs, spikes, (keep, rise)) = ctx.saved_tensors, ctx.context
        transposed, wanted = weight.t().contiguous().numpy(), ctx.needs_input_grad[1]
        to_time = np.zeros(len(inputs.time) * wanted, transposed.dtype)
        own = *spikes[:3], keep, rise * grads[0].double().numpy()

        def work(first: int, last: int) -> np.ndarray:
            to_weight = np.zeros_like(transposed)
            _retrace(first, last, transposed, law, inputs[:4], own, to_weight, to_time)
            return to_weight

        to_weight = torch.from_numpy(sum(_in_threads(work, len(inputs.start) - 1))).t()
        times = torch.from_numpy(to_time).to(inputs.value.dtype) if wanted else None
        return to_weight, times, None, None


def _in_threads(work: Callable[[int, int], Any], batch: int) -> list[Any]:
    """The results of `work(first, last)` on shares of a batch, one for each of torch's threads."""
    threads = max(1, min(torch.get_num_threads(), batch))
    return run_in_parts(lambda _, first, last: work(first, last), batch, threads, threads)


@_jit
def _decays(a, b, gap):
    """e^(-a gap), e^(-b gap), and v after `gap` of v' = -a v + y, y' = -b y from v = 0, y = 1."""
    slow, apart = min(a, b), abs(a - b)
    rise = gap if apart == 0 else -math.expm1(-apart * gap) / apart
    return math.exp(-a * gap), math.exp(-b * gap), math.exp(-slow * gap) * rise


@_jit
def _crossing(v, y, a, b, threshold, gap):
    """When v, below the threshold and rising, meets it; infinity if not within `gap`.

    With y > 0 v is concave as long as it rises: Newton's steps come to the crossing from the left,
    and where there is none they pass the maximum.
    """
    t = 0.0
    for _ in range(100):
        em, es, k = _decays(a, b, t)
        h = em * v + k * y
        slope = es * y - a * h
        if slope <= 0 or t > gap:
            return np.inf
        step = (threshold - h) / slope
        t += step
        if step <= 1e-15 * (1 + t):
            break
    return t


@_jit
def _advance(v, y, a, b, threshold, now, gap, rows, count):
    """Move all neurons through `gap` without input; write their spikes to `rows` from `count` on.

    Returns:
        The rows, longer where these didn't suffice, and their count.
    """
    em, es, k = _decays(a, b, gap)
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
            if count == len(rows):
                rows = np.concatenate((rows, np.empty_like(rows)))
            runs_away = left < gap and t < RUNAWAY
            left, v_n, y_n = left - t, 0.0, y_n * math.exp(-b * t)
            slope = np.inf if runs_away else y_n - a * threshold
            rows[count, 1], rows[count, 2], rows[count, 3] = now + gap - left, n, slope
            count += 1
            if runs_away:
                return rows, count
        em_n, es_n, k_n = _decays(a, b, left)
        v[n], y[n] = em_n * v_n + k_n * y_n, es_n * y_n
    return rows, count


@_jit
def _integrate(first, last, weight, a, b, threshold, steps, inputs):
    """Drive neurons at rest by the spikes `inputs` (start, time, index, size).

    Returns:
        Their spikes as rows (sample, time, index, slope of v); the last slope is infinite if a
        neuron ran away.
    """
    start, time, index, size = inputs
    rows, count = np.empty((1024, 4)), 0
    for s in range(first, last):
        v, y, now = np.zeros(weight.shape[1]), np.zeros(weight.shape[1]), 0.0
        for e in range(start[s], start[s + 1] + 1):
            until = time[e] if e < start[s + 1] else steps
            if until > now:
                began = count
                rows, count = _advance(v, y, a, b, threshold, now, until - now, rows, count)
                rows[began:count, 0], now = s, until
                if count and rows[count - 1, 3] == np.inf:
                    return rows[:count]
            if e < start[s + 1]:
                y += size[e] * weight[index[e]]
    return rows[:count]


@_jit
def _rewind(v, y, a, b, gap):
    """Move the adjoints of all neurons to `gap` earlier."""
    if gap > 0:
        em, es, k = _decays(a, b, gap)
        exact = v.dtype.type  # numbers in the weights' precision, or loops widen
        em, es, k = exact(em), exact(es), exact(k)
        for n in range(len(v)):
            y[n] = es * y[n] + k * v[n]
            v[n] = em * v[n]


@_jit
def _retrace(first, last, weight, law, inputs, own, to_weight, to_time):
    """A layer's backward pass: from the last spike to the first, read at its input spikes.

    Args:
        first, last, weight: the samples; of the layer, [N, C].
        law: a, b and scale of the equations.
        inputs: start, time, index and size of the spikes that drove it.
        own: start, time and index of its own, and at each the factor and rise of v's adjoint.
        to_weight, to_time: gradients to add to and, unless it is empty, to write.
    """
    (a, b, scale), (start, time, index, size) = law, inputs
    own_start, own_time, own_index, keep, add = own
    v, y = np.zeros(weight.shape[1], weight.dtype), np.zeros(weight.shape[1], weight.dtype)
    exact = v.dtype.type
    for s in range(first, last):
        v[:], y[:] = 0, 0
        now, k = 0.0, own_start[s + 1] - 1
        for e in range(start[s + 1] - 1, start[s] - 1, -1):
            while k >= own_start[s] and own_time[k] >= time[e]:
                _rewind(v, y, a, b, now - own_time[k])
                now, n = own_time[k], own_index[k]
                v[n] = keep[k] * v[n] + add[k]
                k -= 1
            if k == own_start[s + 1] - 1:  # nothing follows that it could have caused
                continue
            _rewind(v, y, a, b, now - time[e])
            now, row, sums = time[e], weight[index[e]], to_weight[index[e]]
            p, q = exact(-size[e] * scale), exact(size[e] * scale)
            for n in range(len(v)):
                sums[n] += q * y[n]
            if len(to_time):
                q, total = exact(size[e] * b * scale), exact(0)
                for n in range(len(v)):
                    total += row[n] * (p * v[n] + q * y[n])
                to_time[e] = total
