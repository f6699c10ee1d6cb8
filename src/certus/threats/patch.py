"""Patch: every pixel of one square of an image may change, each to anything in the valid range."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from certus.core.random import draw
from certus.threats.box import inner, rounded
from certus.threats.region import Region, spread


class Patched(Region):
    """{x' : the pixels in which x' differs from x fit into one square, every value inside clip}.

    x is [B, C, H, W] in the model's dtype, size int64 [B]: the square of input b has size[b] rows and
    columns, or as many as the image has, and lies inside the image. The set is not convex;
    `linear_range` is its exact range and with that the range of its convex hull, so bounds hold for
    both, while membership, projection and samples are those of the set itself. Limits are rounded
    outward for ranges and inward for samples.
    """

    def __init__(self, x: Tensor, size: Tensor, clip: tuple[float, float]) -> None:
        self._x, self._size, self._clip = x, size.to(x.device), clip
        low, high = (torch.full_like(x, limit, dtype=torch.float64) for limit in clip)
        still = spread(self._size == 0, x)
        self._lower = torch.where(still, x, rounded(low, x.dtype, up=False))
        self._upper = torch.where(still, x, rounded(high, x.dtype, up=True))
        self._inside = rounded(low, x.dtype, up=True), rounded(high, x.dtype, up=False)

    @property
    def center(self) -> Tensor:
        """The clean input."""
        return self._x

    @property
    def lower(self) -> Tensor:
        """The lower limit of every value, as each pixel lies in some square."""
        return self._lower

    @property
    def upper(self) -> Tensor:
        """The upper limit of every value."""
        return self._upper

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: <row, x> and the largest gain (loss) that changing the pixels of one square brings."""
        middle = inner(rows, self._x)
        up, down = rows * (self._upper - self._x), rows * (self._lower - self._x)
        gain, loss = torch.maximum(up, down), -torch.minimum(up, down)
        return middle - self._largest(loss), middle + self._largest(gain)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point: values clamped, in the square where that is worth most (in L2)."""
        valid = torch.minimum(torch.maximum(x, self._inside[0]), self._inside[1])
        gain = (x - self._x).square() - (x - valid).square()  # what moving the value is worth
        gain = torch.where(valid == self._x, torch.zeros_like(gain), gain.clamp(min=0))
        point = torch.where(self._best(gain), valid, self._x)
        return torch.where(spread(self.contains(x), x), x, point)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """A square at random; half of the inputs get uniform values there, the others limits."""
        place = draw(torch.rand, self._x.flatten(1)[:, :2], generators)
        value = draw(torch.rand, self._x, generators)
        extreme = draw(torch.rand, self._x.flatten(1)[:, :1], generators).flatten() < 0.5
        value = torch.where(spread(extreme, value), value.round(), value)
        low, high = self._inside
        point = (low + value * (high - low)).clamp(min=low, max=high)
        free = torch.stack([self._x.shape[2] - self._size, self._x.shape[3] - self._size], 1) + 1
        corner = (place * free.clamp(min=1)).long()
        return torch.where(self._square(corner[:, 0], corner[:, 1]), point, self._x)

    def contains(self, x: Tensor) -> Tensor:
        """The pixels that differ from x fit into a square, every value that differs is inside clip."""
        moved = x != self._x  # true for NaN
        wide = x.double()
        legal = ~moved | ((wide >= self._clip[0]) & (wide <= self._clip[1]))
        pixels = moved.any(1)
        fits = (_extent(pixels.any(2)) <= self._size) & (_extent(pixels.any(1)) <= self._size)
        return fits & legal.flatten(1).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """From x to the best limits in the square that gains most."""
        up, down = self._upper - self._x, self._lower - self._x
        move = torch.where(gradient * up >= gradient * down, up, down)
        move = torch.where(gradient == 0, torch.zeros_like(move), move)
        return torch.where(self._best(gradient * move), move, torch.zeros_like(move))

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance of x to the centre plus the largest distance within a square."""
        clean, low, high = self._x.double(), self._lower.double(), self._upper.double()
        far = torch.maximum(high - clean, clean - low).square()
        away = (x.double() - clean).flatten(1).norm(dim=1)
        return rounded(away + self._largest(far.unsqueeze(0))[0].sqrt(), x.dtype, up=True)

    def select(self, index: Tensor) -> "Patched":
        """Some of the inputs."""
        return Patched(self._x[index], self._size[index], self._clip)

    def _largest(self, gain: Tensor) -> Tensor:
        """The largest sum over a square of gain [R, B, *shape] >= 0: [R, B]."""
        pixels, found = gain.sum(2), gain.new_zeros(gain.shape[:2])
        for size in self._sizes():
            sums = _sums(pixels, size).flatten(2).amax(2)
            found = torch.where(self._size == size, sums, found)
        return found

    def _best(self, gain: Tensor) -> Tensor:
        """Bool [B, 1, H, W]: the square of largest gain [B, *shape]; none where size is 0."""
        pixels = gain.sum(1).unsqueeze(0)
        top, left = torch.zeros_like(self._size), torch.zeros_like(self._size)
        for size in self._sizes():
            sums = _sums(pixels, size)[0]
            place = sums.flatten(1).argmax(1)
            of = self._size == size
            top = torch.where(of, place // sums.shape[2], top)
            left = torch.where(of, place % sums.shape[2], left)
        return self._square(top, left)

    def _square(self, top: Tensor, left: Tensor) -> Tensor:
        """Bool [B, 1, H, W]: the squares with these corners [B]."""
        down = torch.arange(self._x.shape[2], device=top.device) - top[:, None]
        right = torch.arange(self._x.shape[3], device=left.device) - left[:, None]
        size = self._size[:, None]
        inside = (down >= 0) & (down < size), (right >= 0) & (right < size)
        return (inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1)

    def _sizes(self) -> list[int]:
        """The sizes of squares that occur, but 0."""
        return [int(size) for size in self._size.unique() if size > 0]


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
