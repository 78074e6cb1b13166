"""Compiled pieces of the engine: how events of one node reach the accumulators of another.

Memory is a few flat pools and two tables of records (see `tables`). A node's values lie in cells,
the channels of one place side by side: address = cell x width + channel. Events come in the order
of their addresses. Scattering marks the cells it reaches, which are those that fire afterwards
looks at. Every function takes a range of cells, the part of a thread; a part adds what falls into
its own cells, in an order that does not depend on the parts, so that sums are the same for any
number of threads.
"""

import numpy as np
from numba import njit

from .vectors import emit, weigh

DENSE, CONV, SPARSE, COPY = range(4)
OPTIONS = {"error_model": "numpy", "nogil": True, "cache": True}
ROWS = 8  # of a dense map's weights that are read at once: memory brings them side by side


@njit(**OPTIONS)
def scatter(edge, first, last, width, idx, val, count, weights, consts, ints, acc, mark):
    """Carries `count` events over an edge into the cells first to last - 1.

    Returns:
        The synaptic operations done: a weight for each event, by its size if it is a spike.
    """
    if edge.op == SPARSE:
        return _sparse(edge, first, last, width, idx, val, count, consts, ints, acc, mark)
    size, scaled = np.ones(count), val[:count]
    for e in range(count):
        size[e] = abs(val[e]) if edge.spiking else 1.0
    if edge.scale != np.float32(1.0):
        scaled = val[:count] * edge.scale
    if edge.op == DENSE:
        return _dense(edge, first, last, width, idx, scaled, size, weights, acc, mark)
    return _conv(edge, first, last, idx, scaled, size, weights, acc, mark)


@njit(**OPTIONS)
def _dense(edge, first, last, width, idx, val, size, weights, acc, mark):
    count, begin, end = len(val), first * width, min(last * width, edge.outputs)
    if not count or end <= begin:
        return 0.0
    for e in range(0, count, ROWS):
        part, row = (e, min(e + ROWS, count)), (edge.weights + begin, edge.outputs)
        weigh(acc, (begin, end - begin), weights, row, (idx, val), part)
    mark[first:last] = 1
    return size.sum() * (end - begin)


@njit(**OPTIONS)
def _conv(edge, first, last, idx, val, size, weights, acc, mark):
    """A convolution, by rows of outputs and of taps, whose weights and sums then stay in cache.

    All events of a cell pass while the sums that they reach are in registers: those of all the
    taps of a row, which lie side by side in weights and accumulators alike, or, with strides,
    dilations along a row or groups, of one tap.
    """
    # The fields as locals: the compiler must think that writing to `acc` may change a record.
    top, bottom = first // edge.wide_out, -(-last // edge.wide_out)
    inputs, outputs, wide, wide_out = edge.inputs, edge.outputs, edge.wide, edge.wide_out
    taps_y, taps_x, pad_y, pad_x = edge.taps_y, edge.taps_x, edge.pad_y, edge.pad_x
    stride_y, dilate_y, row = edge.stride_y, edge.dilate_y, edge.taps_x * edge.group
    high, begin, plain = edge.high, edge.weights, edge.plain
    cells, begins, starts, sizes = _grouped(idx, size, inputs, wide, high)
    work = 0.0
    for down in range(top, bottom):
        for k in range(taps_y):
            y = down * stride_y - pad_y + k * dilate_y
            if not 0 <= y < high:
                continue
            for g in range(starts[y], starts[y + 1]):
                a, b, left = begins[g], begins[g + 1], cells[g] - y * wide + pad_x - taps_x + 1
                taps = begin + k * row - cells[g] * inputs * taps_y * row
                if not plain:
                    to = (down, cells[g] - y * wide + pad_x)
                    work += _taps(edge, to, taps, idx, val, size, a, b, weights, acc, mark)
                    continue
                skip = max(0, -left)
                places = min(taps_x, wide_out - left) - skip
                if places > 0:
                    to = down * wide_out + left + skip
                    span, of = (to * outputs, places * outputs), taps + skip * outputs
                    weigh(acc, span, weights, (of, taps_y * row), (idx, val), (a, b))
                    mark[to : to + places] = 1
                    work += places * sizes[g]
    return work * edge.group


@njit(**OPTIONS)
def _taps(edge, to, taps, idx, val, size, begin, end, weights, acc, mark):
    """The events of a cell, whose first output with no stride is `to`, over one row of taps."""
    down, x = to
    outputs, group, work = edge.outputs, edge.group, 0.0
    for j in range(edge.taps_x):
        right = (x - (edge.taps_x - 1 - j) * edge.dilate_x) // edge.stride_x
        if right * edge.stride_x != x - (edge.taps_x - 1 - j) * edge.dilate_x:
            continue
        if not 0 <= right < edge.wide_out:
            continue
        cell, stride = down * edge.wide_out + right, edge.taps_y * edge.taps_x * group
        mark[cell] = 1
        row = taps + j * group, stride
        if group == outputs:
            weigh(acc, (cell * outputs, group), weights, row, (idx, val), (begin, end))
        for e in range(begin, end):
            if group < outputs:
                of = cell * outputs + idx[e] % edge.inputs // edge.per_group * group
                weigh(acc, (of, group), weights, row, (idx, val), (e, e + 1))
            work += size[e]
    return work


@njit(**OPTIONS)
def _grouped(idx, size, inputs, wide, high):
    """The cells that have events, in order, and where the events of each begin; by row of cells,
    where its cells begin; by cell, what its events count as."""
    count = len(size)
    cells, begins = np.empty(count, np.int64), np.empty(count + 1, np.int64)
    starts, sizes = np.empty(high + 1, np.int64), np.empty(count)
    found = row = end = 0
    for e in range(count):
        if idx[e] >= end:
            cell = idx[e] // inputs
            end = (cell + 1) * inputs
            while row * wide <= cell:
                starts[row] = found
                row += 1
            cells[found], begins[found], sizes[found] = cell, e, 0.0
            found += 1
        sizes[found - 1] += size[e]
    begins[found] = count
    starts[row:] = found
    return cells, begins, starts, sizes


@njit(**OPTIONS)
def _sparse(edge, first, last, width, idx, val, count, weights, ints, acc, mark):
    lo, hi = first * width, last * width
    starts, targets, cells, weight = edge.ints, edge.targets, edge.cells, edge.weights
    for e in range(count):
        value = val[e]
        for k in range(ints[starts + idx[e]], ints[starts + idx[e] + 1]):
            to = ints[targets + k]
            if lo <= to < hi:
                acc[to] += value * weights[weight + k]
                mark[ints[cells + k]] = 1
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
    lit[first:last] = 0
    c = first
    while c < last:
        begin = c
        while c < last and (mark[c] or not node.lazy):  # cells side by side, all at once
            c += 1
        base, size = begin * width, (c - begin) * width
        c += c == begin
        if not size:
            continue
        sums = acc[base : base + size]
        if node.bias >= 0:
            bias = consts[node.bias + base : node.bias + base + size]
            for n in range(size):
                sums[n] += bias[n]
        if node.copied:
            lit[begin:c] = 1
            rows[base : base + size] = sums
        if node.followed:
            at = emit(sums, size, base, at, (idx, val))
        sums[:] = 0
        mark[begin:c] = 0
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
def arrange(t, place, value, cells, width, starts):
    """Addresses and values of events, those of step t from starts[t] to starts[t + 1] - 1.

    Events in order of time and place, channels first, become events in order of address.

    Returns:
        They, and whether they were in order and no two shared a step and a place.
    """
    count, steps = len(t), len(starts) - 1
    to, of = np.empty(count, np.int64), np.empty(count, np.float32)
    cell, address = np.empty(count, np.int32), np.empty(count, np.int32)
    ends = np.zeros(cells + 1, np.int32)
    ordered, e = True, 0
    for step in range(steps):
        begin = starts[step] = e
        last, channel = -1, 0
        while e < count and t[e] == step:
            ordered &= place[e] > last
            last = place[e]
            if last < channel * cells:  # not in order
                channel = 0
            while last >= (channel + 1) * cells:
                channel += 1
            c = last - channel * cells
            cell[e], address[e] = c, c * width + channel
            ends[c + 1] += 1
            e += 1
        if e > begin:
            ends[0] = begin
            for c in range(cells):
                ends[c + 1] += ends[c]
            for i in range(begin, e):
                at = ends[cell[i]]
                to[at], of[at] = address[i], value[i]
                ends[cell[i]] = at + 1
            ends[:] = 0
    starts[steps] = e
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
    order = np.argsort(ring_idx[place : place + count])  # they came from several steps
    for e in range(count):
        idx[e], val[e] = ring_idx[place + order[e]], ring_val[place + order[e]]
    ring_n[node.ring_n + slot] = 0
    return count
