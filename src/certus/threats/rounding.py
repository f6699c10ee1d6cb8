"""Limits of regions between numbers of a dtype: outward for bounds, inward for members."""

import torch
from torch import Tensor


def rounded(exact: Tensor, dtype: torch.dtype, *, up: bool) -> Tensor:
    """A tensor in another dtype, never below (up) or never above the exact value."""
    if exact.dtype == dtype:
        return exact
    near = exact.to(dtype)
    wrong = near.double() < exact if up else near.double() > exact
    toward = torch.full_like(near, float("inf") if up else float("-inf"))
    return torch.where(wrong, torch.nextafter(near, toward), near)


def added(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b in float64, once rounded down and once up; equal where float64 holds the sum exactly.

    The error of the rounded sum is a float64 number that is computed exactly (Knuth's TwoSum).
    """
    total = a + b
    with torch.no_grad():
        part = total - a
        error = (a - (total - part)) + (b - part)
    limit = torch.full_like(total, float("inf"))
    below = torch.where(error < 0, torch.nextafter(total, -limit), total)
    return below, torch.where(error > 0, torch.nextafter(total, limit), total)
