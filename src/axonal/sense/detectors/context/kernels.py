"""The loops of the views: distances of rows, and what is learned of them.

Shapes: T rows, C channels, N neurons, K centres or kinds, D numbers of a vector.
"""

import math

import numba
import numpy as np

LOWEST, STEP, BINS = -14.0, 0.05, 560  # of the logarithms of distances
MOST = 20.0  # nats
TAIL = math.log(10.0)  # nats of the 90 % quantile
SENT = 0.1  # deviations by which a value moves until it is sent
TRACE = 16.0  # rows over which spikes are averaged
FLAT = 0.1  # deviations that a shape has at least


@numba.njit(cache=True, nogil=True)
def bin_of(d):
    """The place of a distance in a histogram."""
    return int(min(max((math.log(max(d, 1e-30)) - LOWEST) / STEP, 0.0), BINS - 1.0))


@numba.njit(cache=True, nogil=True)
def count(d, counts, sums):
    """Add distances d [T, K] to the histograms counts and sums [K, BINS]."""
    for t in range(len(d)):
        for k in range(d.shape[1]):
            if d[t, k] >= 0.0:
                place = bin_of(d[t, k])
                counts[k, place] += 1.0
                sums[k, place] += d[t, k]


@numba.njit(cache=True, nogil=True)
def surprise(d, top, excess, below, out):
    """The nats -ln P(distance >= d), [T, K]; 0 where there is no distance, below 0.

    Args:
        d: [T, K].
        top: [K], the 90 % quantiles; above, distances are exponential.
        excess: [K], their means there.
        below: [K, BINS], the nats up to the quantile.
        out: [T, K], filled.
    """
    for t in range(len(d)):
        for k in range(d.shape[1]):
            if d[t, k] < 0.0:
                out[t, k] = 0.0
            elif d[t, k] > top[k]:
                out[t, k] = min(MOST, TAIL + (d[t, k] - top[k]) / excess[k])
            else:
                out[t, k] = below[k, bin_of(d[t, k])]


@numba.njit(cache=True, nogil=True, fastmath=True)
def whitened(x, root, mean, out):
    """sqrt(|root (x - mean)|^2 / D) of x [T, D]; `root` is lower triangular."""
    size = x.shape[1]
    y = np.empty(size)
    for t in range(len(x)):
        for i in range(size):
            y[i] = x[t, i] - mean[i]
        square = 0.0
        for i in range(size):
            z = 0.0
            for j in range(i + 1):
                z += root[i, j] * y[j]
            square += z * z
        out[t] = math.sqrt(square / size)


@numba.njit(cache=True, nogil=True, fastmath=True)
def moments(x, sums, outer):
    """Add x [T, D] to sums [D + 1], the last their number, and x x' to the lower half of outer."""
    size = x.shape[1]
    for t in range(len(x)):
        sums[size] += 1.0
        for i in range(size):
            sums[i] += x[t, i]
            for j in range(i + 1):
                outer[i, j] += x[t, i] * x[t, j]


@numba.njit(cache=True, nogil=True, fastmath=True)
def reservoir(u, into, bias, decay, sent, drive, v, rate, out):
    """Leaky integrate-and-fire neurons that changes of u [T, C] drive.

        sent <- u where |u - sent| > 0.1,  h = decay v + (1 - decay) (sent into + bias)
        s = [h >= 1],  v = h - s,  rate <- rate + (s - rate) / 16

    Args:
        u: rows.
        into, bias, decay: [C, N], [N], [N].
        sent, drive: [C], and what it is at the neurons, [N]; changed.
        v, rate: [N]; changed.
        out: [T, N], filled with rates.

    Returns:
        Values sent, and spikes.
    """
    events, spikes = 0, 0
    for t in range(len(u)):
        for c in range(u.shape[1]):
            change = u[t, c] - sent[c]
            if abs(change) > SENT:
                events += 1
                sent[c] = u[t, c]
                for i in range(len(v)):
                    drive[i] += into[c, i] * change
        for i in range(len(v)):
            h = decay[i] * v[i] + (1.0 - decay[i]) * (drive[i] + bias[i])
            s = 1.0 if h >= 1.0 else 0.0
            v[i] = h - s
            rate[i] += (s - rate[i]) / TRACE
            out[t, i] = rate[i]
            spikes += int(s)
    return events, spikes


@numba.njit(cache=True, nogil=True, fastmath=True)
def nearest(x, centres, number):
    """The least mean square distance of x [D] from the first `number` of centres [D, K]; or -1."""
    if number == 0:
        return -1.0
    square = np.zeros(number, np.float32)
    for i in range(len(x)):  # over all centres at once, which are vectors' lanes
        value, row = x[i], centres[i]
        for k in range(number):
            e = value - row[k]
            square[k] += e * e
    best = square[0]
    for k in range(1, number):
        best = min(best, square[k])
    return best / len(x)


@numba.njit(cache=True, nogil=True)
def distance(x, centres, about):
    """The distance of x [D] from the nearest of centres; -1 for none."""
    square = nearest(x, centres, int(about[0]))
    return math.sqrt(square) if square >= 0.0 else -1.0


@numba.njit(cache=True, nogil=True)
def recruit(x, centres, about):
    """Make x [D] a centre if none is near; where all are taken, those that are near become one.

    Args:
        x: [D].
        centres: [D, K]; changed.
        about: [2], how many there are, and the square of a distance that is near; changed.
    """
    number = int(about[0])
    if number and nearest(x, centres, number) <= about[1]:
        return
    while number == centres.shape[1]:
        about[1] *= 1.5
        left = 0
        for k in range(number):
            one = centres[:, k].copy()
            if nearest(one, centres, left) > about[1] or left == 0:
                centres[:, left] = one
                left += 1
        number = left
    if number == 0 or nearest(x, centres, number) > about[1]:
        centres[:, number] = x
        number += 1
    about[0] = number


@numba.njit(cache=True, nogil=True)
def distances(x, centres, about, out):
    """The distances [T] of x [T, D] from the nearest centres."""
    for t in range(len(x)):
        out[t] = distance(x[t], centres, about)


@numba.njit(cache=True, nogil=True)
def recruit_all(x, d, centres, about):
    """Learn each of x [T, D] as `recruit` does, but for those that were near, by d [T], before."""
    for t in range(len(x)):
        if d[t] < 0.0 or d[t] * d[t] > about[1]:
            recruit(x[t], centres, about)


@numba.njit(cache=True, nogil=True)
def shape(sums, t, width, out):
    """The last stretches of `width` rows up to row t, as z-normalised means [D].

    Args:
        sums: [T + 1], cumulative; sums[t] is that of all before row t.
    """
    points, mean, square = len(out), 0.0, 0.0
    for i in range(points):
        last = t + 1 - (points - 1 - i) * width
        out[i] = (sums[last] - sums[last - width]) / width
        mean += out[i]
        square += out[i] * out[i]
    mean /= points
    spread = max(math.sqrt(max(square / points - mean * mean, 0.0)), FLAT)
    for i in range(points):
        out[i] = (out[i] - mean) / spread


@numba.njit(cache=True, nogil=True)
def courses(sums, begin, end, width, out):
    """The last stretches of all channels up to each row, as means.

    Args:
        sums: [.., C], cumulative.
        begin, end: of the rows, all of which have as many before them.
        width: of a stretch.
        out: [end - begin, C, D], filled.
    """
    points = out.shape[2]
    for t in range(begin, end):
        for c in range(sums.shape[1]):
            for i in range(points):
                last = t + 1 - (points - 1 - i) * width
                out[t - begin, c, i] = (sums[last, c] - sums[last - width, c]) / width


@numba.njit(cache=True, nogil=True)
def shape_distances(sums, begin, end, first, width, centres, about, out):
    """The distances [end - begin, C] of shapes of rows from the nearest centres of each channel.

    Args:
        sums: [.., C], cumulative.
        begin, end: of the rows.
        first: the first row that has a whole shape; -1 for those before.
        width: of a stretch.
        centres, about: [C, D, K], [C, 2].
    """
    x = np.empty(centres.shape[1], np.float32)
    for t in range(begin, end):
        for c in range(sums.shape[1]):
            out[t - begin, c] = -1.0
            if t >= first:
                shape(sums[:, c], t, width, x)
                out[t - begin, c] = distance(x, centres[c], about[c])


@numba.njit(cache=True, nogil=True)
def recruit_shapes(sums, d, begin, end, first, width, centres, about):
    """Learn shapes as `recruit_all` does; d [end - begin, C], others as of `shape_distances`."""
    x = np.empty(centres.shape[1], np.float32)
    for t in range(max(begin, first), end):
        for c in range(sums.shape[1]):
            before = d[t - begin, c]
            if before < 0.0 or before * before > about[c, 1]:
                shape(sums[:, c], t, width, x)
                recruit(x, centres[c], about[c])
