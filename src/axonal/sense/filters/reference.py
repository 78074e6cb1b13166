"""The scores of the filters, event by event: the definition of what `kernels` computes."""

import numpy as np


def walk(packet):
    """Iterate over events: number, time since the first in us, pixel (y, x), whether it is ON."""
    for e, (t, x, y, p) in enumerate(packet.tolist()):
        yield e, float(t - int(packet["t"][0])), (y, x), p > 0


def around(values: np.ndarray, pixel: tuple[int, int], radius: int) -> np.ndarray:
    """The part of `values` [H, W] within `radius` of a pixel, to each side."""
    return values[tuple(slice(max(c - radius, 0), c + radius + 1) for c in pixel)]


def traces(packet, shape, tau):
    """Iterate over events: number, pixel and v, to which each adds 1; v decays as exp(-t / tau)."""
    v, before = np.zeros(shape), 0.0
    for e, now, pixel, _ in walk(packet):
        v, before = v * np.exp((before - now) / tau), now
        v[pixel] += 1
        yield e, pixel, v


def lif(packet, shape, radius, tau):
    """The sum of v around the event."""
    return [around(v, pixel, radius).sum() for _, pixel, v in traces(packet, shape, tau)]


def hot(packet, shape, tau):
    """-(v of its pixel) / (1 + the median v of those beside it)."""
    scores = np.empty(len(packet))
    for e, pixel, v in traces(packet, shape, tau):
        others = around(v, pixel, 1).ravel().tolist()
        others.remove(v[pixel])
        scores[e] = -v[pixel] / (1 + (np.median(others) if others else 0))
    return scores


def surface(packet, shape, radius, tau):
    """The mean of exp((T - t) / tau), T of the last events of its polarity around it, or never."""
    last, scores = np.full((2, *shape), -np.inf), np.empty(len(packet))
    for e, now, pixel, on in walk(packet):
        near = np.exp((around(last[int(on)], pixel, radius) - now) / tau)
        scores[e] = near.sum() / (2 * radius + 1) ** 2
        last[int(on)][pixel] = now
    return scores


def recent(packet, shape, radius, k, own, same_polarity):
    """T - t of the k-th most recent last event of the pixels around it, and of its own if so."""
    last, scores = np.full((2, *shape), -np.inf), np.empty(len(packet))
    for e, now, pixel, on in walk(packet):
        plane = last[int(on and same_polarity)]
        plane[pixel] = plane[pixel] if own else -np.inf
        near = np.sort(around(plane, pixel, radius), axis=None)[::-1]
        scores[e] = near[k - 1] - now if k <= near.size else -np.inf
        plane[pixel] = now
    return scores
