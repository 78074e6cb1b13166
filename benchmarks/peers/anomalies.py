"""Anomaly detectors of other libraries: a job of `worker.py`.

    {"do": "anomalies", "method", "file": FILE.npz, "out": FILE.npy}

The file has rows u [T, C], `train`, of these are normal, and `period`, in rows; what is written are
the scores of the others.
"""

import numpy as np

LAGS, TREES = 10, 100  # of the isolation forest


def windows(u, lags):
    padded = np.concatenate([np.repeat(u[:1], lags - 1, 0), u])
    return np.lib.stride_tricks.sliding_window_view(padded, lags, 0).reshape(len(u), -1)


def forest(u, train, period):
    from sklearn.ensemble import IsolationForest

    w = windows(u, LAGS)
    model = IsolationForest(n_estimators=TREES, random_state=0).fit(w[:train])
    return -model.score_samples(w[train:])


def profile(u, train, period):
    """The z-normalised distance of the last period from the nearest of normal life, summed."""
    import stumpy

    m, total = int(max(8, min(period, train // 3))), np.zeros(len(u) - train)
    for channel in u.T.astype(float):
        known, later = channel[:train], channel[train - m + 1 :]
        if known.std() > 1e-9:
            nearest = stumpy.stump(later, m, known, ignore_trivial=False)[:, 0].astype(float)
            total += np.where(np.isfinite(nearest), nearest, 0.0)
    return total


def trees(u, train, period):
    from river.anomaly import HalfSpaceTrees

    least, span = u[:train].min(0), np.ptp(u[:train], 0)
    scaled = np.clip((u - least) / np.where(span > 0, span, 1.0), 0, 1)
    model, out = HalfSpaceTrees(seed=0), np.zeros(len(u))
    for i, row in enumerate(scaled.tolist()):
        x = dict(enumerate(row))
        out[i] = model.score_one(x)
        model.learn_one(x)
    return out[train:]


METHODS = {f.__name__: f for f in (forest, profile, trees)}


def answer(name, do, method, file, out):
    """Answer a job."""
    with np.load(file) as data:
        scores = METHODS[method](data["u"], int(data["train"]), int(data["period"]))
    np.save(out, scores.astype(np.float32))
    return {"rows": len(scores)}
