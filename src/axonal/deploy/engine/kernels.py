"""Compiled pieces of the engine: how events of one node reach the accumulators of another.

Memory is a few flat pools and two tables of records (see `tables`). A node's values lie in cells,
the channels of one place side by side: address = cell x width + channel. Events come in the order
of their addresses. What events reach is marked, and these cells are what firing looks at. Every
function takes a range of cells, the part of a thread; a part adds what falls into its own cells,
in an order that does not depend on the parts, so that sums are the same for any number of threads.
"""

import numpy as np
from numba import njit, types

from axonal.deploy.engine.signatures import OPTIONS
from axonal.ops.pointers import viewer
from axonal.ops.simd import LINES, emit, nonzero, slide, weigh

CROWDED = 6  # events of a cell from which on rows of taps go one by one, their weights in cache
as_bits, as_floats = viewer(types.int32), viewer(types.float32)
ROWS = 8  # of a dense map's weights that are read at once: memory brings them side by side


@njit(**OPTIONS)
def dense(edge, first, last, width, idx, val, count, weights, consts, ints, acc, mark, work):
    """Multiply by a matrix, some rows of weights at once."""
    begin, end = first * width, min(last * width, edge.outputs)
    if not count or end <= begin:
        return
    span, row = (begin, end - begin), (edge.weights + begin, edge.outputs)
    for e in range(0, count, ROWS):
        weigh(acc, weights, edge.scale, (idx, val), span, row, (e, min(e + ROWS, count)))
    mark[first:last] = 1
    size = float(count)
    if edge.spiking:
        size = 0.0
        for e in range(count):
            size += abs(val[e])
    work[0] += size * (end - begin)


@njit(**OPTIONS)
def conv(edge, first, last, width, idx, val, count, weights, consts, ints, acc, mark, work):
    """Convolve by rows of inputs and of taps, whose weights and sums then stay in cache.

    What an output receives through a row of taps comes from cells side by side, whose events are
    so, too; with dilations along a row or groups it goes tap by tap.
    """
    # The fields as locals: the compiler must think that writing to `acc` may change a record.
    inputs, group, scale, kernel = edge.inputs, edge.group, edge.scale, weights[edge.weights :]
    wide, wide_out, taps_y, taps_x = edge.wide, edge.wide_out, edge.taps_y, edge.taps_x
    pad_y, stride_y, dilate_y, step = edge.pad_y, edge.stride_y, edge.dilate_y, edge.stride_x
    ungrouped = group == edge.outputs
    top, bottom = first // wide_out, -(-last // wide_out)
    low = max(0, top * stride_y - pad_y)
    high = min(edge.high, (bottom - 1) * stride_y - pad_y + (taps_y - 1) * dilate_y + 1)
    if high <= low:
        return
    begins, before = _begins(idx, val, count, edge.spiking, inputs, low * wide, high * wide)
    reach = taps_x if ungrouped and edge.dilate_x == 1 else 1
    apart = not ungrouped or stride_y > 1 or dilate_y > 1 or count > CROWDED * wide * edge.high
    done = 0.0
    for y in range(low, high):
        at = (y - low) * wide
        if begins[at] == begins[at + wide]:
            continue
        here = begins[at : at + wide + 1], before[at : at + wide + 1], mark
        k = 0
        while k < taps_y:
            down, rest = divmod(y + pad_y - k * dilate_y, stride_y)
            if rest or not top <= down < bottom:
                k += 1
                continue
            # Outputs in rows above each other, while there are enough, receive the same events.
            lines = 1 if apart or min(taps_y - k, down - top + 1) < LINES else LINES
            for j in range(0, taps_x, reach):
                left, tap = j * edge.dilate_x - edge.pad_x, k * taps_x + j
                out = lines, down * wide_out, wide_out, wide_out, group
                line = (*out, left, step, reach, y * wide, wide, tap, taps_x, inputs)
                if ungrouped:
                    done += slide(acc, kernel, scale, (idx, val), line, here)
                else:
                    done += _grouped(edge.per_group, acc, kernel, scale, idx, val, line, here)
            k += lines
    work[0] += done * group


@njit(**OPTIONS)
def _grouped(per_group, acc, weights, scale, idx, val, line, here):
    """Slide as `slide` does, where an event reaches the outputs of its group alone."""
    _, cell, _, count, group, left, step, _, base, wide, tap, _, inputs = line
    begins, before, mark = here
    work, outputs = 0.0, inputs // per_group * group
    for x in range(count):
        a = left + x * step
        if not 0 <= a < wide or begins[a] == begins[a + 1]:
            continue
        for e in range(begins[a], begins[a + 1]):
            channel = idx[e] % inputs
            span = (cell + x) * outputs + channel // per_group * group, group
            of = ((tap - base - a) * inputs + idx[e]) * group, 0
            weigh(acc, weights, scale, (idx[e:], val[e:]), span, of, (0, 1))
        mark[cell + x] = 1
        work += before[a + 1] - before[a]
    return work


@njit(**OPTIONS)
def _begins(idx, val, count, spiking, inputs, first, last):
    """Where the events of the cells first to last begin, and what those before count as."""
    begins, before = np.empty(last - first + 1, np.int64), np.empty(last - first + 1)
    e, size, end = np.searchsorted(idx[:count], first * inputs), 0.0, first * inputs
    for c in range(len(begins)):
        while e < count and idx[e] < end:
            size += abs(val[e]) if spiking else 1.0
            e += 1
        begins[c], before[c] = e, size
        end += inputs
    return begins, before


@njit(**OPTIONS)
def sparse(edge, first, last, width, idx, val, count, weights, consts, ints, acc, mark, work):
    """Map by a list of targets and weights for each input; these are no synapses."""
    lo, hi = first * width, last * width
    starts, targets, cells, weight = edge.ints, edge.targets, edge.cells, edge.weights
    for e in range(count):
        value = val[e]
        for k in range(ints[starts + idx[e]], ints[starts + idx[e] + 1]):
            to = ints[targets + k]
            if lo <= to < hi:
                acc[to] += value * consts[weight + k]
                mark[ints[cells + k]] = 1


@njit(**OPTIONS)
def gather(edge, first, last, width, rows, lit, ints, consts, acc, mark):
    """Add the cells of a node that relays, weighted, to those of another."""
    size, offset, starts, sources = edge.inputs, edge.offset, edge.ints, edge.targets
    for c in range(first, last):
        for k in range(ints[starts + c], ints[starts + c + 1]):
            of, weight = ints[sources + k], consts[edge.weights + k]
            if lit[of]:
                sums, row = acc[c * width + offset :][:size], rows[of * size :][:size]
                for n in range(size):
                    sums[n] += weight * row[n]
                mark[c] = 1


@njit(**OPTIONS)
def relay(node, first, last, acc, mark, consts, rows, lit, idx, val, result):
    """Hand on the sums of a node without neurons: as rows, as events, as its readers need.

    Where its events end is the first of `result`.
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
            for n in range(size):
                rows[base + n] = sums[n]
        if node.followed:
            at = emit(sums, size, base, at, (idx, val))
        sums[:] = 0
        mark[begin:c] = 0
    result[0] = at


@njit(**OPTIONS)
def arrange(t, place, value, cells, width, starts):
    """Order events by address, those of step t from starts[t] to starts[t + 1] - 1.

    Events in order of time and place, channels first, become events in order of address: counted
    by cell, then put there channel by channel, address and value in one word.

    Returns:
        They, and whether they were in order and no two shared a step and a place.
    """
    ordered, bits, words = True, as_bits(value), np.empty(len(t), np.int64)
    columns = words, np.empty(len(t), np.int64), np.empty(len(t), np.int32)
    for step in range(len(starts) - 1):
        first, last = starts[step], np.searchsorted(t, step, "right")
        starts[step + 1] = last
        for e in range(first + 1, last):
            ordered &= place[e] > place[e - 1]
        if not ordered or first == last:
            continue
        if cells == 1:  # places are addresses
            for e in range(first, last):
                columns[1][e], columns[2][e] = place[e], bits[e]
            continue
        _put(place, bits, (first, last), cells, width, columns)
    return columns[1], as_floats(columns[2]), ordered


@njit(**OPTIONS)
def _put(place, bits, span, cells, width, columns):
    """Put the events of a step in order, which lie in `span`, channel by channel."""
    words, address, value = columns
    first, last = span
    ends, base = np.zeros(cells, np.int64), 0
    for e in range(first, last):
        while place[e] >= base + cells:  # a division would take longer than all else
            base += cells
        ends[place[e] - base] += 1
    at = first
    for c in range(cells):
        ends[c], at = at, at + ends[c]
    base = k = 0
    for e in range(first, last):
        while place[e] >= base + cells:
            base, k = base + cells, k + 1
        c = place[e] - base
        words[ends[c]] = np.int64(bits[e]) << 32 | c * width + k
        ends[c] += 1
    _part(words[first:last], address[first:last], value[first:last])


@njit(**OPTIONS)
def listed(dense, cells, width, starts):
    """List the values [T, channels x places] that are not 0, in the order of `arrange`."""
    count = 0
    for step in range(len(dense)):
        count += nonzero(dense[step], cells * width)
        starts[step + 1] = count
    words, at = np.empty(count, np.int64), 0
    for step in range(len(dense)):
        row, bits = dense[step], as_bits(dense[step])
        for c in range(cells):
            for k in range(width):
                if row[k * cells + c] != 0:
                    words[at] = np.int64(bits[k * cells + c]) << 32 | c * width + k
                    at += 1
    address, value = np.empty(count, np.int64), np.empty(count, np.int32)
    _part(words, address, value)
    return address, as_floats(value)


@njit(**OPTIONS)
def _part(words, address, bits):
    """Take words apart: an address below, the bits of a value above."""
    for e in range(len(words)):
        address[e], bits[e] = words[e] & 0xFFFFFFFF, words[e] >> 32


@njit(**OPTIONS)
def store(node, source, t, idx, val, sizes, ints, ring_idx, ring_val, ring_n):
    """Put the events of a delay's source into its ring, each where it will leave."""
    for e in range(source.at, source.at + sizes[node.source]):
        slot = (t + ints[node.ints + idx[e]]) % node.slots
        at = ring_n[node.ring_n + slot]
        place = node.ring + slot * node.capacity + at
        ring_idx[place], ring_val[place] = idx[e], val[e]
        ring_n[node.ring_n + slot] = at + 1


@njit(**OPTIONS)
def leave(node, t, ring_idx, ring_val, ring_n, idx, val, result):
    """Take the events of step t out of the ring; their number is the first of `result`."""
    slot = t % node.slots
    count, place = ring_n[node.ring_n + slot], node.ring + slot * node.capacity
    for e in range(count):
        idx[e], val[e] = ring_idx[place + e], ring_val[place + e]
    gap = count  # they came from several steps: Shell's sort, as none of numpy's compiles as fast
    while gap > 1:
        gap = max(1, gap * 4 // 9)
        for e in range(gap, count):
            address, value, at = idx[e], val[e], e
            while at >= gap and idx[at - gap] > address:
                idx[at], val[at] = idx[at - gap], val[at - gap]
                at -= gap
            idx[at], val[at] = address, value
    ring_n[node.ring_n + slot] = 0
    result[0] = count
