"""Patch: every pixel of one square of an image may change, each to anything in the valid range."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from certus.core.random import draw
from certus.threats.freed import Freed


class Patched(Freed):
    """{x' : the pixels in which x' differs from x fit into one square, every value inside clip}.

    x is [B, C, H, W] in the model's dtype, count int64 [B]: the square of input b has count[b] rows and
    columns, or as many as the image has, and lies inside the image.
    """

    def select(self, index: Tensor) -> "Patched":
        """Some of the inputs."""
        return Patched(self._x[index], self._count[index], self._clip)

    def _largest(self, gain: Tensor) -> Tensor:
        pixels, found = gain.sum(2), gain.new_zeros(gain.shape[:2])
        for size in self._sizes():
            sums = _sums(pixels, size).flatten(2).amax(2)
            found = torch.where(self._count == size, sums, found)
        return found

    def _best(self, gain: Tensor) -> Tensor:
        pixels = gain.sum(1).unsqueeze(0)
        top, left = torch.zeros_like(self._count), torch.zeros_like(self._count)
        for size in self._sizes():
            sums = _sums(pixels, size)[0]
            place = sums.flatten(1).argmax(1)
            of = self._count == size
            top = torch.where(of, place // sums.shape[2], top)
            left = torch.where(of, place % sums.shape[2], left)
        return self._square(top, left)

    def _anywhere(self, generators: Sequence[torch.Generator]) -> Tensor:
        place = draw(torch.rand, self._x.flatten(1)[:, :2], generators)
        free = torch.stack([n - self._count for n in self._x.shape[2:]], 1) + 1
        corner = (place * free.clamp(min=1)).long()
        return self._square(corner[:, 0], corner[:, 1])

    def _allowed(self, moved: Tensor) -> Tensor:
        pixels = moved.any(1)
        return (_extent(pixels.any(2)) <= self._count) & (_extent(pixels.any(1)) <= self._count)

    def _square(self, top: Tensor, left: Tensor) -> Tensor:
        """Bool [B, 1, H, W]: the squares with these corners [B]."""
        down = torch.arange(self._x.shape[2], device=top.device) - top[:, None]
        right = torch.arange(self._x.shape[3], device=left.device) - left[:, None]
        size = self._count[:, None]
        inside = (down >= 0) & (down < size), (right >= 0) & (right < size)
        return (inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1)

    def _sizes(self) -> list[int]:
        """The sizes of squares that occur, but 0."""
        return [int(size) for size in self._count.unique() if size > 0]


def _sums(pixels: Tensor, size: int) -> Tensor:
    """Sums of pixels [R, B, H, W] over all squares of this size: [R, B, H', W']."""
    high, wide = (min(size, n) for n in pixels.shape[2:])
    down = avg_pool2d(pixels, (high, 1), 1, divisor_override=1)
    return avg_pool2d(down, (1, wide), 1, divisor_override=1)


def _extent(marked: Tensor) -> Tensor:
    """From the first to the last true entry of each row of marked [B, n]: how many entries, [B]."""
    n = marked.shape[1]
    first, last = marked.int().argmax(1), n - 1 - marked.flip(1).int().argmax(1)
    return torch.where(marked.any(1), last - first + 1, 0)
