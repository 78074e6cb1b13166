"""Volumes under the surface: areas under ROC and PR curves whose labels have soft edges.

Paparrizos et al. 2022 (PVLDB 15(11):2774): an anomaly's label falls off by the root of the distance
over half a buffer on both sides; recall counts anomalies that are met at all, beside their rows;
the volume is the mean over buffers from none to the longest. Never point-adjusted.
"""

import numpy as np

BUFFERS, LEVELS = 9, 250  # of a surface, and thresholds of a curve


def spans(labels: np.ndarray) -> np.ndarray:
    """The first rows of runs that aren't 0, and those behind their ends, [N, 2]."""
    edges = np.diff(np.concatenate([[0], (labels > 0).astype(int), [0]]))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], 1)


def softened(labels: np.ndarray, buffer: int) -> np.ndarray:
    """Labels [N] of 0 and 1 whose edges fall off over `buffer` / 2 rows."""
    soft, n = labels.astype(float), len(labels)
    for begin, end in spans(labels):
        after = np.arange(end - 1, min(end - 1 + buffer // 2, n))
        before = np.arange(max(begin - buffer // 2, 0), begin)
        soft[after] += np.sqrt(1 - (after - end + 1) / max(buffer, 1))
        soft[before] += np.sqrt(1 - (begin - before) / max(buffer, 1))
    return np.minimum(soft, 1)


def areas(scores: np.ndarray, labels: np.ndarray, buffer: int) -> tuple[float, float]:
    """The areas under the ROC and the PR curve for one buffer."""
    soft, n = softened(labels, buffer), len(scores)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    thresholds = ordered[np.linspace(0, n - 1, LEVELS).astype(int)]
    predicted = np.searchsorted(-ordered, -thresholds, side="right")
    right = np.cumsum(soft[order])[predicted - 1]
    most = np.array([scores[begin:end].max() for begin, end in spans(soft)])
    met = (most[:, None] >= thresholds).mean(0)
    positive = (labels.sum() + soft.sum()) / 2
    recall = np.minimum(right / positive, 1) * met
    false = np.concatenate([[0], (predicted - right) / (n - positive), [1]])
    recall = np.concatenate([[0], recall, [1]])
    roc = float(np.sum(np.diff(false) * (recall[1:] + recall[:-1]) / 2))
    return roc, float(np.sum(np.diff(recall[:-1]) * right / predicted))


def volumes(scores: np.ndarray, labels: np.ndarray, longest: int) -> tuple[float, float]:
    """VUS-ROC and VUS-PR of scores [N] for labels [N], some of which are 1 and not all.

    Args:
        scores: higher where it is stranger.
        labels: 0 and 1.
        longest: buffer, in rows.
    """
    buffers = np.unique(np.linspace(0, longest, BUFFERS).astype(int))
    roc, pr = zip(*(areas(scores, labels, int(b)) for b in buffers), strict=True)
    return float(np.mean(roc)), float(np.mean(pr))
