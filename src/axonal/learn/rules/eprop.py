"""e-prop: eligibility traces forward in time, learning signals within the step.

Bellec et al. 2020 (Nat. Commun. 11:3625), for neurons of any `Dynamics`:

    E_ji(t) = D_j(t) E_ji(t-1) + C_j(t) a_i(t),  D = d state(t)/d state(t-1), C = d state/d drive
    e_ji(t) = (ds_j/d state(t-1)) E_ji(t-1) + (ds_j/d drive) a_i(t)
    dL/dw_ji = sum_t L_j(t) e_ji(t)

for a weight from a_i, an input, a spike of the step before or the bias's 1. The derivatives are
those of the neuron's equations, surrogates and all. What is left out is the way of a spike through
other neurons into later steps; so with one population, connections among it left out, these are
the gradients of BPTT.

Behind a read-out that leaks, e is filtered with its decay k, f(t) = k f(t-1) + e(t), before L
multiplies it, as in that paper: the gradient through a leak has the same sum in another order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import InputError
from ...nn import Neuron, Recurrent, Sequential
from ...nn.stateful import Stateful
from ...ops.scan.reference import Tensors, constants
from ...ops.surrogate import SURROGATES
from .base import Rule, add_gradient, in_parts, one_decay


def e_prop(feedback: Literal["symmetric", "random"] = "symmetric", seed: int = 0) -> Rule:
    """Eligibility traces, in memory that doesn't grow with time.

    The network is an `nn.Sequential` of `nn.Linear` followed by a `Neuron`, or by a `Recurrent`
    whose connection is linear, once or more; then any layers without a state. Layers that learn
    nothing may stand between. Neurons' constants learn too. A trace takes B x J x I numbers for
    each value of the state, but B x I where all J neurons have the same D and C, as leaky ones do.

    Args:
        feedback: what L is. "symmetric": the loss's gradient through the layers above, within the
            step. "random": that of the outputs, times fixed random weights for each population but
            a last one that is the output itself; N(0, 1 / J), about as large as a read-out's.
        seed: of these weights.

    Raises:
        InputError: an unknown `feedback`. The rule: a layer that has no place in such a network.
    """
    if feedback not in ("symmetric", "random"):
        raise InputError(f"e-prop: feedback {feedback!r} is not symmetric or random")

    def rule(network: nn.Module, x: Tensor, objective: Callable[[Tensor], Tensor]):
        populations = _populations(network)
        if not torch.is_grad_enabled() or not len(x):
            return in_parts(network, x, objective, 1)
        signal: dict[str, Tensor] = {}
        for index, layer in enumerate([*populations][:-1] if feedback == "random" else []):
            if isinstance(layer, Population):
                layer.feedback = partial(_broadcast, signal, seed + index)

        def with_signal(y: Tensor) -> Tensor:
            if y.requires_grad:
                y.register_hook(lambda gradient: signal.update(outputs=gradient))
            return objective(y)

        return in_parts(populations, x, with_signal, 1)

    return rule


class Population(Stateful):
    """A linear map and the neurons behind it, which learn by traces.

    Attributes:
        leak: the decay of the read-out behind them.
        feedback: what replaces their gradient [1, B, J].
    """

    leak = 0.0
    feedback: Callable[[Tensor], Tensor] | None = None

    def __init__(self, linear: nn.Linear, layer: Any):
        super().__init__()
        self.linear, self.connection = linear, getattr(layer, "connection", None)
        self.neuron: Neuron = getattr(layer, "neuron", layer)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step: x [1, B, I] and the state of an earlier call -> spikes [1, B, J], state.

        Raises:
            InputError: x has another number of dimensions.
        """
        if x.dim() != 3:
            raise InputError(f"e-prop: {self.linear} is given {list(x.shape)}; it takes [T, B, I]")
        drive, maps = self.linear(x[0]).detach(), [(self.linear, x[0])]
        if state is None:
            work = torch.float64 if drive.dtype == torch.float64 else torch.float32
            rest = drive.new_tensor(self.neuron.dynamics.rest, dtype=work)[:, None, None]
            state = rest.expand(-1, *drive.shape), torch.zeros_like(drive), None
        inner, last, traces = state
        if self.connection:
            drive = drive + self.connection(last).detach()
            maps.append((self.connection, last))
        learned: list[Any] = [self.neuron.value(name) for name in self.neuron.learned]
        learned = [value.expand_as(drive) for value in learned]
        local, k = _local(self.neuron, inner, [drive, *learned]), len(inner)
        weights, inputs = _columns(maps, learned, inner)
        *traces, filtered = traces or [torch.zeros_like(inputs[0])] * (k + 1)
        with torch.no_grad():
            spikes, inner = self.neuron(drive[None], inner)
        through = F.linear(x[0], self.linear.weight.detach())
        spikes = add_gradient(spikes, local[k, k].T.to(drive) * through)
        slopes, parts = local[k], [*traces, *inputs]
        if self.leak:
            one = torch.ones_like(slopes[:1])
            filtered = _weighted_sum(torch.cat([slopes, self.leak * one]), [*parts, filtered])
            slopes, parts = one, [filtered]
        for slope, part in zip(slopes, parts, strict=True):
            effect = slope * torch.einsum("jm,jbm->jb", weights, part)
            spikes = add_gradient(spikes, effect.T.to(drive))
        if self.feedback and spikes.requires_grad:
            spikes.register_hook(self.feedback)
        flow = local[:k]
        flow = flow[:, :, :1] if bool((flow == flow[:, :, :1]).all()) else flow
        traces = [_weighted_sum(row, [*traces, *inputs]) for row in flow]
        return spikes, (inner, spikes[0], (*traces, filtered))


def _local(neuron: Neuron, state: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The derivatives of one step, [K + 1, K + 1 + P, J, B].

    They are of the next state and the spike, by the state and `inputs`: the drive and the learned
    constants.
    """
    k, row = len(state), SURROGATES[neuron.surrogate]
    now = torch.stack([*state, *(value.detach().to(state) for value in inputs)]).requires_grad_()
    values: dict[str, Any] = {name: neuron.value(name) for name in neuron.varying}
    values |= zip(neuron.learned, now[k + 1 :], strict=True)
    m = Tensors(state, row.name, row.slope if neuron.slope is None else neuron.slope)
    p = constants(state, values, neuron.dynamics)
    s, after = neuron.dynamics.step(m, now[k], tuple(now[:k]), p)
    rows = torch.stack([*after, s])
    slopes = [torch.autograd.grad(row.sum(), now, retain_graph=True)[0] for row in rows]
    return torch.stack(slopes).mT


def _columns(
    maps: Sequence[tuple[Any, Tensor]], learned: Sequence[Tensor], like: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The M parameters of each neuron, and what each of them multiplies.

    Returns:
        [J, M]; and for the drive and each learned constant [1, B, M].
    """
    weights, sources, p = [], [], len(learned)
    for layer, source in maps:
        bias = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias
        weights += [layer.weight, bias[:, None]]
        sources += [source.detach(), torch.ones_like(source[:, :1])]
    weights += [value[0][:, None] for value in learned]
    drive = F.pad(torch.cat(sources, 1).to(like), (0, p))
    own = F.pad(torch.eye(p).to(like), (drive.shape[1] - p, 0))
    return torch.cat(weights, 1).to(like), [drive[None], *own[:, None, None]]


def _weighted_sum(factors: Tensor, values: Sequence[Tensor]) -> Tensor:
    """The sum of `values` [J or 1, B, M], each times its factor [J or 1, B]."""
    total = factors[0, ..., None] * values[0]
    for factor, value in zip(factors[1:, ..., None], values[1:], strict=True):
        total.addcmul_(factor, value)
    return total


def _broadcast(signal: dict[str, Tensor], seed: int, own: Tensor) -> Tensor:
    """The outputs' signal through random weights, in place of a population's `own` [1, B, J]."""
    outputs = signal["outputs"]
    shape = outputs.shape[2], own.shape[2]
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[1] ** 0.5
    return outputs @ weights.to(outputs)


def _populations(network: nn.Module) -> Sequential:
    """The network with its linear maps and the neurons behind them as `Population`s."""
    stages: list[Any] = []
    for layer in network if isinstance(network, nn.Sequential) else [network]:
        if isinstance(layer, Stateful):
            linear = stages.pop() if stages and isinstance(stages[-1], nn.Linear) else None
            inner = layer.connection if isinstance(layer, Recurrent) else layer
            learning = [
                stage for stage in stages if any(p.requires_grad for p in stage.parameters())
            ]
            bad = [stage for stage in learning if not isinstance(stage, Population)]
            if bad or linear is None or not isinstance(inner, Neuron | nn.Linear):
                bad = [layer, *bad]
                name = next(name for name, part in network.named_modules() if part is bad[-1])
                raise InputError(
                    f"e-prop: no place for {type(bad[-1]).__name__} {name!r}: neurons, connected "
                    "by an nn.Linear or not at all, stand right behind an nn.Linear; nothing else "
                    "in front of the last ones learns or has a state; take bptt or truncated"
                )
            layer = Population(linear, layer)
        stages.append(layer)
    populations = [stage for stage in stages if isinstance(stage, Population)]
    if not populations:
        raise InputError("e-prop: the network has no neurons behind an nn.Linear; nothing to trace")
    last = populations[-1].neuron
    if last.dynamics.emit == "membrane":
        if (decay := one_decay(last)) is None:
            raise InputError("e-prop: a read-out needs one decay for all of its membranes")
        for population in populations[:-1]:
            population.leak = decay
    return Sequential(*stages)
