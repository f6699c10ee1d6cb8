"""Maps: rows of the backward walk with a coefficient for every value of a node."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.bounding.rows import Rows
from certus.graph.activation import MaxPool
from certus.graph.affine import BatchNorm, Conv, Sum
from certus.graph.fusion import Patches
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Elementwise
from certus.graph.structural import AvgPool
from certus.relax import Interval, Lines, Relaxation
from certus.threats import Region
from certus.threats.box import inner

Pick = slice | Tensor  # some of the inputs, with repetitions

_ON_MAPS = (Conv, BatchNorm, Sum, Elementwise, MaxPool, AvgPool)


@dataclass(frozen=True, eq=False)
class Maps(Rows):
    """Rows [R, B or 1, *shape]; a middle 1 means that all inputs share them.

    pick: the inputs of the state that B stands for; None for all of them, in order.
    """

    coefs: Tensor
    pick: Pick | None = None

    def affine(self, graph: Graph, node: Node) -> tuple[Sequence["Maps"], Tensor | None]:
        """`pull_affine`."""
        pulled, offset = pull_affine(graph, node, self.coefs)
        return self._moved(pulled), offset

    def relaxed(
        self, relaxation: Relaxation, slope: Tensor | None
    ) -> tuple[Sequence["Maps"], Tensor]:
        """The relaxation's own pull."""
        own = relaxation if self.pick is None else relaxation.select(self.pick)
        if slope is not None:
            assert isinstance(own, Lines)
            own = replace(own, lower_slope=slope)
        pulled, offset = own.pull(self.coefs)
        return self._moved(pulled), offset

    def _moved(self, parts: Sequence[Tensor]) -> Sequence["Maps"]:
        return [Maps(part, self.pick) for part in parts]

    def least(self, interval: Interval) -> Tensor:
        """Coefficients >= 0 take the lower end, the others the upper one."""
        lower, upper = (self.laid(end) for end in interval)
        above = self.coefs.clamp(min=0)
        return inner(above, lower) + inner(self.coefs - above, upper)

    def within(self, region: Region, shape: tuple[int, ...]) -> tuple[Region, Tensor]:
        """The region of the inputs picked, and the coefficients."""
        if self.pick is None:
            return region, self.coefs
        every = torch.arange(len(region), device=region.center.device)
        return region.picked(self.laid) or region.select(every[self.pick]), self.coefs

    def on_patches(self, region: Region, op: Patches) -> Tensor:
        """Lower bounds [R, B] over a region that is cut into patches: no rows are laid out as maps."""
        part = region.picked(lambda t: op.cut(self.laid(t)).flatten(1))
        assert part is not None
        found = part.linear_range((self.coefs @ op.weight.flatten(1)).flatten(2))[0]
        return found if op.bias is None else found + self.coefs.sum(2) @ op.bias

    def totals(self, values: Tensor) -> Tensor:
        """As they are: [R, B]."""
        return values

    def weigh(self, weights: Tensor, keep: bool = True) -> Tensor:
        """<|row|, weights> [R, B]."""
        return inner(self.coefs.abs(), self.laid(weights))

    def of_inputs(self, values: Tensor) -> Tensor:
        """[R, B]."""
        return self.laid(values).expand(len(self.coefs), -1)

    def laid(self, maps: Tensor) -> Tensor:
        """That of the inputs picked."""
        return maps if self.pick is None else maps[self.pick]

    def doubled(self) -> "Maps":
        """Every row and its negative, channels last where they are."""
        if self.coefs.ndim != 5 or self.coefs.stride(2) != 1:
            return replace(self, coefs=torch.cat([self.coefs, -self.coefs]))
        last = self.coefs.permute(0, 1, 3, 4, 2)
        return replace(self, coefs=torch.cat([last, -last]).permute(0, 1, 4, 2, 3))

    def width(self, inputs: int) -> int:
        """The number of inputs picked."""
        if isinstance(self.pick, Tensor):
            return len(self.pick)
        return inputs if self.pick is None else len(range(*self.pick.indices(inputs)))

    def at(self, node: Node) -> "Maps":
        """In the layout that convolutions like best, where a node's operation is one of feature maps."""
        fits = self.coefs.ndim == 5 and isinstance(node.op, _ON_MAPS)
        return self.channels_last() if fits else self

    def channels_last(self) -> "Maps":
        """Rows of feature maps [R, B, C, H, W], channels last in memory."""
        coefs = self.coefs.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        return replace(self, coefs=coefs)

    def __add__(self, other: "Maps") -> "Maps":
        """The sum of rows of the same inputs."""
        return replace(self, coefs=self.coefs + other.coefs)


def pull_affine(graph: Graph, node: Node, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Rows times W_i for every input of an affine node, and <row, b> as [R, B or 1]."""
    op = node.op
    assert isinstance(op, Affine)
    count, batch = rows.shape[:2]
    shapes = graph.shapes(node)
    flat = rows.reshape(count * batch, *rows.shape[2:])
    pulled = tuple(
        part.reshape(count, batch, *part.shape[1:]) for part in op.transpose(flat, shapes)
    )
    offset = op.offset(shapes, rows)
    if offset is None:
        return pulled, None
    part = inner(rows.reshape(count * batch, 1, *node.shape), offset.expand(1, *node.shape))
    return pulled, part.view(count, batch)
