"""The pull with its gradient written out, against finite differences and against autograd."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from certus.graph.activation import Clamp, LeakyRelu, Relu, Sigmoid
from certus.relax import Lines, relaxations
from certus.relax.pull import pull, recorded_pull

SHAPES = {"flat": (3,), "maps": (2, 2, 1)}


def draw(*shape):
    """Values that are no nearer to zero than a finite difference reaches."""
    value = torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )
    return (value + 0.05 * value.sign()).requires_grad_()


def lines_of(shape, offset, own=0):
    lower = draw(*([own] if own else []), 4, *shape)
    return [lower, draw(4, *shape) if offset else None, draw(4, *shape), draw(4, *shape)]


@pytest.mark.parametrize("offset", [False, True], ids=["through-zero", "offset"])
@pytest.mark.parametrize("own", [0, 1, 3], ids=["line", "one-for-all-rows", "own-slopes"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_is_the_slope(shape, own, offset):
    given = (draw(3, 4, *shape), *lines_of(shape, offset, own))
    assert gradcheck(recorded_pull, given)
    assert gradgradcheck(recorded_pull, given, fast_mode=True)


@pytest.mark.parametrize("offset", [False, True], ids=["through-zero", "offset"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_same_as_by_autograd_where_coefficients_are_zero(shape, offset):
    given = [draw(3, 4, *shape), *lines_of(shape, offset)]
    with torch.no_grad():
        given[0][:2, :, ::2] = 0.0
    weights = draw(3, 4, *shape).detach(), draw(3, 4).detach()
    wanted = [t for t in given if t is not None]
    results = []
    for way in (pull, recorded_pull):
        found = way(*given)
        total = sum((a * b).sum() for a, b in zip(found, weights, strict=True))
        results.append([*found, *torch.autograd.grad(total, wanted)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("op", [Relu(), LeakyRelu(0.1), Clamp(-0.5, 0.7), Sigmoid()], ids=type)
def test_the_gradient_reaches_the_interval(op):
    """Through slopes and intercepts; the ends lie on both sides of zero, or of one side."""
    lower = torch.tensor([[-1.3, -0.4, 0.2, -2.1, -0.9]], dtype=torch.float64).repeat(4, 1)
    width = torch.tensor([[0.6, 1.5, 0.9, 1.7, 1.1]], dtype=torch.float64).repeat(4, 1)
    rows = draw(3, 4, 5)

    def pulled(rows, lower, upper):
        lines = relaxations[type(op)](op, (lower, upper))
        assert isinstance(lines, Lines)
        (moved,), offset = lines.pull(rows)
        return moved, offset

    assert gradcheck(
        pulled, (rows, lower.requires_grad_(), (lower + width).detach().requires_grad_())
    )


def test_rows_that_the_batch_shares():
    given = (draw(3, 1, 5), *lines_of((5,), offset=True))
    assert gradcheck(recorded_pull, given)
    moved, offset = recorded_pull(*given)
    assert moved.shape == (3, 4, 5) and offset.shape == (3, 4)


def test_it_keeps_one_tensor_of_the_size_of_the_rows():
    kept = []
    given = (draw(3, 4, 2, 3, 2), *lines_of((2, 3, 2), offset=True))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        recorded_pull(*given)
    assert sorted(kept) == [48, 48, 48, 48, 144]


def test_nan_comes_through():
    rows = torch.full((1, 1, 2), float("nan")).requires_grad_()
    line = torch.ones(1, 2)
    moved, offset = recorded_pull(rows, line, None, line, line)
    assert bool(moved.isnan().all()) and bool(offset.isnan().all())
