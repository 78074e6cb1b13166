"""Binary spikes in few steps: a network trained with clipped, quantised activations, that waits.

`quantisable` gives a network QCFS activations, to be trained for a while. A neuron that fires at
the learned ceiling, from half of it on, then sends in T steps exactly what an activation of T
levels returns (Bu et al. 2022, arXiv 2303.04347) - if spikes came evenly. They don't, and what
comes late can't be taken back: offset correction (COS, Hao et al. 2023) runs ahead for some steps
and shifts the membrane by what went wrong. Here a layer waits instead until the one before has
sent its last spike: nothing is left to correct, whatever the order was, and the price is stated
as latency, T steps a layer (as in QVM, which averages its input first).
"""

import copy
from typing import get_args

from torch import fx, nn

from ...core.errors import InputError
from ...nn import QCFS
from ...nn.interpreter import line
from ..activations import Calibration
from ..plan import Plan, Population
from ..tracing import Schedule, rectifiers
from .graded import least_error


def quantisable(model: nn.Module, levels: int) -> nn.Module:
    """A copy of `model` with a `QCFS` of `levels` for each `nn.ReLU`, to be trained on.

    Raises:
        InputError: it has no `nn.ReLU` module, or as `QCFS`.
    """
    twin = copy.deepcopy(model)
    replaced = 0
    for parent in [*twin.modules()]:
        for name, child in parent._modules.items():
            if type(child) is nn.ReLU:
                setattr(parent, name, QCFS(levels))
                replaced += 1
    if not replaced:
        raise InputError(f"{type(model).__name__} has no nn.ReLU modules; write its ReLUs so")
    return twin


def qcfs(dense: fx.GraphModule, data: Calibration, schedule: Schedule = "waiting") -> Plan:
    """Binary spikes at learned ceilings; where there is a plain ReLU, where T levels err least.

    Args:
        schedule: "waiting", or "pipelined" for answers after T steps that err by the order of
            spikes.

    Raises:
        InputError: another schedule, or leaky rectifiers, which can't wait.
    """
    slopes = rectifiers(dense)
    if schedule not in get_args(Schedule):
        raise InputError(f"qcfs: no schedule {schedule!r}; there are {get_args(Schedule)}")
    if schedule == "waiting" and any(slopes.values()):
        leaky = next(node for node in dense.graph.nodes if slopes.get(node.name))
        raise InputError(
            f"{leaky.name} is leaky{line(leaky)} and can't wait; choose schedule='pipelined'"
        )
    populations, plain = {}, {}
    for name, slope in slopes.items():
        module = dense.get_submodule(name)
        if isinstance(module, QCFS):
            populations[name] = Population(module.ceiling.detach().clone())
        else:
            plain[name] = slope
    populations |= least_error(dense, data, plain) if plain else {}
    return Plan("qcfs", data.steps, data.shape, populations, schedule)
