"""Rules of learning: how gradients are found, over one model.

`loss, outputs = rule(network, x, objective)`: the network is `Stateful`, x is [T, B, ...] and may
be expanded over time, the objective maps outputs [T, B, C], of all steps or of some, to a scalar,
a mean over these. Parameters get no `grad` before `loss.backward()`, so that clipping, averaging
over processes and optimisers work as ever. The outputs are detached.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...core.errors import InputError
from .eprop import e_prop
from .eventprop import eventprop, mpd_ed, std_ed
from .online import Rule, ottt, sltt_k, truncated


def bptt(network: nn.Module, x: Tensor, objective: Callable) -> tuple[Tensor, Tensor]:
    """Backpropagation through all of time (Werbos 1990), with surrogates for spikes."""
    outputs = network(x)[0]
    return objective(outputs), outputs.detach()


RULES: Mapping[str, Callable[..., Rule]] = {
    "bptt": lambda: bptt,
    "truncated": truncated,
    "sltt": partial(truncated, 1),
    "sltt-k": sltt_k,
    "ottt": ottt,
    "e-prop": e_prop,
    "eventprop": eventprop,
    "mpd-ed": mpd_ed,
    "std-ed": std_ed,
}


def rule_named(name: str, **options: Any) -> Rule:
    """The rule called `name` in `RULES`, with its options.

    Raises:
        InputError: no such rule, or an option it doesn't take, lacks or refuses.
    """
    if name not in RULES:
        raise InputError(f"rule {name!r} is unknown; choose one of {', '.join(RULES)}")
    signature = inspect.signature(RULES[name])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise InputError(f"rule {name!r}: {error}; its options are {signature}") from error
    return RULES[name](**options)
