"""Gradients of interval arithmetic that are written out, against finite differences."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from certus.graph.affine import Conv, Linear, Sum
from certus.relax import intervals


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def box(*shape, seed):
    low = draw(*shape, seed=seed)
    return low, (low + 0.1 + draw(*shape, seed=seed + 1).square()).detach().requires_grad_()


@pytest.mark.parametrize("wanted", ["both", "low", "parameters"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_an_affine_operation(kind, wanted):
    if kind == "linear":
        weight, bias, ends = draw(3, 4), draw(3, seed=2), box(2, 4, seed=4)
    else:
        weight, bias, ends = draw(2, 1, 2, 2), draw(2, seed=2), box(2, 1, 3, 3, seed=4)
    low, high = ends
    low.requires_grad_(wanted != "parameters")
    high.requires_grad_(wanted == "both")

    def image(weight, bias, low, high):
        places = ((1, 1), (1, 1), (1, 1))
        op = Linear(weight, bias) if kind == "linear" else Conv(weight, bias, *places)
        return intervals[type(op)](op, (low, high))

    assert gradcheck(image, (weight, bias, low, high))
    assert gradgradcheck(image, (weight, bias, low, high), fast_mode=True)


def test_without_gradients_the_numbers_are_the_same():
    op, ends, more = Linear(draw(3, 4), None), box(2, 4, seed=4), box(2, 3, seed=6)
    found = intervals[Linear](op, ends)
    with torch.no_grad():
        assert all(a.equal(b) for a, b in zip(intervals[Linear](op, ends), found, strict=True))
    low, high = intervals[Sum](Sum(), found, more)
    assert bool((low <= high).all()) and low.requires_grad
