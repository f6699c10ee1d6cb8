"""Windows: rows of the backward walk that are non-zero in a small patch of a feature map.

A row that starts at one neuron of a convolution reads a window of the map before it, and a slightly
larger one of the map before that. Keeping windows instead of whole maps makes the walk from a
convolutional layer as cheap as its receptive field.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.core import Rules
from certus.graph.affine import BatchNorm, Conv, Scale, Shift, Sum
from certus.graph.convolution import Layout, adjoint, reach
from certus.graph.graph import Graph, Node
from certus.relax import Lines

Pair = tuple[int, int]

MOST = 0.9  # of a map: beyond this, rows of one input are cheaper whole, since nothing is gathered


@dataclass(frozen=True, eq=False)
class Windows:
    """Rows [S, N] with coefficients [S, N, kh, kw, C] (channels last) on maps [B, C, H, W].

    S counts signed copies that share their place. Row n belongs to input batch[n]; batch is in
    ascending order. Its window starts at (y[n], x[n]) * stride + offset, which may lie outside the
    map; (y, x) lie in a map of size `origin`. `clean` says that coefficients outside the map are zero.
    `padded` keeps maps that were laid out for one geometry, for all walks that share the dictionary.
    own: the input that all rows belong to, None where there are several.
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

    def least(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Lower bounds [S, N] of <row, x> for maps lower <= x <= upper that stay where they are."""
        above = self.coefs.clamp(min=0)
        below = self.coefs - above
        if torch.is_grad_enabled():
            return _sum(above * self.gather(lower)) + _sum(below * self.gather(upper))
        return _sum(above.mul_(self.gather(lower)).add_(below.mul_(self.gather(upper))))

    def doubled(self) -> "Windows":
        """Every row and its negative."""
        return replace(self, coefs=torch.cat([self.coefs, -self.coefs]))

    def dense(self, shape: tuple[int, ...]) -> Tensor:
        """The same rows as [S, N, C, H, W]."""
        top, left = (start.repeat(len(self.coefs)) for start in self._start())
        maps = _Moved.apply(self.coefs.flatten(0, 1), top, left, (shape[1], shape[2]))
        return maps.view(*self.coefs.shape[:2], *shape[1:], shape[0]).permute(0, 1, 4, 2, 3)

    def dot(self, maps: Tensor) -> Tensor:
        """<row, map> [S, N] for maps [B or 1, C, H, W]."""
        return _sum(self.coefs * self.gather(maps, keep=False))

    def through(self, lines: Lines, slope: Tensor | None = None) -> tuple["Windows", Tensor]:
        """As `Lines.pull`: coefficients >= 0 take the lower line, the others the upper one.

        slope [S, N, kh, kw, C] stands for the lower slopes where it is given.
        """
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
        return replace(self, coefs=coefs, clean=True), offset

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


class _Moved(torch.autograd.Function):
    """`_moved`, whose gradient moves back: much faster than what autograd makes of its steps."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, down: Tensor, right: Tensor, size: Pair) -> Tensor:
        """See `_moved`."""
        ctx.save_for_backward(down, right)
        ctx.size = (values.shape[1], values.shape[2])
        return _moved(values, down, right, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient under every window."""
        down, right = ctx.saved_tensors
        return _moved(gradient, -down, -right, ctx.size), None, None, None


def _moved(values: Tensor, down: Tensor, right: Tensor, size: Pair) -> Tensor:
    """Values [N, h, w, C] on maps [N, *size, C] at places of their own; zero elsewhere, cut at the edge."""
    padding: list[int] = []
    places = []
    for own, k, m in zip((down, right), values.shape[1:3], size, strict=True):
        front = max(0, int(own.max()))
        padding = [front, max(0, m - int(own.min()) - k), *padding]
        places.append(front - own)
    laid = F.pad(values, [0, 0, *padding]).contiguous()
    count, tall, broad, channels = laid.shape
    runs = laid.as_strided(
        (count, tall, broad - size[1] + 1, size[1] * channels),
        (tall * broad * channels, broad * channels, channels, 1),
    )
    rows = torch.arange(count, device=laid.device).unsqueeze(1)
    lines = places[0].unsqueeze(1) + torch.arange(size[0], device=laid.device)
    return runs[rows, lines, places[1].unsqueeze(1)].view(count, *size, channels)


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


# (op, graph, node, windows) -> (windows for each input, offset [S, N] or None)
Pulled = tuple[tuple[Windows, ...], Tensor | None]
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


def pull_affine(graph: Graph, node: Node, rows: Windows) -> Pulled:
    """Rows on every input of an affine node that is `able`."""
    pulled: Pulled = pulls[type(node.op)](node.op, node, rows.cleaned(node.shape))
    return pulled
