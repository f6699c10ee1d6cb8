"""Windows: rows of the backward walk that are non-zero in a small patch of a feature map.

A row that starts at one neuron of a convolution reads a window of the map before it, and a slightly
larger one of the map before that. Keeping windows instead of whole maps makes the walk from a
convolutional layer as cheap as its receptive field.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.bounding.maps import Maps
from certus.bounding.placing import Moved, Pair
from certus.bounding.rows import Rows
from certus.core import Rules
from certus.graph.affine import BatchNorm, Conv, Scale, Shift, Sum
from certus.graph.convolution import Layout, adjoint, reach
from certus.graph.graph import Graph, Node
from certus.relax import Interval, Lines, Relaxation
from certus.threats import Region

MOST = 0.9  # of a map: beyond this, rows of one input are cheaper whole, since nothing is gathered
Pulled = tuple[Sequence["Windows"], Tensor | None]  # on each input, and an offset


@dataclass(frozen=True, eq=False)
class Windows(Rows):
    """Rows [S, N] with coefficients [S, N, kh, kw, C] (channels last) on maps [B, C, H, W].

    S counts signed copies that share their place. Row n belongs to input batch[n]; batch is in
    ascending order. Its window starts at (y[n], x[n]) * stride + offset, which may lie outside the
    map; (y, x) lie in a map of size `origin`. `clean` says that coefficients outside the map are zero.
    `padded` keeps maps that were laid out for one geometry, for all walks that share the dictionary.
    own: the input that all rows belong to, None where there are several. Totals are [S, N], and
    [S * N, 1] where all rows belong to one input.
    """

    coefs: Tensor
    batch: Tensor
    y: Tensor
    x: Tensor
    origin: Pair
    padded: "Padded"
    stride: Pair = (1, 1)
    offset: Pair = (0, 0)
    clean: bool = True
    own: int | None = None

    @property
    def size(self) -> Pair:
        """Height and width of the windows."""
        return self.coefs.shape[2], self.coefs.shape[3]

    def share(self, shape: tuple[int, ...]) -> float:
        """Area of a window relative to the map [C, H, W]."""
        return self.size[0] * self.size[1] / (shape[1] * shape[2])

    def gather(self, maps: Tensor, keep: bool = True) -> Tensor:
        """The windows [N, kh, kw, C] of maps [B or 1, C, H, W], zero outside.

        keep: whether the map lives as long as `padded` and will be asked for again.
        """
        (kh, kw), channels = self.size, maps.shape[1]
        padded = self.padded if keep else {}
        if self.own is not None and 2 * len(self.y) >= self.origin[0] * self.origin[1]:
            place = self.y * self.origin[1] + self.x
            return self._table(maps, padded).index_select(0, place).view(-1, kh, kw, channels)
        laid, before = self._laid(maps, padded)
        _, high, wide, _ = laid.shape
        # a run of kw positions is contiguous with channels last: copy whole runs
        runs = laid.as_strided(
            (len(laid), high, wide - kw + 1, kw * channels),
            (high * wide * channels, wide * channels, channels, 1),
        )
        top, left = self._start()
        lines = (top + before[0]).unsqueeze(1) + torch.arange(kh, device=top.device)
        which = torch.zeros_like(self.batch) if len(laid) == 1 else self.batch
        found = runs[which.unsqueeze(1), lines, (left + before[1]).unsqueeze(1)]
        return found.view(len(top), kh, kw, channels)

    def _table(self, maps: Tensor, padded: "Padded") -> Tensor:
        """The windows of the rows' own input at every place [places, kh * kw * C]: rows share places."""
        key = id(maps), self.size, self.stride, self.offset, self.own
        if key not in padded:
            assert self.own is not None
            one = maps if len(maps) == 1 else maps[self.own : self.own + 1]
            laid, before = self._laid(one, {})
            _, _, wide, channels = laid.shape
            (kh, kw), (sy, sx), (high, broad) = self.size, self.stride, self.origin
            first = [o + b for o, b in zip(self.offset, before, strict=True)]
            table = laid.as_strided(
                (high, broad, kh, kw * channels),
                (sy * wide * channels, sx * channels, wide * channels, 1),
                (first[0] * wide + first[1]) * channels,
            )
            padded[key] = maps, table.reshape(high * broad, -1), before
        return padded[key][1]

    def _laid(self, maps: Tensor, padded: "Padded") -> tuple[Tensor, Pair]:
        """Maps with channels last and room for every window of this geometry, and the room in front."""
        key = id(maps), self.size, self.stride, self.offset, None
        if key not in padded:
            before, after = self._margins((maps.shape[2], maps.shape[3]))
            widths = (0, 0, before[1], after[1], before[0], after[0])
            laid = F.pad(maps.permute(0, 2, 3, 1), widths).contiguous()
            padded[key] = maps, laid, before  # the map too, so that its id stays taken
        return padded[key][1:]

    def _margins(self, size: Pair) -> tuple[Pair, Pair]:
        """How far windows reach over the start and the end of a map."""
        before = [max(0, -o) for o in self.offset]
        after = [
            max(0, (n - 1) * s + o + k - m)
            for n, s, o, k, m in zip(
                self.origin, self.stride, self.offset, self.size, size, strict=True
            )
        ]
        return (before[0], before[1]), (after[0], after[1])

    def cleaned(self, shape: tuple[int, ...]) -> "Windows":
        """Zero outside the map."""
        if self.clean:
            return self
        masks = []
        for start, k, n in zip(self._start(), self.size, shape[1:], strict=True):
            place = start.unsqueeze(1) + torch.arange(k, device=start.device)
            masks.append(((place >= 0) & (place < n)).to(self.coefs.dtype))
        mask = masks[0].unsqueeze(2) * masks[1].unsqueeze(1)
        return replace(self, coefs=self.coefs * mask.unsqueeze(3), clean=True)

    def affine(self, graph: Graph, node: Node) -> Pulled:
        """By the rule of an operation that is `able`."""
        pulled, offset = pulls[type(node.op)](node.op, node, self.cleaned(node.shape))
        return pulled, None if offset is None else self.totals(offset)

    def least(self, interval: Interval) -> Tensor:
        """Coefficients >= 0 take the lower end, the others the upper one."""
        above = self.coefs.clamp(min=0)
        below, (lower, upper) = self.coefs - above, interval
        if torch.is_grad_enabled():
            parts = [_sum(above * self.gather(lower)), _sum(below * self.gather(upper))]
            return self.totals(parts[0] + parts[1])
        return self.totals(
            _sum(above.mul_(self.gather(lower)).add_(below.mul_(self.gather(upper))))
        )

    def within(self, region: Region, shape: tuple[int, ...]) -> tuple[Region, Tensor]:
        """The region's projection onto every window, and the coefficients [S, N, kh * kw * C]."""
        clean = self.cleaned(shape)
        part = region.picked(lambda t: clean.gather(t).flatten(1))
        assert part is not None, "rows stay windows where the region can be picked from"
        return part, clean.coefs.flatten(2)

    def totals(self, values: Tensor) -> Tensor:
        """Of [S, N]."""
        return values if self.own is None else values.reshape(-1, 1)

    def weigh(self, weights: Tensor, keep: bool = True) -> Tensor:
        """<|row|, weights>."""
        return self.totals(_sum(self.coefs.abs() * self.gather(weights, keep)))

    def of_inputs(self, values: Tensor) -> Tensor:
        """Totals."""
        return self.totals(values[self.batch].expand(len(self.coefs), -1))

    def laid(self, maps: Tensor) -> Tensor:
        """`gather`."""
        return self.gather(maps)

    def width(self, inputs: int) -> int:
        """N, or 1 where all rows belong to one input."""
        return len(self.batch) if self.own is None else 1

    def doubled(self) -> "Windows":
        """Every row and its negative."""
        return replace(self, coefs=torch.cat([self.coefs, -self.coefs]))

    def dense(self, shape: tuple[int, ...]) -> Tensor:
        """The same rows as [S, N, C, H, W]."""
        top, left = (start.repeat(len(self.coefs)) for start in self._start())
        maps = Moved.apply(self.coefs.flatten(0, 1), top, left, (shape[1], shape[2]))
        return maps.view(*self.coefs.shape[:2], *shape[1:], shape[0]).permute(0, 1, 4, 2, 3)

    def whole(self, shape: tuple[int, ...]) -> Maps:
        """The same rows as maps.

        Rows of one input share its relaxations, [R, 1, *shape]; of several, every row brings its own.
        """
        dense = self.dense(shape)
        if self.own is None:
            return Maps(dense, self.batch).channels_last()
        pick = slice(self.own, self.own + 1)
        return Maps(dense.flatten(0, 1).unsqueeze(1), pick).channels_last()

    def dot(self, maps: Tensor) -> Tensor:
        """<row, map> [S, N] for maps [B or 1, C, H, W]."""
        return _sum(self.coefs * self.gather(maps, keep=False))

    def relaxed(
        self, relaxation: Relaxation, slope: Tensor | None
    ) -> tuple[Sequence["Windows"], Tensor]:
        """As `Lines.pull`: coefficients >= 0 take the lower line, the others the upper one."""
        assert isinstance(relaxation, Lines)
        lines = relaxation
        above = self.coefs.clamp(min=0)
        below = self.coefs - above
        offset = _sum(below * self.gather(lines.upper_offset))
        if lines.lower_offset is not None:
            offset = offset + _sum(above * self.gather(lines.lower_offset))
        lower = self.gather(lines.lower_slope) if slope is None else slope
        upper = self.gather(lines.upper_slope)
        if torch.is_grad_enabled():
            coefs = torch.addcmul(above * lower, below, upper)
        else:
            coefs = above.mul_(lower).addcmul_(below, upper)
        return (replace(self, coefs=coefs, clean=True),), self.totals(offset)

    def fits(self, other: "Windows") -> bool:
        """Whether both have come at the same pace, so that there is a common window."""
        return self.stride == other.stride

    def __add__(self, other: "Windows") -> "Windows":
        """Rows of the same start that met again: the union of both windows."""
        first = [min(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        last = [
            max(a + k, b + m)
            for a, k, b, m in zip(self.offset, self.size, other.offset, other.size, strict=True)
        ]
        coefs = [part._spread(first, last) for part in (self, other)]
        return replace(
            self,
            coefs=coefs[0] + coefs[1],
            offset=(first[0], first[1]),
            clean=self.clean and other.clean,
        )

    def _spread(self, first: list[int], last: list[int]) -> Tensor:
        (oy, ox), (kh, kw) = self.offset, self.size
        widths = (0, 0, ox - first[1], last[1] - ox - kw, oy - first[0], last[0] - oy - kh)
        return F.pad(self.coefs, widths) if any(widths) else self.coefs

    def _start(self) -> tuple[Tensor, Tensor]:
        return self.y * self.stride[0] + self.offset[0], self.x * self.stride[1] + self.offset[1]


def _sum(values: Tensor) -> Tensor:
    return values.flatten(2).sum(2)


# (id of a map, geometry, input or None for all) -> the map, its padded form, the room in front
Padded = dict[tuple[int, Pair, Pair, Pair, int | None], tuple[Tensor, Tensor, Pair]]


def start(
    node: Node, neurons: Tensor, batch: Tensor, like: Tensor, padded: Padded | None = None
) -> Windows:
    """One row for each neuron (flat index) of a node of shape [C, H, W]: a window of one position."""
    channels, high, wide = node.shape
    where = neurons % (high * wide)
    coefs = F.one_hot(neurons // (high * wide), channels).to(like.dtype)
    coefs = coefs.view(1, -1, 1, 1, channels)
    place = (where // wide, where % wide, (high, wide))
    if bool(batch[0] == batch[-1]):  # its maps are for these rows alone
        return Windows(coefs, batch, *place, {}, own=int(batch[0]))
    return Windows(coefs, batch, *place, {} if padded is None else padded)


# (op, node, windows) -> (windows for each input, offset [S, N] or None)
pulls = Rules("the walk in windows")


def able(node: Node, shapes: list[tuple[int, ...]]) -> bool:
    """Whether an affine node with inputs of these shapes can be pulled back in windows."""
    maps = all(len(shape) == 3 for shape in [node.shape, *shapes])
    moves = isinstance(node.op, Conv) or all(shape == node.shape for shape in shapes)
    return type(node.op) in pulls and maps and moves


@pulls.register(Conv)
def _conv(op: Conv, node: Node, rows: Windows) -> Pulled:
    """Transposed convolution of the window alone: its edge grows by the kernel's reach."""
    s, n, kh, kw, c = rows.coefs.shape
    flat = rows.coefs.reshape(s * n, kh, kw, c).permute(0, 3, 1, 2)
    stride, dilation = (op.stride[0], op.stride[1]), (op.dilation[0], op.dilation[1])
    full = reach((kh, kw), op.weight.shape[2:], stride, dilation)
    layout = Layout(stride, (0, 0), dilation, op.groups, full)
    pulled = adjoint(flat, op.weight, layout).permute(0, 2, 3, 1)
    (oy, ox), (py, px) = rows.offset, op.padding
    moved = replace(
        rows,
        coefs=pulled.reshape(s, n, *pulled.shape[1:]),
        stride=(rows.stride[0] * stride[0], rows.stride[1] * stride[1]),
        offset=(oy * stride[0] - py, ox * stride[1] - px),
        clean=False,
    )
    return (moved,), None if op.bias is None else rows.coefs.sum((2, 3)) @ op.bias


@pulls.register(BatchNorm)
def _batch_norm(op: BatchNorm, node: Node, rows: Windows) -> Pulled:
    """Each channel by its scale."""
    zero = rows.coefs.new_zeros(1, rows.coefs.shape[4], 1, 1)
    offset = rows.coefs.sum((2, 3)) @ op.forward(zero).flatten()
    return (replace(rows, coefs=rows.coefs * op.scale),), offset


@pulls.register(Scale)
def _scale(op: Scale, node: Node, rows: Windows) -> Pulled:
    """Each element by its factor."""
    factor = op.forward(rows.coefs.new_ones(1, *node.shape))
    return (replace(rows, coefs=rows.coefs * rows.gather(factor, keep=False)),), None


@pulls.register(Shift)
def _shift(op: Shift, node: Node, rows: Windows) -> Pulled:
    """The same rows, and the amount under each window."""
    return (rows,), rows.dot(op.forward(rows.coefs.new_zeros(1, *node.shape)))


@pulls.register(Sum)
def _sum_of_two(op: Sum, node: Node, rows: Windows) -> Pulled:
    """The same rows for both."""
    second = rows if op.factor == 1 else replace(rows, coefs=rows.coefs * op.factor)
    return (rows, second), None
