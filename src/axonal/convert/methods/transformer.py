"""Transformers: signed spikes between temporal-difference operators.

What reads the network's values through weights or products gets them as spikes: an encoder of
several thresholds and both signs stands before every linear map and every product of attention
(ECMT, Huang et al. 2024, arXiv 2403.16552). Norms, softmax, GELU and products themselves run on
running means, and hand on by how much the sum of their results should grow (`nn.Difference`, as in
STA, Jiang et al. 2024, ICLR). They stay dense, in floating point that is rounded (see `exact`): the
engine counts them under their names, the certificate's operations leave them out.
"""

from torch import fx

from ...core.errors import InputError
from ...nn.hooks import MAPS
from ...nn.interpreter import module_of
from ..activations import Calibration
from ..plan import Plan
from ..tracing import Role, rectifiers, roles
from .graded import least_error


def transformer(dense: fx.GraphModule, data: Calibration, bits: int = 8) -> Plan:
    """Signed encoders of 2^(bits - 1) - 1 levels before every map, at ceilings of least error.

    Args:
        bits: of a spike with its sign, 2 to 16.

    Raises:
        InputError: `bits` out of range, or nothing to encode.
    """
    if type(bits) is not int or not 2 <= bits <= 16:
        raise InputError(f"transformer: {bits} bits of a spike; choose 2 to 16")
    known, most = roles(dense), 2 ** (bits - 1) - 1
    slopes = {node.name: 1.0 for node in encoded(dense, known)}
    if "rectifier" in known.values():
        slopes |= rectifiers(dense)
    if not slopes:
        raise InputError(f"{type(dense).__name__} has no activation; nothing would be converted")
    populations = least_error(dense, data, slopes, most)
    return Plan("transformer", data.steps, data.shape, populations)


def encoded(dense: fx.GraphModule, known: dict[fx.Node, Role]) -> list[fx.Node]:
    """The nodes, rectifiers aside, whose values weights and products read."""
    sources: dict[fx.Node, None] = {}
    for node in dense.graph.nodes:
        if known[node] == "product" or isinstance(module_of(dense, node), MAPS):
            for read in node.all_input_nodes:
                source = _origin(dense, read, known)
                if known[source] not in ("input", "constant", "rectifier"):
                    sources[source] = None
    return [*sources]


def _origin(dense: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Role]) -> fx.Node:
    """Where the values that `node` only moves or scales come from."""
    inputs = [n for n in node.all_input_nodes if known[n] != "constant"]
    while known[node] == "linear" and len(inputs) == 1:
        if isinstance(module_of(dense, node), MAPS):
            break
        node = inputs[0]
        inputs = [n for n in node.all_input_nodes if known[n] != "constant"]
    return node
