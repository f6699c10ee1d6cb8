"""Layers that are 1-Lipschitz in l2 by their weights: spectrally normalised or orthogonal.

Each is the torch layer with a parametrization (torch.nn.utils.parametrize) on its weight, so the
weight is recomputed at every forward call, with gradients. `baked` gives a copy with plain weights,
which is the form to certify: it evaluates fast, and `lipschitz` bounds it from the numbers it
holds, whatever made them.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from certus.core import ArgumentError
from certus.lipschitz.spectrum import conv_bound, dense_bound


class DenseNormalized(nn.Module):
    """Parametrization W / bound(||W||), so that the norm is at most 1."""

    def forward(self, weight: Tensor) -> Tensor:
        """[out, in] -> the same shape and dtype."""
        return _divided(weight, dense_bound(weight))


class ConvNormalized(nn.Module):
    """Parametrization W / bound of the convolution's norm (`conv_bound`, any zero padding).

    A smaller tolerance costs more frequencies at every call and loses less of the norm 1.
    """

    def __init__(self, conv: nn.Conv2d, tolerance: float) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.tolerance = tolerance

    def forward(self, weight: Tensor) -> Tensor:
        """[out, in / groups, kh, kw] -> the same shape and dtype."""
        bound = conv_bound(weight, self.stride, self.dilation, self.groups, self.tolerance)
        return _divided(weight, bound)


class SpectralLinear(nn.Linear):
    """nn.Linear whose weight is divided by its norm: 1-Lipschitz, of norm 1 up to rounding."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        parametrize.register_parametrization(self, "weight", DenseNormalized())


class SpectralConv2d(nn.Conv2d):
    """nn.Conv2d whose weight is divided by a bound of its norm: 1-Lipschitz at any input size.

    Arguments of nn.Conv2d, and the `tolerance` of the bound. Raises ArgumentError for a padding
    mode other than zeros, which the bound does not cover.
    """

    def __init__(self, *args: Any, tolerance: float = 0.05, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros":
            raise ArgumentError(f"padding_mode must be 'zeros', got {self.padding_mode!r}")
        parametrize.register_parametrization(self, "weight", ConvNormalized(self, tolerance))


class OrthogonalLinear(nn.Linear):
    """nn.Linear with orthonormal rows or columns (torch's `orthogonal` parametrization)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        orthogonal(self)


def baked(module: nn.Module) -> nn.Module:
    """A copy in which every parametrized tensor is an ordinary parameter with its present value."""
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if parametrize.is_parametrized(part):
            _bake(part)
    return plain


def _bake(part: nn.Module) -> None:
    """Undo the parametrizations of one module of the copy, keeping the values.

    torch's remove_parametrizations would take the property off a class that a deep copy shares with
    its original, and so break the original.
    """
    names = [name for name, _ in part.get_submodule("parametrizations").named_children()]
    values = {name: getattr(part, name).detach().clone() for name in names}
    part.__class__ = type(part).__bases__[0]  # parametrize derives one class for each module
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value))


def _divided(weight: Tensor, bound: Tensor) -> Tensor:
    """weight / bound, a little smaller, so that rounding the entries cannot bring it above 1.

    Rounding moves the weight by less than eps in relative Frobenius norm, which is at most
    sqrt(rank) <= sqrt(taps * channels) times the operator norm.
    """
    rank = min(weight.shape[0], weight[0].numel()) * max(1, weight[0, 0].numel())
    slack = 1 + 4 * torch.finfo(weight.dtype).eps * rank**0.5
    tiny = torch.finfo(weight.dtype).tiny
    return (weight.double() / (bound * slack).clamp(min=tiny)).to(weight.dtype)
