"""Remainders of divisions by constants, spelled out in operations that have bounds."""

import torch
from torch import Tensor

from certus.core import UnsupportedError
from certus.graph.activation import Relu, Within
from certus.graph.affine import Scale, Sum
from certus.graph.builder import Builder
from certus.graph.composite import negative
from certus.graph.whole import FloorDivide


def remainder(b: Builder, x: int, divisor: Tensor, source: str = "") -> int:
    """torch.remainder: x - c floor(x / c), of the sign of c, which broadcasts against [B, *shape].

    Raises UnsupportedError for a divisor of zero, which has no remainder.
    """
    if bool((divisor == 0).any() | ~torch.isfinite(divisor).all()):
        raise UnsupportedError("a remainder of a division by zero, NaN or infinity")
    turned = x
    if bool((divisor < 0).any()):
        turned = b.add(Scale(divisor.sign()), x, source=source)
    times = b.add(FloorDivide(divisor.abs()), turned, source=source)
    found = b.add(Sum(-1.0), x, b.add(Scale(divisor), times, source=source), source=source)
    ends = sorted((0.0, float(divisor.reshape(-1)[0])))
    return b.add(Within(*ends), found, source=source) if divisor.numel() == 1 else found


def fmod(b: Builder, x: int, divisor: Tensor, source: str = "") -> int:
    """torch.fmod, of the sign of x: r(relu(x)) - r(relu(-x)), r the remainder by |c|."""
    above = b.add(Relu(), x, source=source)
    below = b.add(Relu(), negative(b, x, source), source=source)
    parts = [remainder(b, side, divisor.abs(), source) for side in (above, below)]
    return b.add(Sum(-1.0), *parts, source=source)
