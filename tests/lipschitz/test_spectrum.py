"""Norm bounds lie above the true norm and close to the infinite-domain norm."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from certus.core import ArgumentError
from certus.lipschitz import conv_bound, dense_bound

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# spatial dimensions, out, in, kernel, stride, dilation, groups
TABLE = [
    (1, 2, 3, (1,), (1,), (1,), 1),
    (1, 2, 3, (2,), (1,), (1,), 1),
    (1, 3, 2, (5,), (2,), (1,), 1),
    (1, 2, 2, (4,), (3,), (1,), 1),
    (1, 2, 2, (3,), (2,), (3,), 1),
    (1, 4, 4, (3,), (1,), (2,), 2),
    (2, 2, 3, (1, 1), (1, 1), (1, 1), 1),
    (2, 2, 2, (1, 1), (2, 2), (1, 1), 1),
    (2, 3, 2, (2, 2), (1, 1), (1, 1), 1),
    (2, 2, 2, (2, 3), (2, 1), (1, 1), 1),
    (2, 3, 2, (3, 3), (1, 1), (1, 1), 1),
    (2, 2, 2, (3, 3), (2, 2), (1, 1), 1),
    (2, 2, 1, (3, 5), (3, 2), (1, 1), 1),
    (2, 2, 2, (4, 4), (2, 2), (1, 1), 1),
    (2, 1, 2, (5, 4), (1, 2), (1, 1), 1),
    (2, 2, 2, (3, 2), (1, 1), (2, 2), 1),
    (2, 2, 2, (3, 3), (2, 3), (2, 1), 1),
    (2, 4, 4, (3, 3), (1, 1), (1, 1), 4),
    (2, 4, 2, (3, 3), (2, 2), (1, 1), 2),
    (3, 2, 1, (2, 2, 2), (1, 2, 1), (1, 1, 1), 1),
]


def kernel(row: tuple, seed: int = 0, signed: bool = True) -> torch.Tensor:
    """A random weight for a row of the table; all positive ones have their peak at frequency 0."""
    dims, out, inner, size, _, _, groups = row
    make = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inner // groups, *size, generator=make, dtype=torch.float64)
    assert weight.ndim == dims + 2
    return weight if signed else weight.abs()


def materialised(weight: torch.Tensor, row: tuple, padding: int, size: int) -> torch.Tensor:
    """The convolution as a dense matrix, by applying it to every unit vector."""
    dims, _, inner, _, stride, dilation, groups = row
    space = [size + axis for axis in range(dims)]
    units = torch.eye(inner * math.prod(space), dtype=torch.float64).reshape(-1, inner, *space)
    return CONV[dims](units, weight, None, stride, padding, dilation, groups).flatten(1)


@pytest.mark.parametrize("row", TABLE, ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_bound_is_above_every_finite_convolution(row: tuple, signed: bool) -> None:
    """For paddings 0 to 2 and several input sizes, the exact norm never exceeds the bound."""
    weight = kernel(row, signed=signed)
    bound = conv_bound(weight, row[4], row[5], row[6]).item()
    reach = max(d * (k - 1) + 1 for k, d in zip(row[3], row[5], strict=True))
    sizes = (reach, reach + 1, 8) if row[0] < 3 else (reach, reach + 1)
    for padding, size in itertools.product((0, 1, 2), sizes):
        exact = torch.linalg.matrix_norm(materialised(weight, row, padding, size), 2).item()
        assert exact <= bound


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_bound_is_near_the_infinite_domain(row: tuple) -> None:
    """At most 5% above a power iteration from below on a large input."""
    weight = kernel(row, seed=1)
    bound = conv_bound(weight, row[4], row[5], row[6]).item()
    dims, _, inner, size, stride, dilation, groups = row
    space = [{1: 240, 2: 40, 3: 16}[dims]] * dims
    make = torch.Generator().manual_seed(2)
    x = torch.randn(1, inner, *space, generator=make, dtype=torch.float64)
    padding = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]

    def apply(v: torch.Tensor) -> torch.Tensor:
        return CONV[dims](v, weight, None, stride, padding, dilation, groups)

    lower = 0.0
    for _ in range(150):
        x = x / x.norm()
        y, pull = torch.func.vjp(apply, x)
        lower = y.norm().item()
        (x,) = pull(y)
    assert lower <= bound <= 1.05 * lower


@pytest.mark.parametrize("seed", range(20))
def test_the_grid_factor_is_needed(seed: int) -> None:
    """A coarse tolerance stays above the norm that a fine grid finds, and within its promise."""
    row = TABLE[10] if seed % 2 else TABLE[13]
    weight = kernel(row, seed)
    fine = conv_bound(weight, row[4], row[5], tolerance=1e-4).item()
    for tolerance in (1.0, 0.5, 0.1):
        coarse = conv_bound(weight, row[4], row[5], tolerance=tolerance).item()
        assert fine / (1 + 1e-4) <= coarse <= fine * (1 + tolerance)


def test_peak_between_grid_points() -> None:
    """x_t - x_{t+1} peaks at pi; modulated by every phase the sup 2 is never missed."""
    for phase in torch.linspace(0, math.pi, 41, dtype=torch.float64):
        c, s = phase.cos(), phase.sin()
        turn = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
        weight = torch.stack([torch.eye(2, dtype=torch.float64), turn], 2)
        assert 2.0 <= conv_bound(weight, (1,), (1,), tolerance=0.3).item() <= 2.6 + 1e-6


def test_known_values() -> None:
    """9 ones have norm 9; a stride of the kernel's size gives the norm of the vector."""
    ones = torch.ones(1, 1, 3, 3)
    assert 9 <= conv_bound(ones, (1, 1), (1, 1)).item() <= 9 * 1.011
    assert conv_bound(ones, (3, 3), (1, 1)).item() == pytest.approx(3, rel=1e-8)
    assert conv_bound(torch.zeros(2, 2, 3, 3), (1, 1), (1, 1)).item() <= 1e-100
    assert conv_bound(1e200 * ones.double(), (3, 3), (1, 1)).item() == pytest.approx(
        3e200, rel=1e-8
    )


@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (9, 3), (1, 4), (3, 4, 5)])
def test_dense_bound(shape: tuple[int, ...]) -> None:
    """Between the norm and the norm plus a billionth or so, float32 included."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_norm(matrix.double(), 2).amax().item()
    assert exact <= dense_bound(matrix).item() <= exact * (1 + 1e-8)


@pytest.mark.parametrize("row", [TABLE[2], TABLE[10], TABLE[16], TABLE[18]], ids=str)
def test_gradient(row: tuple) -> None:
    """The gradient is that of central differences."""
    weight = kernel(row, seed=3).requires_grad_()
    (slope,) = torch.autograd.grad(conv_bound(weight, row[4], row[5], row[6]), weight)
    move = kernel(row, seed=4)
    with torch.no_grad():
        ends = [conv_bound(weight + h * move, row[4], row[5], row[6]) for h in (1e-6, -1e-6)]
    assert (slope * move).sum().item() == pytest.approx(
        ((ends[0] - ends[1]) / 2e-6).item(), rel=1e-4
    )


def test_zero_padding_exceeds_the_circular_norm() -> None:
    """Taking the FFT at the input's own size (circular convolution) is not an upper bound."""
    weight = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    circular = torch.fft.fft(weight[0, 0], n=3).abs().amax().item()
    units = torch.eye(3, dtype=torch.float64)[:, None]
    exact = torch.linalg.matrix_norm(F.conv1d(units, weight, padding=1).flatten(1), 2).item()
    assert circular < exact <= conv_bound(weight, (1,), (1,)).item()


def test_flattened_weight_holds_only_for_disjoint_windows() -> None:
    """||weight as a matrix|| is exact for stride = kernel and false where windows overlap."""
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    flat = dense_bound(weight.flatten(1)).item()
    units = torch.eye(81, dtype=torch.float64).reshape(81, 1, 9, 9)
    for stride, overlaps in ((3, False), (2, True), (1, True)):
        exact = torch.linalg.matrix_norm(
            F.conv2d(units, weight, stride=stride).flatten(1), 2
        ).item()
        assert (exact > flat) == overlaps
        assert exact <= conv_bound(weight, (stride, stride), (1, 1)).item()


def test_tolerance_is_checked() -> None:
    """A tolerance of 0 would need infinitely many frequencies."""
    with pytest.raises(ArgumentError, match="tolerance"):
        conv_bound(torch.ones(1, 1, 3), (1,), (1,), tolerance=0.0)
