"""Guards for decisions that are made from floating-point numbers."""

import torch
from torch import Tensor


def guard(scale: Tensor) -> Tensor:
    """How far above zero a computed margin must lie before it counts as positive.

    `scale` is the magnitude of the numbers that the margin was computed from (any shape). The guard
    is 64 units in the last place of max(1, scale): a margin for ordinary rounding, not a proof of it.
    """
    return 64 * torch.finfo(scale.dtype).eps * scale.abs().clamp(min=1.0)


def sound(lower: Tensor, upper: Tensor) -> Tensor:
    """Where a pair of bounds may be used: both finite, and not crossed by more than rounding."""
    finite = torch.isfinite(lower) & torch.isfinite(upper)
    scale = torch.maximum(lower.abs(), upper.abs())
    return finite & (lower <= upper + guard(scale))
