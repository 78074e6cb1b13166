"""Models as users bring them, made plain: weights that are computed become weights."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..core.errors import InputError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain(model: nn.Module) -> nn.Module:
    """A copy of a model for evaluation, in which weights are tensors and nothing else.

    Parametrizations (weight and spectral norm, orthogonal, any other), pruning and the older forms
    of these norms are folded into the weights.

    Raises:
        InputError: it is a wrapper around a model; names what to pass instead.
    """
    for name, module in model.named_modules():
        if remedy := _inside(module):
            at = f" {name!r}" if name else ""
            raise InputError(f"{type(module).__name__}{at} wraps a model; {remedy}")
    derived = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    twin = copy.deepcopy(model, derived).eval()
    for module in [*twin.modules()]:
        _fold(module)
    return twin


def _inside(module: nn.Module) -> str:
    """What to pass instead of a wrapper; "" if it is none."""
    if isinstance(module, WRAPPERS):
        return "pass its .module"
    if isinstance(module, torch._dynamo.OptimizedModule):
        return "pass its ._orig_mod"
    if isinstance(module, torch.jit.ScriptModule):
        return "pass the torch.nn.Module that it was made from"
    return ""


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        weights = {name: getattr(module, name).detach() for name in module.parametrizations}
        # A copy shares its class, which has the properties, with the user's module.
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight.clone()))
    for hook in [*module._forward_pre_hooks.values()]:
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
