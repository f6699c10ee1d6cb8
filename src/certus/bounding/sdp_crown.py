"""CROWN for L2 balls with ReLU offsets that see all neurons of a layer at once (SDP-CROWN)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from certus.bounding.base import BoundMethod
from certus.bounding.crown import Crown
from certus.bounding.propagation import meet
from certus.bounding.state import Relaxations, State
from certus.core import Bounds
from certus.graph import Graph
from certus.graph.activation import LeakyRelu, Relu
from certus.graph.affine import Conv, Linear
from certus.graph.op import Affine, Elementwise, Shape
from certus.relax import Interval, Lines, Relaxation
from certus.threats import Region

_HALVINGS = 14  # of the multiplier's range on a logarithmic scale
_DECADES = 6.0  # that range, downwards from where the constraint is slack
_EXACT = 1024  # the smaller side of a matrix whose singular values are computed
_ENTRIES = 2**24  # and the most entries that it may have
_PIECE = 2**22  # entries of one batch of unit rows
_SAFE = 1 + 1e-5  # relative allowance for rounding in a radius


@dataclass(frozen=True, eq=False)
class BallHinge(Relaxation):
    """max(x, leak x) for x in an interval, and in a ball of the given centre and radius [B].

    The slopes g of a row c are those of the lines. The offset is the largest of
    sum_i min_{l_i <= x_i <= u_i} (c_i f(x_i) - g_i x_i + lam/2 (x_i - center_i)^2) - lam/2 radius^2
    over lam >= 0: the Lagrangian of the ball's constraint (weak duality makes every lam sound), the
    minimum taken exactly on both sides of the kink. For ReLU without the intervals it is the offset of
    SDP-CROWN (Chiu and Zhang 2025); with them lam = 0 gives CROWN's, so it is never looser. The objective
    is concave in lam, so its maximum is found by bisection.
    """

    leak: float
    lower_slope: Tensor
    upper_slope: Tensor
    lower: Tensor
    upper: Tensor
    center: Tensor
    radius: Tensor

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """CROWN's rows with the better of two offsets."""
        moved = rows.clamp(min=0) * self.lower_slope + rows.clamp(max=0) * self.upper_slope
        slope = moved.flatten(2)
        up = rows.flatten(2) - slope
        down = self.leak * rows.flatten(2) - slope
        zero = torch.zeros_like(up[:, :, 0])
        plain = self._offset(up, down, zero)
        with torch.no_grad():
            weight = self._multiplier(up, down)
        return (moved,), torch.maximum(plain, self._offset(up, down, weight))

    def _multiplier(self, up: Tensor, down: Tensor) -> Tensor:
        """[R, B]: the multiplier at which the minimiser lies on the ball's surface; 0 where inside."""
        push = torch.maximum(up.abs(), down.abs()).norm(dim=2)
        high = (push / self.radius).clamp(min=torch.finfo(push.dtype).tiny * 1e8).log10()
        low = high - _DECADES
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            x = self._minimiser(up, down, 10**middle)
            outside = (x - self.center.flatten(1)).norm(dim=2) > self.radius
            low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
        return 10**high

    def _offset(self, up: Tensor, down: Tensor, weight: Tensor) -> Tensor:
        """The Lagrangian [R, B] at multipliers [R, B]."""
        with torch.no_grad():
            x = self._minimiser(up, down, weight)
        line = torch.where(x > 0, up, down) * x
        gap = (x - self.center.flatten(1)).square().sum(2)
        return line.sum(2) + weight / 2 * (gap - self.radius.square())

    def _minimiser(self, up: Tensor, down: Tensor, weight: Tensor) -> Tensor:
        """Exact minimiser on each side of the kink, the better of both: [R, B, n]."""
        lam = weight.unsqueeze(2)
        low, high, mid = (t.flatten(1) for t in (self.lower, self.upper, self.center))
        safe = lam.clamp(min=torch.finfo(up.dtype).tiny * 1e8)
        best = []
        for push, first, last in (
            (up, low.clamp(min=0), high.clamp(min=0)),
            (down, low.clamp(max=0), high.clamp(max=0)),
        ):
            x = torch.minimum(torch.maximum(mid - push / safe, first), last)
            best.append((x, push * x + lam / 2 * (x - mid).square()))
        (right, at_right), (left, at_left) = best
        takes_right = ((at_right < at_left) | (low >= 0)) & (high > 0)
        return torch.where(takes_right, right, left)


@dataclass(frozen=True, kw_only=True)
class SdpCrown(BoundMethod):
    """CROWN with `BallHinge` at every ReLU and LeakyReLU, never looser than CROWN.

    The ball of a layer is around its value at the region's centre. Its radius is the region's extent
    in L2 times upper bounds of the spectral norms and Lipschitz constants on the way (singular values for
    small dense and convolutional layers, sqrt(||W||_1 ||W||_inf) for others), and at most the distance
    to the farthest corner of the layer's interval. Inner intervals are CROWN's, tightened layer by
    layer by the same relaxation. Any region is allowed; only small L2 balls gain. In the paper slopes
    and multipliers are optimised together; here the slopes are CROWN's and only the multiplier is.
    """

    crown: Crown = field(default_factory=Crown)

    @property
    def memory(self) -> int | None:
        """That of CROWN."""
        return self.crown.memory

    def prepare(self, graph: Graph, region: Region) -> State:
        """CROWN's state, and one with ball relaxations on tighter intervals."""
        plain = self.crown.prepare(graph, region)
        graph = plain.graph  # CROWN may have fused operations
        with torch.no_grad():
            values = graph.values(region.center)
            radii = _radii(graph, region, plain, values)
        state = _Ball(graph, region, dict(plain.intervals), plain=plain)
        seen = False
        for position in plain.relaxations:
            node = graph.nodes[position]
            if not isinstance(node.op, Relu | LeakyRelu):
                continue
            if not node.shape:  # one number: its interval is its ball
                continue
            (source,) = node.inputs
            if seen:
                state.intervals[source] = self._tightened(state, source)
            lines = self.crown.slopes[type(node.op)](node.op, state.intervals[source])
            if isinstance(lines, Lines):
                own = state.intervals[source], values[source], radii[source]
                state.hinges[position] = _hinge(node.op, lines, *own)
                seen = True
        return state

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """The better of both states."""
        assert isinstance(state, _Ball)
        found, plain = (self.crown.bound(s, rows) for s in (state, state.plain))
        return Bounds(
            torch.maximum(found.lower, plain.lower), torch.minimum(found.upper, plain.upper)
        )

    def _tightened(self, state: "_Ball", position: int) -> Interval:
        """The interval of a node, met with bounds from the relaxations so far."""
        node, interval = state.graph.nodes[position], state.intervals[position]
        part = replace(state, graph=state.graph.upto(position))
        rows = torch.eye(node.numel, dtype=interval[0].dtype, device=interval[0].device)
        widest = max(n.numel for n in state.graph.nodes[: position + 1]) * len(state.region)
        found = [
            self.crown.bound(part, piece.view(-1, 1, *node.shape))
            for piece in rows.split(max(1, _PIECE // widest))
        ]
        shape = interval[0].shape
        lower = torch.cat([b.lower for b in found]).T.reshape(shape)
        upper = torch.cat([b.upper for b in found]).T.reshape(shape)
        return meet(interval, (lower, upper))


@dataclass(frozen=True, eq=False)
class _Ball(State):
    """Hinges in place of some relaxations of CROWN's own state."""

    plain: State = field(kw_only=True)
    hinges: dict[int, Relaxation] = field(kw_only=True, default_factory=dict)

    @cached_property
    def relaxations(self) -> Mapping[int, Relaxation]:
        """CROWN's where there is no hinge."""
        return Relaxations(self.graph, self.plain.intervals, self.plain.table, self.hinges)

    def select(self, index: Tensor) -> "_Ball":
        """Hinges and CROWN's state of these inputs."""
        hinges = {at: hinge.select(index) for at, hinge in self.hinges.items()}
        return replace(super().select(index), plain=self.plain.select(index), hinges=hinges)


def _hinge(
    op: Relu | LeakyRelu, lines: Lines, interval: Interval, center: Tensor, radius: Tensor
) -> BallHinge:
    """The ball meets the interval: its radius is at most the distance to the farthest corner."""
    far = torch.maximum(interval[1] - center, center - interval[0]).flatten(1).norm(dim=1)
    least = torch.finfo(radius.dtype).eps * (1 + center.flatten(1).norm(dim=1))
    reach = torch.minimum(radius, far * _SAFE) + least
    leak = op.slope if isinstance(op, LeakyRelu) else 0.0
    return BallHinge(leak, lines.lower_slope, lines.upper_slope, *interval, center, reach)


def _radii(graph: Graph, region: Region, state: State, values: list[Tensor]) -> list[Tensor]:
    """[B] for every node: how far in L2 its value may lie from the one at the region's centre."""
    radii = [region.l2_extent(region.center) * _SAFE]
    for position, node in enumerate(graph.nodes[1:], start=1):
        given = [radii[source] for source in node.inputs]
        if isinstance(node.op, Affine):
            norms = _norms(node.op, graph.shapes(node), values[0])
            reach = torch.stack([r * n for r, n in zip(given, norms, strict=True)]).sum(0) * _SAFE
        elif isinstance(node.op, Elementwise):
            reach = given[0] * node.op.lipschitz * _SAFE
        else:
            reach = torch.full_like(given[0], float("inf"))
        if position not in state.intervals:  # a node that nothing reads any more
            radii.append(reach)
            continue
        lower, upper = state.intervals[position]
        far = torch.maximum(upper - values[position], values[position] - lower)
        far = far.reshape(len(far), -1).norm(dim=1) * _SAFE
        # 0 times infinity is NaN, which must not hide the interval's own radius
        radii.append(torch.where(reach < far, reach, far))
    return radii


def _norms(op: Affine, shapes: list[Shape], like: Tensor) -> list[Tensor]:
    """Upper bounds of the spectral norms of the W_i of an affine operation."""
    ones = [like.new_ones(1, *shape) for shape in shapes]
    zeros = [torch.zeros_like(one) for one in ones]
    found = []
    for i, one in enumerate(ones):

        def absolute(r: Tensor, i: int = i) -> Tensor:
            return op.magnitude(*zeros[:i], r, *zeros[i + 1 :])

        found_at = torch.func.vjp(absolute, one)
        rows, pull = found_at[0], found_at[1]
        bound = (rows.amax() * pull(torch.ones_like(rows))[0].amax()).sqrt()
        small = min(one.numel(), rows.numel()) <= _EXACT and one.numel() * rows.numel() <= _ENTRIES
        if isinstance(op, Linear | Conv) and small:
            bound = torch.minimum(bound, _largest_singular(op, shapes[i], rows.numel(), one))
        found.append(bound * _SAFE)
    return found


def _largest_singular(op: Affine, shape: Shape, outputs: int, like: Tensor) -> Tensor:
    """The largest singular value of the whole matrix, from its smaller Gram matrix in float64."""
    size = prod(shape)
    if size <= outputs:
        origin = op.forward(torch.zeros_like(like))
        unit = torch.eye(size).to(like).view(size, *shape)
        matrix = (op.forward(unit) - origin).flatten(1)
    else:
        out = op.forward(torch.zeros_like(like))[0].shape
        (matrix,) = op.transpose(torch.eye(outputs).to(like).view(outputs, *out), [shape])
    flat = matrix.flatten(1).double()
    if not bool(torch.isfinite(flat).all()):
        return like.new_tensor(float("nan"))
    return torch.linalg.eigvalsh(flat @ flat.T)[-1].clamp(min=0).sqrt().to(like)
