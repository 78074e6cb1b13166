"""Runs of generators, and their counts, that tests of several rooms compare."""

import numpy as np

from axonal.core.meter import FIELDS, Counts
from axonal.generate.runs import Interval, Run


def _row(**fields):
    return [fields.get(field, 0.0) for field in FIELDS]


def dense_counts():
    """One image, two steps, one layer of 1000 weights read by 100 sites."""
    one = _row(
        **dict.fromkeys(("synops", "multiplies", "adds", "weight_reads"), 1000.0),
        state_reads=100.0,
        state_writes=10.0,
        spikes=100.0,
        sites=100.0,
    )
    return Counts(("conv",), np.array([[one], [one]]), 1)


def event_counts():
    """The same network by events: a neuron row and the weights that it drives."""
    neuron = _row(adds=20.0, state_reads=20.0, state_writes=20.0, spikes=20.0, sites=100.0)
    moved = ("synops", "multiplies", "adds", "weight_reads", "state_reads", "state_writes")
    weights = _row(**dict.fromkeys(moved, 200.0))
    return Counts(("delta.act", "delta.conv"), np.array([[neuron, weights]] * 2), 1)


def make_run(name, family="ann", fd=4.0, factor=1.0, skipping=None, **fields):
    """A run whose work is `factor` times that of `dense_counts` or `event_counts`."""
    counts = dense_counts() if family == "ann" else event_counts()

    def scaled(by):
        return Counts(counts.layers, counts.table * by, 1)

    values = {
        "sampler": "euler",
        "steps": 2,
        "budget": 0.1 if family == "sigma_delta" else None,
        "quality": {"fd": Interval(fd, fd * 0.9, fd * 1.1)},
        "counts": scaled(factor),
        "zero_skipping": None if skipping is None else scaled(skipping),
        "images": np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8),
        "seconds": 0.25,
    }
    return Run(name=name, family=family, **(values | fields))
