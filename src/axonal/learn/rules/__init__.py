"""Rules of learning: how gradients are computed, over one model.

`loss, outputs = rule(network, x, objective)`: the network is `Stateful`, x is [T, B, ...] and may
be expanded over time, the objective maps outputs [T, B, C], of all steps or of some, to a scalar,
a mean over these. Parameters get no `grad` before `loss.backward()`, so that clipping, averaging
over processes and optimisers work as ever. The outputs are detached.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...core.errors import InputError
from .base import Rule

RULES: Mapping[str, str] = {  # by name, a rule's file in this folder and its factory there
    "bptt": "bptt:bptt",
    "truncated": "truncated:truncated",
    "sltt": "truncated:sltt",
    "sltt-k": "truncated:sltt_k",
    "ottt": "ottt:ottt",
    "e-prop": "eprop:e_prop",
    "eventprop": "eventprop:eventprop",
}


def rule_named(name: str, **options: Any) -> Rule:
    """The rule called `name` in `RULES`, with its options.

    Raises:
        InputError: no such rule, or an option it doesn't take, lacks or refuses.
    """
    if name not in RULES:
        raise InputError(f"rule {name!r} is unknown; choose one of {', '.join(RULES)}")
    file, _, factory = RULES[name].partition(":")
    rule = getattr(import_module(f".{file}", __name__), factory)
    signature = inspect.signature(rule)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise InputError(f"rule {name!r}: {error}; its options are {signature}") from error
    return rule(**options)
