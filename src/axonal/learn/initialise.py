"""Initial weights that make membranes fluctuate below the threshold, and so fire at times.

A membrane that is driven by n inputs of rate nu through weights of mean 0, each with the kernel
eps, has without firing the variance

    sigma_U^2 = n nu sigma_w^2 sum eps^2,

and the target is a threshold xi deviations above it, sigma_U = theta / xi (Rossbroich et al.
2022, arXiv 2206.10226, for mu_U = 0). The kernel is computed from the discrete equations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ..core.errors import InputError
from ..core.neurons import Dynamics
from ..nn import Neuron, Recurrent
from ..nn.hooks import MAPS, currents
from ..nn.normalization import Standardised
from ..ops.scan import reference

RECURRENT = 0.1  # the share of a recurrent population's variance that its own spikes bring


def membranes(neuron: Neuron, x: Tensor) -> Tensor:
    """The membranes [T, B, ...] under inputs x [T, B, ...] where nothing fires.

    Raises:
        InputError: a kind of neuron without a reset of "none", such as Izhikevich's.
    """
    reads = replace(neuron.dynamics, emit="membrane", reset="none", levels=1, refractory=0)
    return replay(neuron, reads, x)


def replay(neuron: Neuron, dynamics: Dynamics, x: Tensor, state: Tensor | None = None) -> Tensor:
    """The output of `neuron` with other `dynamics` for x [T, B, ...], without gradients."""
    values = {n: torch.as_tensor(neuron.value(n)).detach().to(x) for n in neuron.varying}
    if state is None:
        rest = x.new_tensor(dynamics.rest).reshape(-1, *x[0].dim() * [1])
        state = rest.expand(-1, *x.shape[1:])
    # The reference, whose first run waits for no compiler.
    return reference.scan(x.detach(), state, values, dynamics, neuron.surrogate, 1.0)[0]


def kernel(neuron: Neuron, steps: int) -> Tensor:
    """The response of a membrane to one unit of input in each of the `steps` after it, [T]."""
    constants = neuron.dynamics.constants()
    values = {n: float(_double(neuron.value(n)).mean()) for n in constants}
    average = Neuron(replace(neuron.dynamics, **values))
    return membranes(average, torch.eye(1, steps, dtype=torch.float64).T)[:, 0]


def fluctuation_driven(
    network: nn.Module,
    rates: Sequence[float],
    steps: int,
    *,
    xi: float = 1.0,
    generator: torch.Generator | None = None,
) -> None:
    """Draw the weights of `network` for inputs of known rates; biases become 0.

    Args:
        network: `nn.Sequential`s of linear maps or convolutions, each followed by its population,
            or by one in `Recurrent`; a map without one, such as a read-out, is left alone.
        rates: spikes a step: of the input, and of each population.
        steps: T.
        xi: deviations between mean and threshold; smaller fires more.
        generator: of the draw.

    Raises:
        InputError: a rate is missing or not above 0.
    """
    pairs = list(_pairs(network))
    if len(rates) != len(pairs) + 1 or min(rates) <= 0:
        raise InputError(
            f"{len(pairs)} populations need {len(pairs) + 1} rates above 0: of the input and of "
            f"each; they are {list(rates)}"
        )

    def draw(layer: Any, neuron: Neuron, rate: float, share: float) -> None:
        drive = layer.weight[0].numel() * rate * float(kernel(neuron, steps).square().sum())
        spread = threshold(neuron) / xi * (share / drive) ** 0.5
        nn.init.normal_(layer.weight, 0.0, spread, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    for (layer, population), rate, sent in zip(pairs, rates, rates[1:], strict=False):
        if isinstance(population, Recurrent):
            draw(layer, population.neuron, rate, 1 - RECURRENT)
            draw(population.connection, population.neuron, sent, RECURRENT)
        else:
            draw(layer, population, rate, 1.0)


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Each population of nested sequences, with the map before it."""
    layer = None
    for module in _modules(network):
        if isinstance(module, MAPS):
            layer = module
        elif isinstance(module, Recurrent | Neuron) and layer is not None:
            yield layer, module
            layer = None


def _modules(network: nn.Module) -> list[nn.Module]:
    """The modules of `network`, a recurrent population as one."""
    loops = [m for m in network.modules() if isinstance(m, Recurrent)]
    inside = {part for loop in loops for part in loop.modules()} - set(loops)
    return [m for m in network.modules() if m not in inside]


def threshold(neuron: Neuron) -> float:
    """How far the threshold lies above rest.

    Of many it is one that nine in ten reach: neurons that can't fire set no scale.
    """
    return float(_double(neuron.value("threshold")).quantile(0.1)) - neuron.dynamics.rest[0]


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()


def rescale(network: nn.Module, run: Callable[[], Any], xi: float = 1.0) -> dict[str, float]:
    """Scale weights, layer after layer, until each population's membranes reach the threshold.

    One run from the first layer to the last: what drives a population is multiplied by
    theta / (mu_U + xi sigma_U), measured where nothing fires, before its spikes go on. So it
    takes any scale of input and any layers between. Where batch normalisation drives a
    population, its own scale is what changes. Left alone are read-outs, populations that several
    layers drive at once, and those that nothing reaches.

    Args:
        network: any module with neurons in it.
        run: calls it once with a batch, such as `lambda: network(x)`; without gradients.
        xi: as of `fluctuation_driven`.

    Returns:
        The factor of each layer by its name.

    Raises:
        InputError: weights with a parametrization other than `nn.standardise`, or as `membranes`.
    """
    names = {module: name for name, module in network.named_modules()}
    factors: dict[str, float] = {}
    waiting: list[nn.Module] = []  # the maps since the last population, or the norm after them

    def scaled(layer: Any, neuron: Neuron, x: Tensor, share: float) -> float:
        h = membranes(neuron, x.float()) - neuron.dynamics.rest[0]
        need = xi * float(h.std()) + max(float(h.mean()), 0.0)
        factor = share**0.5 * threshold(neuron) / need if need > 0 else 1.0
        _scale(layer, factor)
        return factors.setdefault(names[layer], factor)

    def drive(layer: nn.Module, args: tuple) -> None:
        if isinstance(layer, _BatchNorm):
            waiting.clear()
        waiting.append(layer)

    def enter(population: Any, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        neuron, share = population, 1.0
        if isinstance(population, Recurrent):
            neuron, share = population.neuron, 1 - RECURRENT
        layers, waiting[:] = tuple(waiting), ()
        if len(layers) != 1 or names[layers[0]] in factors or neuron.dynamics.emit == "membrane":
            return None
        factor = scaled(layers[0], neuron, currents(args, kwargs), share)
        return (args[0] * factor, *args[1:]), kwargs

    def leave(population: Any, args: tuple, output: tuple) -> tuple | None:
        connection = population.connection
        if names[connection] in factors:
            return None
        back = torch.stack([connection(s) for s in output[0]])
        scaled(connection, population.neuron, back, RECURRENT)
        return population.forward(*args)

    with torch.no_grad(), ExitStack() as hooks:
        for module in _modules(network):
            if isinstance(module, MAPS | _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(drive))
            elif isinstance(module, Neuron | Recurrent):
                hooks.enter_context(module.register_forward_pre_hook(enter, with_kwargs=True))
            if isinstance(module, Recurrent):
                hooks.enter_context(module.register_forward_hook(leave))
        run()
    return factors


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
