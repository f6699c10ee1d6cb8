"""Operations that move, copy or average values: weights >= 0 and no offset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.op import Affine, Selection, Shape, gathered


@dataclass(frozen=True, eq=False)
class Reshape(Selection):
    """The same values in another shape (flatten, view, squeeze, unsqueeze)."""

    shape: Shape

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *old] -> [B, *shape]."""
        return inputs[0].reshape(inputs[0].shape[0], *self.shape)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Back to the old shape."""
        return (rows.reshape(rows.shape[0], *shapes[0]),)


@dataclass(frozen=True, eq=False)
class Permute(Selection):
    """Dimensions in another order; dims counts the batch as 0, which stays first."""

    dims: tuple[int, ...]

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.permute."""
        return inputs[0].permute(self.dims)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Dimensions back in the old order."""
        back = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        return (rows.permute(back),)


@dataclass(frozen=True, eq=False)
class Slice(Selection):
    """x[start:stop:step] along one dimension (batch is 0 and not allowed)."""

    dim: int
    start: int
    stop: int
    step: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """The kept entries."""
        return self._kept(inputs[0])

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Zero for what was left out."""
        pulled = rows.new_zeros(len(rows), *shapes[0])
        self._kept(pulled).copy_(rows)
        return (pulled,)

    def _kept(self, x: Tensor) -> Tensor:
        index = [slice(None)] * x.ndim
        index[self.dim] = slice(self.start, self.stop, self.step)
        return x[tuple(index)]


@dataclass(frozen=True, eq=False)
class Select(Selection):
    """x[index] along one dimension, which disappears (batch is 0 and not allowed)."""

    dim: int
    index: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.select."""
        return inputs[0].select(self.dim, self.index)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Zero for what was left out."""
        pulled = rows.new_zeros(len(rows), *shapes[0])
        pulled.select(self.dim, self.index).copy_(rows)
        return (pulled,)


@dataclass(frozen=True, eq=False)
class Concat(Selection):
    """Inputs side by side along one dimension (batch is 0 and not allowed)."""

    dim: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.cat."""
        return torch.cat(inputs, self.dim)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The pieces."""
        return rows.split([shape[self.dim - 1] for shape in shapes], self.dim)


@dataclass(frozen=True, eq=False)
class Expand(Selection):
    """Copies along dimensions of size one."""

    shape: Shape

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *old] -> [B, *shape]."""
        return inputs[0].expand(inputs[0].shape[0], *self.shape)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The sum over the copies."""
        return (gathered(rows, shapes[0]),)


@dataclass(frozen=True, eq=False)
class Reduce(Selection):
    """Sum over dimensions, times a factor > 0 (1 / count makes it a mean)."""

    dims: tuple[int, ...]
    keepdim: bool
    factor: float = 1.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum or mean."""
        return inputs[0].sum(self.dims, keepdim=self.keepdim) * self.factor

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The same coefficient, times the factor, for everything that was summed."""
        kept = [1 if d in self.dims else size for d, size in enumerate(shapes[0], 1)]
        return ((rows * self.factor).reshape(-1, *kept).expand(-1, *shapes[0]),)


@dataclass(frozen=True, eq=False)
class AvgPool(Selection):
    """Average over windows, zero padding; `count_padding` says whether padding counts in the mean."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_padding: bool = True

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch's avg_pool1d / 2d / 3d."""
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(self.kernel)]
        return pool(
            inputs[0], self.kernel, self.stride, self.padding, self.ceil_mode, self.count_padding
        )


@dataclass(frozen=True, eq=False)
class AdaptiveAvgPool(Selection):
    """Average over windows chosen so that the result has the given spatial size."""

    size: tuple[int, ...]

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch's adaptive_avg_pool1d / 2d / 3d."""
        pools: dict[int, Callable[..., Tensor]] = {
            1: F.adaptive_avg_pool1d,
            2: F.adaptive_avg_pool2d,
            3: F.adaptive_avg_pool3d,
        }
        return pools[len(self.size)](inputs[0], self.size)


@dataclass(frozen=True, eq=False)
class Pad(Affine):
    """Constant padding; `widths` in the order of torch.nn.functional.pad."""

    widths: tuple[int, ...]
    value: float = 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """The padded tensor."""
        return F.pad(inputs[0], self.widths, value=self.value)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """Zero radius in the padding."""
        return F.pad(radii[0], self.widths)


@dataclass(frozen=True, eq=False)
class Gather(Selection):
    """Any selection or copy of values at constant places: y = x.flatten(1)[:, index], reshaped.

    index: int64 [numel of shape], into one input of the batch laid out flat.
    """

    index: Tensor
    shape: Shape

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *old] -> [B, *shape]."""
        x = inputs[0]
        return x.flatten(1).index_select(1, self.index).view(x.shape[0], *self.shape)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Add every coefficient back where its value came from."""
        count = rows.shape[0]
        pulled = rows.new_zeros(count, torch.Size(shapes[0]).numel())
        pulled = pulled.index_add(1, self.index, rows.reshape(count, -1))
        return (pulled.view(count, *shapes[0]),)


@dataclass(frozen=True, eq=False)
class ScatterAdd(Selection):
    """Values added up at constant places, the adjoint of `Gather`: messages to the nodes of a graph.

    index: int64 [numel of one input], the flat place of each value in the result.
    """

    index: Tensor
    shape: Shape

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *old] -> [B, *shape]."""
        x = inputs[0].flatten(1)
        total = x.new_zeros(len(x), torch.Size(self.shape).numel())
        return total.index_add(1, self.index, x).view(len(x), *self.shape)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """To every value the coefficient of its place."""
        pulled = rows.flatten(1).index_select(1, self.index)
        return (pulled.view(len(rows), *shapes[0]),)


@dataclass(frozen=True, eq=False)
class Flip(Selection):
    """The order reversed along dimensions (batch is 0 and not allowed)."""

    dims: tuple[int, ...]

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.flip."""
        return inputs[0].flip(self.dims)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Its own inverse."""
        return (rows.flip(self.dims),)


@dataclass(frozen=True, eq=False)
class CumSum(Selection):
    """Running sum along one dimension (batch is 0 and not allowed).

    exclusive: without the entry itself. reverse: from the end.
    """

    dim: int
    exclusive: bool = False
    reverse: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum of the entries up to each one."""
        return _running(inputs[0], self.dim, self.exclusive, self.reverse)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The running sum in the other direction."""
        return (_running(rows, self.dim, self.exclusive, not self.reverse),)


def _running(x: Tensor, dim: int, exclusive: bool, reverse: bool) -> Tensor:
    x = x.flip(dim) if reverse else x
    if exclusive:  # a zero in front, the last entry left out; subtracting x would cancel
        x = torch.cat(
            [torch.zeros_like(x.narrow(dim, 0, 1)), x.narrow(dim, 0, x.shape[dim] - 1)], dim
        )
    total = x.cumsum(dim)
    return total.flip(dim) if reverse else total


@dataclass(frozen=True, eq=False)
class Resize(Selection):
    """Interpolation of [C, *space] to the spatial size `size`: weights of neighbours, all >= 0.

    mode: nearest, nearest-exact or linear (bilinear, trilinear by the number of dimensions). scales:
    the factors that give the sampling positions; None computes them from the sizes. Bicubic
    interpolation has negative weights and is spelled as products with constant matrices instead.
    """

    size: tuple[int, ...]
    mode: str = "nearest"
    align_corners: bool = False
    scales: tuple[float, ...] | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, C, *space] -> [B, C, *size]."""
        scales = self.scales or (None,) * len(self.size)
        kind = f"{_LINEAR[len(self.size)] if 'linear' in self.mode else self.mode}"
        name = f"upsample_{kind.replace('-', '_')}{len(self.size)}d"
        if self.mode == "nearest-exact":
            name = f"_upsample_nearest_exact{len(self.size)}d"
        corners = (self.align_corners,) if "linear" in self.mode else ()
        resize: Callable[..., Tensor] = getattr(torch.ops.aten, name)
        return resize(inputs[0], self.size, *corners, *scales)

    def drift(self, sizes: Tensor) -> Tensor | None:
        """Places, times the largest value of a map; nearest neighbours are copied."""
        if "nearest" in self.mode:
            return None
        space = tuple(range(-len(self.size), 0))
        return float(max(*self.size, *sizes.shape[2:])) * sizes.amax(space, keepdim=True)


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
