import numpy as np
import pytest
import torch
from numba import njit

from axonal.core.errors import InputError
from axonal.ops.surrogate import SURROGATES, surrogate_named

ROWS = pytest.mark.parametrize("row", SURROGATES.values(), ids=lambda row: row.name)


@ROWS
def test_peak_at_the_threshold_and_symmetric_decline(row):
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    g = row.derivative(x, row.slope)
    assert g.dtype == x.dtype and (g >= 0).all()
    assert g[300].item() == g.max().item() == pytest.approx(row.peak)
    torch.testing.assert_close(g, g.flip(0))
    assert (g[300:].diff() <= 1e-12).all()


@ROWS
def test_finite_far_from_the_threshold(row):
    assert row.derivative(torch.tensor([-1e4, 1e4]), row.slope).abs().max() < 1e-3


@ROWS
def test_the_compiled_twin_is_the_same_formula(row):
    twin = njit(row.derivative)
    x = np.linspace(-2, 2, 41)
    expected = row.derivative(torch.from_numpy(x), row.slope).numpy()
    np.testing.assert_allclose([twin(v, row.slope) for v in x], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["atan", "sigmoid", "triangle", "boxcar"])
def test_area_one(name):
    row = SURROGATES[name]
    x = torch.linspace(-1000, 1000, 2_000_001, dtype=torch.float64)
    assert torch.trapezoid(row.derivative(x, row.slope), x).item() == pytest.approx(1, abs=2e-3)


def test_atan_is_the_derivative_of_its_arcus_tangent():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    (torch.atan(torch.pi * x) / torch.pi).sum().backward()
    torch.testing.assert_close(SURROGATES["atan"].derivative(x.detach(), 2.0), x.grad)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="atan, sigmoid, fast_sigmoid, triangle, boxcar"):
        surrogate_named("arctan")
