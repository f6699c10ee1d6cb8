"""Affine operations with weights: linear, convolution, batch normalisation, scale, shift, sums."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.convolution import Layout, adjoint
from certus.graph.op import Affine, Shape, gathered

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """x W' + b over the last dimension; weight [out, in], bias [out] or None."""

    fresh: ClassVar[bool] = True

    weight: Tensor
    bias: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *, in] -> [B, *, out]."""
        return F.linear(inputs[0], self.weight, self.bias)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """r |W|'."""
        return F.linear(radii[0], self.weight.abs())

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """rows W."""
        return (rows @ self.weight,)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The bias, spread over the dimensions before the last."""
        if self.bias is None:
            return None
        return self.bias.expand(1, *shapes[0][:-1], -1)


@dataclass(frozen=True, eq=False)
class Interpolation(Linear):
    """An interpolation along the last dimension, whose weights the engine computes from coordinates."""

    def drift(self, sizes: Tensor) -> Tensor | None:
        """Places, times the largest value and the largest weight."""
        places = float(max(self.weight.shape)) * self.weight.abs().max()
        return places * sizes.amax(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Fourier(Linear):
    """A discrete Fourier transform of the last dimension, complex numbers as pairs side by side."""

    def drift(self, sizes: Tensor) -> Tensor | None:
        """A fast transform mixes all values in steps that err; chirps (prime lengths) by a root more."""
        steps = math.log2(2 * max(self.weight.shape)) * math.sqrt(max(self.weight.shape))
        return steps * self.weight.abs().max() * sizes.sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Conv(Affine):
    """Convolution in 1, 2 or 3 dimensions with zero padding; weight [out, in / groups, *kernel]."""

    fresh: ClassVar[bool] = True

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, in, *space] -> [B, out, *space']."""
        return self._apply(inputs[0], self.weight, self.bias)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """Convolution with |W|."""
        return self._apply(radii[0], self.weight.abs(), None)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Transposed convolution; output padding restores what the stride cut off."""
        dims = self.weight.ndim - 2
        if dims == 2:
            size = (shapes[0][1], shapes[0][2])
            stride, padding, dilation = (
                (pair[0], pair[1]) for pair in (self.stride, self.padding, self.dilation)
            )
            layout = Layout(stride, padding, dilation, self.groups, size)
            return (adjoint(rows, self.weight, layout),)
        missing = [
            size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, out, s, p, d, k in zip(
                shapes[0][1:],
                rows.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        ]
        return (
            _CONV_TRANSPOSE[dims](
                rows,
                self.weight,
                None,
                self.stride,
                self.padding,
                tuple(missing),
                self.groups,
                self.dilation,
            ),
        )

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The bias of each channel at every position."""
        if self.bias is None:
            return None
        space = [
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, s, p, d, k in zip(
                shapes[0][1:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        ]
        return self.bias.view(1, -1, *[1] * len(space)).expand(1, -1, *space)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = _CONV[weight.ndim - 2]
        return conv(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Affine):
    """Transposed convolution in 1, 2 or 3 dimensions; weight [in, out / groups, *kernel]."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, in, *space] -> [B, out, *space']."""
        return self._apply(inputs[0], self.weight, self.bias)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """Transposed convolution with |W|."""
        return self._apply(radii[0], self.weight.abs(), None)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Convolution with the same weight, cut to the input's size where output padding adds to it."""
        conv = _CONV[self.weight.ndim - 2]
        full = conv(rows, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        kept = tuple(slice(0, size) for size in shapes[0][1:])
        return (full[(slice(None), slice(None), *kept)],)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The bias of each channel; it spreads over all positions."""
        if self.bias is None:
            return None
        return self.bias.view(1, -1, *[1] * (self.weight.ndim - 2))

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = _CONV_TRANSPOSE[weight.ndim - 2]
        return conv(
            x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


@dataclass(frozen=True, eq=False)
class BatchNorm(Affine):
    """Normalisation by fixed statistics, an affine map of each channel (dimension 1)."""

    fresh: ClassVar[bool] = True

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    variance: Tensor
    epsilon: float

    @property
    def scale(self) -> Tensor:
        """weight / sqrt(variance + epsilon), one number a channel."""
        scale = (self.variance + self.epsilon).rsqrt()
        return scale if self.weight is None else scale * self.weight

    def forward(self, *inputs: Tensor) -> Tensor:
        """(x - mean) * scale + bias."""
        shift = -self.mean * self.scale
        if self.bias is not None:
            shift = shift + self.bias
        return inputs[0] * _channel(self.scale, inputs[0]) + _channel(shift, inputs[0])

    def magnitude(self, *radii: Tensor) -> Tensor:
        """|scale| r."""
        return radii[0] * _channel(self.scale.abs(), radii[0])

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """rows times scale."""
        return (rows * _channel(self.scale, rows),)

    def offset_terms(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """|mean scale| + |bias|, which may cancel in b."""
        found = (self.mean * self.scale).abs()
        if self.bias is not None:
            found = found + self.bias.abs()
        return found.view(1, -1, *[1] * (len(shapes[0]) - 1)).expand(1, *shapes[0])


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """Elementwise product with (or division by) a constant that broadcasts against [B, *shape]."""

    factor: Tensor
    divide: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """x * factor or x / factor."""
        return inputs[0] / self.factor if self.divide else inputs[0] * self.factor

    def magnitude(self, *radii: Tensor) -> Tensor:
        """r * |factor| or r / |factor|."""
        size = self.factor.to(radii[0]).abs()  # a mask of booleans has no abs
        return radii[0] / size if self.divide else radii[0] * size

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The operation again, summed where the factor has spread its input."""
        return (gathered(self.forward(rows), shapes[0]),)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """None: there is no offset."""
        return None


@dataclass(frozen=True, eq=False)
class Shift(Affine):
    """Elementwise sum with factor times a constant that broadcasts against [B, *shape]."""

    amount: Tensor
    factor: float = 1.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """x + factor * amount."""
        return inputs[0] + self.factor * self.amount

    def magnitude(self, *radii: Tensor) -> Tensor:
        """r, in the shape of the sum."""
        return radii[0] + torch.zeros_like(self.amount)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The rows themselves, summed where the amount has spread its input."""
        return (gathered(rows, shapes[0]),)


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """x_1 + factor * x_2: additions, subtractions and residual connections."""

    fresh: ClassVar[bool] = True

    factor: float = 1.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """x_1 + factor * x_2, broadcast."""
        return torch.add(inputs[0], inputs[1], alpha=self.factor)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """r_1 + |factor| r_2."""
        return radii[0] + abs(self.factor) * radii[1]

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The rows, and factor times the rows."""
        second = gathered(rows, shapes[1])
        second = second if self.factor == 1 else second * self.factor
        return gathered(rows, shapes[0]), second

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """None: there is no offset."""
        return None


@dataclass(frozen=True, eq=False)
class MatMul(Affine):
    """Product with a constant matrix: x M, or M x where `left`."""

    matrix: Tensor
    left: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """x M or M x, batched as torch.matmul."""
        return self._apply(inputs[0], self.matrix)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """The product with |M|."""
        return self._apply(radii[0], self.matrix.abs())

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The product with M', summed where the batch of M has spread its input."""
        if self.matrix.ndim == 1:  # a vector, whose products drop a dimension
            return super().transpose(rows, shapes)
        return (gathered(self._apply(rows, self.matrix.mT), shapes[0]),)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """None: there is no offset."""
        return None

    def _apply(self, x: Tensor, matrix: Tensor) -> Tensor:
        return matrix @ x if self.left else x @ matrix


def _channel(value: Tensor, like: Tensor) -> Tensor:
    return value.view(1, -1, *[1] * (like.ndim - 2))
