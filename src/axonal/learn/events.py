"""Learning whose backward pass visits events only: EventProp, and masked surrogates.

Both are one computation. The adjoint of a membrane decays in closed form from one event back to
the one before, jumps at the neuron's own spikes, and is read at the spikes that it was fed: a
read gives the gradient of a weight, and of what the sender's spike was worth. Layers are nodes of
autograd, with one value for each spike between them: its time for `eventprop`, its size for
`mpd_ed`. So the work of a backward pass follows the spikes, and nothing dense is stored.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.kinds import Current, Leaky
from ..nn import Neuron
from ..ops.scan import scan
from ..ops.scan.reference import Tensors
from ..ops.surrogate import surrogate_named
from .event_kernels import RUNAWAY, decays, integrate, retrace, shared
from .online import Rule


class Spikes(NamedTuple):
    """Spikes of a population, sample after sample, each sample's in the order of time.

    Attributes:
        start: [B + 1], where each sample begins.
        time, index, size: [E], in steps, whose, and what it multiplies weights with.
        value: [E], the time or the size as a tensor, to differentiate.
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

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        takes = "Neuron(Current(reset='zero')) with decay and synapse above 0"
        pairs, _ = layers(network, x, "eventprop", _continuous, takes)
        events = _sent(x.flatten(2), times=True)
        for linear, neuron in pairs:
            events = _timed(linear.weight, events, neuron.dynamics, len(x))
        classes = pairs[-1][0].out_features
        place, first = np.unique(events.sample * classes + events.index, return_index=True)
        silent = torch.full((x.shape[1] * classes,), float(len(x)), dtype=torch.float64)
        times = silent.index_put((torch.from_numpy(place),), events.value[first])
        times = times.unflatten(0, (-1, classes)).to(x.dtype)
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
    so instead of the paper's adaptive one a bound of the rate does: a neuron of a rate r < `least`
    has its mean drive raised with the weight `wake` (least - r).

    Args:
        least: spikes a step.
        wake: 0 for the gradient of the objective alone.

    Returns:
        A rule for `nn.Sequential` of `nn.Linear` without bias and `Neuron(Leaky)` with a detached
        reset "subtract" or "none" in turn, then, if there is one, a linear read-out, and behind
        it neurons that hand on their membrane. x is [T, B, N], outputs are [T, B, C].
    """

    def rule(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
        takes = "Neuron(Leaky), its reset detached 'subtract' or 'none'"
        pairs, tail = layers(network, x, "mpd-ed", _steady, takes, readout=True)
        steps, batch = x.shape[:2]
        s = x.flatten(2)
        events, woken = _sent(s), x.new_zeros(())
        for linear, neuron in pairs:
            mean = s.mean((0, 1))
            s, events = _masked(linear.weight, s, events, neuron)
            if wake:
                short = wake * (least - s.mean((0, 1))).clamp_min(0)
                drive = (short * F.linear(mean, linear.weight)).sum()
                woken = woken - (drive - drive.detach())
        bag = torch.from_numpy(events.sample * steps + events.time.astype(np.int64))
        index = torch.from_numpy(events.index)
        if tail:
            offsets = torch.searchsorted(bag, torch.arange(batch * steps))
            given = {"mode": "sum", "per_sample_weights": events.value}
            y = F.embedding_bag(index, tail[0].weight.t(), offsets, **given)
            y = y if tail[0].bias is None else y + tail[0].bias
            y = y.unflatten(0, (batch, steps)).transpose(0, 1)
            for neuron in tail[1:]:
                y, _ = neuron(y)
        else:
            y = s.new_zeros(batch * steps, s.shape[2]).index_put((bag, index), events.value)
            y = y.unflatten(0, (batch, steps)).transpose(0, 1)
        return objective(y) + woken, y.detach()

    return rule


def layers(
    network: nn.Module,
    x: Tensor,
    rule: str,
    fits: Callable[[Any], bool],
    takes: str,
    readout: bool = False,
) -> tuple[list[tuple[nn.Linear, Any]], list[Any]]:
    """The pairs of weights and binary neurons of a network, and its read-out.

    Args:
        network: `nn.Sequential`; a flattening may come first.
        x: what it is fed.
        rule, takes: the names of the rule and of the neurons it takes, for errors.
        fits: whether dynamics are such.
        readout: whether `nn.Linear`, and what hands on its membrane, may come last.

    Raises:
        InputError: what the rule can't learn, with the layer's number.
    """
    if not isinstance(network, nn.Sequential) or len(network) < 2:
        raise InputError(f"{rule}: {type(network).__name__} is no nn.Sequential of layers")
    rest: list[Any] = list(network)[isinstance(network[0], nn.Flatten) :]
    pairs = []
    if x.device.type != "cpu":
        raise InputError(f"{rule}: x is on {x.device}, but events are followed on CPUs; move both")
    if x.dim() < 3 or x.shape[2:].numel() != getattr(rest[0], "in_features", 0):
        raise InputError(f"{rule}: x {list(x.shape)} is not [T, B, N] of the layer {rest[0]}")
    while rest:
        linear, neuron = rest[0], rest[1] if len(rest) > 1 else None
        weights = isinstance(linear, nn.Linear)
        if readout and pairs and weights and all(_emits(n, "membrane") for n in rest[1:]):
            break
        weights = weights and linear.bias is None
        if not (weights and neuron and _emits(neuron, "binary") and fits(neuron.dynamics)):
            number = len(network) - len(rest) + weights
            raise InputError(
                f"{rule}: layer {number}, {neuron if weights else linear}; it takes nn.Linear "
                f"without bias and {takes} in turn, of fixed constants"
            )
        pairs.append((linear, neuron))
        rest = rest[2:]
    return pairs, rest


def _emits(layer: Any, what: str) -> bool:
    if not isinstance(layer, Neuron) or layer.given or layer.dynamics.refractory:
        return False
    return layer.dynamics.emit == what


def _continuous(d: Any) -> bool:
    return isinstance(d, Current) and d.reset == "zero" and min(d.decay, d.synapse) > 0


def _steady(d: Any) -> bool:
    return isinstance(d, Leaky) and d.reset in ("subtract", "none") and d.detach_reset


def _sent(x: Tensor, times: bool = False) -> Spikes:
    """The spikes of x [T, B, N]."""
    steps, batch, width = x.shape
    values = x.detach().numpy()
    rows, index = np.divmod(np.flatnonzero((values != 0).transpose(1, 0, 2)), width)
    sample, at = np.divmod(rows, steps)
    start, size = np.searchsorted(sample, np.arange(batch + 1)), values[at, sample, index]
    time = at.astype(np.float64)
    return Spikes(start, time, index, size, torch.from_numpy(time if times else size))


def _timed(weight: Tensor, came: Spikes, d: Any, steps: int) -> Spikes:
    """The spikes until `steps` of neurons in continuous time, driven by those that came."""
    a, b = (-math.log(part) for part in (d.decay, d.synapse))
    scale = d.gain * d.drive / decays(a, b, 1.0)[2]
    turned = (scale * weight.detach().double()).t().contiguous().numpy()
    if not np.isfinite(turned).all():
        raise InputError("eventprop: a weight is not finite; look for the step that made it so")

    def work(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return integrate(first, last, turned, a, b, d.threshold, float(steps), came[:4])

    found, counts = zip(*shared(work, len(came.start) - 1), strict=True)
    if any(len(part) and part[-1, 2] == np.inf for part in found):
        raise InputError(
            f"eventprop: a neuron fires twice within {RUNAWAY} steps; make the weights smaller"
        )
    time, index, slope = np.concatenate(found).T.copy()
    start = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    value = torch.from_numpy(time)
    sent = Spikes(start, time, index.astype(np.int64), np.ones_like(time), value)
    law = a, b, (0.0, scale), (-scale, b * scale)
    return _linked(weight, came, sent, law, 1 + a * d.threshold / slope, -1 / slope)


def _masked(weight: Tensor, x: Tensor, came: Spikes, neuron: Any) -> tuple[Tensor, Spikes]:
    """What `neuron` sends of x [T, B, N], dense and as events."""
    d = neuron.dynamics
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        drive = F.linear(x, weight)
        s, _ = neuron(drive)
        sent = _sent(s)
        drive.mul_(d.gain)
        if d.reset == "subtract":
            drive[1:].sub_(s[:-1], alpha=d.decay * d.threshold)
        h, _ = scan(drive, None, Leaky(decay=d.decay, emit="membrane", reset="none"))
        above = torch.from_numpy(h.numpy()[sent.time.astype(int), sent.sample, sent.index])
        row = surrogate_named(neuron.surrogate)
        m = Tensors(h, row.name, row.slope if neuron.slope is None else neuron.slope)
        # h sums in another order than the neuron did: a spike at the threshold could lie below.
        rise = m.surrogate((above - d.threshold).clamp_min(0)).double().numpy()
    a = -math.log(d.decay) if d.decay else math.inf
    law = a, 0.0, (d.gain, 0.0), (d.gain, 0.0)
    return s, _linked(weight, came, sent, law, np.ones_like(rise), rise)


def _linked(
    weight: Tensor, came: Spikes, sent: Spikes, law: tuple, keep: np.ndarray, jump: np.ndarray
) -> Spikes:
    """`sent`, with values whose gradients reach `weight` and the values of what came.

    At each of its spikes the adjoint of v is kept in part, and rises by `jump` times the gradient
    of the spike's value.
    """
    value = _Retrace.apply(weight, came.value, sent.value, (law, came, sent, keep, jump))
    return sent._replace(value=value)


class _Retrace(torch.autograd.Function):
    """A layer: (weight [C, N], values that came [E], values sent [E']) -> these, linked."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, came: Tensor, sent: Tensor, layer: tuple) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(weight)
        return sent.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (law, came, sent, keep, jump) = ctx.saved_tensors, ctx.layer
        turned, wanted = weight.t().contiguous().numpy(), ctx.needs_input_grad[1]
        to_value = np.zeros(len(came.time) * wanted, turned.dtype)
        own = *sent[:3], keep, jump * grads[0].double().numpy()

        def work(first: int, last: int) -> np.ndarray:
            to_weight = np.zeros_like(turned)
            retrace(first, last, turned, law, came[:4], own, to_weight, to_value)
            return to_weight

        parts = shared(work, len(came.start) - 1)
        values = torch.from_numpy(to_value).to(came.value.dtype) if wanted else None
        return torch.from_numpy(sum(parts[1:], parts[0])).t(), values, None, None
