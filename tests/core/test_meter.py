import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from axonal.core.errors import InputError
from axonal.core.meter import FIELDS, Counts

LAYERS = ("first", "second")


def tables():
    shape = st.tuples(st.integers(0, 3), st.just(len(LAYERS)), st.just(len(FIELDS)))
    return hnp.arrays(np.float64, shape, elements=st.integers(0, 2**40).map(float))


@given(tables(), st.integers(1, 9))
def test_survives_json(table, samples):
    counts = Counts(LAYERS, table, samples)
    back = Counts.from_dict(json.loads(json.dumps(counts.to_dict())))
    assert back.layers == counts.layers and back.samples == samples
    np.testing.assert_array_equal(back.table, table)


@given(tables(), st.integers(1, 9), st.sampled_from(FIELDS))
def test_steps_and_layers_sum_to_the_total(table, samples, field):
    counts = Counts(LAYERS, table, samples)
    total = counts.total(field)
    assert counts.by_step(field).sum() == pytest.approx(total)
    assert sum(counts.by_layer(field).values()) == pytest.approx(total)
    assert counts.totals()[field] == total


def test_batches_add_up_to_the_mean_sample():
    table = np.ones((1, 2, len(FIELDS)))
    both = Counts(LAYERS, table, 1) + Counts(LAYERS, 3 * table, 3)
    assert both.samples == 4 and both.total("spikes") == 2


@pytest.mark.parametrize(
    ("layers", "shape", "samples", "value"),
    [
        (("first",), (1, 2, len(FIELDS)), 1, 0),
        (LAYERS, (1, 2, 3), 1, 0),
        (LAYERS, (2,), 1, 0),
        (LAYERS, (1, 2, len(FIELDS)), 0, 0),
        (LAYERS, (1, 2, len(FIELDS)), 1, -1),
        (LAYERS, (1, 2, len(FIELDS)), 1, np.nan),
        (LAYERS, (1, 2, len(FIELDS)), 1, np.inf),
    ],
)
def test_what_does_not_fit_is_refused(layers, shape, samples, value):
    with pytest.raises(InputError, match="Counts"):
        Counts(layers, np.full(shape, float(value)), samples)


def test_other_layers_or_steps_do_not_add():
    table = np.ones((1, 2, len(FIELDS)))
    for other in (Counts(("a", "b"), table, 1), Counts(LAYERS, np.repeat(table, 2, 0), 1)):
        with pytest.raises(InputError, match="can't add"):
            Counts(LAYERS, table, 1) + other


def test_an_unknown_field():
    with pytest.raises(InputError, match="'joules' is not one of synops"):
        Counts(LAYERS, np.ones((1, 2, len(FIELDS))), 1).total("joules")


@pytest.mark.parametrize(
    "values",
    [{}, None, {"fields": ["joules"]}, {"fields": FIELDS, "layers": ["a"], "table": [1]}],
)
def test_what_is_no_table_of_counts(values):
    with pytest.raises(InputError, match="Counts"):
        Counts.from_dict(values)
