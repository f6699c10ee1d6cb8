"""Affine images: exact ranges by corners, membership up to rounding, probing, brightness."""

from itertools import product

import pytest
import torch
from tests.threats.region_laws import check

from certus.core import ArgumentError
from certus.threats import L2, Box, Linf, Transformed
from certus.threats.transformed import brightness_contrast


def image(dtype=torch.float64, norm=Linf, parameters=3, shape=(2, 3)):
    z = torch.rand(4, parameters, dtype=dtype)
    matrix = torch.randn(4, 6, parameters, dtype=dtype)
    offset = torch.randn(4, *shape, dtype=dtype)
    return Transformed(norm(0.2, clip=None).region(z), matrix, offset), matrix, offset


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_region_laws(norm, dtype):
    check(image(dtype, norm)[0], rounding=1e-9 if dtype == torch.float64 else 1e-5)


def test_the_range_is_that_of_the_corners():
    region, matrix, offset = image()
    low, high = region._region.lower, region._region.upper
    corners = [torch.where(torch.tensor(s), low, high) for s in product([True, False], repeat=3)]
    points = torch.stack([torch.einsum("bnm,bm->bn", matrix, z) for z in corners])
    points = points + offset.flatten(1)
    rows = torch.randn(5, 4, 2, 3, dtype=torch.float64)
    values = torch.einsum("rbn,pbn->prb", rows.flatten(2), points)
    found = region.linear_range(rows)
    torch.testing.assert_close(found[0], values.amin(0))
    torch.testing.assert_close(found[1], values.amax(0))
    torch.testing.assert_close(region.lower.flatten(1), points.amin(0))
    torch.testing.assert_close(region.upper.flatten(1), points.amax(0))


def test_points_off_the_image_are_no_members():
    region, matrix, _ = image()
    point = region.center
    off = torch.linalg.qr(matrix, mode="complete").Q[:, :, -1]  # orthogonal to the image
    assert bool(region.contains(point).all())
    assert not bool(region.contains(point + 1e-9 * off.view_as(point)).any())
    beyond = region._map(region._region.upper + 1e-6)
    assert not bool(region.contains(beyond).any())


def test_brightness_and_contrast_by_hand():
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    x[1] = 0.0  # contrast changes nothing in a black image
    region = brightness_contrast(x, 0.1, 0.2)
    check(region)
    torch.testing.assert_close(region.upper, x * 1.2 + 0.1)
    torch.testing.assert_close(region.lower, x * 0.8 - 0.1)
    ones = torch.ones(1, 1, 1, 3, 3, dtype=torch.float64)
    assert float(region.linear_range(ones)[1][0, 1]) == pytest.approx(0.9)
    changed = x * 1.15 - 0.05
    assert bool(region.contains(changed).all())
    assert not bool(region.contains(x * 1.25)[0])
    one = x.clone()
    one[:, 0, 0, 0] += 0.05  # not a change of the whole image
    assert not bool(region.contains(one).any())
    with pytest.raises(ArgumentError):
        brightness_contrast(x, -0.1, 0.0)


def test_functions_are_probed_and_must_be_affine():
    inner = Box(-torch.ones(2, 3), torch.ones(2, 3)).region(torch.zeros(2, 3))
    layer = torch.nn.Linear(3, 5).requires_grad_(False)
    region = Transformed.through(inner, layer)
    torch.testing.assert_close(region._matrix[0], layer.weight)
    torch.testing.assert_close(region._offset[0], layer.bias)
    with pytest.raises(ArgumentError, match="affine"):
        Transformed.through(inner, lambda z: layer(z).relu())


def test_shapes_must_fit():
    region, matrix, offset = image()
    for bad in (matrix[:, :5], matrix[:3], matrix[:, :, :2]):
        with pytest.raises(ArgumentError):
            Transformed(region._region, bad, offset)
    with pytest.raises(ArgumentError, match="finite"):
        Transformed(region._region, matrix * float("inf"), offset)
