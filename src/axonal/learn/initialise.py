"""Weights whose currents make membranes fluctuate below the threshold, and so fire at times.

A membrane that is driven by n inputs of rate nu, each through the kernel eps, has without firing

    mean      mu_U = n nu mu_w sum eps,
    variance  sigma_U^2 = n nu (sigma_w^2 + mu_w^2) sum eps^2,

and the target is a threshold xi deviations above the mean, sigma_U = (theta - mu_U) / xi
(Rossbroich et al. 2022, arXiv 2206.10226). The kernel is computed from the discrete equations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ..core.errors import InputError
from ..nn import Neuron, Recurrent
from ..nn.normalise import Standardised
from ..nn.watch import MAPS
from ..ops.scan import reference

RECURRENT = 0.1  # the share of a recurrent population's variance that its own spikes bring


def membranes(neuron: Neuron, x: Tensor) -> Tensor:
    """The membranes [T, B, ...] that inputs x [T, B, ...] bring about where nothing fires.

    Raises:
        InputError: a kind of neuron without a reset of "none", such as Izhikevich's.
    """
    reads = replace(neuron.dynamics, emit="membrane", reset="none", levels=1, refractory=0)
    values: dict[str, Tensor] = {n: torch.as_tensor(neuron.value(n)).to(x) for n in neuron.given}
    rest = x.new_tensor(reads.rest).reshape(-1, *(1 for _ in x.shape[1:]))
    state = rest.expand(-1, *x.shape[1:])
    # The reference, whose first run waits for no compiler.
    return reference.scan(x, state, values, reads, neuron.surrogate, 1.0)[0]


def kernel(neuron: Neuron, steps: int) -> Tensor:
    """What one unit of input adds to a membrane in each of the `steps` after it, [T]."""
    constants = neuron.dynamics.constants()
    values = {n: float(_double(neuron.value(n)).mean()) for n in constants}
    average = Neuron(replace(neuron.dynamics, **values))
    return membranes(average, torch.eye(1, steps, dtype=torch.float64).T)[:, 0]


def fluctuating(
    network: nn.Module,
    rates: float | Sequence[float],
    steps: int,
    *,
    xi: float = 1.0,
    mean: float = 0.0,
    generator: torch.Generator | None = None,
) -> None:
    """Draw the weights of `network` for inputs of known rates; biases become 0.

    Args:
        network: `nn.Sequential`s of linear maps or convolutions, each followed by its population,
            or by one in `Recurrent`; a map without one, such as a read-out, is left alone.
        rates: spikes a step of what each population reads, first the network's inputs: one
            number for all, or one for each population and, last, for what it sends.
        steps: T.
        xi: deviations between mean and threshold; smaller fires more.
        mean: mu_U, in the unit of the membrane and from its rest.
        generator: of the draw.

    Raises:
        InputError: a rate is missing or not above 0.
    """
    pairs = list(_pairs(network))
    rates = [rates] * (len(pairs) + 1) if isinstance(rates, float | int) else list(rates)
    if len(rates) != len(pairs) + 1 or min(rates) <= 0:
        raise InputError(
            f"{len(pairs)} populations need {len(pairs) + 1} rates above 0: of the input and of "
            f"each; they are {rates}"
        )

    def draw(layer: Any, neuron: Neuron, rate: float, own: float, share: float) -> None:
        weight, eps = layer.weight, kernel(neuron, steps)
        drive = weight[0].numel() * rate
        center = own / (drive * float(eps.sum()))
        wanted = share * ((threshold(neuron) - mean) / xi) ** 2
        variance = wanted / (drive * float(eps.square().sum())) - center**2
        if not variance > 0:
            raise InputError(f"a mean of {mean} leaves no room for fluctuations; lower it, or xi")
        nn.init.normal_(weight, center, variance**0.5, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    for index, (layer, population) in enumerate(pairs):
        if isinstance(population, Recurrent):
            # The feed-forward weights alone bring the mean.
            neuron, own = population.neuron, population.connection
            draw(layer, neuron, rates[index], mean, 1 - RECURRENT)
            draw(own, neuron, rates[index + 1], 0.0, RECURRENT)
        else:
            draw(layer, population, rates[index], mean, 1.0)


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Each population of nested sequences, with the map before it."""
    layer = None
    for module in _leaves(network):
        if isinstance(module, MAPS):
            layer = module
        elif isinstance(module, Recurrent | Neuron) and layer is not None:
            yield layer, module
            layer = None


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.children() if isinstance(network, nn.Sequential) else [network]:
        yield from _leaves(module) if isinstance(module, nn.Sequential) else [module]


def threshold(neuron: Neuron) -> float:
    """How far it lies above rest; of many, one that nine in ten reach: deaf ones set no scale."""
    return float(_double(neuron.value("threshold")).quantile(0.1)) - neuron.dynamics.rest[0]


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()


def drives(network: nn.Module, run: Callable[[], Any]) -> dict[nn.Module, list[nn.Module]]:
    """The populations of `network` in order of execution, with what drives each.

    That are the maps which ran since the last population, or the normalisation after them.
    `Recurrent` is one population; its connection is no drive.

    Args:
        network: any module.
        run: calls it.
    """
    waiting: list[nn.Module] = []
    found: dict[nn.Module, list[nn.Module]] = {}
    loops = [m for m in network.modules() if isinstance(m, Recurrent)]
    inside = {part for loop in loops for part in loop.modules()} - set(loops)

    def layer(module: nn.Module, args: tuple) -> None:
        if isinstance(module, _BatchNorm):
            waiting.clear()
        waiting.append(module)

    def population(module: nn.Module, args: tuple) -> None:
        found.setdefault(module, list(waiting))
        waiting.clear()

    handles = [
        m.register_forward_pre_hook(layer if isinstance(m, MAPS | _BatchNorm) else population)
        for m in network.modules()
        if m not in inside and isinstance(m, MAPS | _BatchNorm | Neuron | Recurrent)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def rescale(network: nn.Module, *inputs: Any, xi: float = 1.0) -> dict[str, float]:
    """Scale weights, layer after layer, until each population's membranes spread as they should.

    One run of `inputs` from the first layer to the last: what drives a population is multiplied
    by theta / (mu_U + xi sigma_U), measured where nothing fires, before its spikes go on. So it
    takes any scale of input and any layers between. Where batch normalisation drives a
    population, its own scale is what changes. Left alone are read-outs, populations that several
    layers drive at once, and those that nothing reaches.

    Args:
        network: any module with neurons in it.
        inputs: what it is called with.
        xi: as of `fluctuating`.

    Returns:
        The factor of each layer by its name.
    """
    names = {module: name for name, module in network.named_modules()}
    factors: dict[str, float] = {}

    def enter(population: Any, args: tuple) -> tuple | None:
        neuron: Any = population.neuron if isinstance(population, Recurrent) else population
        layers = sources[population]
        if len(layers) != 1 or names[layers[0]] in factors or neuron.dynamics.emit == "membrane":
            return None
        share = 1 - RECURRENT if population is not neuron else 1.0
        factor = factors[names[layers[0]]] = _factor(neuron, args[0], xi, share)
        _scale(layers[0], factor)
        return (args[0] * factor, *args[1:])

    def leave(population: Any, args: tuple, output: tuple) -> tuple | None:
        name = names[population.connection]
        if name in factors:
            return None
        back = torch.stack([population.connection(s) for s in output[0]])
        factors[name] = _factor(population.neuron, back, xi, RECURRENT)
        _scale(population.connection, factors[name])
        return population.forward(*args)

    with torch.no_grad():
        sources = drives(network, lambda: network(*inputs))
        handles = [m.register_forward_pre_hook(enter) for m in sources]
        handles += [m.register_forward_hook(leave) for m in sources if isinstance(m, Recurrent)]
        try:
            network(*inputs)
        finally:
            for handle in handles:
                handle.remove()
    return factors


def _factor(neuron: Neuron, x: Tensor, xi: float, share: float) -> float:
    """What x is multiplied by for a `share` of the wanted variance."""
    h = membranes(neuron, x.float()) - neuron.dynamics.rest[0]
    spread, mean = float(h.std()), float(h.mean())
    need = max(xi * spread + mean, xi * spread)
    return share**0.5 * threshold(neuron) / need if need > 0 else 1.0


def _scale(layer: Any, factor: float) -> None:
    weight = layer.weight
    if parametrize.is_parametrized(layer, "weight"):
        first = layer.parametrizations.weight[0]
        if not isinstance(first, Standardised):
            raise InputError("weights of this parametrization have no scale; fold it away first")
        weight = first.gain
    for tensor in (weight, layer.bias):
        if tensor is not None:
            tensor.mul_(factor)
