import pytest
import torch

from axonal.core.errors import InputError
from axonal.core.neurons import Leaky
from axonal.ops.scan import reference, scan
from axonal.ops.surrogate import SURROGATES, surrogate_named
from axonal.testing import check_op

ROWS = pytest.mark.parametrize("row", SURROGATES.values(), ids=lambda row: row.name)


def derivative(row, x, slope=None):
    m = reference.Tensors(x, row.name, row.slope if slope is None else slope)
    return m.surrogate(x)


@ROWS
def test_peak_at_the_threshold_and_symmetric_decline(row):
    x = torch.linspace(-300, 300, 601, dtype=torch.float64) / 100
    g = derivative(row, x)
    assert g.dtype == x.dtype and (g >= 0).all()
    assert g[300].item() == g.max().item() == pytest.approx(row.peak)
    if row.name.startswith("masked"):
        assert not g[:300].any()
    else:
        torch.testing.assert_close(g, g.flip(0))
    assert (g[300:].diff() <= 1e-12).all()


@ROWS
def test_finite_far_from_the_threshold(row):
    assert derivative(row, torch.tensor([-1e4, 1e4])).abs().max() < 1e-3


@ROWS
def test_the_compiled_scan_has_the_same_formula(row):
    x, dynamics = torch.linspace(-1, 3, 41, dtype=torch.float64).reshape(1, 1, -1), Leaky()

    def fused(x):
        return scan(x, None, dynamics, surrogate=row.name, slope=0.7 * row.slope)

    def plain(x):
        return reference.scan(x, x.new_zeros(1, 1, 41), {}, dynamics, row.name, 0.7 * row.slope)

    check_op(fused, plain, [x], rtol=1e-12, atol=1e-12)
    grad = torch.autograd.grad(fused(x.requires_grad_())[0].sum(), x)[0].flatten()
    torch.testing.assert_close(grad, derivative(row, x.detach().flatten() - 1, 0.7 * row.slope))


@pytest.mark.parametrize("name", ["atan", "sigmoid", "triangle", "boxcar"])
def test_area_one(name):
    row = SURROGATES[name]
    x = torch.linspace(-1000, 1000, 2_000_001, dtype=torch.float64)
    assert torch.trapezoid(derivative(row, x), x).item() == pytest.approx(1, abs=2e-3)


def test_atan_is_the_derivative_of_its_arcus_tangent():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    (torch.atan(torch.pi * x) / torch.pi).sum().backward()
    torch.testing.assert_close(derivative(SURROGATES["atan"], x.detach()), x.grad)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="atan, sigmoid, fast_sigmoid, triangle, masked_triangle"):
        surrogate_named("arctan")
