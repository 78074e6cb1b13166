"""Learning whose backward pass visits spikes only: EventProp, masked surrogates, first spikes.

The first two are one computation. The adjoint of a membrane decays in closed form from one event
back to the one before, jumps at the neuron's own spikes, and is read at the spikes that it was
fed: a read gives the gradient of a weight, and of what the sender's spike was worth. Layers are
nodes of autograd, with one value for each spike between them: its time for `eventprop`, its size
for `mpd_ed`. So the work of a backward pass follows the spikes, and nothing dense is stored.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.neurons import Current, Leaky
from ...nn import Neuron
from ...ops.scan import scan
from ...ops.scan.reference import Tensors
from ...ops.surrogate import surrogate_named
from .event_kernels import RUNAWAY, decays, integrate, retrace, shared
from .online import Rule, taught


class Spikes(NamedTuple):
    """Spikes of a population, sample after sample, each sample's in the order of time.

    Samples begin at `start` [B + 1]. The others are [E]: `time` in steps, whose (`index`), what
    multiplies weights (`size`), and time or size as a tensor to differentiate (`value`).
    """

    start: np.ndarray
    time: np.ndarray
    index: np.ndarray
    size: np.ndarray
    value: Tensor

    @property
    def sample(self) -> np.ndarray:
        """[E], the sample of each spike."""
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

    and for each spike that it was fed dL/dw += k gain q,  dL/dt += k gain w (q / tau_s - p).

    Returns:
        A rule for x [T, B, N], zero but for spikes. Its outputs are the times of first spikes
        [B, C] in steps, T of those that are silent, and these have no gradient.
    """

    def fits(d: Any) -> bool:
        return isinstance(d, Current) and d.reset == "zero" and min(d.decay, d.synapse) > 0

    takes = fits, "Neuron(Current(reset='zero')) with decay and synapse above 0", 0

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        pairs, _ = _parsed("eventprop", network, x, *takes)
        events = _sent(x.flatten(2), times=True)
        for linear, neuron in pairs:
            events = _timed(linear.weight, events, neuron.dynamics, len(x))
        shape = x.shape[1], pairs[-1][0].out_features
        place = torch.from_numpy(events.sample * shape[1] + events.index)
        times = events.value.new_full((math.prod(shape),), len(x))
        times = times.scatter_reduce(0, place, events.value, "amin").view(shape).to(x.dtype)
        return objective(times), times.detach()

    return rule


def mpd_ed(least: float = 0.01, wake: float = 0.1) -> Rule:
    """MPD-ED-style: surrogate gradients that flow through emitted spikes alone.

    Our reconstruction of the membrane-potential form of Wei et al. 2024 (arXiv 2403.00270), whose
    text we had not: ds/dh = s g(h - threshold), g the neuron's surrogate. The result equals that
    of BPTT with a one-sided surrogate, such as "masked_triangle". With p the adjoint of h, in
    backward time p decays by `decay` each step and rises by g dL/ds at the neuron's own spikes;
    for each spike it was fed, dL/dw += gain p s and dL/ds += gain w p.

    Neurons without spikes get no gradient. A threshold that rises with spikes can't wake them,
    so instead of the paper's adaptive one a bound of the rate does: a neuron of r < `least`
    spikes a step has its mean drive raised with the weight `wake` (least - r).

    Returns:
        A rule for `nn.Sequential` of `nn.Linear` without bias and `Neuron(Leaky)` with a detached
        reset "subtract" or "none" in turn, then, if there is one, a linear read-out, and behind
        it neurons that hand on their membrane. x is [T, B, N], outputs are [T, B, C].
    """

    def fits(d: Any) -> bool:
        return isinstance(d, Leaky) and d.reset in ("subtract", "none") and d.detach_reset

    takes = fits, "Neuron(Leaky), its reset detached 'subtract' or 'none'", math.inf

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        pairs, tail = _parsed("mpd-ed", network, x, *takes)
        (steps, batch), s = x.shape[:2], x.flatten(2)
        events, woken = _sent(s), x.new_zeros(())
        for linear, neuron in pairs:
            mean = s.mean((0, 1))
            s, events = _masked(linear.weight, s, events, neuron)
            if wake:
                short = wake * (least - s.mean((0, 1))).clamp_min(0)
                woken = taught(woken, -(short * F.linear(mean, linear.weight)).sum())
        weight = tail[0].weight.t() if tail else torch.eye(s.shape[2], dtype=x.dtype)
        bag = torch.from_numpy(events.sample * steps + events.time.astype(np.int64))
        offsets = torch.searchsorted(bag, torch.arange(batch * steps))
        given = {"mode": "sum", "per_sample_weights": events.value}
        y = F.embedding_bag(torch.from_numpy(events.index), weight, offsets, **given)
        y = y.unflatten(0, (batch, steps)).transpose(0, 1)
        if tail and tail[0].bias is not None:
            y = y + tail[0].bias
        for neuron in tail[1:]:
            y, _ = neuron(y)
        return objective(y) + woken, y.detach()

    return rule


def std_ed(clip: float = 1.0) -> Rule:
    """STD-ED-style: gradients of spike times through the spikes that were sent.

    The predecessor of the spike-timing form of Wei et al. 2024 (arXiv 2403.00270, whose text we
    had not): time to first spike with a dynamic firing threshold, Wei et al. 2023 (ICCV). A layer
    fires in the window [t_b, t_e] that follows the one in which it is fed. Its membranes
    integrate max(0, t - t_i) of each input spike, and its threshold falls as t_e - t, so that

        t_j = (t_e + sum_F w_ji t_i) / (1 + sum_F w_ji),   F: the inputs that fired
        dt_j/dt_i = w_ji / (1 + sum_F w),   dt_j/dw_ji = (t_i - t_j) / (1 + sum_F w)

    with windows of length 1; both factors are clipped to +-`clip`. It fires at t_b if the
    membrane is over the threshold there, and never if t_j >= t_e or 1 + sum_F w <= 0; such a
    neuron has no gradient, and its row is not visited.

    Reconstructed: no gradient at t_b; a read-out's potentials are read at its t_b, and so are
    sum_F w (t_b - t_i), continuous where inputs fall silent; no adaptive threshold.

    Returns:
        A rule for `nn.Sequential` of `nn.Linear` without bias and `IF` in turn, of which the
        weights, times gain / threshold, are all that is used; then, if there is one, a linear
        read-out. The first spikes of x [T, B, N] are fed in a window of T steps. Outputs are
        times of first spikes [B, C] in steps of the last window, T of those that are silent, or
        the read-out's potentials [1, B, C].
    """
    takes = lambda d: isinstance(d, Leaky) and d.decay == 1, "Neuron(Leaky) with decay 1", 1

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        pairs, tail = _parsed("std-ed", network, x, *takes)
        sent = x.flatten(2) != 0
        fired = sent.any(0)
        early = (1 - sent.int().argmax(0) / len(x)).to(x.dtype) * fired
        for linear, neuron in pairs:
            scale = neuron.dynamics.gain / neuron.dynamics.threshold
            early, fired = _First.apply(linear.weight * scale, early, fired, clip)
        y = tail[0](early)[None] if tail else (1 - early) * len(x)
        return objective(y), y.detach()

    return rule


def _parsed(
    rule: str, network: nn.Module, x: Tensor, fits: Callable[[Any], bool], takes: str, most: float
) -> tuple[list[Any], list[Any]]:
    """The pairs of weights and binary neurons of a network, and its read-out.

    A flattening may come first. `takes` says for which dynamics `fits`; up to `most` layers read
    out: linear, then neurons that hand on their membrane.
    """
    if x.device.type != "cpu":
        raise InputError(f"{rule}: x is on {x.device}, but events are followed on CPUs; move both")
    layers: list[Any] = list(network) if isinstance(network, nn.Sequential) else [network]
    pairs, rest = [], layers[isinstance(layers[0], nn.Flatten) :]
    width = math.prod(x.shape[2:]) if x.dim() > 2 else 0
    while rest or not pairs:
        linear, neuron, *_ = *rest, None, None
        wired = isinstance(linear, nn.Linear) and linear.in_features == width
        if pairs and wired and len(rest) <= most and all(_emits(n, "membrane") for n in rest[1:]):
            break
        fit = wired and linear.bias is None and _emits(neuron, "binary")
        if not fit or not fits(getattr(neuron, "dynamics", None)):
            raise InputError(
                f"{rule}: x {list(x.shape)}, layer {len(layers) - len(rest)}: {linear} and "
                f"{neuron}; it takes [T, B, N], nn.Linear of N inputs without bias and {takes} in "
                "turn, of fixed constants"
            )
        pairs, rest, width = [*pairs, (linear, neuron)], rest[2:], linear.out_features
    return pairs, rest


def _emits(layer: Any, what: str) -> bool:
    plain = isinstance(layer, Neuron) and not layer.varying and not layer.dynamics.refractory
    return plain and layer.dynamics.emit == what


def _sent(x: Tensor, times: bool = False) -> Spikes:
    """The spikes of x [T, B, N]."""
    sample, at, index = x.transpose(0, 1).nonzero().t().contiguous()
    start = torch.searchsorted(sample, torch.arange(x.shape[1] + 1)).numpy()
    time, size = at.double(), x.detach()[at, sample, index]
    value = time if times else size
    return Spikes(start, time.numpy(), index.numpy(), size.numpy(), value)


def _timed(weight: Tensor, came: Spikes, d: Any, steps: int) -> Spikes:
    """The spikes until `steps` of neurons in continuous time, driven by those that came."""
    a, b = (-math.log(part) for part in (d.decay, d.synapse))
    scale = d.gain * d.drive / decays(a, b, 1.0)[2]
    turned = (scale * weight.detach().double()).t().contiguous().numpy()
    if not np.isfinite(turned).all():
        raise InputError("eventprop: a weight is not finite; look for the step that made it so")

    def work(first: int, last: int) -> np.ndarray:
        return integrate(first, last, turned, a, b, d.threshold, float(steps), came[:4])

    found = np.concatenate(shared(work, len(came.start) - 1))
    sample, time, index, slope = found[np.lexsort((found[:, 1], found[:, 0]))].T.copy()
    if np.isinf(slope).any():
        raise InputError(
            f"eventprop: a neuron fires twice within {RUNAWAY} steps; make the weights smaller"
        )
    start, value = np.searchsorted(sample, range(len(came.start))), torch.from_numpy(time)
    sent = Spikes(start, time, index.astype(np.int64), np.ones_like(time), value)
    law = a, b, (0.0, scale), (-scale, b * scale)
    how = law, came, sent, 1 + a * d.threshold / slope, -1 / slope
    return sent._replace(value=_Retrace.apply(weight, came.value, value, how))


def _masked(weight: Tensor, x: Tensor, came: Spikes, neuron: Any) -> tuple[Tensor, Spikes]:
    """What `neuron` sends of x [T, B, N], dense and as events."""
    d, row = neuron.dynamics, surrogate_named(neuron.surrogate)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        drive = F.linear(x, weight)
        s, _ = neuron(drive)
        sent = _sent(s)
        drive.mul_(d.gain)
        if d.reset == "subtract":
            drive[1:].sub_(s[:-1], alpha=d.decay * d.threshold)
        h, _ = scan(drive, None, Leaky(decay=d.decay, emit="membrane", reset="none"))
        above = torch.from_numpy(h.numpy()[sent.time.astype(int), sent.sample, sent.index])
        m = Tensors(h, row.name, row.slope if neuron.slope is None else neuron.slope)
        # h sums in another order than the neuron did: a spike at the threshold could lie below.
        rise = m.surrogate((above - d.threshold).clamp_min(0)).double().numpy()
    law = -math.log(d.decay) if d.decay else math.inf, 0.0, (d.gain, 0.0), (d.gain, 0.0)
    how = law, came, sent, np.ones_like(rise), rise
    return s, sent._replace(value=_Retrace.apply(weight, came.value, sent.value, how))


class _Retrace(torch.autograd.Function):
    """A layer: (weight [C, N], values that came [E], values sent [E'], how) -> these, linked.

    `how`: the law of adjoints, what came and was sent; then, of each spike sent, what multiplies
    the adjoint of v, and how much it rises by for the gradient of the spike's value.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, came: Tensor, sent: Tensor, how: tuple) -> Tensor:
        ctx.how = how
        ctx.save_for_backward(weight)
        return sent.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (law, came, sent, keep, rise) = ctx.saved_tensors, ctx.how
        turned, wanted = weight.t().contiguous().numpy(), ctx.needs_input_grad[1]
        to_value = np.zeros(len(came.time) * wanted, turned.dtype)
        own = *sent[:3], keep, rise * grads[0].double().numpy()

        def work(first: int, last: int) -> np.ndarray:
            to_weight = np.zeros_like(turned)
            retrace(first, last, turned, law, came[:4], own, to_weight, to_value)
            return to_weight

        found = torch.from_numpy(sum(shared(work, len(came.start) - 1))).t()
        values = torch.from_numpy(to_value).to(came.value.dtype) if wanted else None
        return found, values, None, None


class _First(torch.autograd.Function):
    """A layer: (weight [C, N], earliness [B, N], whether fired [B, N]) -> the same [B, C].

    A spike's earliness is the time from it to the end of its window, 0 where there was none.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, early: Tensor, fired: Tensor, clip: float) -> Any:
        with torch.autocast("cpu", enabled=False):
            total, potential = 1 + fired.to(weight.dtype) @ weight.t(), early @ weight.t()
        late, at_once = (1 - potential) / total, potential >= 1
        between = ~at_once & (total > 0) & (late < 1)
        ctx.clip = clip
        ctx.save_for_backward(weight, early, fired, late, total, between)
        ctx.mark_non_differentiable(found := at_once | between)
        return torch.where(between, 1 - late, at_once.to(early.dtype)), found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, early, fired, late, total, between = ctx.saved_tensors
        to_weight, to_early = torch.zeros_like(weight), torch.zeros_like(early)
        for b in range(len(early)):
            j, i = between[b].nonzero(), fired[b].nonzero().t()  # [J, 1] and [1, I]
            grad, rest = grads[0][b, j], total[b, j]
            factors = (early[b, i] + late[b, j]) / rest, weight[j, i] / rest
            by_weight, by_early = (grad * part.clamp(-ctx.clip, ctx.clip) for part in factors)
            to_weight[j, i] += by_weight
            to_early[b, i] = by_early.sum(0)
        return to_weight, to_early, None, None
