"""A graph laid out for the engine: flat pools of numbers, and tables of nodes and edges.

Maps without memory become edges from one set of events to one set of accumulators; where a map is
read once, by a sum, a bias or a population, its results are accumulated there at once.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...graph.graph import Graph, Node
from ...graph.ops import (
    Add,
    Bias,
    Concat,
    Conv,
    Delay,
    Dense,
    Input,
    Neurons,
    Pool,
    Resize,
    Scale,
    Select,
    Shape,
    between,
    windows,
)
from . import codegen, signatures
from .memory import DELAY, EDGE, INPUT, NODE, PASS, Flat, padded_size

CELL = 64  # neurons of a cell of a population without places
FROM_MEMORY = 4  # operations that take as long as one whose weight is used once
WEIGHTS = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


class Layout:
    """Where the values of one shape lie: cells of channels side by side."""

    def __init__(self, shape: Shape):
        self.shape, self.size = shape, math.prod(shape)
        if len(shape) == 1:
            self.width = min(CELL, self.size)
            self.cells = -(-self.size // self.width)
            self.address = np.arange(self.size)
        else:
            self.width, self.cells = shape[0], math.prod(shape[1:])
            places = np.arange(self.size).reshape(self.cells, self.width)
            self.address = np.ascontiguousarray(places.T).ravel()
        self.place = np.full(self.cells * self.width, -1, np.int32)  # half as long to look up
        self.place[self.address] = np.arange(self.size)

    @property
    def grid(self) -> tuple[int, int]:
        """How many places there are, and channels of each: a shape without places has one."""
        return math.prod(self.shape[1:]), self.shape[0]

    @property
    def room(self) -> int:
        """The number of addresses, of which some may belong to no neuron."""
        return len(self.place)

    def channels_first(self, values: np.ndarray) -> np.ndarray:
        """A view of `values` [K, addresses] in the order of the shape: [K, channels, places]."""
        cells, width = self.grid
        return values[:, : self.size].reshape(-1, cells, width).transpose(0, 2, 1)

    def spread(self, value: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """`value`, broadcast to the shape, by address."""
        values = np.full(self.room, fill, np.float32)
        values[self.address] = np.broadcast_to(value, self.shape).ravel()
        return values


class Tables:
    """The layout of a graph; `kinds` are those of others that run with it, and grow.

    Attributes:
        names: of the nodes in the table, in order.
        nodes, edges: the tables, arrays of the records `NODE` and `EDGE`.
        layers: names of the weighted edges, and None for others.
        counted: the rows of counts: a name, "edge" or "node", and its row in that table.
        kinds: of each kind of population, from 1 on, the text of its function (see `printed`).
        weights, constants, ints: the pools; weights in the form that `WEIGHTS` says.
        layouts: of every node in the table.
    """

    def __init__(self, graph: Graph, weights: str, kinds: list[str]):
        self.graph, self.form = graph, weights
        self.layouts = {name: Layout(shape) for name, shape in graph.shapes.items()}
        self.home = _homes(graph)
        self.names = [name for name in graph.nodes if self.home[name] == name]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.kinds = kinds
        self._weights, self._constants = Flat(WEIGHTS[weights]), Flat(np.float32)
        self._ints = Flat(np.int64)
        self._rows: dict[str, list[dict[str, int]]] = {name: [] for name in self.names}
        self._edge_names: dict[str, list[str | None]] = {name: [] for name in self.names}
        self._biases: dict[str, np.ndarray] = {}
        for node in graph:
            self._lay_edges(node)
        self._finish()

    def _finish(self) -> None:
        self.nodes = np.zeros(len(self.names), NODE)
        at = mark = state = ring = ring_n = edge = 0
        for i, name in enumerate(self.names):
            node, layout = self.graph.nodes[name], self.layouts[name]
            wide = max([1, *(edge.get("wide_out", 1) for edge in self._rows[name])])
            row = {"wide": wide, "cells": layout.cells, "width": layout.width, "size": layout.size}
            row |= {"at": at, "mark": mark, "state": state, "bias": -1, "output": -1, "source": -1}
            row |= {"first_edge": edge, "edges": len(self._rows[name])}
            if name in self._biases:
                row["bias"] = self._constants.add(self._biases[name])
            row |= self._kind(node, layout)
            if row["kind"] == DELAY:
                row |= {"ring": ring, "ring_n": ring_n, "capacity": layout.room}
                ring, ring_n = ring + row["slots"] * layout.room, ring_n + row["slots"]
            if name in self.graph.outputs:
                row["output"] = self.graph.outputs.index(name)
            at, mark, edge = at + padded_size(layout.room), mark + layout.cells, edge + row["edges"]
            state += padded_size(layout.room * self.states(name))
            self.nodes[i] = tuple(row.get(key, 0) for key in NODE.fields or ())
        self.totals = {"at": at, "mark": mark, "state": state, "ring": ring, "ring_n": ring_n}
        rows = [row for name in self.names for row in self._rows[name]]
        self.layers = [layer for name in self.names for layer in self._edge_names[name]]
        for row in rows:
            self.nodes[row["source"]]["copied" if row["op"] == signatures.CELLS else "followed"] = 1
        late = [row["source"] for row in self.nodes if row["kind"] == DELAY]
        self.nodes["followed"][late] = 1
        self.nodes["followed"] |= self.nodes["output"] >= 0
        self.edges = np.zeros(max(1, len(rows)), EDGE)
        for i, row in enumerate(rows):
            self.edges[i] = tuple(row.get(key, 0) for key in EDGE.fields or ())
        self.counted = list(self._counted())
        self.weights, self.constants = self._weights.array(), self._constants.array()
        self.ints = self._ints.array()

    def _counted(self) -> Iterator[tuple[str, str, int]]:
        """What counts count, in order: a name, "edge" or "node", and its row in the table."""
        for i, (name, node) in enumerate(zip(self.names, self.nodes, strict=True)):
            for e in range(node["first_edge"], node["first_edge"] + node["edges"]):
                if layer := self.layers[e]:
                    yield layer, "edge", e
            if node["kind"] > 0:
                yield name, "node", i

    def keep(self, weight: np.ndarray) -> dict[str, Any]:
        """Puts weights into their pool, in the form it has: where they begin, and their scale."""
        scale = np.float32(1)
        if self.form == "int8":  # one scale a map, and symmetric
            scale = np.float32(np.abs(weight).max() / 127) or np.float32(1)
            weight = np.rint(weight / scale)
        elif self.form == "bfloat16":  # the upper half of a float32, rounded to even
            bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
            weight = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return {"weights": self._weights.add(weight), "scale": scale}

    def states(self, name: str) -> int:
        """How many values each neuron of a node remembers."""
        op = self.graph.nodes[name].op
        return op.dynamics.state_size if isinstance(op, Neurons) else 0

    def _kind(self, node: Node, layout: Layout) -> dict[str, int]:
        """What the kind of a node says."""
        if isinstance(node.op, Input):
            return {"kind": INPUT, "source": self.graph.inputs.index(node.name)}
        if isinstance(node.op, Delay):
            steps = np.broadcast_to(node.op.steps, layout.shape)
            delays = np.zeros(layout.room, np.int64)
            delays[layout.address] = steps.ravel()
            source = self.index[self.home[node.inputs[0]]]
            early = int(steps.min() > 0)
            row = {"kind": DELAY, "source": source, "early": early, "slots": steps.max() + 1}
            return row | {"ints": self._ints.add(delays)}
        constant = node.name in self._biases
        if not isinstance(node.op, Neurons):
            return {"kind": PASS, "lazy": int(not constant)}
        dynamics, values = node.op.dynamics, node.op.constants(layout.shape)
        varying = tuple(n for n, v in node.op.values.items() if np.asarray(v).size > 1)
        source = codegen.population(dynamics, varying)
        if source not in self.kinds:
            self.kinds.append(source)
        kind = self.kinds.index(source) + 1
        fixed = [values[n].flat[0] for n in dynamics.constants() if n not in varying]
        fills = {"threshold": 1e15}  # what lies beside the last neuron never fires
        spread = [
            layout.spread(values[n], fills.get(n, 0.0))
            for n in dynamics.constants()
            if n in varying
        ]
        row = {"kind": kind, "fixed": self._constants.add(fixed)}
        row["varying"] = self._constants.add(np.concatenate(spread)) if spread else 0
        lazy = codegen.sleeps(dynamics) and not constant
        return row | {"lazy": int(lazy)}

    def _lay_edges(self, node: Node) -> None:
        """The edges into `node`, or through it into its home."""
        if isinstance(node.op, Input | Delay):
            return
        home = self.home[node.name]
        if isinstance(node.op, Bias):
            value = self.layouts[home].spread(node.op.value)
            self._biases[home] = self._biases.get(home, 0) + value
        offset = 0
        for name in node.inputs:
            before = self.graph.shapes[name]
            if self.home[name] == home and name != home:
                continue  # it is accumulated there already
            op, source = node.op, self.home[name]
            axis = op.axis if isinstance(op, Concat) else 0
            row = _LAY.get(type(op), _mapped)(self, op, source, home, offset)
            row |= {"source": self.index[source], "spiking": int(self._spikes(name))}
            self._rows[home].append(row)
            self._edge_names[home].append(node.name if op.WEIGHTED else None)
            offset += before[axis]

    def relays(self, name: str) -> bool:
        """Whether a node hands on sums, and has no neurons."""
        return not isinstance(self.graph.nodes[name].op, Input | Delay | Neurons)

    def _spikes(self, name: str) -> bool:
        """Whether the values of a node are spikes, as they left a population or reshaped."""
        node = self.graph.nodes[name]
        while isinstance(node.op, Select) and node.op.reshapes:
            node = self.graph.nodes[node.inputs[0]]
        return isinstance(node.op, Neurons) and not node.op.dynamics.graded


def _homes(graph: Graph) -> dict[str, str]:
    """The node whose accumulators each node's values go to: its own, or its only reader's."""
    homes: dict[str, str] = {}
    for name in reversed(graph.nodes):
        node, readers = graph.nodes[name], graph.readers[name]
        joins = len(readers) == 1 and name not in graph.outputs
        joins = joins and not isinstance(node.op, Input | Neurons | Delay)
        joins = joins and isinstance(graph.nodes[readers[0]].op, Add | Bias | Neurons)
        homes[name] = homes[readers[0]] if joins and readers[0] in homes else name
    return homes


def _dense(tables: Tables, op: Dense, source: str, home: str, _: int) -> dict[str, Any]:
    outputs, inputs = op.weight.shape
    row = tables.keep(op.weight.T)  # what an event meets lies side by side
    row |= {"op": signatures.DENSE, "inputs": inputs, "outputs": outputs}
    return row | {"fan": FROM_MEMORY * outputs}


def _conv(tables: Tables, op: Conv, source: str, home: str, _: int) -> dict[str, Any]:
    weight, stride, padding, dilation = op.weight, op.stride, op.padding, op.dilation
    inside, outside = tables.graph.shapes[source], tables.graph.shapes[home]
    if weight.ndim == 3:  # of one row
        weight, stride, dilation = weight[:, :, None], (1, *stride), (1, *dilation)
        padding = ((0, 0), *padding)
    outputs, per_group, taps_y, taps_x = weight.shape
    group = outputs // op.groups
    # [kernel row, kernel column, input channel, output channel of its group]
    weights = weight.reshape(op.groups, group, per_group, taps_y, taps_x).transpose(3, 4, 0, 2, 1)
    return tables.keep(weights) | {
        "op": signatures.CONV,
        "fan": group * taps_y * taps_x // math.prod(stride),
        "inputs": per_group * op.groups,
        "outputs": outputs,
        "wide": inside[-1],
        "wide_out": outside[-1],
        "pad_y": padding[0][0],
        "pad_x": padding[1][0],
        "taps_y": taps_y,
        "taps_x": taps_x,
        "stride_y": stride[0],
        "stride_x": stride[1],
        "dilate_y": dilation[0],
        "dilate_x": dilation[1],
        "group": group,
        "per_group": per_group,
        "high": math.prod(inside[1:-1]),
    }


def _mapped(tables: Tables, op: Any, source: str, home: str, offset: int) -> dict[str, int]:
    """A map of few entries: of whole cells, if it is one and its source has them, or of values."""
    before, after = tables.layouts[source], tables.layouts[home]
    inputs, outputs, weights = _entries(op, before.shape, after.shape, offset)
    inputs, outputs = before.address[inputs], after.address[outputs]
    cells = _cells(inputs, outputs, weights, before, after) if tables.relays(source) else None
    if cells is not None:
        of, to, weights, shift = cells
        counts = np.bincount(to, minlength=after.cells)
        row = {"op": signatures.CELLS, "inputs": before.width, "offset": shift}
        row |= {"targets": tables._ints.add(of)}
    else:
        order = np.lexsort((outputs, inputs))
        outputs, weights = outputs[order], weights[order]
        counts = np.bincount(inputs, minlength=before.room)
        row = {"op": signatures.SPARSE, "fan": -(-len(inputs) // max(1, before.size))}
        row |= {"targets": tables._ints.add(outputs)}
        row |= {"cells": tables._ints.add(outputs // after.width)}
    starts = np.concatenate([[0], np.cumsum(counts)])
    return row | {"ints": tables._ints.add(starts), "weights": tables._constants.add(weights)}


def _cells(
    inputs: np.ndarray, outputs: np.ndarray, weights: np.ndarray, before: Layout, after: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """The entries of a map as cells of inputs and of outputs, in order of the latter, and weights.

    With the channel of an output that the first channel of inputs goes to; None if the channels
    of a cell go different ways.
    """
    of, channel = np.divmod(inputs, before.width)
    to, place = np.divmod(outputs, after.width)
    order = np.lexsort((of, to, channel))
    if len(order) % before.width:
        return None
    table = np.stack([of, to, channel, place - channel, weights])[:, order]
    table = table.reshape(5, before.width, -1)
    alike = (table[[0, 1, 4]] == table[[0, 1, 4], :1]).all()
    alike &= (table[2] == np.arange(before.width)[:, None]).all()
    if not alike or np.ptp(table[3]):
        return None
    of, to = table[:2, 0].astype(np.int64)
    return of, to, table[4, 0], int(table[3, 0, 0])


_LAY = {Dense: _dense, Conv: _conv}
Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def _entries(op: Any, before: Shape, after: Shape, offset: int) -> Entries:
    """The entries of a sparse map: flat places of inputs and of outputs, and weights."""
    grid = np.arange(math.prod(before)).reshape(before)
    match op:
        case Select():
            return op.index.ravel(), np.arange(op.index.size), np.ones(op.index.size)
        case Scale():
            return grid.ravel(), grid.ravel(), np.broadcast_to(op.factor, before).ravel()
        case Add() | Bias() | Neurons():
            return grid.ravel(), grid.ravel(), np.ones(grid.size)
        case Concat():
            places = np.arange(math.prod(after)).reshape(after)
            part = np.take(places, range(offset, offset + before[op.axis]), op.axis)
            return grid.ravel(), part.ravel(), np.ones(grid.size)
        case Pool():
            return _pooled(op, grid)
        case Resize():
            return _resized(op, grid, math.prod(after))
    raise InputError(f"engine: no rule for {type(op).__name__}")


def _pooled(op: Pool, grid: np.ndarray) -> Entries:
    seen = windows(grid + 1, op.size, op.stride, op.padding, (1,) * len(op.size))
    flat = seen.reshape(-1, math.prod(op.size)) - 1  # -1 in the padding
    places = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    weight = 1 / math.prod(op.size) if op.average else 1.0
    inside = flat >= 0
    return flat[inside], places[inside], np.full(int(inside.sum()), weight)


def _resized(op: Resize, grid: np.ndarray, size: int) -> Entries:
    places, weights = grid[None], np.ones((1, *grid.shape))  # an output's sources, and their shares
    for axis, factor in enumerate(op.factor, 2):
        low, high, share = between(places.shape[axis], factor, op.bilinear)
        share = share.reshape(-1, *(1 for _ in places.shape[axis + 1 :]))
        parts = [weights.take(low, axis) * (1 - share), weights.take(high, axis) * share]
        weights = np.concatenate(parts)
        places = np.concatenate([places.take(low, axis), places.take(high, axis)])
    targets = np.broadcast_to(np.arange(size).reshape(places.shape[1:]), places.shape)
    used = weights.ravel() != 0
    return places.ravel()[used], targets.ravel()[used], weights.ravel()[used]
