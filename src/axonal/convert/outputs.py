"""Networks that return several tensors: one row of numbers a sample, and taken apart again.

A tuple, list or dictionary of tensors, also within each other, is recorded as its tensors side by
side, so that everything behind the recording knows one output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..core.errors import InputError
from ..nn.interpreter import record

PART = "output_part"


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """What a nested output holds, by names such as "boxes" or "0.scores"; "" for one tensor."""
    if isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple | list):
        pairs = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {name: value}
    inner = [leaves(item, f"{name}.{key}".strip(".")) for key, item in pairs]
    return {key: item for part in inner for key, item in part.items()}


def side_by_side(value: Any, what: str = "the model") -> Tensor:
    """What a network returns as one tensor: itself, or the values of several side by side, [B, K].

    Raises:
        InputError: it returns anything but tensors, or of unlike numbers of samples.
    """
    if torch.is_tensor(value):
        return value
    parts = leaves(value)
    for name, part in parts.items():
        if not torch.is_tensor(part) or not part.dim():
            raise InputError(f"{what} returns {type(part).__name__} at {name!r}; leave it out")
    if len({len(part) for part in parts.values()}) != 1:
        shapes = {name: list(part.shape) for name, part in parts.items()}
        raise InputError(f"{what} returns no tensors of the same samples: {shapes}")
    return torch.cat([part.reshape(len(part), -1) for part in parts.values()], 1)


def join_outputs(graph: fx.Graph, name: str) -> Any:
    """Let a graph return its outputs side by side; the structure that they had, for `Outputs`.

    Raises:
        InputError: an output that is no tensor.
    """
    node = graph.output_node()
    if isinstance(structure := node.args[0], fx.Node):
        return None
    parts = leaves(structure)
    if wrong := [key for key, part in parts.items() if not isinstance(part, fx.Node)] or not parts:
        raise InputError(f"{name} must return tensors, and returns {wrong or structure}")
    rows = []
    with graph.inserting_before(node):
        for part in parts.values():
            samples = graph.call_method("size", (part, 0))
            rows.append(graph.call_method("reshape", (part, samples, -1)))
            rows[-1]._rename(f"{PART}_{len(rows) - 1}")
        node.args = (graph.call_function(torch.cat, (rows, 1)),)
    return structure


@dataclass(frozen=True, eq=False)
class Outputs:
    """How the row of numbers of a network with several outputs is taken apart.

    Attributes:
        structure: tuples, lists and dictionaries as the network returns them; None for one tensor.
        shapes: of one sample, by name.
    """

    structure: Any
    shapes: Mapping[str, Sequence[int]]

    def split(self, y: Tensor) -> Any:
        """What the network would have returned, of y [..., K]; leading axes stay."""
        if self.structure is None:
            return y
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        pieces = zip(y.split(sizes, -1), self.shapes.values(), strict=True)
        parts = [x.unflatten(-1, (*s,)) if len(s) else x[..., 0] for x, s in pieces]
        return _built(self.structure, iter(parts))

    def named(self, y: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        return leaves(self.split(y))


def outputs_of(dense: fx.GraphModule, *example: Tensor) -> Outputs:
    """The outputs of a recorded network, for samples like `example`."""
    structure = getattr(dense, "structure", None)
    if structure is None:
        return Outputs(None, {})
    nodes = {name: f"{PART}_{i}" for i, name in enumerate(leaves(structure))}
    with torch.no_grad():
        seen, _ = record(dense, nodes.values(), *example)
    return Outputs(structure, {name: seen[node][0].shape[1:] for name, node in nodes.items()})


def _built(structure: Any, parts: Any) -> Any:
    if isinstance(structure, Mapping):
        return {key: _built(item, parts) for key, item in structure.items()}
    if isinstance(structure, tuple | list):
        kind = list if isinstance(structure, list) else tuple
        return kind(_built(item, parts) for item in structure)
    return next(parts)
