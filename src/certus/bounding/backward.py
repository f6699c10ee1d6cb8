"""The reverse walk: push linear functionals from a node back to the input, concretise there."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certus.bounding import windows
from certus.bounding.alphas import Alphas
from certus.bounding.base import State
from certus.bounding.windows import MOST, Windows
from certus.core import Bounds
from certus.graph.activation import MaxPool
from certus.graph.affine import BatchNorm, Conv, Sum
from certus.graph.fusion import Patches
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Elementwise, Input
from certus.graph.structural import AvgPool
from certus.relax import Lines
from certus.threats import Region
from certus.threats.box import inner

Rows = Tensor | Windows  # [R, B or 1, *shape], or windows [S, N]
_ON_MAPS = (Conv, BatchNorm, Sum, Elementwise, MaxPool, AvgPool)
Pick = slice | Tensor  # some of the inputs, with repetitions


def lower_bound(state: State, start: int, rows: Tensor) -> Tensor:
    """A lower bound [R, B] of <row, value of node `start`> for rows [R, B or 1, *shape].

    Affine operations are pulled back exactly. A non-linear node is replaced by its relaxation where
    the state has one; elsewhere the walk stops there and uses the node's interval.
    Source: Zhang et al. 2018, section 3 (CROWN), on a general graph.
    """
    return Walk(state, both=False).run(start, rows)


@dataclass(frozen=True, eq=False)
class Query:
    """Numbers whose bounds are asked for: <row, value of node `start`> + shift.

    rows: [R, B or 1, *shape], for the inputs `pick` of the state (None: all), or windows [1, N], which
    bring their own inputs. shift: broadcasts against [R, B], None for zero. likely: where given, bool
    [R, B] or [1, N]: whether a number is more likely positive; then its sign alone matters.
    """

    start: int
    rows: Rows
    pick: Pick | None = None
    shift: Tensor | None = None
    likely: Tensor | None = None

    def bounds(self, found: Tensor) -> Bounds:
        """Bounds of the numbers from what a walk for both finds: lower bounds of rows and negatives."""
        low, high = found.chunk(2)
        if isinstance(self.rows, Windows):
            low, high = low.reshape(1, -1), high.reshape(1, -1)
        if self.shift is not None:
            low, high = low + self.shift, high - self.shift
        return Bounds(low, -high)


@dataclass(eq=False)
class Walk:
    """One walk from a node to the input; rows are all windows at first, or whole maps throughout.

    both: at the first non-linear node rows are joined by their negatives, so that the second half
    of the result is the lower bound of the negatives. pick: which inputs of the state the batch
    dimension of the rows stands for; None for all of them, in order. alphas: lower slopes of the
    rows' own.
    """

    state: State
    both: bool
    pick: Pick | None = None
    pending: dict[int, Rows] = field(default_factory=dict)
    total: Tensor | None = None
    doubled: bool = False
    alphas: Alphas | None = None
    small: bool = False  # rows are windows
    single: bool = False  # and all belong to one input

    def run(self, start: int, rows: Rows) -> Tensor:
        """Lower bounds [R, B], or [2 R, B] for both."""
        if isinstance(rows, Windows):
            self.small, self.pick = True, rows.batch
            self.single = rows.own is not None
        self._send([start], [rows])
        for position in range(start, -1, -1):
            if position not in self.pending:
                continue
            node = self.state.graph.nodes[position]
            if not isinstance(node.op, Affine) or self._on_patches(position, node):
                self._double()
            if self.small and not self._stays_small(position, node):
                self._leave_windows()
            self._step(position, node, self.pending.pop(position))
        self._double()  # where nothing depended on the input
        assert self.total is not None, "a walk always ends at the input or at an interval"
        return self.total.expand(-1, self._batch())

    def _step(self, position: int, node: Node, rows: Rows) -> None:
        pulled: Sequence[Rows] = ()
        part: Tensor | None
        if isinstance(node.op, Input):
            part = self._concretise(node, rows)
        elif isinstance(node.op, Patches) and self._on_patches(position, node):
            assert isinstance(rows, Tensor)
            part = self._concretise_patches(node.op, rows)
        elif isinstance(node.op, Affine):
            pull = windows.pull_affine if isinstance(rows, Windows) else pull_affine
            pulled, part = pull(self.state.graph, node, rows)  # type: ignore[arg-type]
        elif position not in self.state.relaxations:
            part = self._stop(position, rows)
        else:
            pulled, part = self._relax(position, rows)
        if part is not None:
            self.total = part if self.total is None else self.total + part
        self._send(node.inputs, pulled)

    def _send(self, positions: Sequence[int], parts: Sequence[Rows]) -> None:
        """Add rows to what these nodes have got already."""
        for position, part in zip(positions, parts, strict=False):
            held, rows = self.pending.get(position), part
            both = isinstance(held, Windows) and isinstance(rows, Windows)
            if both and held.stride != rows.stride:  # type: ignore[union-attr]
                self._leave_windows()  # the two came at different paces: no common window
                held = self.pending[position]
            if isinstance(rows, Windows) and not self.small:
                rows = self._whole(position, rows)
            if isinstance(rows, Tensor) and rows.ndim == 5 and self._is_map(position):
                rows = _channels_last(rows)
            self.pending[position] = rows if held is None else held + rows  # type: ignore[operator]

    def _is_map(self, position: int) -> bool:
        """Whether a node's operation is one of feature maps, not of the heads of an attention."""
        return isinstance(self.state.graph.nodes[position].op, _ON_MAPS)

    def _relax(self, position: int, rows: Rows) -> tuple[Sequence[Rows], Tensor]:
        relaxation = self.state.relaxations[position]
        if isinstance(rows, Windows):
            assert isinstance(relaxation, Lines)
            slope = None
            if self.alphas is not None and relaxation.floor is not None:
                slope = self.alphas.of(position, relaxation, rows.coefs, rows.gather)
            moved, offset = rows.through(relaxation, slope)
            return (moved,), offset
        own = relaxation if self.pick is None else relaxation.select(self.pick)
        if self.alphas is not None and isinstance(own, Lines) and own.floor is not None:
            own = replace(own, lower_slope=self.alphas.of(position, own, rows, lambda t: t))
        return own.pull(rows)

    def _stop(self, position: int, rows: Rows) -> Tensor:
        assert isinstance(rows, Tensor)
        pick = slice(None) if self.pick is None else self.pick
        lower, upper = (bound[pick] for bound in self.state.intervals[position])
        above = rows.clamp(min=0)
        return inner(above, lower) + inner(rows - above, upper)

    def _concretise(self, node: Node, rows: Rows) -> Tensor:
        region = self.state.region
        if isinstance(rows, Windows):
            clean = rows.cleaned(node.shape)
            part = region.picked(lambda t: clean.gather(t).flatten(1))
            assert part is not None
            return part.linear_range(clean.coefs.flatten(2))[0]
        if self.pick is None:
            return region.linear_range(rows)[0]
        own = region.picked(lambda t: t[self.pick]) or region.select(self._inputs())
        return own.linear_range(rows)[0]

    def _on_patches(self, position: int, node: Node) -> bool:
        """Whether all that is left of the walk are patches of the input, which the region can pick."""
        last = node.inputs == (0,) and not self.pending.keys() - {position}
        if not (last and isinstance(node.op, Patches)):
            return False
        return self.state.region.picked(lambda t: t[:0]) is not None

    def _concretise_patches(self, op: Patches, rows: Tensor) -> Tensor:
        """Without laying the rows out as maps: the region is cut into patches instead."""
        pick = slice(None) if self.pick is None else self.pick
        region = self.state.region.picked(lambda t: op.cut(t[pick]).flatten(1))
        assert region is not None
        part = region.linear_range((rows @ op.weight.flatten(1)).flatten(2))[0]
        return part if op.bias is None else part + rows.sum(2) @ op.bias

    def _double(self) -> None:
        if not self.both or self.doubled:
            return
        self.doubled = True
        for position, rows in self.pending.items():
            self.pending[position] = rows.doubled() if isinstance(rows, Windows) else _signed(rows)
        if self.total is not None:
            self.total = torch.cat([self.total, -self.total])

    def _stays_small(self, position: int, node: Node) -> bool:
        """Whether windows still pay at a node, and have a rule there."""
        rows, last = self.pending[position], isinstance(node.op, Input)
        most = MOST if self.single and not last else 1
        if not isinstance(rows, Windows) or rows.share(node.shape) > most:
            return False
        if isinstance(node.op, Affine):
            return windows.able(node, self.state.graph.shapes(node))
        if last:
            return self.state.region.picked(lambda t: t[:0]) is not None
        return isinstance(self.state.relaxations.get(position), Lines)

    def _leave_windows(self) -> None:
        """From here on rows of whole maps.

        Rows of one input share its relaxations, [R, 1, *shape]; rows of several are a batch in which
        every row brings its own, [S, N, *shape].
        """
        if not self.small:
            return
        self.small = False
        for position, rows in self.pending.items():
            assert isinstance(rows, Windows)
            self.pending[position] = self._whole(position, rows)
        if self.single:
            assert isinstance(self.pick, Tensor)
            first = int(self.pick[0])
            self.pick = slice(first, first + 1)
            self.total = None if self.total is None else self.total.reshape(-1, 1)

    def _whole(self, position: int, rows: Windows) -> Tensor:
        dense = rows.dense(self.state.graph.nodes[position].shape)
        return _channels_last(dense.flatten(0, 1).unsqueeze(1) if self.single else dense)

    def _inputs(self) -> Tensor:
        region: Region = self.state.region
        every = torch.arange(len(region), device=region.center.device)
        return every if self.pick is None else every[self.pick]

    def _batch(self) -> int:
        return len(self._inputs()) if self.small or not self.single else 1


def _signed(rows: Tensor) -> Tensor:
    """Every row and its negative, channels last where they are."""
    if rows.ndim != 5 or rows.stride(2) != 1:
        return torch.cat([rows, -rows])
    last = rows.permute(0, 1, 3, 4, 2)
    return torch.cat([last, -last]).permute(0, 1, 4, 2, 3)


def _channels_last(rows: Tensor) -> Tensor:
    """Rows of feature maps [R, B, C, H, W] in the layout that convolutions like best."""
    return rows.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


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
