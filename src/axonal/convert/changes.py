"""Graphs of changes: a traced network rewritten so that every operation acts on changes alone.

Linear maps do so as they are, without their biases; what does not move adds nothing; activations
become delta neurons. What is neither is refused, with the user's own line.
"""

import copy
import operator

import torch
from torch import fx, nn

from ..core.errors import InputError
from ..nn import SigmaDelta
from .tracing import ACTIVATIONS, describe, is_linear, is_sum, line, module_of, moves, shallow


def graph_of_changes(dense: fx.GraphModule) -> fx.GraphModule:
    """The graph of `trace` for changes of its first argument: neurons for activations, no biases.

    Raises:
        InputError: an operation has no rule, or there is no activation.
    """
    delta = fx.GraphModule(shallow(dense), copy.deepcopy(dense.graph))
    moving = moves(delta.graph)
    replaced = 0
    for node in list(delta.graph.nodes):
        if node not in moving or node.op in ("placeholder", "output"):
            continue
        # Asked of `dense`: a neuron may have taken the place of a module that is called again.
        if isinstance(module_of(dense, node), ACTIVATIONS):
            slope = getattr(module_of(dense, node), "negative_slope", 0.0)
            delta.add_submodule(node.name, SigmaDelta(0.0, negative_slope=slope))
            node.target = node.name
            replaced += 1
        else:
            _to_changes(delta, node, moving)
    if not replaced:
        raise InputError(f"{type(dense).__name__} has no activation to turn into neurons")
    for node in reversed(list(delta.graph.nodes)):
        if node not in moving and node.op != "output" and not node.users:
            delta.graph.erase_node(node)
    delta.delete_all_unused_submodules()
    delta.recompile()
    return delta


def _to_changes(graph: fx.GraphModule, node: fx.Node, moving: set[fx.Node]) -> None:
    """Make `node` act on changes: biases and standing summands have none."""
    if is_sum(node):
        _keep_moving_summand(graph.graph, node, moving)
        return
    if not is_linear(graph, node, moving):
        raise InputError(
            f"no rule to send changes through {node.name} ({describe(graph, node)}){line(node)}; "
            "build it of linear maps and ReLU, or leave this part of the network out"
        )
    module = module_of(graph, node)
    if getattr(module, "bias", None) is not None:
        module._parameters["bias"] = None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module._buffers["running_mean"] = torch.zeros_like(module.running_mean)


def _keep_moving_summand(graph: fx.Graph, node: fx.Node, moving: set[fx.Node]) -> None:
    first, second = node.args
    if first in moving and second in moving:
        return
    kept, negative = (first, False) if first in moving else (second, "sub" in str(node.target))
    if negative:
        with graph.inserting_before(node):
            kept = graph.call_function(operator.neg, (kept,))
            moving.add(kept)
    node.replace_all_uses_with(kept)
    graph.erase_node(node)
