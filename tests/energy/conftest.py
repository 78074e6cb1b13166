import numpy as np
import pytest

from axonal.core.meter import FIELDS, Counts
from axonal.generate.runs import Interval, Run


def row(**fields):
    return [fields.get(field, 0.0) for field in FIELDS]


@pytest.fixture
def dense():
    """One image, two steps, one layer of 1000 weights read by 100 sites."""
    one = row(
        **dict.fromkeys(("synops", "multiplies", "adds", "weight_reads"), 1000.0),
        state_reads=100.0,
        state_writes=10.0,
        spikes=100.0,
        sites=100.0,
    )
    return Counts(("conv",), np.array([[one], [one]]), 1)


@pytest.fixture
def events():
    """The same network by events: a neuron row and the weights that it drives."""
    neuron = row(adds=20.0, state_reads=20.0, state_writes=20.0, spikes=20.0, sites=100.0)
    moved = ("synops", "multiplies", "adds", "weight_reads", "state_reads", "state_writes")
    weights = row(**dict.fromkeys(moved, 200.0))
    return Counts(("delta.act", "delta.conv"), np.array([[neuron, weights]] * 2), 1)


@pytest.fixture
def make_run(dense, events):
    def make(name, family="ann", fd=4.0, factor=1.0, skipping=None, **fields):
        counts = dense if family == "ann" else events
        scaled = Counts(counts.layers, counts.table * factor, 1)
        zeros = None if skipping is None else Counts(counts.layers, counts.table * skipping, 1)
        budget = 0.1 if family == "sigma_delta" else None
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
        values = {
            "sampler": "euler",
            "steps": 2,
            "budget": budget,
            "quality": {"fd": Interval(fd, fd * 0.9, fd * 1.1)},
            "counts": scaled,
            "zero_skipping": zeros,
            "images": images,
            "seconds": 0.25,
        }
        return Run(name=name, family=family, **(values | fields))

    return make
