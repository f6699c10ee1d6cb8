"""Product: ranges and corners of independent parts."""

import pytest
import torch
from tests.threats.region_laws import check

from certus.core import ArgumentError
from certus.threats import L0, L1, L2, Linf, Product


def parts():
    a, b, c = (torch.rand(3, *s, dtype=torch.float64) for s in ((4,), (2, 2, 2), (1,)))
    return [L2(0.3).region(a), Linf(0.1).region(b), L1(0.2, clip=None).region(c)]


def test_region_laws():
    check(Product(parts()))
    check(Product([L0(1).region(torch.rand(2, 3, dtype=torch.float64)), *[
        r.select(torch.tensor([0, 1])) for r in parts()
    ]]))  # fmt: skip


def test_ranges_add_up():
    regions = parts()
    rows = torch.randn(5, 3, 13, dtype=torch.float64)
    low, high = Product(regions).linear_range(rows)
    pieces = rows[..., :4], rows[..., 4:12].reshape(5, 3, 2, 2, 2), rows[..., 12:]
    found = [r.linear_range(p) for r, p in zip(regions, pieces, strict=True)]
    torch.testing.assert_close(low, sum(f[0] for f in found))
    torch.testing.assert_close(high, sum(f[1] for f in found))
    extent = Product(regions).l2_extent(Product(regions).center)
    apart = [r.l2_extent(r.center).square() for r in regions]
    torch.testing.assert_close(extent, sum(apart).sqrt())


def test_parts_must_fit_together():
    regions = parts()
    for bad in ([], [regions[0], regions[1].select(torch.tensor([0]))]):
        with pytest.raises(ArgumentError):
            Product(bad)
    with pytest.raises(ArgumentError, match="dtype"):
        Product([regions[0], Linf(0.1).region(torch.rand(3, 4))])
