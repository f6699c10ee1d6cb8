"""Affine images of regions: perturbations with few parameters, such as brightness and contrast."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.threats.box import Box, inner
from certus.threats.region import Region

_UNITS = 8  # roundings that computing one value of A z + c is charged with
_SEARCH = 20  # alternating projections that look for parameters of a point


class Transformed(Region):
    """{A z + c : z in region}, every value up to the rounding of its computation.

    matrix A is [B or 1, n, m] for a region of m parameters (flattened), offset c [B, *shape] with n
    values; B is the batch of the region. A point counts as a member where it differs from A z + c by at
    most 8 units in the last place of |A| |z| + |c| for some z of the region, and the ranges include
    that much. Members of a map that is not one to one may go unrecognised by `contains`, never the
    other way round. There is no clip: an affine image that must stay valid needs parameters small
    enough, or a clamp as the network's first operation.
    """

    def __init__(self, region: Region, matrix: Tensor, offset: Tensor) -> None:
        batch, size = len(region), region.center.flatten(1).shape[1]
        values = offset.flatten(1).shape[1]
        if len(offset) != batch or matrix.shape[1:] != (values, size):
            raise ArgumentError(
                f"a region of {batch} inputs with {size} parameters and an offset "
                f"{tuple(offset.shape)} do not fit a matrix {tuple(matrix.shape)}"
            )
        if matrix.shape[0] not in (1, batch):
            raise ArgumentError(f"the matrix must be [{batch} or 1, n, m], got {matrix.shape[0]}")
        if not bool(torch.isfinite(matrix).all() & torch.isfinite(offset).all()):
            raise ArgumentError("the matrix and the offset of a region must be finite")
        self._region, self._offset = region, offset
        self._matrix = matrix.expand(batch, -1, -1)
        largest = torch.maximum(region.lower.abs(), region.upper.abs()).flatten(1)
        terms = self._times(self._matrix.abs(), largest) + offset.abs().flatten(1)
        self._slack = _UNITS * torch.finfo(offset.dtype).eps * terms.view_as(offset)

    @classmethod
    def through(cls, region: Region, function: Callable[[Tensor], Tensor]) -> "Transformed":
        """The image under an affine function of [N, *parameters], the same for every input.

        The matrix is found by probing, by differences of unit parameters. Raises
        ArgumentError where the function is visibly not affine. With many parameters, put the function
        into the network instead.
        """
        like = region.center
        size = like[0].numel()
        probes = torch.cat([like.new_zeros(1, size), torch.eye(size).to(like)])
        values = function(probes.view(-1, *like.shape[1:]))
        offset = values[:1]
        matrix = (values[1:] - offset).flatten(1).T.unsqueeze(0)
        image = cls(region, matrix, offset.expand(len(region), *offset.shape[1:]))
        for z in (region.lower, region.upper, region.center):
            found, wanted = image._map(z), function(z)
            scale = torch.finfo(like.dtype).eps ** 0.5 * (1 + wanted.abs().max())
            if not bool(((found - wanted).abs() <= scale).all()):
                raise ArgumentError("the function is not affine; use the network for it instead")
        return image

    @property
    def center(self) -> Tensor:
        """The image of the centre."""
        return self._map(self._region.center)

    @property
    def lower(self) -> Tensor:
        """Exact lower corner (range of every value), less the slack."""
        return self._corners()[0]

    @property
    def upper(self) -> Tensor:
        """Exact upper corner, plus the slack."""
        return self._corners()[1]

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The range of <A' row, z>, plus <row, c>, widened by the slack."""
        count, batch = rows.shape[0], len(self)
        flat = rows.flatten(2).expand(count, batch, -1)
        pulled = torch.einsum("rbn,bnm->rbm", flat, self._matrix)
        low, high = self._region.linear_range(pulled.view(count, *self._region.center.shape))
        middle, slack = inner(rows, self._offset), inner(rows.abs(), self._slack)
        return low + middle - slack, high + middle + slack

    def project(self, x: Tensor) -> Tensor:
        """The image of the nearest parameters found; x itself where it lies inside."""
        point = self._map(self._parameters(x)).to(x.dtype)
        inside = self.contains(x).view(-1, *[1] * (x.ndim - 1))
        return torch.where(inside, x, point)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The image of a random member."""
        return self._map(self._region.sample(generators))

    def contains(self, x: Tensor) -> Tensor:
        """Whether parameters inside the region were found that give x up to rounding."""
        z = self._parameters(x)
        gap = (x.double() - self._exact(z)).abs()
        near = (gap <= self._slack.double()).flatten(1).all(1)
        return near & self._region.contains(z)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The image of the parameters' steepest displacement."""
        back = torch.einsum("bn,bnm->bm", gradient.flatten(1), self._matrix)
        move = self._region.steepest(back.view_as(self._region.center))
        return self._times(self._matrix, move.flatten(1)).view_as(gradient)

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance to the centre plus ||A|| times the parameters' extent, or the farthest corner."""
        gram = self._matrix.double().transpose(1, 2) @ self._matrix.double()
        norm = torch.linalg.eigvalsh(gram).amax(1).clamp(min=0).sqrt() * (1 + 1e-6)
        away = (self.center - x).flatten(1).norm(dim=1) + self._slack.flatten(1).norm(dim=1)
        image = away + norm.to(x.dtype) * self._region.l2_extent(self._region.center)
        return torch.minimum(image, Box(*self._corners()).l2_extent(x))

    def select(self, index: Tensor) -> "Transformed":
        """Some of the inputs."""
        return Transformed(self._region.select(index), self._matrix[index], self._offset[index])

    def _times(self, matrix: Tensor, z: Tensor) -> Tensor:
        return torch.einsum("bnm,bm->bn", matrix, z)

    def _map(self, z: Tensor) -> Tensor:
        """A z + c, evaluated in float64 and rounded once to the dtype of the offset."""
        return self._exact(z).to(self._offset.dtype)

    def _exact(self, z: Tensor) -> Tensor:
        image = self._times(self._matrix.double(), z.double().flatten(1))
        return image.view(self._offset.shape) + self._offset.double()

    def _corners(self) -> tuple[Tensor, Tensor]:
        """Ranges of all values: the rows of the matrix are the linear forms."""
        rows = self._matrix.transpose(0, 1).reshape(-1, *self._region.center.shape)
        low, high = self._region.linear_range(rows)
        low, high = low.T.reshape(self._offset.shape), high.T.reshape(self._offset.shape)
        return low + self._offset - self._slack, high + self._offset + self._slack

    def _parameters(self, x: Tensor) -> Tensor:
        """Members z of the region in float64 with A z + c close to x: alternating projections."""
        inverse = torch.linalg.pinv(self._matrix.double())
        z = self._region.center.double()
        for _ in range(_SEARCH):
            gap = (x.double() - self._exact(z)).flatten(1)
            step = torch.einsum("bmn,bn->bm", inverse, gap).view_as(z)
            moved = self._region.project(z + step)
            if torch.equal(moved, z):
                break
            z = moved
        return z


def brightness_contrast(x: Tensor, brightness: float, contrast: float) -> Transformed:
    """x' = (1 + a) x + b with |a| <= contrast, |b| <= brightness, for images x [B, *shape].

    Two parameters for every input, so the ranges are far smaller than those of a box. The values are
    not clipped.
    """
    if not (brightness >= 0 and contrast >= 0):
        raise ArgumentError("brightness and contrast must be numbers >= 0")
    limit = torch.tensor([brightness, contrast], dtype=torch.float64, device=x.device)
    limit = limit.expand(len(x), 2)
    flat = x.flatten(1)
    parameters = Box(-limit, limit, x.dtype)
    return Transformed(parameters, torch.stack([torch.ones_like(flat), flat], 2), x)
