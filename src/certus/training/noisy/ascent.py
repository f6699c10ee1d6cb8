"""Steepest ascent in L2: the attacks inside of losses for smoothing."""

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = 1e-12  # a gradient of length 0 makes no step


def ascend(
    value: Callable[[Tensor], Tensor],
    change: Tensor,
    steps: int,
    step: float,
    restrict: Callable[[Tensor], Tensor],
) -> Tensor:
    """A change [N, *shape] that raises value(change) (a sum over rows), from the one that is given.

    Each step has L2 length `step` in every row, and `restrict` follows it. What it finds is
    training data and proves nothing; it carries no gradient.
    """
    change = change.detach()
    for _ in range(steps):
        leaf = change.requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf), leaf)
        change = restrict(change.detach() + step * gradient / _length(gradient).clamp(min=_TINY))
    return change.detach()


def within(change: Tensor, radius: float) -> Tensor:
    """The change with rows shortened to an L2 length of at most radius."""
    return change * (radius / _length(change).clamp(min=max(radius, _TINY)))


def _length(rows: Tensor) -> Tensor:
    """L2 length of each row, in a shape that divides the rows."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1).view(-1, *[1] * (rows.ndim - 1))
