"""The model of rounding that rigorous bounds rest on: units, gamma_n, and when the model applies.

Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1: a number that n roundings
separate from its exact value is off by at most gamma_n = n u / (1 - n u) of the sum of its absolute
terms, whatever the order of a summation, with or without fused multiply-add, blocked or not. Products
that underflow, to a subnormal number or to zero, add at most the smallest normal number each.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from certus.bounding.precision import precisions, refuse_autocast
from certus.core import UnsupportedError

_LARGEST = 0.1  # of n u: beyond it gamma_n is taken as infinite, and bounds fail closed
_EXTRA = 8  # roundings that computing a widening itself may take
_FAST = {"tf32", "bf16"}


def unit(dtype: torch.dtype) -> float:
    """u, the largest relative error of one rounding to nearest: 2^-24 or 2^-53."""
    if dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(f"rigorous bounds run in float32 or float64, not in {dtype}")
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """The smallest normal number: what one underflow may lose, gradual or flushed to zero."""
    return float(torch.finfo(dtype).tiny)


def gamma(n: int, dtype: torch.dtype) -> float:
    """An upper bound of n u / (1 - n u); infinite where n u exceeds a tenth."""
    size = n * unit(dtype)  # exact below the limit: an integer times a power of two
    return size / (1 - size) * (1 + 2.0**-50) if size <= _LARGEST else float("inf")


def more(value: Tensor, n: int = 0) -> Tensor:
    """An upper bound of a quantity >= 0 whose computed value took n roundings (and this product)."""
    return value * (1 + 2 * gamma(n + _EXTRA, value.dtype))


def less(value: Tensor) -> Tensor:
    """A number below `value` even where it is one rounding too large; NaN where it is not finite."""
    down = value - (4 * unit(value.dtype) * value.abs() + 4 * smallest(value.dtype))
    return torch.where(torch.isfinite(down), down, float("nan"))


def size(interval: tuple[Tensor, Tensor]) -> Tensor:
    """The largest absolute value."""
    return torch.maximum(interval[0].abs(), interval[1].abs())


def total(value: Tensor) -> Tensor:
    """The sum over everything but the batch, [B], not rounded down."""
    return more(value.reshape(len(value), -1).sum(1), value[0].numel())


@contextmanager
def plain_sums(like: Tensor) -> Iterator[None]:
    """Arithmetic as the model assumes it, or UnsupportedError.

    Winograd and Fourier convolutions are no sums of products in some order, so the libraries that
    may choose them are left out; reduced precision and autocast are refused.
    """
    unit(like.dtype)
    if not _FAST.isdisjoint(precisions(like.device)):
        raise UnsupportedError(
            "rigorous bounds need full float32 products: torch.set_float32_matmul_precision('highest')"
        )
    refuse_autocast(like.device)
    with ExitStack() as stack:
        stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        if like.is_cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
