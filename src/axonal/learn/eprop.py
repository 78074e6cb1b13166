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

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..nn.layers import Recurrent
from ..nn.neurons import Neuron
from ..nn.stateful import Stateful
from ..ops.scan.reference import Tensors, constants
from ..ops.surrogate import SURROGATES
from .online import Rule, added, carried, in_parts, one_decay


def e_prop(feedback: Literal["symmetric", "random"] = "symmetric", seed: int = 0) -> Rule:
    """Learning by eligibility traces, in memory that doesn't grow with time.

    The network is a `Sequential` of `nn.Linear` followed by a `Neuron`, or by a `Recurrent`
    whose connection is linear, once or more; then any layers without a state. Layers without
    parameters may stand between. Weights learn, and the constants that neurons learn. A trace
    takes B x J x I numbers for each value of a neuron's state, but only B x I where all J neurons
    have the same D and C, as leaky ones whose reset has no gradient do.

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
        stages, populations, others = _parsed(network)
        if not torch.is_grad_enabled() or not len(x):
            return in_parts(network, x, objective, 1)
        sums, loss = [None] * len(others), x.new_zeros(())
        outputs: Any = None
        for t, x_t in enumerate(x):
            y = x_t.detach().requires_grad_()  # so that signals reach layers that don't learn
            for stage in stages:
                y = stage(y)
            value = objective(y[None]) / len(x)
            signal, *found = torch.autograd.grad(
                value,
                [y, *(p.sent for p in populations), *others],
                allow_unused=True,
                materialize_grads=True,
            )
            for index, population in enumerate(populations):
                if feedback == "random" and population is not stages[-1]:
                    found[index] = _broadcast(signal, population, seed + index)
                population.learn(found[index])
            sums = added(sums, found[len(populations) :])
            loss = loss + value.detach()
            outputs = y.new_empty(len(x), *y.shape) if outputs is None else outputs
            outputs[t] = y.detach()
        learned = [pair for population in populations for pair in population.gradients()]
        pairs = [*zip(others, sums, strict=True), *learned]
        return carried(loss, [p for p, _ in pairs], [g for _, g in pairs]), outputs

    return rule


class Trace:
    """The derivatives of J neurons' spikes by I parameters each.

    Attributes:
        total: what these taught so far, [J, I].
    """

    def __init__(self):
        self.past: list[Tensor] = []
        self.filtered: Any = None
        self.total: Any = 0.0

    def learn(
        self,
        signal: Tensor,
        leak: float,
        flow: Tensor,
        out: Tensor,
        direct: Sequence[tuple[Tensor, Tensor]],
    ) -> None:
        """Add what a step teaches, and go on by it.

        Args:
            signal: L, [J, B].
            leak: of the filter; 0 for none.
            flow: D, [K, K, J, B], or [K, K, 1, B] where it is the same for all neurons.
            out: ds/d state, [K, J, B].
            direct: what the parameters change at once, of each value of the state and the spike:
                products of [J or 1, B, 1] and [J or 1, B, I].
        """
        *into, own = direct
        past = self.past or [torch.zeros_like(own[1])] * len(into)
        pairs = [*zip(out[..., None], past, strict=True), own]
        if leak:
            if self.filtered is None:
                self.filtered = own[1].new_zeros(len(signal), *own[1].shape[1:])
            self.filtered *= leak
            for left, right in pairs:
                self.filtered.addcmul_(left, right)
            pairs = [(torch.ones_like(signal)[..., None], self.filtered)]
        for left, right in pairs:
            taught = signal * left[..., 0]
            alike = len(right) == 1
            self.total += taught @ right[0] if alike else torch.bmm(taught[:, None], right)[:, 0]
        self.past = []
        for (first, *others), (left, right) in zip(flow[..., None], into, strict=True):
            value = first * past[0]
            for factor, before in zip(others, past[1:], strict=True):
                value.addcmul_(factor, before)
            self.past.append(value.addcmul_(left, right))


class Population:
    """A linear map and the neurons behind it, step by step from rest.

    Attributes:
        sent: the last step's spikes [B, J], whose gradient reaches the map's input alone.
        leak: of what reads them.
    """

    sent: Tensor
    fed: Tensor
    local: Tensor
    state: Any = None
    leak = 0.0

    def __init__(self, linear: nn.Linear, layer: Any):
        self.linear, self.connection = linear, getattr(layer, "connection", None)
        self.neuron: Neuron = layer.neuron if isinstance(layer, Recurrent) else layer
        self.weights, self.constants = Trace(), Trace()

    def __call__(self, x: Tensor) -> Tensor:
        """The spikes [B, J] of inputs [B, I]."""
        drive, sources = self.linear(x), [x]
        if drive.dim() != 2:
            raise InputError(f"e-prop: {self.linear} is given {list(x.shape)}; it takes [B, I]")
        if self.state is None:
            work = torch.float64 if drive.dtype == torch.float64 else torch.float32
            rest = drive.new_tensor(self.neuron.dynamics.rest, dtype=work)
            self.state = rest[:, None, None].expand(-1, *drive.shape)
            self.sent = torch.zeros_like(drive)
        if self.connection:
            sources.append(self.sent)
            drive = drive + self.connection(self.sent.detach())
        sources.append(drive.new_ones(len(drive), 1))
        self.fed = torch.cat([source.detach().to(self.state) for source in sources], 1)[None]
        self.local = _local(self.neuron, drive, self.state)
        with torch.no_grad():
            spikes, self.state = self.neuron(drive[None], self.state)
        slope = self.local[len(self.state), len(self.state)].to(drive)
        self.sent = spikes[0] + slope * (drive - drive.detach())
        return self.sent

    def learn(self, signal: Tensor) -> None:
        """Take what L, [B, J], teaches in the step."""
        k, local = len(self.state), self.local.mT
        flow, out, own = local[:k, : k + 1], local[k, :k], local[k, k, :, :, None]
        if bool((flow == flow[:, :, :1]).all()):
            flow = flow[:, :, :1]
        given = signal.T.to(self.state), self.leak, flow[:, :k], out
        self.weights.learn(*given, [(d, self.fed) for d in (*flow[:, k, :, :, None], own)])
        if self.neuron.learned:
            direct = local[:, k + 1 :].movedim(1, -1)
            self.constants.learn(*given, [(torch.ones_like(d[:1, :, :1]), d) for d in direct])

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What all steps taught: parameters, each with its gradient."""
        total, inputs = self.weights.total, self.linear.in_features
        for layer, part in (
            (self.linear, total[:, :inputs]),
            (self.connection, total[:, inputs:-1]),
        ):
            for name, found in (("weight", part), ("bias", total[:, -1])):
                parameter = getattr(layer, name, None)
                if parameter is not None and parameter.requires_grad:
                    yield parameter, found.to(parameter)
        for index, name in enumerate(self.neuron.learned):
            if (parameter := self.neuron.get_parameter(name)).requires_grad:
                found = self.constants.total[:, index].to(parameter)
                value = torch.as_tensor(self.neuron.value(name)).expand_as(found)
                yield parameter, torch.autograd.grad(value, parameter, found)[0]


def _local(neuron: Neuron, drive: Tensor, state: Tensor) -> Tensor:
    """The derivatives of one step of each neuron, [K + 1, K + 1 + P, B, J].

    Rows: the next state and the spike; columns: the state, the drive and the learned constants.
    """
    names, row = neuron.learned, SURROGATES[neuron.surrogate]
    given: dict[str, Any] = {name: neuron.value(name) for name in neuron.given}
    moving = [drive.to(state), *(given[name].to(state).expand_as(drive) for name in names)]
    inputs = [tensor.detach().requires_grad_() for tensor in (*state, *moving)]
    given |= zip(names, inputs[len(state) + 1 :], strict=True)
    slope = row.slope if neuron.slope is None else neuron.slope
    algebra, values = Tensors(state, row.name, slope), constants(state, given, neuron.dynamics)
    before = tuple(inputs[: len(state)])
    s, after = neuron.dynamics.step(algebra, inputs[len(state)], before, values)
    rows = []
    for y in (*after, s):
        if not y.requires_grad:
            rows.append(torch.zeros_like(rows[0]))
            continue
        found = torch.autograd.grad(
            y.sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.stack(found))
    return torch.stack(rows)


def _broadcast(signal: Tensor, population: Population, seed: int) -> Tensor:
    """The gradient of the outputs [B, C], handed to J neurons by random weights."""
    shape = signal.shape[1], population.sent.shape[1]
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[1] ** 0.5
    return signal @ weights.to(signal)


def _parsed(network: nn.Module) -> tuple[list[Any], list[Population], list[nn.Parameter]]:
    """The populations with what stands between and behind them; these; what learns behind."""
    stages: list[Any] = []
    group: list[tuple[str, nn.Module]] = []
    for name, layer in _flat("", network):
        group.append((f"{type(layer).__name__} {name!r}", layer))
        if not isinstance(layer, Stateful):
            continue
        *between, (_, linear) = group[:-1] or group
        bad = [part for part in between if _learning([part[1]])]
        if not isinstance(linear, nn.Linear):
            bad = group[-2:-1] or group[-1:]
        connection = layer.connection if isinstance(layer, Recurrent) else None
        if not isinstance(layer, Neuron) and not isinstance(connection, nn.Linear):
            bad = group[-1:]
        if bad or not isinstance(linear, nn.Linear):
            raise InputError(
                f"e-prop: no place for {bad[0][0]}: neurons stand right behind an nn.Linear, with "
                "an nn.Linear as their connection if they have one, and nothing else in front of "
                "the last ones learns or has a state; take bptt or truncated"
            )
        stages += [*(part for _, part in between), Population(linear, layer)]
        group = []
    populations = [stage for stage in stages if isinstance(stage, Population)]
    if not populations:
        raise InputError("e-prop: the network has no neurons behind an nn.Linear; nothing to trace")
    for population in populations[:-1]:
        population.leak = _leak(populations[-1].neuron)
    behind = [part for _, part in group]
    return [*stages, *behind], populations, _learning(behind)


def _learning(layers: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [p for layer in layers for p in layer.parameters() if p.requires_grad]


def _flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for key, layer in enumerate(module):  # the same neurons may stand in several places
        yield from _flat(f"{name}.{key}" if name else str(key), layer)


def _leak(readout: Neuron) -> float:
    """The decay with which a read-out filters what it is fed."""
    if readout.dynamics.emit != "membrane":
        return 0.0
    if (decay := one_decay(readout)) is None:
        raise InputError("e-prop: a read-out needs one decay for all of its membranes")
    return decay
