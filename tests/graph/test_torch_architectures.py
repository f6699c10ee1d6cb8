"""Whole architectures from plain PyTorch: CROWN's bounds are finite and contain 10,000 samples."""

import pytest
import torch
from tests.graph.architectures import ARCHITECTURES, make

from certus.bounding import IBP, Crown
from certus.graph import trace
from certus.threats import Linf

SAMPLES = 10_000


def measured(name, method):
    """The method's bounds and the least and largest sampled values over two boxes."""
    module, shape = make(name)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    region = Linf(0.02).region(x)
    with torch.no_grad():
        bounds = method(trace(module, x), region)
        draws = torch.Generator().manual_seed(1)
        for i in range(2):
            low, high = region.lower[i], region.upper[i]
            inner = low + torch.rand(SAMPLES // 2, *shape, generator=draws) * (high - low)
            ends = torch.rand(SAMPLES // 2, *shape, generator=draws) < 0.5
            box = torch.cat([inner, torch.where(ends, low, high)])
            values = module(box).flatten(1)
            yield bounds.lower[i].flatten(), bounds.upper[i].flatten(), values


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_crown_contains_ten_thousand_samples(name):
    for lower, upper, values in measured(name, Crown()):
        assert bool(torch.isfinite(lower).all() and torch.isfinite(upper).all())
        tolerance = 1e-5 * (1 + float(values.abs().max()))
        assert bool((values >= lower - tolerance).all() and (values <= upper + tolerance).all())
        spread = values.amax(0) - values.amin(0)  # bounds that hold everything are no use
        assert float(((upper - lower) / spread.clamp(min=1e-6)).median()) < 60


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_interval_bounds_contain_samples(name):
    for lower, upper, values in measured(name, IBP()):
        tolerance = 1e-5 * (1 + float(values.abs().max()))
        assert bool((values >= lower - tolerance).all() and (values <= upper + tolerance).all())
