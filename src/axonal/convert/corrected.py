"""Calibration: thresholds of least error, then each layer's mean put right, one after another.

The offset of a layer's input grows by how much less, on average, its neurons send than the
network returns, given layers before that are right already (Li et al. 2021, arXiv 2106.06984).
"""

from dataclasses import replace

import torch
from torch import Tensor, fx

from .activations import values_of
from .methods.graded import least_error
from .plan import Plan, assemble
from .setting import Setting
from .tracing import rectifiers

SAMPLES = 128  # that correct a layer


def corrected(dense: fx.GraphModule, given: Setting) -> Plan:
    """Binary spikes with thresholds where T levels err least, and offsets for the means."""
    slopes = rectifiers(dense)
    populations = least_error(dense, given, slopes)
    x = given.x[:SAMPLES]
    target, _ = values_of(dense, [*slopes], x)
    for name in slopes:
        plan = Plan("corrected", given.steps, given.shape, populations)
        missing = target[name] - _sent(dense, plan, name, x)
        offset = missing.mean([d for d in range(missing.dim()) if d != 1])
        offset = offset.reshape(-1, *(1 for _ in missing.shape[2:]))
        populations = populations | {name: replace(populations[name], offset=offset)}
    return Plan("corrected", given.steps, given.shape, populations)


@torch.no_grad()
def _sent(dense: fx.GraphModule, plan: Plan, name: str, x: Tensor) -> Tensor:
    """What a population sends in place of its value, the mean over time."""
    network, sent = assemble(dense, plan), []
    neuron = network.populations()[name]
    handle = neuron.register_forward_hook(lambda _, args, output: sent.append(output[0].mean(0)))
    network.outputs(x)
    handle.remove()
    return sent[0] * plan.populations[name].threshold
