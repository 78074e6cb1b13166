import numpy as np
import pytest
from generator_runs import make_run

from axonal.core.errors import InputError
from axonal.generate.runs import best, saving


def test_saving_takes_the_cheapest_baseline_of_equal_quality():
    run = make_run("delta", "sigma_delta", fd=4.0)  # 400 operations
    anns = [
        make_run("coarse", fd=8.0, factor=0.1),
        make_run("equal", fd=4.19, factor=1.0),
        make_run("fine", fd=3.0, factor=8.0),
    ]
    result = saving(run, anns)
    assert result is not None
    assert result.baseline.name == "equal" and result.saving == pytest.approx(1 - 400 / 2000)
    strict = saving(run, anns, tolerance=1.0)
    assert strict is not None and strict.baseline.name == "fine"


def test_saving_may_be_a_loss():
    result = saving(make_run("delta", "sigma_delta", factor=10), [make_run("ann")])
    assert result is not None and result.saving == pytest.approx(-1)


def test_no_saving_where_no_baseline_is_as_good():
    assert saving(make_run("delta", "sigma_delta", fd=1.0), [make_run("ann", fd=4.0)]) is None
    assert saving(make_run("delta", "sigma_delta"), []) is None


def test_saving_against_skipped_zeros():
    run = make_run("delta", "sigma_delta")
    anns = [make_run("unknown", factor=0.5), make_run("known", skipping=0.4)]
    result = saving(run, anns, skipping=True)
    assert result is not None
    assert result.baseline.name == "known" and result.saving == pytest.approx(1 - 400 / 800)
    assert saving(run, anns[:1], skipping=True) is None


def test_best_is_the_lowest_distance_then_the_least_work():
    runs = [make_run("a", fd=4.0, factor=2), make_run("b", fd=4.0), make_run("c", fd=5.0)]
    assert best(runs).name == "b"
    with pytest.raises(InputError):
        best([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": "magic"},
        {"quality": {}},
        {"images": np.zeros((2, 8, 8), np.uint8)},
        {"images": np.zeros((2, 1, 8, 8))},
    ],
)
def test_runs_are_checked(wrong):
    with pytest.raises(InputError, match="Run x"):
        make_run("x", **wrong)
