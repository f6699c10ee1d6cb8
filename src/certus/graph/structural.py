"""Operations that move, copy or average values: weights >= 0 and no offset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.op import Affine, Selection, Shape


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


@dataclass(frozen=True, eq=False)
class Slice(Selection):
    """x[start:stop:step] along one dimension (batch is 0 and not allowed)."""

    dim: int
    start: int
    stop: int
    step: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """The kept entries."""
        index = [slice(None)] * inputs[0].ndim
        index[self.dim] = slice(self.start, self.stop, self.step)
        return inputs[0][tuple(index)]


@dataclass(frozen=True, eq=False)
class Select(Selection):
    """x[index] along one dimension, which disappears (batch is 0 and not allowed)."""

    dim: int
    index: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.select."""
        return inputs[0].select(self.dim, self.index)


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


@dataclass(frozen=True, eq=False)
class Reduce(Selection):
    """Sum over dimensions, times a factor > 0 (1 / count makes it a mean)."""

    dims: tuple[int, ...]
    keepdim: bool
    factor: float = 1.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum or mean."""
        return inputs[0].sum(self.dims, keepdim=self.keepdim) * self.factor


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
