"""Compiled scores of events, one pass over a packet each; `reference` defines what they compute.

Neighbourhoods are read without a branch: a map of pixels has a margin as wide as their radius.
Times are float64 microseconds since the first event that the filter saw, exact for 285 years, and
-infinity is never. Traces that decay together are stored as v exp((t - base) / tau), which events
elsewhere leave as it is, so that an event takes one exponential and not one a neighbour.
"""

import numpy as np
from numba import njit

OPTIONS = {"error_model": "numpy", "nogil": True, "cache": True}
LARGEST = 16.0  # of (t - base) / tau: what a float32 of it leaves of exp's digits is enough


@njit(**OPTIONS)
def misfit(packet, width, height, last):
    """The first event outside the sensor or before the one that precedes it, else -1."""
    for e in range(len(packet)):
        event = packet[e]
        if event.x >= width or event.y >= height or event.t < last:
            return e
        last = event.t
    return -1


@njit(**OPTIONS)
def since(t, origin):
    """Microseconds from `origin` to a later t; their difference may not fit into an int64."""
    return np.float64(np.uint64(t) - np.uint64(origin))


@njit(**OPTIONS)
def scale(traces, now, base, tau):
    """A trace of 1 as stored now, and the base, which moves to now when that grows too large."""
    age = (now - base) / tau
    if age <= LARGEST:
        return np.exp(np.float32(age)), base
    cells, decay = traces.reshape(-1), np.float32(np.exp(-age))
    for c in range(len(cells)):
        cells[c] *= decay
    return np.float32(1), now


@njit(**OPTIONS)
def lif(packet, origin, base, rows, radius, tau, out):
    """Sums of leaky traces; `rows` holds them summed along x already, over 2 radius + 1 pixels."""
    side = 2 * radius + 1  # so an event reaches a row and a column of cells, not a square
    for e in range(len(packet)):
        event = packet[e]
        y, x = np.int64(event.y), np.int64(event.x)
        unit, base = scale(rows, since(event.t, origin), base, tau)
        own = rows[0, y + radius]
        for j in range(side):
            own[x + j] += unit
        total = np.float32(0)
        for i in range(side):
            total += rows[0, y + i, x + radius]
        out[e] = total / unit
    return base


@njit(**OPTIONS)
def surface(packet, origin, base, traces, radius, tau, out):
    """Means of the traces that the last event of the same polarity left at each pixel."""
    side = 2 * radius + 1
    for e in range(len(packet)):
        event = packet[e]
        y, x = np.int64(event.y), np.int64(event.x)
        unit, base = scale(traces, since(event.t, origin), base, tau)
        plane = traces[1 if event.p else 0]
        total = np.float32(0)
        for i in range(side):
            for j in range(side):
                total += plane[y + i, x + j]
        out[e] = total / (unit * np.float32(side * side))
        plane[y + radius, x + radius] = unit
    return base


@njit(**OPTIONS)
def hot(packet, origin, base, traces, tau, out):
    """Minus the ratio of a pixel's trace to the median of its neighbours' and 1."""
    height, width = traces.shape[1:]
    near = np.empty(8, np.float32)
    for e in range(len(packet)):
        event = packet[e]
        y, x = np.int64(event.y), np.int64(event.x)
        unit, base = scale(traces, since(event.t, origin), base, tau)
        traces[0, y, x] += unit
        near[:], count = np.inf, 0
        for i in range(max(y - 1, 0), min(y + 2, height)):
            for j in range(max(x - 1, 0), min(x + 2, width)):
                if i != y or j != x:
                    near[count] = traces[0, i, j]
                    count += 1
        for step in range(8):  # sorted by comparing neighbours, as chance mispredicts any branch
            for n in range(step % 2, 7, 2):
                near[n], near[n + 1] = min(near[n], near[n + 1]), max(near[n], near[n + 1])
        median = (near[(count - 1) // 2] + near[count // 2]) / 2 if count else np.float32(0)
        out[e] = -traces[0, y, x] / (median + unit)
    return base


@njit(**OPTIONS)
def recent(packet, origin, base, times, radius, k, own, out):
    """Minus the age of the k-th most recent of the last events of the neighbours."""
    side, newest = 2 * radius + 1, np.empty(k)
    for e in range(len(packet)):
        event = packet[e]
        y, x, now = np.int64(event.y), np.int64(event.x), since(event.t, origin)
        plane = times[1 if event.p and len(times) == 2 else 0]
        plane[y + radius, x + radius] = plane[y + radius, x + radius] if own else -np.inf
        newest[:] = -np.inf
        for i in range(side):
            for j in range(side):
                time = plane[y + i, x + j]
                for n in range(k):  # without a branch, which chance would mispredict
                    newest[n], time = max(newest[n], time), min(newest[n], time)
        out[e] = newest[k - 1] - now
        plane[y + radius, x + radius] = now
    return base


@njit(**OPTIONS)
def ages(packet, origin, base, times, out):
    """The time since the pixel's last event."""
    for e in range(len(packet)):
        event = packet[e]
        now = since(event.t, origin)
        out[e] = now - times[0, event.y, event.x]
        times[0, event.y, event.x] = now
    return base


@njit(**OPTIONS)
def pooled(packet, before, drive, tau, out):
    """The leaky trace of all events after each, `drive` being what it was at `before`."""
    for e in range(len(packet)):
        t = packet[e].t
        drive = drive * np.exp(-since(t, before) / tau) + 1
        before = t
        out[e] = drive
    return drive
