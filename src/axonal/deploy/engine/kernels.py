"""Compiled pieces of the engine: how events of one node reach the accumulators of another.

Memory is a few flat pools and two tables of records (see `tables`). A node's values lie in cells,
the channels of one place side by side: address = cell x width + channel. Scattering marks the
cells it reaches, which are those that fire afterwards looks at. Every function takes a range of
cells, the part of a thread; a part adds what falls into its own cells, in the order of the
events, so that sums are the same for any number of threads.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

DENSE, CONV, SPARSE, COPY = range(4)
OPTIONS = {"error_model": "numpy", "nogil": True, "cache": True}


def widened(x: Any) -> Any:
    """A weight as float32: a bfloat16's bits, which are the upper half of one, or a number."""
    return np.float32(x)


def _bits(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


_float_of: Any = intrinsic(_bits)


@overload(widened)
def _widened(x):
    if x is types.uint16:
        return lambda x: _float_of(np.uint32(x) << np.uint32(16))
    return lambda x: np.float32(x)


@njit(**OPTIONS)
def scatter(edge, first, last, width, idx, val, count, weights, consts, ints, acc, mark):
    """Carries `count` events over an edge into the cells first to last - 1.

    Returns:
        The synaptic operations done: a weight for each event, by its size if it is a spike.
    """
    if edge.op == DENSE:
        return _dense(edge, first, last, width, idx, val, count, weights, acc, mark)
    if edge.op == CONV and edge.rows:
        return _rows(edge, first, last, idx, val, count, weights, acc, mark)
    if edge.op == CONV:
        return _taps(edge, first, last, idx, val, count, weights, acc, mark)
    return _sparse(edge, first, last, width, idx, val, count, consts, ints, acc, mark)


@njit(fastmath={"contract"}, **OPTIONS)
def _dense(edge, first, last, width, idx, val, count, weights, acc, mark):
    outputs, offset, spiking, scale = edge.outputs, edge.weights, edge.spiking, edge.scale
    lo, hi = first * width, min(last * width, outputs)
    if not count or hi <= lo:
        return 0.0
    sums, work, size = acc[lo:hi], 0.0, hi - lo
    for e in range(0, count - 3, 4):  # four at once keep more of memory's lines busy
        a, b = offset + lo + idx[e] * outputs, offset + lo + idx[e + 1] * outputs
        c, d = offset + lo + idx[e + 2] * outputs, offset + lo + idx[e + 3] * outputs
        w, x, y, z = val[e] * scale, val[e + 1] * scale, val[e + 2] * scale, val[e + 3] * scale
        of_a, of_b = weights[a : a + size], weights[b : b + size]
        of_c, of_d = weights[c : c + size], weights[d : d + size]
        for n in range(size):
            sums[n] += (w * widened(of_a[n]) + x * widened(of_b[n])) + (
                y * widened(of_c[n]) + z * widened(of_d[n])
            )
    for e in range(count - count % 4, count):
        begin, value = offset + lo + idx[e] * outputs, val[e] * scale
        factors = weights[begin : begin + size]
        for n in range(size):
            sums[n] += value * widened(factors[n])
    for e in range(count):
        work += abs(val[e]) if spiking else 1.0
    mark[first:last] = 1
    return work * (hi - lo)


@njit(fastmath={"contract"}, **OPTIONS)
def _rows(edge, first, last, idx, val, count, weights, acc, mark):
    """A convolution whose taps of a row lie side by side in weights and accumulators alike."""
    # The fields as locals: the compiler must think that writing to `acc` may change a record.
    top, bottom = first // edge.wide_out, -(-last // edge.wide_out)
    inputs, outputs, wide, wide_out = edge.inputs, edge.outputs, edge.wide, edge.wide_out
    taps_y, taps_x, pad_y, pad_x = edge.taps_y, edge.taps_x, edge.pad_y, edge.pad_x
    stride, dilate, spiking, offset = edge.stride_y, edge.dilate_y, edge.spiking, edge.weights
    scale = edge.scale
    work = 0.0
    for e in range(count):
        cell, value = idx[e] // inputs, val[e] * scale
        row = (idx[e] - cell * inputs) * taps_y
        y = cell // wide
        left = cell - y * wide + pad_x - taps_x + 1
        skip = max(0, -left)
        places = min(taps_x, wide_out - left) - skip
        if places <= 0:
            continue
        taps = 0
        for k in range(taps_y):
            down = y + pad_y - k * dilate
            if stride > 1:
                if down % stride:
                    continue
                down //= stride
            if top <= down < bottom:
                to = down * wide_out + left + skip
                begin = offset + ((row + k) * taps_x + skip) * outputs
                sums = acc[to * outputs : (to + places) * outputs]
                factors = weights[begin : begin + places * outputs]
                for n in range(len(sums)):
                    sums[n] += value * widened(factors[n])
                for c in range(to, to + places):
                    mark[c] = 1
                taps += places
        work += taps * (abs(val[e]) if spiking else 1.0)
    return work * outputs


@njit(fastmath={"contract"}, **OPTIONS)
def _taps(edge, first, last, idx, val, count, weights, acc, mark):
    """Any convolution, tap by tap: with strides and dilations along a row, and groups."""
    top, bottom = first // edge.wide_out, -(-last // edge.wide_out)
    outputs, wide_out, group = edge.outputs, edge.wide_out, edge.group
    taps_y, taps_x, first_weight = edge.taps_y, edge.taps_x, edge.weights
    stride_y, stride_x, dilate_y, dilate_x = (
        edge.stride_y,
        edge.stride_x,
        edge.dilate_y,
        edge.dilate_x,
    )
    work = 0.0
    for e in range(count):
        cell, value = idx[e] // edge.inputs, val[e] * edge.scale
        channel = idx[e] - cell * edge.inputs
        y, x = cell // edge.wide + edge.pad_y, cell % edge.wide + edge.pad_x
        offset = channel // edge.per_group * group
        taps = 0
        for k in range(taps_y):
            down = (y - k * dilate_y) // stride_y
            if down * stride_y != y - k * dilate_y or not top <= down < bottom:
                continue
            for j in range(taps_x):
                right = (x - (taps_x - 1 - j) * dilate_x) // stride_x
                if right * stride_x != x - (taps_x - 1 - j) * dilate_x:
                    continue
                if not 0 <= right < wide_out:
                    continue
                to = down * wide_out + right
                begin = first_weight + ((channel * taps_y + k) * taps_x + j) * group
                sums = acc[to * outputs + offset : to * outputs + offset + group]
                factors = weights[begin : begin + group]
                for n in range(len(sums)):
                    sums[n] += value * widened(factors[n])
                mark[to] = 1
                taps += 1
        work += taps * (abs(val[e]) if edge.spiking else 1.0)
    return work * group


@njit(**OPTIONS)
def _sparse(edge, first, last, width, idx, val, count, weights, ints, acc, mark):
    lo, hi = first * width, last * width
    for e in range(count):
        at = edge.ints + idx[e]
        for k in range(ints[at], ints[at + 1]):
            to = ints[edge.targets + k]
            if lo <= to < hi:
                acc[to] += val[e] * weights[edge.weights + k]
                mark[to // width] = 1
    return 0.0


@njit(**OPTIONS)
def copy(first, last, width, rows, lit, acc, mark):
    """Adds the values of a node that relays to the same places of another, cell by cell."""
    for c in range(first, last):
        if lit[c]:
            sums, given = acc[c * width : (c + 1) * width], rows[c * width : (c + 1) * width]
            for n in range(width):
                sums[n] += given[n]
            mark[c] = 1


@njit(**OPTIONS)
def relay(node, first, last, acc, mark, consts, rows, lit, idx, val):
    """Hands on the sums of a node without neurons: as rows, as events, as its readers need.

    Returns:
        Where its events end.
    """
    width, at = node.width, first * node.width
    for c in range(first, last):
        lit[c] = 0
        if node.lazy and not mark[c]:
            continue
        base = c * width
        sums = acc[base : base + width]
        if node.bias >= 0:
            bias = consts[node.bias + base : node.bias + base + width]
            for n in range(width):
                sums[n] += bias[n]
        if node.copied:
            lit[c] = 1
            rows[base : base + width] = sums
        if node.followed:
            at = emit(sums, base, at, idx, val)
        sums[:] = 0
        mark[c] = 0
    return at


@njit(**OPTIONS)
def emit(row, base, at, idx, val):
    """Appends the entries of `row` that are not zero to the events; returns where they end."""
    for begin in range(0, len(row), 64):  # most have none, which one pass over them shows
        block = row[begin : begin + 64]
        fired = 0
        for n in range(len(block)):
            fired += block[n] != 0
        if fired:
            for n in range(len(block)):
                idx[at], val[at] = base + begin + n, block[n]
                at += block[n] != 0
    return at


@njit(**OPTIONS)
def join(idx, val, begin, ends):
    """Moves the events of several parts, from begin[i] to ends[i] - 1, together; their number."""
    at = ends[0]
    for i in range(1, len(begin)):
        for e in range(begin[i], ends[i]):
            idx[at], val[at] = idx[e], val[e]
            at += 1
    return at - begin[0]


@njit(**OPTIONS)
def arrange(t, place, value, address, starts):
    """Addresses and values of a step's events, which begin at starts[t] and end at starts[t + 1].

    Returns:
        They, and whether they are in order and no two share a step and a place.
    """
    to, of = np.empty(len(t), np.int64), np.empty(len(t), np.float32)
    ordered = True
    starts[:] = 0
    for e in range(len(t)):
        to[e], of[e] = address[place[e]], value[e]
        ordered &= e == 0 or t[e] > t[e - 1] or (t[e] == t[e - 1] and place[e] > place[e - 1])
        starts[t[e] + 1] += 1
    for step in range(1, len(starts)):
        starts[step] += starts[step - 1]
    return to, of, ordered


@njit(**OPTIONS)
def store(node, source, t, idx, val, sizes, delays, rings):
    """Puts the events of a delay's source into its ring, each where it will leave."""
    ring_idx, ring_val, ring_n = rings
    for e in range(source.at, source.at + sizes[node.source]):
        slot = (t + delays[node.ints + idx[e]]) % node.slots
        at = ring_n[node.ring_n + slot]
        place = node.ring + slot * node.capacity + at
        ring_idx[place], ring_val[place] = idx[e], val[e]
        ring_n[node.ring_n + slot] = at + 1


@njit(**OPTIONS)
def leave(node, t, rings, idx, val):
    """Takes the events of step t out of the ring; their number."""
    ring_idx, ring_val, ring_n = rings
    slot = t % node.slots
    count, place = ring_n[node.ring_n + slot], node.ring + slot * node.capacity
    idx[:count] = ring_idx[place : place + count]
    val[:count] = ring_val[place : place + count]
    ring_n[node.ring_n + slot] = 0
    return count
