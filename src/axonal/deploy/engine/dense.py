"""Dense products, for maps that so many events enter that following each one takes longer."""

import time
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import kernels

LOWEST = 0.1  # the share of inputs with events below which following them is faster everywhere


class Products:
    """The dense forms of a graph's maps, and from how many events on they are faster.

    A map's break-even is measured once, on the first step that may lie above it. Sums have another
    order than those that follow events, and differ in their last bits.

    Args:
        tables: the layout of the graph.
        never: never multiply densely.
    """

    def __init__(self, tables: Any, never: bool = False):
        self.tables, self.never = tables, never
        self.breakeven: dict[int, float] = {}
        self._weights: dict[int, np.ndarray] = {}
        self._fans: dict[int, np.ndarray] = {}

    def add(self, e: int, node: Any, memory: tuple[np.ndarray, ...], work: np.ndarray) -> bool:
        """Adds the product of edge `e` to the node's accumulators, if that is the faster way."""
        acc, mark, *_, idx, val, sizes = memory
        edge = self.tables.edges[e]
        source = self.tables.nodes[edge["source"]]
        count = sizes[edge["source"]]
        size = source["size"]
        if self.never or count < LOWEST * size or not self._has(edge):
            return False
        events = (a[source["at"] : source["at"] + count] for a in (idx, val))
        address, value = (np.ascontiguousarray(a) for a in events)
        if e not in self.breakeven:
            self.breakeven[e] = self._measure(e, edge, node, source, address, value)
        if count < self.breakeven[e]:
            return False
        found = self._product(e, edge, node, source, address, value)
        acc[node["at"] : node["at"] + len(found)] += found
        mark[node["mark"] : node["mark"] + node["cells"]] = 1
        many = np.abs(value) if edge["spiking"] else np.ones(len(value))
        work[e] += float((many * self._fan(e, edge, source, node)[address]).sum())
        return True

    @staticmethod
    def _has(edge: Any) -> bool:
        """Whether the map has a dense form worth its copy of the weights."""
        return edge["op"] == kernels.DENSE or (edge["op"] == kernels.CONV and edge["rows"] == 1)

    def _product(
        self, e: int, edge: Any, node: Any, source: Any, address: np.ndarray, value: np.ndarray
    ) -> np.ndarray:
        """What the events add to the accumulators, by address."""
        x = np.zeros(source["cells"] * source["width"], np.float32)
        x[address] = value
        weights = self._dense_weights(e, edge)
        if edge["op"] == kernels.DENSE:
            return x[: edge["inputs"]] @ weights
        tall, wide = source["cells"] // edge["wide"], edge["wide"]
        tall_out, wide_out = node["cells"] // edge["wide_out"], edge["wide_out"]
        span_y = (edge["taps_y"] - 1) * edge["dilate_y"] + 1
        after_y = (tall_out - 1) * edge["stride_y"] + span_y - tall - edge["pad_y"]
        after_x = wide_out - 1 + edge["taps_x"] - wide - edge["pad_x"]
        image = x.reshape(tall, wide, -1)[: tall + min(after_y, 0), : wide + min(after_x, 0)]
        image = np.pad(
            image, ((edge["pad_y"], max(after_y, 0)), (edge["pad_x"], max(after_x, 0)), (0, 0))
        )
        windows = sliding_window_view(image, (span_y, int(edge["taps_x"])), (0, 1))
        windows = windows[:: edge["stride_y"], :, :, :: edge["dilate_y"]]  # [y, x, C, kh, kw]
        rows = windows.transpose(0, 1, 3, 4, 2).reshape(tall_out * wide_out, -1)
        return (rows @ weights).ravel()

    def _dense_weights(self, e: int, edge: Any) -> np.ndarray:
        if e not in self._weights:
            size = edge["inputs"] * edge["outputs"] * max(1, edge["taps_y"] * edge["taps_x"])
            flat = self.tables.weights[edge["weights"] : edge["weights"] + size]
            if flat.dtype == np.uint16:
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            elif flat.dtype == np.int8:
                flat = flat * edge["scale"]
            found = flat.reshape(edge["inputs"], -1)
            if edge["op"] == kernels.CONV:
                shape = edge["inputs"], edge["taps_y"], edge["taps_x"], edge["outputs"]
                found = flat.reshape(shape)[:, :, ::-1].transpose(1, 2, 0, 3)
                found = np.ascontiguousarray(found).reshape(-1, edge["outputs"])
            self._weights[e] = found
        return self._weights[e]

    def _fan(self, e: int, edge: Any, source: Any, node: Any) -> np.ndarray:
        """How many synapses each address has."""
        if e not in self._fans:
            room = source["cells"] * source["width"]
            found = np.full(room, float(edge["outputs"]))
            if edge["op"] == kernels.CONV:
                tall = _reach(source["cells"] // edge["wide"], node["cells"], edge, "y")
                wide = _reach(edge["wide"], edge["wide_out"] ** 2, edge, "x")
                found = np.repeat(np.outer(tall, wide).ravel(), source["width"]) * edge["group"]
            self._fans[e] = found
        return self._fans[e]

    def _measure(
        self, e: int, edge: Any, node: Any, source: Any, address: np.ndarray, value: np.ndarray
    ) -> float:
        """The number of events from which on a dense product is faster."""
        acc = np.zeros(node["cells"] * node["width"], np.float32)
        mark = np.zeros(node["cells"], np.uint8)
        span = 0, int(node["cells"])
        given = address, value, len(address), self.tables.weights
        one = self.tables.edges[e : e + 1][0]

        def follow() -> None:
            if edge["op"] == kernels.DENSE:
                kernels._dense(one, *span, node["width"], *given, acc, mark)
            else:
                kernels._rows(one, *span, *given, acc, mark)

        def multiply() -> None:
            self._product(e, edge, node, source, address, value)

        return len(address) * _seconds(multiply) / _seconds(follow)


def _reach(size: int, cells: int, edge: Any, axis: str) -> np.ndarray:
    """How many outputs each place of one axis reaches."""
    taps, stride = edge[f"taps_{axis}"], edge[f"stride_{axis}"]
    outputs = cells // edge["wide_out"]
    down = np.arange(size)[:, None] + edge[f"pad_{axis}"] - np.arange(taps) * edge[f"dilate_{axis}"]
    return ((down >= 0) & (down % stride == 0) & (down // stride < outputs)).sum(1)


def _seconds(call: Any) -> float:
    """The best of three, after one that warms up."""
    found = []
    for _ in range(4):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found[1:])
