"""The pull through lines with its gradient written out: it keeps the rows and the lines, no more."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from certus.threats.box import inner

Given = Sequence[Tensor | None]
_INFINITY = float("inf")


def pull(rows: Tensor, *lines: Tensor | None) -> tuple[Tensor, Tensor]:
    """Coefficients >= 0 take the lower line, the others the upper one.

    rows [R, B or 1, *shape]; lines: slope and offset of the lower, then of the upper one, [B, *shape]
    (the lower slope also [R or 1, B, *shape]; the lower offset None is zero). Returns rows
    [R, B, *shape] and offsets [R, B].
    """
    lower_slope, lower_offset, upper_slope, upper_offset = lines
    assert lower_slope is not None and upper_slope is not None and upper_offset is not None
    above = rows.clamp(min=0)
    below = rows - above
    offset = inner(below, upper_offset)
    if lower_offset is not None:
        offset = offset + inner(above, lower_offset)
    return torch.addcmul(above * lower_slope, below, upper_slope), offset


def recorded_pull(rows: Tensor, *lines: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same numbers and gradients as `pull`, where these are recorded.

    Autograd would keep five tensors of the rows' size and pass over them thrice as often; this keeps
    the rows. A coefficient of zero belongs to the lower line, as in `pull`: its gradient is that of
    the line below. The gradient can be differentiated itself.
    """
    upper = lines[2]
    assert upper is not None
    if rows.shape[1:] != upper.shape:  # rows that the batch shares
        return pull(rows, *lines)
    found: tuple[Tensor, Tensor] = _Pull.apply(rows, *lines)
    return found


class _Pull(Function):
    """`pull` of rows [R, B, *shape]."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*given)
        rows, lower_slope, lower_offset, upper_slope, upper_offset = given
        part = rows.clamp(max=0)
        offset = _inner(part, upper_offset)
        pulled = part * upper_slope
        torch.clamp(rows, min=0, out=part)
        if lower_offset is not None:
            offset = offset + _inner(part, lower_offset)
        return pulled.addcmul_(part, lower_slope), offset

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, needed = ctx.saved_tensors, ctx.needs_input_grad
        rule = _recorded if torch.is_grad_enabled() else _gradients
        return rule(given, gradients, needed)


def _recorded(
    given: Given, gradients: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """By autograd. Each tensor is taken as a view, or it would see what others owe to it."""
    own = [None if t is None else t.view_as(t) for t in given]
    wanted = [t for t, need in zip(own, needed, strict=True) if need and t is not None]
    found = iter(torch.autograd.grad(pull(*own), wanted, gradients, create_graph=True))  # type: ignore[arg-type]
    return tuple(next(found) if need else None for need in needed)


def _gradients(
    given: Given, gradients: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    rows, *lines = given
    moved, shift = gradients
    assert rows is not None
    found: list[Tensor | None] = [None] * 5
    moved = _as(moved, rows)
    if needed[0]:
        found[0] = _to_rows(rows, lines, moved, shift)
    for slope, offset, part in ((3, 4, {"max": 0.0}), (1, 2, {"min": 0.0})):
        if needed[slope] or needed[offset]:
            own = rows.clamp(**part)
            found[slope] = _summed(own, moved, given[slope]) if needed[slope] else None
            found[offset] = _weighted(own, shift) if needed[offset] else None
    return tuple(found)


def _to_rows(rows: Tensor, lines: Given, moved: Tensor, shift: Tensor) -> Tensor:
    """The gradient of the rows: that of the lower line, and the difference where rows are < 0."""
    lower_slope, lower_offset, upper_slope, upper_offset = lines
    assert lower_slope is not None and upper_slope is not None and upper_offset is not None
    shift = shift.view(*shift.shape, *[1] * (rows.ndim - 2))
    found = moved * (upper_slope - lower_slope)
    found.addcmul_(shift, upper_offset if lower_offset is None else upper_offset - lower_offset)
    # keeps what lies where rows are in (-inf, 0), in one pass
    found = torch.ops.aten.hardtanh_backward(found, rows, -_INFINITY, 0.0)
    found.addcmul_(moved, lower_slope)
    return found if lower_offset is None else found.addcmul_(shift, lower_offset)


def _summed(part: Tensor, moved: Tensor, like: Tensor | None) -> Tensor:
    """The sum of part * moved over rows, or as `like` has rows of its own."""
    assert like is not None
    if like.ndim == part.ndim:
        product = part * moved
        return product if len(like) == len(part) else product.sum(0, keepdim=True)
    total = part[0] * moved[0]
    for own, other in zip(part[1:], moved[1:], strict=True):
        total.addcmul_(own, other)
    return total


def _weighted(part: Tensor, shift: Tensor) -> Tensor:
    """sum_r shift[r, b] part[r, b]: [B, *shape]."""
    flat = _flat(part).transpose(0, 1)
    found = torch.bmm(shift.T.unsqueeze(1), flat).squeeze(1)
    if part.ndim != 5:
        return found.view(part.shape[1:])
    _, batch, channels, high, wide = part.shape
    return found.view(batch, high, wide, channels).permute(0, 3, 1, 2)


def _inner(part: Tensor, line: Tensor) -> Tensor:
    """<row, line> [R, B] as one product of matrices for each input."""
    flat = _flat(part).permute(1, 2, 0)
    return torch.bmm(_flat(line.unsqueeze(0)).transpose(0, 1), flat)[:, 0].T


def _flat(rows: Tensor) -> Tensor:
    """[R, B, n]; feature maps with channels last, which copies nothing in that layout."""
    if rows.ndim == 5:
        rows = rows.permute(0, 1, 3, 4, 2)
    return rows.reshape(*rows.shape[:2], -1)


def _as(moved: Tensor, rows: Tensor) -> Tensor:
    """A gradient in the layout of the rows."""
    if moved.stride() == rows.stride():
        return moved
    return torch.empty_like(rows).copy_(moved)
